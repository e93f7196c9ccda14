"""Settings by Hydra: composed from the configs and the command line, decoded once, handed to the command."""

import os
import sys
import time
import traceback
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.utils import get_args_parser  # the options that hydra.main will read, so that errors are ours
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from compressor import foreign, interrupts, process, sweeping
from compressor.cli import COMMANDS, complain, silence, unwritable
from compressor.codec import decode
from compressor.config import RunConfig
from compressor.errors import CompressorError, ConfigError
from compressor.folders import RUNS, disk
from compressor.memory import is_shortage, shortage
from compressor.mending import mended
from compressor.overrides import at_home, kept, numbers_as_text
from compressor.phase import parse_order
from compressor.studies.orders import check

REFUSED = (HydraException, OmegaConfBaseException, ValueError, AssertionError)
"""What Hydra raises before the command starts when words or files are wrong."""
MODES = ("run", "multirun", "cfg", "info", "shell_completion", "help", "hydra_help")


def compose(name: str, words: Sequence[str]) -> int:
    """Run a command as Hydra's application, with the words that follow its name, and give the exit code.

    Raises:
        ConfigError: what Hydra refused, in one line.
    """
    started = False

    def job(config: DictConfig) -> None:
        nonlocal started
        started = True
        _job(name, config)

    arguments = arranged(name, words)
    interrupts.install()
    with _hydra_reads(arguments):
        try:
            hydra.main(version_base="1.3", config_path=str(configs()), config_name=name)(job)()
        except SystemExit as done:
            return done.code if isinstance(done.code, int) else 0
        except (*REFUSED, OSError) as error:
            if started:
                raise
            raise ConfigError(_line(error)) from None
    return 0


def configs() -> Path:
    """Say where the YAML files are: in the installed package, or beside it in the repository."""
    package = Path(__file__).parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def arranged(name: str, words: Sequence[str]) -> list[str]:
    """Put the options before the settings, in whatever order they were typed, and refuse what cannot go together."""
    parser: ArgumentParser = get_args_parser()
    parser.error = _refuse
    parsed = parser.parse_intermixed_args(list(words))
    if parsed.experimental_rerun is not None:
        raise ConfigError("--experimental-rerun: would unpickle a file; give the settings of that run instead")
    if len(modes := [mode for mode in MODES if getattr(parsed, mode)]) > 1:
        raise ConfigError(f"--{modes[0]} and --{modes[1]}: give one of them".replace("_", "-"))
    if parsed.resolve and not (parsed.cfg or parsed.help):
        raise ConfigError("--resolve: goes with --cfg job or --help")
    order = COMMANDS[name].order
    if order is not None and (given := [word for word in parsed.overrides if word.lstrip("+").startswith("order=")]):
        raise ConfigError(f"{given[0]}: `compressor {name}` is one phase; for an order use `compressor run {given[0]}`")
    return [word for word in words if word not in parsed.overrides] + [_at_home(word) for word in parsed.overrides]


def _at_home(word: str) -> str:
    """Expand the `~/` that a setting begins with: Hydra makes run directories before settings are decoded."""
    key, equals, value = word.partition("=")
    return f"{key}{equals}{at_home(value)}"


def _refuse(message: str) -> NoReturn:
    raise ConfigError(f"{message}; `compressor COMMAND --help` lists the options")


@contextmanager
def _hydra_reads(words: Sequence[str]) -> Iterator[None]:
    """Give Hydra its command line, and have it raise what it would print."""
    argv = sys.argv
    sys.argv = ["compressor", *words]
    try:
        with _environment(HYDRA_FULL_ERROR="1", PYTHONSAFEPATH="1"), _looked_at():
            yield
    finally:
        sys.argv = argv


@contextmanager
def _environment(**variables: str) -> Iterator[None]:
    """Set variables for this process and those it starts, which look for modules in the working folder otherwise."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _looked_at() -> Iterator[None]:
    """Look at all words before Hydra parses them, and at all it composed before it uses that."""
    parse, load, find = (
        OverridesParser.parse_overrides,
        ConfigLoaderImpl.load_configuration,
        ConfigRepository.initialize_sources,
    )

    def parsed(self: Any, overrides: list[str]) -> Any:
        return parse(self, [kept(word) for word in overrides])

    def loaded(*arguments: Any, **named: Any) -> DictConfig:
        config = load(*arguments, **named)
        foreign.check(config)
        return config

    def found(self: Any, config_search_path: Any) -> None:
        for place in config_search_path.get_path():
            foreign.check_source(place.path)
        find(self, config_search_path)

    with (
        patched(OverridesParser, "parse_overrides", parsed),
        patched(ConfigLoaderImpl, "load_configuration", loaded),
        patched(ConfigRepository, "initialize_sources", found),
    ):
        yield


@contextmanager
def patched(cls: type, name: str, function: Any) -> Iterator[None]:
    """Have a class use another function for a while."""
    before = getattr(cls, name)
    setattr(cls, name, function)
    try:
        yield
    finally:
        setattr(cls, name, before)


def _line(error: Exception) -> str:
    """Say in one line what was refused; an error that is nobody's input is raised again."""
    if isinstance(error, OSError) and not isinstance(error, HydraException):
        if error.filename is None:  # stdout takes no more
            raise error
        with disk(Path(), RUNS):
            raise error
    return str(error) if isinstance(error, CompressorError) else mended(error)


