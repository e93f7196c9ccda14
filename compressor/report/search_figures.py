"""Figures of a joint search: quality against size and BitOps, and the sparsity and bits that it learned."""

from collections.abc import Callable, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.colors import to_hex

from compressor.report.drawing import BLACK, PANEL, Axes, Figure, Patch, figure, ratio_axis
from compressor.report.search_tables import TITLES, seeds_text
from compressor.search.found import LayerNote
from compressor.search.types import Agent
from compressor.studies.joint_results import Baseline, Study, Trial
from compressor.studies.results import score

MOST = 8
"""The most bits of a channel."""


def _purple(bits: int) -> str:
    return to_hex(mpl.colormaps["Purples"](0.45 + 0.55 * bits / MOST))


STYLES: dict[Agent, tuple[str, str]] = {
    Agent.JOINT: ("#0072B2", "*"),
    Agent.STEPWISE: ("#D55E00", "D"),
    Agent.FLAT: ("#56B4E9", "s"),
    Agent.SPARSITY: ("#009E73", "^"),
    Agent.BITS: ("#E69F00", "v"),
    Agent.NSGA2: ("#CC79A7", "P"),
    Agent.SENSITIVITY: ("#000000", "X"),
    Agent.RANDOM: ("#767676", "o"),
    Agent.UNIFORM: ("#B2912F", "h"),
} | {agent: (_purple(agent.fixed), f"${agent.fixed}$") for agent in Agent if agent.fixed}
"""Okabe and Ito's colours, as far as they go, each with a marker of its own; the more bits, the darker purple."""

NAMES = 30
"""So many layers' names fit beside each other."""

Ratio = Callable[[Baseline, int, int], float]
"""Of a baseline, a size in bits and BitOps: how many times smaller or fewer."""

Spots = list[tuple[float, float]]
"""Ratios and qualities."""


def _smaller(baseline: Baseline, size: int, bitops: int) -> float:
    return baseline.cost.size_bits / size


def _fewer(baseline: Baseline, size: int, bitops: int) -> float:
    return baseline.cost.bitops / bitops


AXES: tuple[tuple[str, Ratio], ...] = (("times smaller", _smaller), ("times fewer BitOps", _fewer))


def front_figure(study: Study) -> Figure:
    """Draw every candidate with each agent's front above what was trained to its end, against size and BitOps."""
    with figure(2 * PANEL, 1.75 * PANEL) as drawn:
        panels = drawn.subplots(2, 2)
        agents = list(dict.fromkeys(t.agent for t in study.trials))
        whole = scale(study) * float(np.mean([score(baseline.test) for baseline in study.baselines]))
        for column, (label, ratio) in enumerate(AXES):
            tried, ended = ({agent: spots(study, agent, ratio) for agent in agents} for spots in (_tried, _ended))
            for agent in agents:
                _candidates(panels[0][column], agent, tried[agent], scale(study))
                _trained(panels[1][column], agent, ended[agent], scale(study))
            panels[1][column].axhline(whole, color=BLACK, linewidth=0.8, linestyle=":", label="baseline")
            for axes, spots in zip(panels[:, column], (tried, ended), strict=True):
                every = [x for each in spots.values() for x, _ in each]
                ratio_axis(axes, min(every), max(every), most=4)
                axes.set_xlabel(label)
        unit = "accuracy, %" if study.quality == "accuracy" else "-MAE"
        panels[0][0].set_ylabel(f"val {unit}")
        panels[1][0].set_ylabel(f"test {unit}")
        panels[0][0].set_title("candidates, before the final training", loc="left")
        panels[1][0].set_title(f"trained to the end, {seeds_text(study)}", loc="left")
        handles, labels = panels[1][0].get_legend_handles_labels()
        drawn.legend(handles, labels, loc="outside lower center", ncols=4)
    return drawn


def scale(study: Study) -> float:
    """Give what a score is multiplied with to be shown."""
    return 100.0 if study.quality == "accuracy" else 1.0


