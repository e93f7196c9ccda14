"""Verdicts on pairs give the one order, all that fit, or a cycle with its weakest edge."""

import itertools
import json
from dataclasses import replace

import planted_studies
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.codec import decode, encode
from compressor.studies.sorting import LISTED, Sorting, Standpoint, claims, sort_orders
from compressor.studies.verdicts import Rule, Verdict, decide

PAIR = planted_studies.pair(dict.fromkeys(range(3), (0.9,)), dict.fromkeys(range(3), (0.89,)))
(MADE,) = decide({("X", "Y"): PAIR}, Rule(0.05, 0.001, 0.001))


def verdict(orders: str, winner: str | None, p: float = 0.01, mean: float = 0.01) -> Verdict:
    return replace(
        MADE, orders=(orders, orders[::-1]), winner=winner, adjusted_p=p, val=replace(MADE.val, mean=mean)
    )  # fmt: skip


def won(*edges: str) -> list[Verdict]:
    """Take pairs whose first letter goes first; `PQ?` is undecided."""
    return [verdict(edge[:2], None if edge.endswith("?") else edge) for edge in edges]


def test_a_chain_of_decided_pairs_gives_the_one_order():
    found = sort_orders("EQPD", won("DP", "PQ", "QE", "DQ?", "DE?", "PE?"))
    assert (found.orders, found.count, found.cycle) == (("DPQE",), 1, "")
    assert found.decided == ("DP", "PQ", "QE")
    assert found.undecided == ("DQ", "DE", "PE")


def test_undecided_pairs_leave_all_orders_that_fit_best_supported_first():
    found = sort_orders("DPQ", [*won("DP"), verdict("DQ", None, mean=0.002), verdict("PQ", None, mean=-0.003)])
    assert found.orders == ("DQP", "QDP", "DPQ")
    assert found.count == 3


def test_nothing_decided_leaves_every_order_and_lists_the_first():
    found = sort_orders("ABCDE", [])
    assert found.count == 120
    assert len(found.orders) == LISTED
    assert sort_orders("AB", won("AB?")).orders == ("AB", "BA")


def test_a_verdict_for_the_second_order_turns_the_edge():
    assert sort_orders("DP", [verdict("DP", "PD", mean=-0.01)]).orders == ("PD",)


def test_a_cycle_is_shown_with_its_weakest_edge():
    verdicts = [verdict("DP", "DP", 0.001), verdict("PQ", "PQ", 0.04), verdict("DQ", "QD", 0.01), *won("QE", "DE?")]
    found = sort_orders("DPQE", verdicts)
    assert (found.cycle, found.weakest) == ("DPQ", "PQ")
    assert (found.orders, found.count) == ((), 0)


def test_of_edges_that_are_as_sure_the_weakest_is_that_of_the_smallest_difference():
    verdicts = [verdict("DP", "DP", mean=0.03), verdict("PQ", "PQ", mean=0.02), verdict("DQ", "QD", mean=-0.01)]
    assert sort_orders("DPQ", verdicts).weakest == "QD"


@settings(max_examples=40)
@given(st.permutations("DPQEM"), st.lists(st.booleans(), min_size=10, max_size=10))
def test_every_listed_order_agrees_with_every_decided_pair_and_no_other_does(truth, kept):
    edges = list(itertools.combinations(truth, 2))
    verdicts = won(*("".join(edge) for edge, keep in zip(edges, kept, strict=True) if keep))
    found = sort_orders("DPQEM", verdicts)
    fitting = {
        "".join(order)
        for order in itertools.permutations("DPQEM")
        if all(order.index(a) < order.index(b) for a, b in (v.pair for v in verdicts))
    }
    assert found.count == len(fitting)
    assert set(found.orders) <= fitting
    assert len(found.orders) == min(len(fitting), LISTED)
    assert "".join(truth) in fitting


def test_each_pair_of_a_proposed_order_is_confirmed_undecided_or_contradicted():
    verdicts = [*won("DP", "DQ?"), verdict("PQ", "QP")]
    found = {claim.edge: claim.standpoint for claim in claims("DPQE", verdicts)}
    assert found == {"DP": Standpoint.CONFIRMED, "DQ": Standpoint.UNDECIDED, "PQ": Standpoint.CONTRADICTED}
    turned = {claim.edge: claim.standpoint for claim in claims("QPD", verdicts)}
    assert turned == {"PD": Standpoint.CONTRADICTED, "QD": Standpoint.UNDECIDED, "QP": Standpoint.CONFIRMED}


def test_a_letter_repeated_in_a_proposed_order_counts_where_it_is_first():
    assert [claim.edge for claim in claims("DPPQ", won("DP", "PQ"))] == ["DP", "PQ"]


@pytest.mark.parametrize("verdicts", [won("DP", "PQ?"), [*won("DP", "PQ"), verdict("DQ", "QD")]])
def test_a_sorting_is_read_back_from_json_as_it_was(verdicts):
    found = sort_orders("DPQ", verdicts)
    assert decode(Sorting, json.loads(json.dumps(encode(found)))) == found
