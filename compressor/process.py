"""What this process may lack where services, schedulers and containers start it: open streams, a user, a home."""

import errno
import os
import sys

from compressor.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

NO_MORE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)
"""What the system says where a stream takes no more."""

_absent: set[str] = set()


def settle() -> None:
    """Open the standard streams that are closed, to nothing, and name the user where the system has no name.

    Else the next file that is opened would become stdout, and get what any library prints.
    """
    for number in range(3):
        _open(number)
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            _absent.add(name)
            stream = open(os.devnull, "r" if name == "stdin" else "w", encoding="utf-8")  # noqa: SIM115, PTH123
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)
    _name_user()


def _open(number: int) -> None:
    """Open a closed one of the first three file descriptors, whose lower ones are open."""
    try:
        os.fstat(number)
    except OSError:
        opened = os.open(os.devnull, os.O_RDWR)
        os.dup2(opened, number)
        if opened != number:
            os.close(opened)
        os.set_inheritable(number, True)


def _name_user() -> None:
    """Give `getpass.getuser`, by which torch and others name their caches, a name for a user without an entry."""
    try:
        import pwd
    except ImportError:  # not this kind of system
        return
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        os.environ.setdefault("USER", f"uid-{os.getuid()}")


def at_home(path: str) -> str:
    """Return a path with the `~` that it begins with as the user's home.

    Raises:
        ConfigError: the user has none, as a container's may.
    """
    found = os.path.expanduser(path)  # noqa: PTH111 - pathlib would be imported before signals are answered
    if found.startswith("~"):
        raise ConfigError(f"{path}: this user has no home folder; set HOME, or give a path without ~")
    return found


def was_closed(name: str) -> bool:
    """Say whether `stdin`, `stdout` or `stderr` was closed when this process began."""
    return name in _absent


def tell(line: str) -> None:
    """Write a line to stderr; where that takes no more, work goes on and nothing is told."""
    try:
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()
    except OSError:
        silence(sys.stderr)


def refusal(error: OSError | None = None) -> str | None:
    """Flush both streams, and return why stdout takes no more, such as that its disk is full, or None.

    `error`: what ended the work, which a stream without a buffer says once only; those of files are told apart.
    """
    try:
        sys.stderr.flush()
    except OSError:
        silence(sys.stderr)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as refused:
        error = refused
    if error is None or error.filename is not None or error.errno not in NO_MORE:
        return None
    silence(sys.stdout)
    return error.strerror or str(error)


def silence(stream: "TextIO") -> None:
    """Let a stream, and what waits in it, go to nothing."""
    opened = os.open(os.devnull, os.O_WRONLY)
    os.dup2(opened, stream.fileno())
    os.close(opened)
