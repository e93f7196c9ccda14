"""The check that every setting's range goes through."""

from typing import Any

from compressor.errors import ConfigError


def need(condition: bool, where: str, value: Any, allowed: str) -> None:
    """Refuse a setting unless its condition holds, in one line: where it is, what it is, what is allowed."""
    if not condition:
        raise ConfigError(f"{where}={value}: give {allowed}")
