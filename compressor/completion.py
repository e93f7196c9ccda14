"""Completion by the tab key: commands for the first word, then what Hydra offers for that command."""

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from itertools import pairwise
from pathlib import Path

from compressor.cli import COMMANDS
from compressor.errors import CompressorError, ConfigError

SEPARATORS = {"bash": " ", "zsh": " ", "fish": "\n"}


def complete(words: Sequence[str]) -> int:
    """Do `install=SHELL` or `uninstall=SHELL` (print what the shell evaluates), or `query=SHELL` (print choices)."""
    action, _, shell = (words[0] if len(words) == 1 else "").partition("=")
    if action not in ("install", "uninstall", "query") or shell not in SEPARATORS:
        raise ConfigError(f"-sc {' '.join(words)}: give install=SHELL or uninstall=SHELL; shells are bash, zsh, fish")
    if action != "query":
        return _hydra("run", words)
    program, command, rest = split(os.environ)
    if rest is None:
        choices = [name for name in COMMANDS if name.startswith(command)]
        sys.stdout.write(SEPARATORS[shell].join(choices) + "\n")
    elif command in COMMANDS:
        os.environ["COMP_LINE"] = f"{program} {rest}"
        os.environ["COMP_POINT"] = str(len(os.environ["COMP_LINE"]))
        _quietly(command, words, rest)
    return 0


def split(environ: Mapping[str, str]) -> tuple[str, str, str | None]:
    """Give the program, the command and what follows it up to the cursor; None while the command is being typed."""
    line = environ.get("COMP_LINE", "")
    line = line[: int(point)] if (point := environ.get("COMP_POINT", "")).isdigit() else line
    program, _, words = line.lstrip().partition(" ")
    command, space, rest = words.lstrip().partition(" ")
    return program, command, rest.lstrip() if space else None


def _quietly(command: str, words: Sequence[str], rest: str) -> None:
    """Ask Hydra; half a line may be no valid one, and complaints would be printed into it."""
    typed = rest.split()
    folder = [f"--config-dir={b}" for a, b in pairwise(typed) if a in ("--config-dir", "-cd")]
    with Path(os.devnull).open("w") as nowhere, redirect_stderr(nowhere):
        try:
            _hydra(command, [*words, *folder])
        except CompressorError:
            return


def _hydra(command: str, words: Sequence[str]) -> int:
    from compressor.composing import compose

    return compose(command, ["--shell-completion", *words])
