"""What settings may make Hydra run: its launchers and sweeper, our callbacks, plain log handlers, and nothing else.

Hydra calls whatever `_target_` under `hydra` names, and Python's logging whatever its settings name. A folder of
configs may be somebody else's, so that both are looked at before Hydra sees them.
"""

import re
from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig

from compressor.errors import ConfigError

TARGETS = {
    "callbacks": ("compressor.composing.Callbacks",),
    "sweeper": ("hydra._internal.core_plugins.basic_sweeper.BasicSweeper",),
    "launcher": (
        "hydra._internal.core_plugins.basic_launcher.BasicLauncher",
        "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher",
        "hydra_plugins.hydra_ray_launcher.ray_launcher.RayLauncher",
        "hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher",
        "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher",
    ),
}
"""What Hydra may make in each part of its settings."""
FILES = "logging.FileHandler"
CLASSES = ("logging.StreamHandler", "logging.NullHandler", "logging.Formatter", FILES)
FACTORIES = ("compressor.lines.Printable",)
STREAMS = ("ext://sys.stdout", "ext://sys.stderr")
LOGGING = ("job_logging", "hydra_logging")
VARIABLES = re.compile(r"(OMP|MKL|OPENBLAS|KMP|CUDA|NCCL|GLOO)_[A-Z0-9_]+|COMPRESSOR_SWEEP|COMPRESSOR_TYPED_IN")
"""Environment variables that settings may set: of arithmetic and devices, none that makes programs load others."""
TEXTS = re.compile(
    r"\$\{(hydra\.(job\.(name|num|id)|(run|sweep)\.dir|sweep\.subdir|runtime\.(cwd|output_dir))"
    r"|(oc\.env|now|python_version|ray_pkg_version):[^${}]*)\}"
)
"""References whose values are always plain."""


def check(config: DictConfig) -> None:
    """Refuse composed settings that would have Hydra run, import or load something that is not known.

    Raises:
        ConfigError: names the setting, what it would run, and what may stand there.
    """
    hydra = _child(config, "hydra")
    for part, known in TARGETS.items():
        for where, key, value in _leaves(config, hydra, part):
            if key == "_target_" and value not in known:
                raise _refused(where, value, known)
            if "runtime_env" in where:
                raise ConfigError(f"{where}: would have Ray run what it says; set it where the cluster is started")
    for part in LOGGING:
        for where, key, value in _leaves(config, hydra, part):
            _check_logging(where, key, value)
        _check_files(hydra, part)
    for where, key, _ in _leaves(config, hydra, "job"):
        if where.startswith("hydra.job.env_set.") and not VARIABLES.fullmatch(str(key)):
            raise ConfigError(f"{where}: settings may not set this variable of the environment; set it in the shell")


def check_source(path: str) -> None:
    """Refuse a folder of configs that is a Python package, which looking for it would import."""
    scheme, mark, rest = path.partition("://")
    inside = rest == "hydra.conf" or rest.startswith("hydra_plugins.")
    if mark and not (scheme in ("file", "structured") or (scheme == "pkg" and inside)):
        raise ConfigError(f"{path}: configs are read from folders, not from packages; give a folder")


def _check_logging(where: str, key: Any, value: Any) -> None:
    if key == "class" and value not in CLASSES:
        raise _refused(where, value, CLASSES)
    if key == "()" and value not in FACTORIES:
        raise _refused(where, value, FACTORIES)
    if key in (".", "queue", "listener"):
        raise _refused(where, value, ())
    if isinstance(value, str) and re.match(r"\s*\w+://", value) and value not in STREAMS:
        raise _refused(where, value, STREAMS)


def _check_files(hydra: Any, part: str) -> None:
    """Let a log be written to files of its kind only, and not over the start-up file of a shell."""
    handlers = _child(_child(hydra, part), "handlers")
    for name in _items(handlers):
        file = _child(_child(handlers, name), "filename")
        if file is not None and not str(file._value()).endswith(".log"):
            raise ConfigError(f"hydra.{part}.handlers.{name}.filename: give the name of a log, which ends with .log")


def _items(node: Any) -> dict[Any, Any]:
    """Give the nodes inside a node, as they are written; none where it is no mapping."""
    value = node._value() if isinstance(node, DictConfig) else None
    return value if isinstance(value, dict) else {}


def _child(node: Any, key: Any) -> Any:
    return _items(node).get(key)


def _refused(where: str, value: Any, known: tuple[str, ...]) -> ConfigError:
    may = f"; it may be {', '.join(known)}" if known else ""
    return ConfigError(f"{where}: settings may not have Hydra run {value!r}{may}")


def _leaves(config: DictConfig, hydra: Any, part: str) -> Iterator[tuple[str, Any, Any]]:
    """Give the dotted name, key and value of all plain values in a part of Hydra's settings, as they stand there.

    Raises:
        ConfigError: a value refers to something that is not plain, or not the same at all times.
    """
    node = _child(hydra, part)
    if node is not None:
        yield from _below(config, node, f"hydra.{part}", part)


def _below(config: DictConfig, node: Any, where: str, key: Any) -> Iterator[tuple[str, Any, Any]]:
    value = node._value()
    if isinstance(value, str):
        if _alone(value) and not (TEXTS.fullmatch(value) or _plain(config, value)):
            raise ConfigError(f"{where}: {value} may be anything when Hydra looks at it; write what is meant")
        if "${" in value and key in ("_target_", "class", "()"):
            raise ConfigError(f"{where}: {value} may be anything when Hydra looks at it; write what is meant")
        yield where, key, value
    elif isinstance(value, dict):
        yield where, key, {}
        for name, item in value.items():
            yield from _below(config, item, f"{where}.{name}", name)
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from _below(config, item, f"{where}[{i}]", i)
    else:
        yield where, key, value


def _alone(text: str) -> bool:
    """Tell whether a text is one reference and nothing else, whose value may be a mapping."""
    text = text.strip()
    if not text.startswith("${"):
        return False
    depth = 0
    for i, letter in enumerate(text):
        depth += (letter == "{") - (letter == "}")
        if letter == "}" and depth == 0:
            return i == len(text) - 1
    return True


def _plain(config: DictConfig, text: str) -> bool:
    """Tell whether a reference is to a setting by its name that has a plain value, which refers to nothing."""
    name = text.strip()[2:-1]
    if not re.fullmatch(r"[A-Za-z_][\w-]*(\.[\w-]+)*", name):
        return False
    node: Any = config
    for key in name.split("."):
        node = _child(node, key)
    value = node._value() if node is not None else None
    return isinstance(value, (int, float, bool)) or (isinstance(value, str) and "${" not in value)