def decoded(composed: DictConfig) -> RunConfig:
    """Turn what Hydra composed into the settings of a command; a bad one is an error that names it, `~/` is home."""
    ours = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
    written = OmegaConf.to_container(ours, resolve=False)
    values = OmegaConf.to_container(ours, resolve=True, throw_on_missing=True)
    config = decode(RunConfig, at_home(numbers_as_text(written, values)))
    parse_order(config.order)
    check(config)
    return config


def _job(name: str, composed: DictConfig) -> None:
    """Run one job: the only one, whose errors end the command, or one of a sweep, whose errors are noted."""
    interrupts.install()
    setting = HydraConfig.get()
    sweeping.go_where_typed(setting)
    folder = Path(setting.runtime.output_dir)
    if setting.mode is not RunMode.MULTIRUN:
        if code := _attempt(name, composed, folder)[0]:
            sys.exit(code)
        return
    began = time.monotonic()
    try:
        code, error = _attempt(name, composed, folder)
    except Exception as bug:  # noqa: BLE001 - the other jobs go on
        traceback.print_exc()
        code, error = 1, f"{type(bug).__name__}: {bug}"
    sweeping.note(setting, code, error, time.monotonic() - began)


def _attempt(name: str, composed: DictConfig, folder: Path) -> tuple[int, str | None]:
    """Run a command; what the user can mend is said in one line, and is the exit code and the message given."""
    try:
        COMMANDS[name].call(_settings(name, composed), folder)
    except CompressorError as error:
        return complain(error), str(error)
    except BrokenPipeError:  # Hydra would call it an error
        return silence(), None
    except Exception as error:
        if isinstance(error, OSError) and (refusal := process.refusal(error)) is not None:
            return complain(unwritable(refusal)), refusal
        if not is_shortage(error):
            raise
        told = shortage(error, name)
        return complain(told), str(told)
    return 0, None


def _settings(name: str, composed: DictConfig) -> RunConfig:
    """Decode the settings of a command, and refuse what it cannot use."""
    try:
        config, command = decoded(composed), COMMANDS[name]
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(mended(error)) from None
    if command.checkpoint and config.checkpoint is None:
        raise ConfigError(f"{name} needs checkpoint=FOLDER, a model's folder such as outputs/NAME/TIME/00-baseline")
    return config if command.order is None else replace(config, order=command.order)


def _connect(config: DictConfig) -> None:
    """Start or join Ray where that is the launcher, which would take SIGTERM and cannot join a cluster."""
    if not config.hydra.launcher["_target_"].endswith(".RayLauncher"):
        return
    from compressor.studies.ray_execution import connect

    settings: Any = OmegaConf.to_container(config.hydra.launcher.ray.init, resolve=True)
    connect(cache=OmegaConf.select(config, "runtime.data_cache"), **settings)


class Callbacks:
    """What Hydra calls around runs and sweeps; named in configs/run.yaml."""

    def on_run_start(self, config: DictConfig, config_name: str, **_: Any) -> None:
        """Refuse bad settings before a run directory is made."""
        try:
            _settings(config_name if config_name in COMMANDS else "run", config)
        except CompressorError as error:
            sys.exit(complain(error))

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Tell the jobs where their sweep is, and start or join Ray where they run there."""
        try:
            sweeping.begin(config)
            _connect(config)
        except OmegaConfBaseException as error:
            sys.exit(complain(ConfigError(mended(error))))
        except CompressorError as error:
            sys.exit(complain(error))

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Show a sweep in one table, and end with its exit code."""
        from compressor.report.sweep import report_sweep

        try:
            code = report_sweep(Path(config.hydra.sweep.dir))
        except CompressorError as error:
            code = complain(error)
        if code:
            sys.exit(code)

    def _nothing(self, **_: Any) -> None:
        pass

    on_run_end = on_job_start = on_job_end = _nothing
