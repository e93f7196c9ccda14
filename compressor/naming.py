"""Names that come from outside, of files, folders and classes: kept as they are, told apart, and shown in one line."""

import unicodedata


def text_of(name: str) -> str:
    """Return a file's name as text that any file can hold: bytes that are no UTF-8 are written as hexadecimal."""
    return "".join(_escaped(letter) if "\ud800" <= letter <= "\udfff" else letter for letter in name)


def same(name: str) -> str:
    """Return what two ways to write one name have in common (Unicode's form NFC); compare names by it."""
    return unicodedata.normalize("NFC", name)


def printable(name: str) -> str:
    """Return a name for a message or a table: what is not printable is escaped, so that no two names look alike."""
    return "".join(letter if letter.isprintable() else _escaped(letter) for letter in name)


def _escaped(letter: str) -> str:
    if "\udc80" <= letter <= "\udcff":  # how Python keeps a byte that is no UTF-8
        return f"\\x{ord(letter) - 0xDC00:02x}"
    return letter.encode("unicode_escape").decode("ascii")
