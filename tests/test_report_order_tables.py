"""Tables of an order study say what was decided, how surely, and what it rests on."""

from dataclasses import replace

import pytest
from planted_studies import Plant
from rich.console import Console
from rich.table import Table
from shown_study import Shown, shown

from compressor.report.order_tables import (
    ACCURACY,
    MAE,
    claims_table,
    insertion_table,
    order_text,
    pairs_table,
    ranking_table,
    singles_table,
)
from compressor.report.text import WIDTH
from compressor.studies.ranking import summaries
from compressor.studies.sorting import sort_orders
from compressor.studies.verdicts import Holding


@pytest.fixture(scope="module")
def study() -> Shown:
    return shown(Plant())


def lines(table: Table) -> list[str]:
    console = Console(width=WIDTH)
    with console.capture() as capture:
        console.print(table)
    return [line.rstrip() for line in capture.get().splitlines()]


def row(table: Table, *words: str) -> str:
    (found,) = (line for line in lines(table) if line.split()[: len(words)] == list(words))
    return found


def test_a_pair_is_shown_with_its_verdict_difference_p_seeds_and_test_beside(study):
    table = pairs_table(study.verdicts, ACCURACY, 0.05)
    first = study.verdicts[0]
    assert first.winner == "DP"
    cells = row(table, "DP", "PD", "DP").split()
    val, test = first.val, first.test
    assert cells[3:6] == [f"{100 * val.mean:+.2f}", "±", f"{100 * (val.high - val.mean):.2f}"]
    assert cells[-3:] == [f"{100 * test.mean:+.2f}", "±", f"{100 * (test.high - test.mean):.2f}"]
    assert float(cells[6].replace("<", "")) == pytest.approx(first.adjusted_p, abs=1e-3)
    assert "0.0 %      5" in row(table, "DP", "PD", "DP")


def test_an_undecided_pair_says_how_many_seeds_would_decide_it(study):
    (verdict,) = (v for v in study.verdicts if v.winner is None)
    table = pairs_table(study.verdicts, ACCURACY, 0.05)
    wanted = str(verdict.seeds_needed) if verdict.seeds_needed else "> 1000"
    assert f" {wanted} " in row(table, *verdict.orders, "undecided")


def test_few_seeds_are_marked_and_one_seed_has_no_interval():
    few = lines(pairs_table(shown(Plant(seeds=3)).verdicts, ACCURACY, 0.1))
    assert any(line.split()[2:3] == ["undecided*"] for line in few)
    assert "* fewer than 5 seeds: indicative" in few
    assert any(line.startswith("± is half the 90 % interval over seeds") for line in few)
    single = row(pairs_table(shown(Plant(seeds=1)).verdicts, ACCURACY, 0.05), "DP", "PD")
    assert "± ?" in single
    assert single.split()[2] == "undecided*"


def test_chains_left_out_and_pairs_never_measured_are_said(study):
    bare = replace(study.verdicts[0].val, mean=None, low=None, high=None, seeds=())
    odd = replace(study.verdicts[0], winner=None, unpaired=3, val=bare)
    text = lines(pairs_table([odd], ACCURACY, 0.05))
    assert any("not measured" in line for line in text)
    assert any(line.startswith("3 chains left out") for line in text)


def test_a_regression_is_shown_in_its_own_unit(study):
    mean = study.verdicts[0].val.mean
    text = lines(pairs_table(study.verdicts, MAE, 0.05))
    assert any(f"{mean:+.3f} ± " in line for line in text)
    assert any("of MAE" in line for line in text)


def test_the_order_is_said_in_one_line_however_much_is_decided(study):
    assert "order: DPEQ" in order_text(study.sorting) or "orders agree" in order_text(study.sorting)
    verdicts = study.verdicts
    none = [replace(v, winner=None) for v in verdicts]
    open_text = order_text(sort_orders("DPQE", none))
    assert open_text.startswith("24 orders agree with the verdicts (0 of 6 pairs are decided)")
    assert open_text.endswith(", ...")
    ends = {("D", "P"): "DP", ("P", "Q"): "PQ", ("D", "Q"): "QD"}
    cyclic = [replace(v, winner=ends.get(v.pair)) for v in verdicts]
    text = order_text(sort_orders("DPQE", cyclic))
    assert "D before P before Q before D" in text
    assert "its weakest edge is" in text
    decided = [replace(v, winner=v.orders[0]) for v in verdicts]
    assert order_text(sort_orders("DPQE", decided)).startswith("order: DPQE (6 of 6 pairs are decided")


def test_a_proposed_order_is_shown_pair_by_pair(study):
    table = claims_table("DPQE", study.claims, ACCURACY, 0.05)
    for claim in study.claims:
        assert row(table, claim.edge, claim.standpoint)


def test_insertions_say_whether_the_verdict_holds(study):
    text = lines(insertion_table(study.insertions, ACCURACY, 0.05))
    found = {insertion.holding for insertion in study.insertions}
    assert Holding.NO_VERDICT in found
    for insertion in study.insertions:
        (line,) = (line for line in text if line.split()[:2] == list(insertion.verdict.orders))
        assert insertion.holding in line


def test_rankings_show_every_order_best_first_and_whole(study):
    text = lines(ranking_table("permutations", study.permutations, ACCURACY, 0.05))
    rows = [line.split() for line in text if line.strip()[:1].isdigit()]
    assert [(cells[0], cells[1]) for cells in rows] == [(str(i + 1), s.order) for i, s in enumerate(study.permutations)]
    assert not any("…" in line for line in text)
    assert {cells[-2] for cells in rows[1:]} <= {"yes", "no"}
    repeated = lines(ranking_table("repetition", study.repetition, ACCURACY, 0.05))
    assert any("against DPQE" in line for line in repeated)


def test_singles_show_each_setting_with_its_interval(study):
    found = summaries(study.pairs["D", "P"].first, 0.05)
    cells = row(singles_table(found, ACCURACY, 0.05), "DP", "s1").split()
    assert cells[2:4] == [f"{100 * found[1].val.mean:.2f}", "±"]
    assert cells[-1] == "5"


@pytest.mark.parametrize("plant", [Plant(), Plant(seeds=3), Plant(seeds=1)])
def test_no_table_is_cut_in_a_terminal_of_ordinary_width(plant):
    study = shown(plant)
    tables = [
        pairs_table(study.verdicts, ACCURACY, 0.05),
        insertion_table(study.insertions, ACCURACY, 0.05),
        ranking_table("permutations", study.permutations, ACCURACY, 0.05),
        claims_table("DPQE", study.claims, MAE, 0.05),
    ]
    assert not any("…" in line for table in tables for line in lines(table))
