"""Names from outside are told apart, whatever they are made of."""

import os

import pytest

from compressor.naming import printable, same, text_of

NAMES = ["x\xa0y", "x y", "x\u3000y", "x?y", "xy", "x\u200cy", "x\u202ey", "x\x1by", "x\ny", "x\udce9y", "x\udce8y"]


def test_no_two_names_are_printed_alike() -> None:
    shown = [printable(name) for name in NAMES]
    assert len(set(shown)) == len(NAMES)
    assert all(name.isprintable() for name in shown)


@pytest.mark.parametrize("name", ["犬 猫", "\u0645\u06cc", "café", "[red]x[/red]"])
def test_a_name_of_printable_letters_is_printed_as_it_is(name: str) -> None:
    assert printable(name) == name


def test_a_name_of_any_bytes_becomes_text_that_a_file_can_hold() -> None:
    assert text_of(os.fsdecode(b"caf\xe9")) == r"caf\xe9"
    assert text_of("\u0645\u06cc\u200c\u062e") == "\u0645\u06cc\u200c\u062e"


def test_two_ways_to_write_one_letter_are_the_same_name_and_capitals_are_not() -> None:
    assert same("cafe\u0301") == same("caf\xe9")
    assert same("Cat") != same("cat")
