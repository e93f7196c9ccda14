"""A study of mixtures: experts and mixtures through the store, then each mixture beside its rivals."""

from pathlib import Path

from compressor.config import RunConfig
from compressor.config.moe import MoeSettings
from compressor.mixture import load_mixture
from compressor.pipeline import Bench, Given, Report, Source, Step, run
from compressor.studies import moe_rivals as rivals
from compressor.studies.mixtures import Mixed, Plan
from compressor.studies.moe_results import (
    AS_CHEAP,
    BASELINE,
    EQUAL,
    ORACLE,
    Collapse,
    Contender,
    Study,
    Trial,
    conclude,
)
from compressor.studies.moe_single import as_cheap, as_large, longer
from compressor.studies.results import score
from compressor.studies.settings import with_seed


def study(config: RunConfig, settings: MoeSettings, plan: Plan, bench: Bench, report: Report) -> Study:
    """Make the mixtures of a plan and their rivals, and compare them; `report` hears of each finished step.

    Raises:
        CompressorError: a step cannot be made, such as a mixture whose budget is below its cheapest expert.
    """
    for mixed in plan.mixtures:
        run(mixed.step, bench, report)
    trials = [_trial(config, settings, plan, mixed, bench, report) for mixed in plan.mixtures]
    return conclude(config.name, settings, trials, bench.data)


def _trial(config: RunConfig, settings: MoeSettings, plan: Plan, mixed: Mixed, bench: Bench, report: Report) -> Trial:
    arena = rivals.Arena(load_mixture(_folder(mixed.step, bench)), mixed.step.key, bench.data, bench.runtime)
    baseline, *experts = (_known(source, bench) for source in (mixed.baseline, *mixed.experts))
    mixture = _known(mixed.step, bench)
    ours, found = rivals.of_mixture(mixture), rivals.candidates(arena, experts)
    large, cheap = _singles(with_seed(config, mixed.seed), settings, plan, mixed, (ours, *found), bench)
    for last in (large, cheap):
        if isinstance(last, Step):
            run(last, bench, report)
    if cheap is not None:
        found = (*found, rivals.alone(AS_CHEAP, _known(cheap, bench)))
    others = rivals.rivals(arena, ours, found, _known(large, bench), experts)
    mix = mixture.measured.mixture
    assert mix is not None, "a mixture's metrics have its part"
    return Trial(
        seed=mixed.seed,
        key=mixed.step.key,
        baseline=mixed.baseline.key,
        experts=tuple(expert.key for expert in experts),
        contenders=(ours, rivals.alone(BASELINE, baseline), *others),
        candidates=found,
        sweep=rivals.sweep(arena),
        by_class=mix.test.by_class,
        router_share=mix.overhead,
        times=mix.times,
        collapse=_collapse(arena, mixture, ours, others, mix.collapsed),
    )


def _singles(
    config: RunConfig, settings: MoeSettings, plan: Plan, mixed: Mixed, known: tuple[Contender, ...], bench: Bench
) -> tuple[Source, Source | None]:
    """Give the single networks as large and as cheap as the mixture; `known` are it and its experts.

    Without a recipe, the latter is the dearest expert that is as cheap; there may be none.
    """
    ours, *experts = known
    large = as_large(config, settings.single, ours.size_bits, bench.data, plan.files, mixed)[-1]
    if settings.equal is not None:
        return large, as_cheap(config, settings.equal, ours.val.bitops, bench.data, plan.files, mixed)[-1]
    limit = EQUAL * ours.val.bitops
    pairs = zip(experts, mixed.chains, strict=False)  # further contenders are these experts, trained by the mixture
    cheap = [(expert.val.bitops, i) for i, (expert, _) in enumerate(pairs) if expert.val.bitops <= limit]
    return large, longer(mixed.chains[max(cheap)[1]], mixed)[-1] if cheap else None


def _folder(source: Source, bench: Bench) -> Path:
    return source.folder if isinstance(source, Given) else bench.store.folder(source.key)


def _known(source: Source, bench: Bench) -> rivals.Known:
    return rivals.known(source, _folder(source, bench), bench.data, bench.runtime)


def _collapse(
    arena: rivals.Arena, mixture: rivals.Known, ours: Contender, others: tuple[Contender, ...], expert: int | None
) -> Collapse | None:
    """Say what to change where the router sends nearly all of val to one expert although others would help."""
    if expert is None:
        return None
    reached, possible = score(ours.val.quality), score(next(c for c in others if c.name == ORACLE).val.quality)
    prices = [part.bitops for part in arena.costs.experts]
    cheapest, dearest = prices[expert] == min(prices), prices[expert] == max(prices)
    change = advice(cheapest=cheapest, dearest=dearest, routed=arena.mixture.router is not None)
    return Collapse(expert, mixture.measured.val.shares[expert], reached, possible, change)


def advice(*, cheapest: bool, dearest: bool, routed: bool = True) -> str:
    """Say what to change where nearly all images go to one expert: the cheapest, the dearest, both or neither."""
    if not routed:
        return "raise moe.budget or lower moe.busiest" if cheapest else "give a moe.budget, or a better first expert"
    if cheapest and not dearest:
        return "lower moe.cost, raise moe.budget or moe.balance, or train the router longer (moe.router.fit.epochs)"
    if dearest and not cheapest:
        return "raise moe.cost or moe.balance, or give a moe.budget"
    return "raise moe.balance, or give experts that differ more: other settings or seeds"
