"""The bar chart of a benchmark."""

from pathlib import Path

from compressor.deploy.bench_records import COMPRESSED, ORIGINAL, Benchmark
from compressor.folders import RUNS, disk

STYLES = {ORIGINAL: {"color": "#0072B2"}, COMPRESSED: {"color": "#E69F00", "hatch": "//"}}
"""Okabe and Ito's blue and orange, which colour-blind readers tell apart, and a hatch for print without colour."""
THICKNESS = 0.38
NOTE = "fp32, bf16: of what is not quantized to integers; x: compressed over original, 95 % interval"


def draw(result: Benchmark, folder: Path) -> tuple[Path, ...]:
    """Draw images a second of both networks, a panel a batch size, as bench.png and bench.svg, and give the paths.

    Nothing is drawn where matplotlib, the extra `figures`, is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return ()
    batches = result.settings.batches
    rows = list(dict.fromkeys((each.engine, each.precision) for each in result.timings))
    figure = Figure(figsize=(7.2, 0.9 + len(batches) * (0.55 + 0.5 * len(rows))), layout="constrained")
    for panel, batch in zip(figure.subplots(len(batches), squeeze=False)[:, 0], batches, strict=True):
        _panel(panel, result, batch, rows)
    networks = list(dict.fromkeys(each.network for each in result.timings))
    figure.supxlabel(NOTE, fontsize=8)
    handles = figure.axes[0].get_legend_handles_labels()[0]
    figure.legend(handles, networks, loc="outside upper right", ncols=len(networks), frameon=False)
    paths = tuple(folder / f"bench.{suffix}" for suffix in ("png", "svg"))
    with disk(folder, RUNS):
        for path in paths:
            figure.savefig(path, dpi=150)
    return paths


def _panel(panel, result: Benchmark, batch: int, rows: list[tuple[str, str]]) -> None:
    """Draw the bars of one batch size; the ratio and its interval stand behind the bar of the compressed network."""
    faster = {(r.engine, r.precision): r.throughput for r in result.ratios if r.batch == batch}
    for network, style in STYLES.items():
        shift = THICKNESS / 2 if network == COMPRESSED else -THICKNESS / 2
        found = [each for each in result.timings if (each.network, each.batch) == (network, batch)]
        if not found:
            continue
        places = [rows.index((each.engine, each.precision)) + shift for each in found]
        speeds = [each.images_per_second for each in found]
        bars = panel.barh(places, speeds, THICKNESS, label=network, edgecolor="white", **style)
        labels = [_label(each.images_per_second) for each in found]
        if network == COMPRESSED:
            ratios = [faster.get((each.engine, each.precision)) for each in found]
            pairs = zip(labels, ratios, strict=True)
            labels = [f"{label}; {r.value:.2f} x ({r.low:.2f}-{r.high:.2f})" if r else label for label, r in pairs]
        panel.bar_label(bars, labels, padding=3, fontsize=8)
    panel.set_yticks(range(len(rows)), [f"{engine} {precision}" for engine, precision in rows])
    panel.invert_yaxis()
    panel.margins(x=0.32)
    panel.set_xlim(left=0)
    panel.set_title(f"batch {batch}", loc="left", fontsize=10)
    panel.set_xlabel("images a second")
    panel.spines[["top", "right"]].set_visible(False)


def _label(speed: float) -> str:
    return f"{speed:,.0f}" if speed >= 100 else f"{speed:.3g}"
