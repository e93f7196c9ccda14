"""Words of the command line as they were typed: text that looks like a number, or like Hydra's grammar, stays text.

Hydra reads `runs=2024_05` as the number 202405 and `name=1.10` as 1.1. Which settings are text is known from the types
of the settings, so that what stands in their place is quoted before Hydra reads it.
"""

import shlex
import types
from collections.abc import Sequence
from dataclasses import dataclass, is_dataclass
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints

from hydra.conf import HydraConf
from hydra.core.override_parser.overrides_visitor import HydraErrorListener
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from hydra.grammar.gen.OverrideLexer import CommonTokenStream, InputStream, OverrideLexer

from compressor import process
from compressor.config import RunConfig
from compressor.errors import ConfigError

LITERALS = (OverrideLexer.INT, OverrideLexer.FLOAT, OverrideLexer.BOOL)
"""What Hydra would turn into something else than text."""
OPENING = {OverrideLexer.BRACKET_OPEN, OverrideLexer.BRACE_OPEN, OverrideLexer.POPEN}
CLOSING = {OverrideLexer.BRACKET_CLOSE, OverrideLexer.BRACE_CLOSE, OverrideLexer.PCLOSE}
CHOOSING = ("choice", "sort", "shuffle", "tag", "str")
"""Hydra's functions whose arguments are values of the setting; those of `range` and casts are numbers."""


@dataclass
class _Part:
    """A value being read, inside brackets or outside: its type, and that of its present item.

    `braces`: it is a mapping; `keyed`: the key of the present item is read. A type None is not known, or any.
    """

    hint: Any
    item: Any
    braces: bool = False
    keyed: bool = False


def at_home(value: Any) -> Any:
    """Return plain values with the `~/` that begins a text as the home; no setting but a path begins so."""
    if isinstance(value, dict):
        return {key: at_home(item) for key, item in value.items()}
    if isinstance(value, list):
        return [at_home(item) for item in value]
    return process.at_home(value) if isinstance(value, str) and value.startswith("~/") else value


def kept(word: str) -> str:
    """Return a word of the command line with what is text in quotes, wherever Hydra would read something else.

    Raises:
        ConfigError: a list or a mapping stands where a text is needed.
    """
    key, equals, value = word.partition("=")
    hint = _hint_of(key)
    if not equals or hint is None or (tokens := _tokens(value)) is None:
        return word
    if _is_text(hint) and tokens and tokens[0].type in (OverrideLexer.BRACKET_OPEN, OverrideLexer.BRACE_OPEN):
        raise ConfigError(f"{word}: is one text, not a list or a mapping; type {advice(word)}")
    return f"{key}={_quoted(tokens, hint)}"


def advice(word: str) -> str | None:
    """Return how to type a text that Hydra's grammar does not take as it is, quoted for it and for the shell.

    None where the word sets no text.
    """
    key, equals, value = word.partition("=")
    if not equals or not _is_text(_hint_of(key)):
        return None
    text = value.replace("${", "\\${")
    return shlex.quote(f"{key}={QuotedString(text, Quote.double).with_quotes()}")


def numbers_as_text(raw: Any, value: Any, hint: Any = RunConfig, where: str = "") -> Any:
    """Return settings with a number that another setting gives to a text as text, such as in `name: ${seed}`.

    `raw` has the same settings before they refer to each other.

    Raises:
        ConfigError: a file has a number itself where a text is needed: YAML says not how it was written.
    """
    hint = _bare(hint)
    if isinstance(value, dict):
        inside = raw if isinstance(raw, dict) else {}
        joined = f"{where}." if where else ""
        return {
            key: numbers_as_text(inside.get(key), item, _inside(hint, key), f"{joined}{key}")
            for key, item in value.items()
        }
    if isinstance(value, list):
        items = raw if isinstance(raw, list) else [None] * len(value)
        return [
            numbers_as_text(*pair, _inside(hint, i), where) for i, pair in enumerate(zip(items, value, strict=True))
        ]
    if type(value) not in (int, float, bool) or not _is_text(hint):
        return value
    if isinstance(raw, str):
        return str(value)
    raise ConfigError(
        f"{where}: is text, and its file reads as the {_kind(value)} {value}; put what is meant in quotes"
    )


def _kind(value: Any) -> str:
    return "word" if isinstance(value, bool) else "number"


