"""Settings of many chains made from one command's: another seed, or what one chain changes of a phase's section."""

from dataclasses import replace
from typing import Any

from compressor.codec import decode, encode
from compressor.config import RunConfig
from compressor.errors import ConfigError
from compressor.phase import BY_LETTER, Phase


def with_seed(config: RunConfig, seed: int) -> RunConfig:
    """Give the settings that `seed=N` on the command line would: every training takes the seed."""
    phases = ("baseline", *(phase.name for phase in BY_LETTER.values()))
    seeded = {}
    for name in phases:
        settings = getattr(config, name)
        seeded[name] = replace(settings, fit=replace(settings.fit, seed=seed))
    return replace(config, seed=seed, fit=replace(config.fit, seed=seed), **seeded)


def changed(config: RunConfig, phase: Phase, changes: dict[str, Any], where: str) -> Any:
    """Give a phase's settings with some of them changed, nested as in `{fit: {epochs: 5}}`.

    Raises:
        ConfigError: a change names an unknown setting or a value out of its range; `where` says where changes stand.
    """
    try:
        return decode(phase.config, _merged(encode(getattr(config, phase.name)), changes), where)
    except ConfigError as error:  # a range is said with the phase's own place
        raise error if str(error).startswith(where) else ConfigError(f"{where}: {error}") from None


def _merged(values: Any, changes: Any) -> Any:
    if not isinstance(values, dict) or not isinstance(changes, dict):
        return changes
    return values | {key: _merged(values.get(key), value) for key, value in changes.items()}