def _tried(study: Study, agent: Agent, ratio: Ratio) -> Spots:
    whole = {baseline.seed: baseline for baseline in study.baselines}
    return [
        (ratio(whole[t.seed], each.bill.size, each.bill.bitops), each.quality)
        for t in study.trials
        if t.agent is agent
        for each in t.tries
    ]


def _ended(study: Study, agent: Agent, ratio: Ratio) -> Spots:
    whole = {baseline.seed: baseline for baseline in study.baselines}
    found = [t for t in study.trials if t.agent is agent]
    return [(ratio(whole[t.seed], t.cost.size_bits, t.cost.bitops), score(t.test)) for t in found]


def _candidates(axes: Axes, agent: Agent, spots: Spots, times: float) -> None:
    colour, _ = STYLES[agent]
    axes.scatter([x for x, _ in spots], [times * y for _, y in spots], s=3, color=colour, alpha=0.25, linewidths=0)
    best = front(spots)
    axes.step([x for x, _ in best], [times * y for _, y in best], where="pre", color=colour, linewidth=1.2)


def front(spots: Sequence[tuple[float, float]]) -> Spots:
    """Give the spots that none is right of and at least as high as, from the highest down."""
    best: Spots = []
    for x, y in sorted(spots, reverse=True):
        if not best or y > best[-1][1]:
            best.append((x, y))
    return best[::-1]


def _trained(axes: Axes, agent: Agent, spots: Spots, times: float) -> None:
    colour, marker = STYLES[agent]
    x, y = [x for x, _ in spots], [times * y for _, y in spots]
    size = 70 if marker == "*" else 50 if marker[0] == "$" else 26
    axes.scatter(x, y, s=size, marker=marker, color=colour, alpha=0.85, linewidths=0, label=TITLES[agent], zorder=3)


def policy_figure(study: Study) -> Figure:
    """Draw what the method, and beside it the step-wise way, gave each layer with the first seed that has both."""
    shown = _shown(study)
    with figure(2 * PANEL, 0.35 + 0.72 * PANEL * len(shown)) as drawn:
        panels = np.atleast_1d(drawn.subplots(len(shown), 1, sharex=True))
        for axes, found in zip(panels, shown, strict=True):
            _policy(axes, found.layers)
            axes.set_title(f"{TITLES[found.agent]}, seed {found.seed}", loc="left")
            axes.set_ylabel("channels, %")
        names = [layer.name.removeprefix("blocks.").removesuffix(".conv") for layer in shown[0].layers]
        every = -(-len(names) // NAMES)
        panels[-1].set_xticks(range(0, len(names), every), names[::every], rotation=90)
        colours = [Patch(facecolor=_colour(bits), label=f"{bits}") for bits in range(1, MOST + 1)]
        removed = Patch(facecolor="white", edgecolor="#999999", label="pruned")
        drawn.legend(handles=[*colours, removed], title="bits", loc="outside right center")
    return drawn


def _shown(study: Study) -> list[Trial]:
    wanted = (study.settings.agent, Agent.STEPWISE)
    for baseline in study.baselines:
        found = [t for agent in wanted for t in study.trials if (t.agent, t.seed) == (agent, baseline.seed)]
        if len(found) == len(wanted):
            return found
    return list(study.trials[:1])


def _policy(axes: Axes, layers: Sequence[LayerNote]) -> None:
    """Draw a bar a layer, the most important channels lowest; what is not filled is pruned."""
    for i, layer in enumerate(layers):
        below = 0.0
        for size, bits in zip(layer.groups, layer.bits, strict=True):
            height = 100 * size / layer.channels
            if bits:
                axes.bar(i, height, bottom=below, width=0.8, color=_colour(bits), linewidth=0)
            below += height
        axes.bar(i, 100, width=0.8, facecolor="none", edgecolor="#999999", linewidth=0.6)
    axes.set_xlim(-0.6, len(layers) - 0.4)
    axes.set_ylim(0, 100)


def _colour(bits: int) -> tuple[float, float, float, float]:
    return mpl.colormaps["viridis_r"]((bits - 1) / (MOST - 1))
