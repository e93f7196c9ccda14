"""A study of mixtures: experts and mixtures through the store, then each mixture beside its rivals."""

from pathlib import Path

from compressor.config import RunConfig
from compressor.config.moe import MoeSettings
from compressor.mixture import load_mixture
from compressor.pipeline import Bench, Given, Report, Source, Step, run
from compressor.studies import moe_rivals as rivals
from compressor.studies.mixtures import Mixed, Plan
from compressor.studies.moe_results import BASELINE, ORACLE, Collapse, Contender, Study, Trial, conclude
from compressor.studies.moe_single import single
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
    told, limit = with_seed(config, mixed.seed), mixture.measured.cost.size_bits
    last = single(told, settings.single, limit, bench.data, plan.files, mixed.first)[-1]
    assert isinstance(last, Step), "an order that is not empty ends in a step"
    run(last, bench, report)
    ours, found = rivals.of_mixture(mixture), rivals.candidates(arena, experts)
    others = rivals.rivals(arena, ours, found, _known(last, bench), experts)
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
    change = advice(cheapest=prices[expert] == min(prices), dearest=prices[expert] == max(prices))
    return Collapse(expert, mixture.measured.val.shares[expert], reached, possible, change)


def advice(*, cheapest: bool, dearest: bool) -> str:
    """Say what to change where nearly all images go to one expert: the cheapest, the dearest, both or neither."""
    if cheapest and not dearest:
        return "lower moe.cost, raise moe.budget or moe.balance, or train the router longer (moe.router.fit.epochs)"
    if dearest and not cheapest:
        return "raise moe.cost or moe.balance, or give a moe.budget"
    return "raise moe.balance, or give experts that differ more: other settings or seeds"