def _bare(hint: Any) -> Any:
    """Take `| None` off a type."""
    if get_origin(hint) in (Union, types.UnionType):
        rest = [kind for kind in get_args(hint) if kind is not type(None)]
        return rest[0] if len(rest) == 1 else None
    return hint


@cache
def _fields(cls: Any) -> dict[str, Any]:
    return get_type_hints(cls)


def _inside(hint: Any, key: Any) -> Any:
    """Give the type of what a type holds under a key; None: not known, or anything."""
    hint = _bare(hint)
    if is_dataclass(hint):
        return _bare(_fields(hint).get(key))
    if get_origin(hint) is dict:
        return _bare(get_args(hint)[1])
    return _bare(get_args(hint)[0]) if get_origin(hint) in (tuple, list) else None


def _is_text(hint: Any) -> bool:
    hint = _bare(hint)
    return isinstance(hint, type) and issubclass(hint, str)


def _hint_of(key: str) -> Any:
    """Give the type of what a key of the command line sets; `str` for the choice of a group, None: not known."""
    name = key.lstrip("+~")
    if "/" in name or "@" in name:
        return str
    hint: Any = RunConfig
    parts = name.split(".")
    if parts[0] == "hydra" and len(parts) > 1:
        hint, parts = HydraConf, parts[1:]
    if len(parts) == 1 and hint is RunConfig and parts[0] not in _fields(RunConfig):
        return str if parts[0] else None  # a group of configs, such as experiment
    for part in parts:
        hint = _inside(hint, part)
    return None if hint is Any else hint


def _tokens(value: str) -> Sequence[Any] | None:
    """Split a value as Hydra does; None: it is none of Hydra's grammar, which says so itself."""
    lexer = OverrideLexer(InputStream(value))
    lexer.removeErrorListeners()
    lexer.addErrorListener(HydraErrorListener())
    lexer.mode(OverrideLexer.VALUE_MODE)
    stream = CommonTokenStream(lexer)
    try:
        stream.fill()
    except HydraException:
        return None
    return stream.tokens[:-1]


def _quoted(tokens: Sequence[Any], hint: Any) -> str:
    """Write tokens again, with quotes around each literal that stands alone where a text is needed."""
    parts, said = [_Part(hint, hint)], []
    run: list[Any] = []
    for token in tokens:
        kind, part = token.type, parts[-1]
        names = kind == OverrideLexer.EQUAL or (kind == OverrideLexer.COLON and part.braces and not part.keyed)
        if names:  # what stood before was the name of an argument or a key
            key = _text(run)
            part.item = _inside(part.hint, key) if part.braces else None
            part.keyed = True
            said.append(f"{key}{token.text}")
            run = []
        elif kind == OverrideLexer.COMMA or kind in OPENING or kind in CLOSING:
            said.append(_text(run) if kind in OPENING else _primitive(run, part.item))
            if kind in OPENING:
                parts.append(_opened(kind, part, _text(run)))
            elif kind in CLOSING:
                parts = parts[:-1] or [part]
            else:
                part.item = None if part.braces else part.hint
                part.keyed = False
            said.append(token.text)
            run = []
        else:
            run.append(token)
    return "".join([*said, _primitive(run, parts[-1].item)])


def _opened(kind: int, outer: _Part, name: str) -> _Part:
    if kind == OverrideLexer.BRACE_OPEN:
        return _Part(outer.item, None, braces=True)
    if kind == OverrideLexer.BRACKET_OPEN:
        inside = _inside(outer.item, 0)
        return _Part(inside, inside)
    chosen = outer.item if name.strip() in CHOOSING else None
    return _Part(chosen, chosen)


def _text(run: Sequence[Any]) -> str:
    return "".join(token.text for token in run)


def _primitive(run: Sequence[Any], hint: Any) -> str:
    """Write a value of tokens: in quotes where it is text, or the name of a group, and would be read otherwise."""
    words = [token for token in run if token.type != OverrideLexer.WS]
    if len(words) != 1 or not (_is_text(hint) or is_dataclass(hint)):
        return _text(run)
    text = words[0].text
    if words[0].type in LITERALS:
        return f"'{text}'"
    if words[0].type == OverrideLexer.QUOTED_VALUE:
        return f"{text[0]}{at_home(text[1:])}"
    return _text(run)
