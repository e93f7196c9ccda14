"""A joint search and its rivals as a table and sentences."""

from collections.abc import Iterator
from pathlib import Path

from rich.table import Table

from compressor.config.search import SearchConfig
from compressor.errors import UnfinishedError
from compressor.records import Value
from compressor.report.tables import empty
from compressor.report.text import compact, console, percent, plain
from compressor.search.types import Agent
from compressor.studies.joint_results import Duel, Study, Summary, mean_score

UNEQUAL = 0.03
"""Sizes that differ by more than this share of the larger one are said beside who beats whom."""

TITLES = {
    Agent.JOINT: "joint",
    Agent.FLAT: "flat agent",
    Agent.UNIFORM: "uniform",
    Agent.SENSITIVITY: "sensitivity",
    Agent.RANDOM: "random",
    Agent.NSGA2: "NSGA-II",
    Agent.SPARSITY: "sparsity (AMC)",
    Agent.BITS: "bits (HAQ)",
    Agent.STEPWISE: "step-wise P, Q",
} | {agent: f"{agent.fixed} bit{'s' * (agent.fixed > 1)} or none" for agent in Agent if agent.fixed}
"""Agents as tables and figures name them."""


def budget_text(settings: SearchConfig) -> str:
    """Write a budget: `size 0.2, MACs 0.5 of the baseline's`."""
    names = {"size": "size", "bitops": "BitOps", "macs": "MACs"}
    shares = [f"{names[name]} {value:g}" for name, value in settings.budget.given.items() if name in names]
    parts = [f"{', '.join(shares)} of the baseline's"] if shares else []
    if settings.budget.latency_ms is not None:
        parts.append(f"{settings.budget.latency_ms:g} ms")
    return ", ".join(parts)


def agents_table(study: Study) -> Table:
    """Show the uncompressed network, the method and each rival, a line each: means over the seeds."""
    unit = "accuracy %" if study.quality == "accuracy" else "-MAE"
    names = ["agent", f"search {unit}", f"val {unit}", f"test {unit}", "size", "BitOps", "MACs"]
    title = f"{study.name}: {budget_text(study.settings)}; {seeds_text(study)}"
    table = empty(title, [*names, "evalu-\nations", "candidates\na second"])
    scores = ([getattr(baseline, part) for baseline in study.baselines] for part in ("val", "test"))
    table.add_row("baseline", "", *(_written(mean_score(each), study) for each in scores), "1", "1", "1", "", "")
    table.add_section()
    for row in study.summaries:
        table.add_row(*_cells(row, study))
        if row.agent is study.settings.agent:
            table.add_section()
    over = "over seeds" if len(study.baselines) > 1 else "over images"
    table.caption = (
        f"search: the chosen candidate on val before its training; val and test: after it, with 95 % intervals {over}; "
        "size, BitOps, MACs: shares of the baseline's"
    )
    table.caption_justify = "left"
    return table


def _cells(row: Summary, study: Study) -> list[str]:
    name = TITLES[row.agent] if row.n == len(study.baselines) else f"{TITLES[row.agent]} (n={row.n})"
    proxy = f"{100 * row.proxy:.1f}" if study.quality == "accuracy" else f"{row.proxy:.2f}"
    shares = (f"{row.size:.4f}", f"{row.bitops:.4f}", f"{row.macs:.3f}")
    scores = (_written(row.val, study), _written(row.test, study))
    return [name, proxy, *scores, *shares, compact(row.evaluations), f"{row.per_second:.1f}"]


def _written(value: Value, study: Study) -> str:
    return percent(value) if study.quality == "accuracy" else plain(value, 2)


def latency_lines(study: Study) -> Iterator[str]:
    """Say how long the networks that were found take, by the layers' timings, and how far those may be off."""
    if study.latency is not None:
        found = (
            f"{TITLES[row.agent]} {row.latency_ms:.3g} ms" for row in study.summaries if row.latency_ms is not None
        )
        how = f"layers timed on {study.latency.engine}, off whole networks by up to {100 * study.latency.error:.0f} %"
        yield f"latency: {', '.join(found)} ({how})"


def seeds_text(study: Study) -> str:
    """Say of how many seeds a study is."""
    return "1 seed" if len(study.baselines) == 1 else f"{len(study.baselines)} seeds"


def duel_lines(study: Study) -> Iterator[str]:
    """Say how far the method is ahead of each rival on test, the step-wise way first."""
    ours = TITLES[study.settings.agent]
    for duel in sorted(study.duels, key=lambda duel: duel.rival is not Agent.STEPWISE):
        said = f"{_difference(duel, study)}{_sizes(duel, study)}"
        yield f"{ours} {_verb(duel)} {TITLES[duel.rival]}: {said}"
    if all(duel.rival is not Agent.STEPWISE for duel in study.duels):
        yield f"{ours} was not compared with the step-wise way"


def _sizes(duel: Duel, study: Study) -> str:
    """Say both sizes, shares of the baseline's, where one of them is an advantage."""
    sizes = {row.agent: row.size for row in study.summaries}
    ours, theirs = sizes[study.settings.agent], sizes[duel.rival]
    unequal = abs(ours - theirs) > UNEQUAL * max(ours, theirs)
    return f", at sizes of {ours:.4f} and {theirs:.4f}" if unequal else ""


def _verb(duel: Duel) -> str:
    ahead = round(duel.difference.value, 9)  # a mean of equal scores may be off by a last bit
    if ahead > 0:
        return "beats"
    return "equals" if ahead == 0 else "does NOT beat"


def _difference(duel: Duel, study: Study) -> str:
    unit, scale = ("points of accuracy", 100.0) if study.quality == "accuracy" else ("of -MAE", 1.0)
    value, low, high = (f"{scale * n:+.2f}" for n in (duel.difference.value, duel.difference.low, duel.difference.high))
    n = len(duel.seeds)
    if n == 1:
        return f"{value} {unit} on test (1 seed)"
    sure = "; the interval holds 0" if duel.difference.low <= 0 <= duel.difference.high else ""
    return f"{value} {unit} on test, above in {duel.wins} of {n} seeds (95 % interval {low} to {high}{sure})"


def show(study: Study, folder: Path, *, figures: bool) -> None:
    """Print the table and who beats whom, and draw the figures into `folder`."""
    shown = console()
    shown.print(agents_table(study))
    for line in (*duel_lines(study), *latency_lines(study)):
        shown.print(line, soft_wrap=True, markup=False)
    if figures:
        from compressor.report import drawing, search_figures

        drawing.write(search_figures.front_figure(study), folder, "front")
        drawing.write(search_figures.policy_figure(study), folder, "policy")


def complete(study: Study) -> None:
    """Refuse to pass over what failed.

    Raises:
        UnfinishedError: steps have no result.
    """
    if study.failures:
        count, first = len(study.failures), study.failures[0].error
        raise UnfinishedError(
            f"{count} steps have no result, the first because: {first}; what the others found stands, and the same "
            "command tries the rest again"
        )
