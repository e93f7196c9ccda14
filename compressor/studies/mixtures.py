"""Which steps make the mixtures of a study: recipes become chains, a chain's last network an expert. No torch."""

from dataclasses import dataclass, replace
from pathlib import Path

from compressor.config import FitConfig, RunConfig
from compressor.config.moe import MoeConfig, MoeSettings, Recipe
from compressor.data.types import Data
from compressor.errors import ConfigError
from compressor.phase import MOE, Phase, parse_order
from compressor.pipeline import Source, Step, inputs_first
from compressor.planning import fitting, next_step, original_of, resolved, resolved_fit, start
from compressor.studies.settings import changed, with_seed


@dataclass(frozen=True)
class Mixed:
    """One mixture: what its chains begin with, the network it is compared with, its experts' chains, and its own step.

    `first` is the baseline too, but for a given checkpoint that was compressed before.
    """

    seed: int
    first: Source
    baseline: Source
    chains: tuple[tuple[Source, ...], ...]
    step: Step

    @property
    def experts(self) -> tuple[Source, ...]:
        """Give the source of each expert, in the order of the recipes."""
        return tuple(chain[-1] for chain in self.chains)


@dataclass(frozen=True)
class Plan:
    """The mixtures, one a seed, and the file of each digest that a config names."""

    mixtures: tuple[Mixed, ...]
    files: dict[str, Path]

    @property
    def ends(self) -> tuple[Source, ...]:
        """Give what a run shows of them: each seed's baseline and mixture, each once."""
        ends = (source for mixed in self.mixtures for source in (mixed.baseline, mixed.step))
        return tuple({source.key: source for source in ends}.values())

    @property
    def keys(self) -> tuple[str, ...]:
        """Give the keys of all that the mixtures are made from, and theirs."""
        sources = (source for mixed in self.mixtures for source in inputs_first(mixed.step))
        return tuple(dict.fromkeys(source.key for source in sources))


def plan(config: RunConfig, settings: MoeSettings, data: Data) -> Plan:
    """Plan a mixture a seed.

    Raises:
        CompressorError: a setting is impossible, or a given model is missing or of other images or classes.
    """
    files: dict[str, Path] = {}
    settings.phase.check(data.task.kind)
    for where, recipe in settings.solved:
        if (student := _told(config, recipe, where).distill.student) is not None:
            raise ConfigError(
                f"{where}.distill.student={student}: give null, as the width of the student is solved for"
            )
    return Plan(tuple(_mixed(with_seed(config, seed), settings, data, files) for seed in settings.seeds), files)


def _mixed(config: RunConfig, settings: MoeSettings, data: Data, files: dict[str, Path]) -> Mixed:
    first = start(config, data, files)
    baseline = original_of(
        config, first, f"checkpoint={config.checkpoint}", "give the folder of the uncompressed network"
    )
    names = [f"moe.experts[{i}]" for i in range(len(settings.experts))]
    chains = tuple(
        chain(config, recipe, name, data, files, first) for recipe, name in zip(settings.experts, names, strict=True)
    )
    _refuse_equal(names, [sources[-1].key for sources in chains])
    inputs = {"original": baseline} | {f"expert{i}": sources[-1] for i, sources in enumerate(chains)}
    if settings.joint.recovery.teacher == "baseline":
        inputs["teacher"] = baseline
    step = Step(MOE, _phase(settings.phase, config.seed, data), tuple(inputs.items()), data.fingerprint)
    return Mixed(config.seed, first, baseline, chains, step)


def _refuse_equal(names: list[str], keys: list[str]) -> None:
    for i, key in enumerate(keys):
        if (before := keys.index(key)) != i:
            raise ConfigError(f"{names[i]}: is the same network as {names[before]}; give another setting or seed")


def _phase(config: MoeConfig, seed: int, data: Data) -> MoeConfig:
    def seeded(fit: FitConfig) -> FitConfig:
        return replace(resolved_fit(fit, data.size), seed=seed)

    router = replace(config.router, task=seeded(config.router.task), fit=seeded(config.router.fit))
    return replace(config, router=router, joint=replace(config.joint, fit=seeded(config.joint.fit)))


def chain(
    config: RunConfig, recipe: Recipe, where: str, data: Data, files: dict[str, Path], first: Source
) -> tuple[Source, ...]:
    """Give what a recipe makes, first to last, starting from `first`; `where` is the setting that holds the recipe."""
    if recipe.checkpoint is not None:
        return (fitting(Path(recipe.checkpoint), f"{where}.checkpoint", data),)
    own, steps = _told(with_seed(config, config.seed + recipe.seed), recipe, where), [first]
    for phase in _phases(recipe, where):
        steps.append(next_step(own, phase, resolved(own, phase, data, files), data, steps))
    return tuple(steps)


def _phases(recipe: Recipe, where: str) -> tuple[Phase, ...]:
    try:
        return parse_order(recipe.order or "")
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def _told(config: RunConfig, recipe: Recipe, where: str) -> RunConfig:
    """Take over what a recipe changes; a change that no phase of its order reads is an error."""
    phases = {phase.name: phase for phase in _phases(recipe, where)}
    changes = {name: getattr(recipe, name) for name in ("distill", "prune", "quantize", "exit")}
    told = {}
    for name, change in changes.items():
        if change and name not in phases:
            raise ConfigError(f"{where}.{name}: order {recipe.order} has no such phase; leave it out or add its letter")
        if change:
            told[name] = changed(config, phases[name], change, f"{where}.{name}")
    return replace(config, **told)
