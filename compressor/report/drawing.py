"""What the figures of studies share: size, fonts, colours and files. Importing this imports matplotlib."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from compressor.errors import ConfigError
from compressor.folders import RUNS, disk

try:
    import matplotlib as mpl
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import FancyArrowPatch as FancyArrowPatch
    from matplotlib.patches import Patch as Patch
    from matplotlib.ticker import MaxNLocator
except ImportError:
    raise ConfigError("figures need the package matplotlib: pip install 'compressor[figures]'") from None

PANEL = 3.5
"""Inches: a panel fills one of two columns of a page, where its words are read at their own size."""
BLUE, ORANGE, GREEN, GREY, BLACK = "#0072B2", "#D55E00", "#009E73", "#767676", "#000000"
"""Okabe and Ito's colours, which colour-blind readers can tell apart; shapes and dashes say the same."""
STYLE: dict[Any, Any] = {
    "font.size": 9.5,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9.5,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "svg.hashsalt": "compressor",
}
STEPS = ((1,), (1, 2, 5), (1, 1.5, 2, 3, 5, 7))
"""Where a logarithmic axis may have its ticks, ever closer."""


@contextmanager
def figure(width: float, height: float) -> Iterator[Figure]:
    """Give an empty figure of so many inches; what is drawn inside the block has the style of all figures."""
    with mpl.rc_context(STYLE):
        yield Figure(figsize=(width, height), layout="constrained")


def write(drawn: Figure, folder: Path, name: str) -> tuple[Path, Path]:
    """Write a figure as PNG and SVG; equal figures give equal files.

    Raises:
        StoreError: the folder cannot be written.
    """
    png, svg = folder / f"{name}.png", folder / f"{name}.svg"
    with disk(folder, RUNS), mpl.rc_context(STYLE):
        drawn.savefig(png, dpi=200, metadata={"Software": None})
        drawn.savefig(svg, metadata={"Date": None})
    return png, svg


def ratio_axis(axes: Axes, low: float, high: float, most: int = 5) -> None:
    """Make x logarithmic from a little below `low` to a little above `high`, with at most so many ticks as `50x`."""
    margin = max((high / low) ** 0.06, 1.02)
    axes.set_xscale("log")
    axes.set_xlim(low / margin, high * margin)
    ticks = ratio_ticks(low / margin, high * margin, most)
    axes.set_xticks(ticks, [f"{tick:g}x" for tick in ticks])
    axes.minorticks_off()


def ratio_ticks(low: float, high: float, most: int) -> list[float]:
    """Choose round numbers between two ratios: evenly spread in a narrow range, by decades in a wide one."""
    for steps in STEPS:
        ladder = [step * 10.0**power for power in range(-3, 8) for step in steps]
        ticks = [tick for tick in ladder if low <= tick <= high]
        if len(ticks) >= min(3, most):
            return ticks[:: -(-len(ticks) // most)]
    even = MaxNLocator(most - 1, steps=[1, 2, 5, 10]).tick_values(low, high)
    return [float(f"{tick:.6g}") for tick in even if low <= tick <= high]
