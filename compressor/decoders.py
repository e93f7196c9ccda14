"""Dataclasses from plain JSON values that fit them, quickly; where one does not fit, `codec` says which and why.

A decoder is made once a type. Listing thousands of runs decodes millions of values, nearly all of which fit.
"""

import math
import types
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints

Decoder = Callable[[Any], Any]


class Misfit(Exception):  # noqa: N818 - it never leaves codec.py
    """A value is not, as it stands, what its type declares."""


@cache
def decoder_of(hint: Any) -> Decoder:
    """Return what turns a plain JSON value into a `hint`, or raises Misfit."""
    if hint is Any:
        return lambda data: data
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return _optional(hint)
    if origin is tuple:
        return _tuple(decoder_of(get_args(hint)[0]))
    if origin is dict:
        return _dict(decoder_of(get_args(hint)[1]))
    if is_dataclass(hint):
        return _dataclass(hint)
    if issubclass(hint, Enum):
        return _enum(hint)
    return _float if hint is float else _scalar(hint)


def _optional(hint: Any) -> Decoder:
    (inner,) = (decoder_of(each) for each in get_args(hint) if each is not type(None))
    if type(None) not in get_args(hint):
        return inner
    return lambda data: None if data is None else inner(data)


def _tuple(entry: Decoder) -> Decoder:
    def read(data: Any) -> Any:
        if not isinstance(data, list):
            raise Misfit
        return tuple(map(entry, data))

    return read


def _dict(item: Decoder) -> Decoder:
    def read(data: Any) -> Any:
        if not isinstance(data, dict):
            raise Misfit
        if not all(type(key) is str for key in data):  # 1 and "1" would be one
            raise Misfit
        return {key: item(value) for key, value in data.items()}

    return read


def _enum(hint: type[Enum]) -> Decoder:
    def read(data: Any) -> Any:
        try:
            return hint(data)
        except ValueError:
            raise Misfit from None

    return read


def _float(data: Any) -> Any:
    if type(data) is float and math.isfinite(data):
        return data
    if type(data) is int and abs(data) < 1e300:
        return float(data)
    raise Misfit


def _scalar(hint: type) -> Decoder:
    def read(data: Any) -> Any:
        if type(data) is not hint:
            raise Misfit
        return data

    return read


def _dataclass(cls: Any) -> Decoder:
    hints = get_type_hints(cls)
    decoders = {f.name: decoder_of(hints[f.name]) for f in fields(cls)}
    needed = {f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING}

    def read(data: Any) -> Any:
        if not isinstance(data, dict) or not data.keys() >= needed or not data.keys() <= decoders.keys():
            raise Misfit
        return cls(**{name: decoders[name](item) for name, item in data.items()})

    return read
