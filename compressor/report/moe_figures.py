"""Figures of mixtures: accuracy against mean BitOps as the budget moves, and which classes go to which expert."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from compressor.folders import RUNS, disk
from compressor.naming import printable
from compressor.studies.moe_results import BASELINE, MIXTURE, Study, Summary

LINE = "#0072B2"
COLOURS = ("#000000", "#D55E00", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#F0E442", "#7F7F7F")
"""Okabe and Ito's colours, which colour-blind readers tell apart; each comes with a marker of its own."""
MARKERS = ("s", "D", "^", "v", "P", "X", "o", "h")


def draw(study: Study, folder: Path) -> tuple[Path, ...]:
    """Draw budget.png and .svg, and classes.png and .svg where there are classes, and give the paths.

    Nothing is drawn where matplotlib, the extra `figures`, is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return ()
    figures = {"budget": _budget(Figure(figsize=(7.6, 4.6), layout="constrained"), study)}
    if study.trials[0].by_class:
        rows, columns = len(study.classes), len(study.trials[0].experts)
        size = 2.6 + 0.75 * columns, 1.5 + 0.28 * rows
        figures["classes"] = _classes(Figure(figsize=size, layout="constrained"), study)
    paths = []
    with disk(folder, RUNS):
        for name, figure in figures.items():
            for suffix in ("png", "svg"):
                paths.append(folder / f"{name}.{suffix}")
                figure.savefig(paths[-1], dpi=150)
    return tuple(paths)


def _budget(figure, study: Study):
    """Draw a thin line a seed, their mean, and the mixture and its rivals as points with intervals."""
    axes = figure.subplots()
    scale = 100 if study.score == "accuracy" else -1
    paths = np.array([[(spot.test_bitops, scale * spot.test) for spot in trial.sweep] for trial in study.trials])
    for path in paths if len(paths) > 1 else ():
        axes.plot(*path.T, color=LINE, linewidth=0.6, alpha=0.4)
    axes.plot(*paths.mean(axis=0).T, color=LINE, linewidth=1.8, label="mixture as its budget moves")
    for i, row in enumerate(study.summaries):
        _point(axes, row, i, abs(scale))
    axes.set_xscale("log")
    axes.set_xlabel("mean BitOps an image, test")
    axes.set_ylabel("test accuracy, %" if study.score == "accuracy" else "test MAE (lower is better)")
    n = len(study.trials)
    over = f"means of {n} seeds, 95 % intervals over seeds" if n > 1 else "1 seed, 95 % intervals over images"
    axes.set_title(f"{study.name}: {over}", loc="left", fontsize=10)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    return figure


def _point(axes, row: Summary, i: int, scale: float) -> None:
    value, low, high = (scale * part for part in (row.test.value, row.test.low, row.test.high))
    colour, marker = (LINE, "*") if row.name == MIXTURE else (COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)])
    if row.name == BASELINE:
        axes.axhline(value, color=colour, linewidth=0.8, linestyle=":")
    size = 13 if row.name == MIXTURE else 7
    error = [[max(0.0, value - low)], [max(0.0, high - value)]]
    style = {
        "color": colour,
        "marker": marker,
        "markersize": size,
        "linestyle": "none",
        "capsize": 2,
        "elinewidth": 0.8,
    }
    axes.errorbar([row.bitops], [value], yerr=error, label=row.name, zorder=3, **style)


def _classes(figure, study: Study):
    """Draw the share of each class's test images that each expert answers, the mean over seeds."""
    shares = np.mean([trial.by_class for trial in study.trials], axis=0)
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="cividis", vmin=0, vmax=1, aspect="auto")
    for (y, x), share in np.ndenumerate(shares):
        axes.text(x, y, f"{100 * share:.0f}", ha="center", va="center", fontsize=8, color="k" if share > 0.5 else "w")
    axes.set_xticks(range(shares.shape[1]), [f"expert {i}" for i in range(shares.shape[1])], fontsize=8)
    axes.set_yticks(range(len(shares)), _short(study.classes), fontsize=8, parse_math=False)
    axes.set_title("% of a class's test images", loc="left", fontsize=9)
    figure.colorbar(image, ax=axes, shrink=0.8)
    return figure


def _short(names: Sequence[str], width: int = 24) -> list[str]:
    """Return names as labels of a figure, in which a dollar sign would begin a formula."""
    shown = [printable(name) for name in names]
    return [(name if len(name) <= width else f"{name[: width - 1]}…").replace("$", r"\$") for name in shown]
