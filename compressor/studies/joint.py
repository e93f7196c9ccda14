"""Which steps make a joint search: a search an agent and seed, then the training of what each found. No torch."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from compressor.arch import FLOAT, Bits, Quantization
from compressor.codec import digest_file
from compressor.config import FitConfig, RunConfig
from compressor.config.joint import JointConfig
from compressor.config.search import SearchConfig, SearchTask
from compressor.data.types import Data
from compressor.errors import ConfigError
from compressor.folders import read_arch
from compressor.phase import JOINT, SEARCH
from compressor.pipeline import Given, Source, Step, inputs_first
from compressor.planning import resolved_fit, start
from compressor.search.found import Found
from compressor.search.types import Agent
from compressor.studies.settings import with_seed

LEARNED = ("gymnasium", "stable_baselines3")
PACKAGES = dict.fromkeys((Agent.JOINT, Agent.FLAT, Agent.SPARSITY, Agent.BITS), LEARNED) | {Agent.NSGA2: ("optuna",)}
"""What agents need of the extra `search`."""

UNTOUCHED = Quantization(Bits(FLOAT, FLOAT), FLOAT)
"""The bits of what is pruned only."""


Check = Callable[[Source], Path | None]
"""Refuses a budget that nothing meets which is made of a network; gives the file of its layers' timings, if any."""


@dataclass(frozen=True)
class Hunt:
    """One agent's search with one seed, and the network that it compresses.

    A `fixed_` rival's step is that of the method in fixed mode, whoever asks for it.
    """

    agent: Agent
    seed: int
    baseline: Source
    step: Step


@dataclass(frozen=True)
class Plan:
    """The searches, seed by seed, and the file of each digest that a config names."""

    hunts: tuple[Hunt, ...]
    files: dict[str, Path]

    @property
    def baselines(self) -> dict[int, Source]:
        """Give the uncompressed network of each seed."""
        return {hunt.seed: hunt.baseline for hunt in self.hunts}


def plan(config: RunConfig, settings: SearchConfig, data: Data, check: Check = lambda source: None) -> Plan:
    """Plan a search of the method and of each rival, with each seed; `check` is asked about each seed's network.

    Raises:
        CompressorError: a setting is impossible, a package is missing, or a given model is missing, compressed already
            or of other images.
    """
    check_packages(settings)
    files: dict[str, Path] = {}
    hunts = []
    for seed in settings.seeds:
        baseline = _uncompressed(start(with_seed(config, seed), data, files))
        latency = _named(check(baseline), files)
        for agent in (settings.agent, *settings.rivals):
            told = task(settings, agent, seed, latency, data)
            step = Step(SEARCH, told, (("model", baseline),), data.fingerprint)
            hunts.append(Hunt(agent, seed, baseline, step))
    return Plan(tuple(hunts), files)


def check_packages(settings: SearchConfig) -> None:
    """Refuse agents whose packages are not installed, before anything is trained for them.

    Raises:
        ConfigError: a package of the extra `search` is missing.
    """
    for agent in (settings.agent, *settings.rivals):
        for package in PACKAGES.get(agent, ()):
            if find_spec(package) is None:
                where = f"search.agent={agent}" if agent is settings.agent else f"search.rivals=[{agent}]"
                name = package.replace("_", "-")
                raise ConfigError(f"{where} needs the package {name}: pip install 'compressor[search]'")


def _named(table: Path | None, files: dict[str, Path]) -> str | None:
    if table is None:
        return None
    name = f"sha256:{digest_file(table)}"
    files[name] = table
    return name


def _uncompressed(source: Source) -> Source:
    if isinstance(source, Given):
        arch = read_arch(source.folder)
        if arch.quantization is not None or arch.exits is not None:
            what = "is quantized" if arch.quantization else "has early exits"
            raise ConfigError(f"checkpoint={source.folder}: {what} already; give the folder of an uncompressed network")
    return source


def task(settings: SearchConfig, agent: Agent, seed: int, latency: str | None, data: Data) -> SearchTask:
    """Give all that a search depends on: who else searches, and how long what is found is trained, change nothing.

    Who teaches what is found changes something only where candidates or finalists are trained.
    """
    who, settings = settings.agent if agent.fixed else agent, settings.told(agent)
    joint = settings.joint
    if settings.finalists < 2:
        settings = replace(settings, finalists=0, finalist_batches=1)
        if not settings.tune:
            joint = replace(joint, recovery=replace(joint.recovery, teacher="none"))
    fit = _seeded(replace(joint.fit, epochs=0, lr=settings.tune_lr, warmup=0.0), seed, data)
    joint = replace(joint, fit=fit)
    search = replace(settings, agent=Agent.JOINT, rivals=(), seeds=(seed,), workers=1, figures=False, joint=joint)
    return SearchTask(search, who, seed, latency)


def _seeded(fit: FitConfig, seed: int, data: Data) -> FitConfig:
    return replace(resolved_fit(fit, data.size), seed=seed)


def training(hunt: Hunt, found: Found, settings: SearchConfig, data: Data) -> tuple[Step, ...]:
    """Give the steps that train what a search found to its end, first to last.

    Step-wise prunes and trains first, then quantizes and trains, in as many epochs as the others have for one training.
    """
    fit = _seeded(settings.joint.fit, hunt.seed, data)
    if hunt.agent is not Agent.STEPWISE:
        return (_trained(hunt, hunt.baseline, found.kept, found.quantization, fit, settings, data),)
    first, second = (replace(fit, epochs=epochs) for epochs in (fit.epochs - fit.epochs // 2, fit.epochs // 2))
    pruned = _trained(hunt, hunt.baseline, found.kept, UNTOUCHED, first, settings, data)
    return pruned, _trained(hunt, pruned, {}, found.quantization, second, settings, data)


def _trained(
    hunt: Hunt,
    model: Source,
    kept: dict[str, tuple[int, ...]],
    quantization: Quantization,
    fit: FitConfig,
    settings: SearchConfig,
    data: Data,
) -> Step:
    joint = settings.joint
    config = JointConfig(kept, quantization, joint.recalibrate, joint.calibrate, joint.recovery, fit)
    teacher = {"teacher": hunt.baseline} if joint.recovery.teacher == "baseline" else {}
    return Step(JOINT, config, tuple(({"model": model} | teacher).items()), data.fingerprint)


def steps_of(sources: tuple[Source, ...]) -> tuple[Step, ...]:
    """List the steps that sources are and are made from, inputs first, each key once."""
    found = {source.key: source for last in sources for source in inputs_first(last)}
    return tuple(source for source in found.values() if isinstance(source, Step))
