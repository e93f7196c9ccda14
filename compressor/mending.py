"""What Hydra and OmegaConf say in many lines, said in one: the setting, what is wrong with it, and what is near."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import is_dataclass
from difflib import get_close_matches
from typing import Any, get_args, get_type_hints

from compressor.config import RunConfig
from compressor.overrides import advice

GROUPS = ("dataset", "architecture", "fit", "compression", "experiment")
WAITING = {"checkpoint": "the model folder to start from, such as checkpoint=outputs/NAME/TIME/02-prune"}
"""What a mandatory setting without a value waits for."""


def settings(cls: Any = RunConfig, inside: str = "") -> Iterator[str]:
    """List the dotted names of all settings."""
    for name, hint in get_type_hints(cls).items():
        yield inside + name
        for kind in (hint, *get_args(hint)):
            if is_dataclass(kind):
                yield from settings(kind, f"{inside}{name}.")


def nearest(word: str, words: Sequence[str]) -> str:
    """Give ` (did you mean X?)` where one of the words is near, else nothing. A name's last part counts alone too."""
    by_tail = {name.rpartition(".")[2]: name for name in words}
    if near := get_close_matches(word, words, 1, 0.75):
        return f" (did you mean {near[0]}?)"
    if near := get_close_matches(word.rpartition(".")[2], by_tail, 1, 0.8):
        return f" (did you mean {by_tail[near[0]]}?)"
    return ""


def mended(error: Exception) -> str:
    """Say in one line what Hydra or OmegaConf refused."""
    text = str(error)
    if hasattr(error, "missing_cfg_file"):
        return _missing(text, getattr(error, "options", None))
    if (override := getattr(error, "override", None)) is not None:
        if (typed := advice(override)) is not None:
            return f"{override}: text with special characters needs quotes; type {typed}"
        return f"{override!r} is no setting; write key=value, such as prune.ratio=0.5, and quote special characters"
    if match := re.match(r"Could not override '(.+?)'", text):
        return _unknown(match[1])
    if match := re.match(r"Ambiguous value for argument '(.+)'", text):
        if (typed := advice(match[1])) is not None:
            return f"{match[1]}: several values need -m, which tries each; one text with commas is typed {typed}"
        return f"{match[1]}: several values need -m, which tries each; a list needs brackets, as in key=[a,b]"
    if match := re.match(r"(\S+) appears more than once|Multiple values for (\S+?)\.", text):
        name = match[1] or match[2]
        return f"+{name}: it is there already; leave out the plus, as in {name}=..."
    if match := re.match(r"Missing mandatory value: (\S+)", text):
        return f"{match[1]} is needed: {WAITING.get(match[1], f'give {match[1]}=VALUE')}"
    if text.startswith("Config group override must be"):
        return f"a group takes the name of one of its files, as in dataset=digits; groups are {', '.join(GROUPS)}"
    return _plain(error, text)


def _plain(error: Exception, text: str) -> str:
    key, cause = getattr(error, "full_key", None), error.__cause__
    first = text.splitlines()[0] if text else type(error).__name__
    if "recursi" in text.lower():
        return f"{key or 'settings'}: refers to itself; fit=inherit is for phases, as in fit@prune.fit=inherit"
    if cause is not None and type(cause) is not type(error) and "full_key" in text and not key:
        first = f"{first} ({str(cause).splitlines()[0]})"
    if key == "hydra.runtime.output_dir":
        return "runs: a folder whose name holds ${ cannot hold runs, as Hydra reads it as a reference; give another"
    if key and first.startswith("Interpolation key"):
        first = f"{first}; ${{ refers to another setting, and as text is typed \\${{, as in '{key}=\"a\\${{b}}\"'"
    return f"{key}: {first}" if key and not first.startswith(f"{key}:") else first


def _missing(text: str, options: Sequence[str] | None) -> str:
    match = re.search(r"Could not (?:find|load) '(.+?)'", text)
    if match is None:
        return text.splitlines()[0]
    group, _, name = match[1].rpartition("/")
    if not options:
        return f"{group or match[1]}={name}: there is no such file in the configs"
    return f"{group}={name}: no such {group}{nearest(name, options)}; there are {', '.join(options)}"


def _unknown(key: str) -> str:
    if key.startswith("hydra."):
        return f"no setting {key!r} of Hydra; --cfg hydra lists them"
    if key in GROUPS:
        return f"{key}=...: needs a plus here, as in +{key}=NAME"
    names = [*settings(), *GROUPS]
    parent = key.rpartition(".")[0]
    inside = [name.rpartition(".")[2] for name in names if parent and name.rpartition(".")[0] == parent]
    near = nearest(key, names) or (f"; {parent} has {', '.join(inside)}" if inside else f"; there are {_roots()}")
    return f"no setting {key!r}{near}"


def _roots() -> str:
    return ", ".join(name for name in settings() if "." not in name)
