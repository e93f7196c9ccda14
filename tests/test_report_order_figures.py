"""Figures of an order study show what was measured, in letters that can be read at half the width of a page."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from planted_studies import Plant
from shown_study import Shown, shown

from compressor.errors import StoreError
from compressor.report.drawing import PANEL, figure, ratio_ticks, write
from compressor.report.order_figures import insertion_figure, pairs_figure, ranking_figure
from compressor.report.order_graph import graph_figure
from compressor.report.order_tables import ACCURACY
from compressor.studies.comparing import PairPoints
from compressor.studies.sorting import sort_orders


@pytest.fixture(scope="module")
def study() -> Shown:
    return shown(Plant())


@pytest.fixture(scope="module")
def drawn(study) -> dict[str, Figure]:
    first = study.verdicts[:2]
    return {
        "pairs": pairs_figure(first, study.pairs, ACCURACY, 0.05),
        "graph": graph_figure(study.sorting, study.verdicts, ACCURACY),
        "insertion": insertion_figure(first, study.insertions, ACCURACY),
        "permutations": ranking_figure(study.permutations[:6], ACCURACY, study.sorting.orders),
        "repetition": ranking_figure(study.repetition, ACCURACY),
    }


@pytest.mark.parametrize("name", ["pairs", "graph", "insertion", "permutations", "repetition"])
def test_every_figure_is_written_as_png_and_svg_and_is_not_blank(drawn, name, tmp_path):
    png, svg = write(drawn[name], tmp_path, name)
    grey = np.asarray(Image.open(png).convert("L"))
    assert 0.005 < (grey < 200).mean() < 0.5
    assert grey[:, [0, -1]].min() > 200, "something is cut at an edge"
    assert svg.read_text().count("<path") > 10


@pytest.mark.parametrize("name", ["pairs", "graph", "insertion", "permutations", "repetition"])
def test_letters_are_large_enough_for_half_a_page(drawn, name):
    found = drawn[name]
    columns = 2 if name == "pairs" else 1
    assert found.get_figwidth() == PANEL * columns
    sizes = [text.get_fontsize() for text in found.findobj(Text) if text.get_text()]
    assert min(sizes) >= 9


def words(found: Figure) -> set[str]:
    return {text.get_text() for text in found.findobj(Text)}


def test_a_pair_shows_every_seed_both_orders_and_the_verdict(study, drawn):
    panel = drawn["pairs"].axes[0]
    val = study.verdicts[0].val
    half = 100 * ((val.high or 0) - (val.mean or 0))
    assert panel.get_title(loc="left") == f"DP better by {100 * (val.mean or 0):.2f} ± {half:.2f} points"
    legend = panel.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["DP", "PD"]
    faint = [line for line in panel.lines if line.get_alpha() == 0.25]
    assert [len(line.get_xdata()) for line in faint] == [15, 15]
    assert list(faint[0].get_ydata()) == pytest.approx([100 * p.val for p in study.pairs["D", "P"].first])
    low, high = panel.get_ylim()
    assert all(low < 100 * p.val < high for p in study.pairs["D", "P"].first)


def test_a_pair_won_by_the_second_order_and_an_undecided_one_say_so(study):
    by = {v.orders[0]: v for v in study.verdicts}
    found = pairs_figure([by["QE"], by["PE"]], study.pairs, ACCURACY, 0.05)
    titles = [panel.get_title(loc="left") for panel in found.axes]
    assert titles[0].startswith(f"EQ better by {-100 * (by['QE'].val.mean or 0):.2f} ± ")
    assert titles[1].startswith(f"undecided: PE {100 * (by['PE'].val.mean or 0):+.2f} ± ")


def test_panels_that_no_pair_needs_are_not_shown(study):
    found = pairs_figure(study.verdicts[:3], study.pairs, ACCURACY, 0.05)
    assert [panel.get_visible() for panel in found.axes] == [True, True, True, False]


def test_one_seed_or_none_is_drawn_without_intervals(tmp_path):
    single = shown(Plant(seeds=1))
    bare = single.pairs | {("D", "Q"): PairPoints((), ())}
    verdict = replace(single.verdicts[1], val=replace(single.verdicts[1].val, mean=None))
    assert "not measured" in words(pairs_figure([verdict], bare, ACCURACY, 0.05))
    write(pairs_figure(single.verdicts[:1], bare, ACCURACY, 0.05), tmp_path, "pairs")
    assert "DP ?" in words(graph_figure(single.sorting, [replace(verdict, orders=("DP", "PD"))], ACCURACY))
    assert ranking_figure(single.repetition, ACCURACY).axes


def test_the_graph_has_an_arrow_a_decided_pair_and_a_dashed_line_an_undecided_one(study, drawn):
    edges = drawn["graph"].axes[0].patches
    solid = [edge for edge in edges if edge.get_linestyle() in ("-", "solid")]
    assert len(edges) == 6
    assert len(solid) == len(study.sorting.decided) == 5
    assert {"D", "P", "Q", "E"} <= words(drawn["graph"])
    for verdict in study.verdicts:
        sign = -1 if verdict.winner == verdict.orders[1] else 1
        number = f"{100 * sign * verdict.val.mean:+.2f}"
        assert (number if verdict.winner else f"{verdict.orders[0]} {number}") in words(drawn["graph"])


def test_a_cycle_names_its_weakest_edge_and_draws_it_in_another_colour(study):
    ends = {("D", "P"): "DP", ("P", "Q"): "PQ", ("D", "Q"): "QD"}
    verdicts = [replace(v, winner=ends.get(v.pair)) for v in study.verdicts]
    sorting = sort_orders("DPQE", verdicts)
    found = graph_figure(sorting, verdicts, ACCURACY)
    assert f"cycle D-P-Q-D, weakest {sorting.weakest}" in words(found)
    assert len({edge.get_edgecolor() for edge in found.axes[0].patches}) == 3


def test_several_orders_that_fit_stand_below_the_graph(study):
    verdicts = [replace(v, winner=None) for v in study.verdicts]
    sorting = sort_orders("DPQE", verdicts)
    assert f"24 orders fit: {', '.join(sorting.orders[:3])}, ..." in words(graph_figure(sorting, verdicts, ACCURACY))


def test_insertions_are_counted_in_the_direction_of_their_pair(study):
    (verdict,) = (v for v in study.verdicts if v.orders == ("QE", "EQ"))
    assert verdict.winner == "EQ"
    found = insertion_figure([verdict], [i for i in study.insertions if i.verdict.pair == ("Q", "E")], ACCURACY)
    names = [label.get_text() for label in found.axes[0].get_yticklabels()]
    assert names == ["EQ", "EDQ", "EPQ"]
    diamond = next(line for line in found.axes[0].lines if line.get_marker() == "D")
    assert np.asarray(diamond.get_xdata()) == pytest.approx(-100 * (verdict.val.mean or 0))
    assert {"the pair", *(i.holding for i in study.insertions if i.verdict.pair == ("Q", "E"))} <= words(found)


def test_insertions_are_drawn_where_no_pair_was_run(study):
    found = insertion_figure([], study.insertions[:3], ACCURACY)
    names = [label.get_text() for label in found.axes[0].get_yticklabels()]
    assert names == [insertion.verdict.orders[0] for insertion in study.insertions[:3]]
    assert "the pair" not in words(found)


def test_a_ranking_lists_its_orders_and_marks_those_that_the_verdicts_fit(study, drawn):
    names = [label.get_text() for label in drawn["permutations"].axes[0].get_yticklabels()]
    orders = [standing.order for standing in study.permutations[:6]]
    assert names == [f"> {order}" if order in study.sorting.orders else order for order in orders]
    assert f"not told apart from {orders[0]}" in words(drawn["permutations"])


def test_equal_figures_give_equal_files(study, tmp_path):
    both = [write(graph_figure(study.sorting, study.verdicts, ACCURACY), tmp_path, name) for name in ("a", "b")]
    for one, other in zip(*both, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    with figure(1, 1) as empty:
        pass
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file"):
        write(empty, tmp_path / "file", "x")


@pytest.mark.parametrize(
    ("low", "high", "most", "ticks"),
    [
        (21, 300, 5, [50, 100, 200]),
        (1, 2000, 5, [1, 10, 100, 1000]),
        (148, 265, 3, [150, 200, 250]),
        (190, 212, 3, [190, 200, 210]),
        (99.9, 100.3, 3, [100, 100.2]),
    ],
)
def test_ratios_have_round_ticks_inside_what_is_shown(low, high, most, ticks):
    assert ratio_ticks(low, high, most) == pytest.approx(ticks)


def test_without_matplotlib_one_line_names_the_extra():
    script = "import sys; sys.modules['matplotlib'] = None\nimport compressor.report.order_graph"
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=Path(__file__).parent.parent
    )
    last = found.stderr.strip().splitlines()[-1]
    assert last.endswith("ConfigError: figures need the package matplotlib: pip install 'compressor[figures]'")
