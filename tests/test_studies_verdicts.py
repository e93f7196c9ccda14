"""A verdict finds effects of the size seen in practice, hardly ever one that is not there, and never turns round."""

import json
from dataclasses import replace

import numpy as np
import planted_studies
import pytest
from planted_studies import LETTERS, Plant

from compressor.codec import decode, encode
from compressor.studies.comparing import PairPoints
from compressor.studies.verdicts import Holding, Insertion, Rule, Verdict, decide, holm, insert, seeds_needed

RULE = Rule(0.05, 1 / 5000, 1 / 5000)
DIGITS = Plant(images=360)
EFFECTS = {"DP": 0.01, "QE": 0.01, "DE": -0.01}


def decided(random, effects, plant: Plant) -> tuple[Verdict, ...]:
    return decide(planted_studies.study(random, effects, plant), Rule(0.05, 1 / plant.images, 1 / plant.images))


def false_alarms(plant: Plant, studies: int) -> float:
    """Share of studies without any effect in which some pair is decided."""
    random = np.random.default_rng(11)
    return float(np.mean([any(v.winner for v in decided(random, {}, plant)) for _ in range(studies)]))


@pytest.mark.parametrize("plant", [Plant(), DIGITS], ids=["5000 images", "360 images"])
def test_planted_effects_are_decided_nine_times_in_ten_and_never_the_wrong_way(plant):
    random = np.random.default_rng(5)
    verdicts = [v for _ in range(40) for v in decided(random, EFFECTS, plant)]
    for order, effect in EFFECTS.items():
        winners = [v.winner for v in verdicts if v.orders[0] == order]
        right = order if effect > 0 else order[::-1]
        assert np.mean([winner == right for winner in winners]) >= 0.9
        assert set(winners) <= {right, None}


@pytest.mark.parametrize(
    "plant",
    [
        Plant(),
        DIGITS,
        Plant(seeds=3),
        Plant(noisy={"DP": 6.0}),
        Plant(noisy={"DE": 3.0, "PE": 3.0, "QE": 3.0}, costs=0.1),
        Plant(seeds=3, settings=1, noisy={"DP": 0.2, "DQ": 0.2, "DE": 0.2, "PQ": 3.0}),
    ],
    ids=["alike", "360 images", "3 seeds", "one noisy pair", "noisy exits", "3 seeds, all kinds"],
)
def test_in_at_most_one_study_of_twenty_without_effects_is_any_pair_decided(plant):
    assert false_alarms(plant, 100) <= 0.05


def test_resampling_the_seeds_never_turns_a_verdict_round():
    random = np.random.default_rng(8)
    for _ in range(6):
        pairs = planted_studies.study(random, EFFECTS, Plant())
        winners = {v.orders: v.winner for v in decide(pairs, RULE)}
        for _ in range(10):
            drawn = random.integers(0, 5, 5)
            again = {
                pair: PairPoints(*(_drawn(side, drawn) for side in _sides(found))) for pair, found in pairs.items()
            }
            for verdict in decide(again, RULE):
                assert {verdict.winner, winners[verdict.orders]} != set(verdict.orders)


def _sides(pair: PairPoints):
    return pair.first, pair.second


def _drawn(points, seeds):
    return tuple(replace(p, seed=new) for new, old in enumerate(seeds) for p in points if p.seed == old)


def test_a_verdict_rests_on_val_alone_and_names_every_chain_behind_it():
    pairs = planted_studies.study(np.random.default_rng(2), EFFECTS, Plant())
    turned = {
        pair: PairPoints(*(tuple(replace(p, test=1 - p.test) for p in side) for side in _sides(found)))
        for pair, found in pairs.items()
    }
    before, after = decide(pairs, RULE), decide(turned, RULE)
    assert [v.winner for v in before] == [v.winner for v in after]
    assert "DP" in {v.winner for v in before}
    for one, other in zip(before, after, strict=True):
        assert one.val == other.val
        assert one.test.mean == pytest.approx(-(other.test.mean or 0), abs=0.01)
    first = pairs["D", "P"]
    assert set(before[0].keys) == {p.key for side in _sides(first) for p in side}


@pytest.mark.parametrize(("seeds", "indicative", "decided"), [(2, True, False), (3, True, True), (5, False, True)])
def test_two_seeds_decide_nothing_and_fewer_than_five_only_indicate(seeds, indicative, decided):
    plant = Plant(seeds=seeds, noise=0.0005, costs=0.0)
    pairs = planted_studies.study(np.random.default_rng(0), {"DP": 0.02}, plant)
    verdict = decide({("D", "P"): pairs["D", "P"], ("P", "Q"): pairs["P", "Q"]}, RULE)[0]
    assert (verdict.indicative, verdict.winner) == (indicative, "DP" if decided else None)


def test_a_mean_that_one_seed_of_three_speaks_against_is_not_decided():
    rows = {0: 0.03, 1: 0.03, 2: -0.002}
    loose = planted_studies.pair({s: (0.9 + d,) for s, d in rows.items()}, dict.fromkeys(rows, (0.9,)))
    calm = planted_studies.pair({s: (0.9 + s / 1e5,) for s in rows}, dict.fromkeys(rows, (0.9,)))
    verdict = decide({("X", "Y"): loose, ("A", "B"): calm}, Rule(0.5, 0.0, 0.0))[0]
    assert verdict.adjusted_p < 0.5
    assert verdict.val.flips == pytest.approx(1 / 27, abs=0.01)
    assert verdict.winner is None


def test_p_values_are_corrected_as_r_does():
    adjusted, levels = holm([0.03, 0.01, 0.04, 0.02], 0.05)
    assert adjusted == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert levels == pytest.approx([0.025, 0.0125, 0.05, 0.05 / 3])
    assert holm([0.3, 0.9], 0.05)[0] == pytest.approx([0.6, 0.9])
    assert holm([0.01, 0.2], 0.05, family=10)[0] == pytest.approx([0.1, 1.0])


@pytest.mark.parametrize(("effect", "needed"), [(0.2, 199), (0.5, 34), (0.8, 15)])
def test_the_seeds_needed_are_those_that_g_power_gives_for_a_paired_t_test(effect, needed):
    wanted = np.array([-1.0, 0.0, 1.0])
    rows = {s: (float(0.9 + 0.01 * (d + effect)),) for s, d in enumerate(wanted)}
    pair = planted_studies.pair(rows, dict.fromkeys(rows, (0.9,)))
    verdict = decide({("X", "Y"): pair}, Rule(0.05, 0.0, 0.0))[0]
    assert verdict.val.effect == pytest.approx(effect)
    assert verdict.seeds_needed == needed


def test_no_number_of_seeds_is_named_where_none_would_do_or_none_is_needed():
    rows = {0: (0.91,), 1: (0.89,), 2: (0.9000001,)}
    verdict = decide({("X", "Y"): planted_studies.pair(rows, dict.fromkeys(rows, (0.9,)))}, Rule(0.05, 0.0, 0.0))[0]
    assert verdict.winner is None
    assert verdict.seeds_needed is None
    assert seeds_needed(replace(verdict.val, scale=None), 0.05) is None
    sure = decided(np.random.default_rng(5), {"DP": 0.02}, Plant())[0]
    assert (sure.winner, sure.seeds_needed) == ("DP", None)


def test_chains_that_the_other_order_lacks_are_counted_and_left_out():
    pairs = planted_studies.study(np.random.default_rng(2), {}, Plant())
    full = pairs["D", "P"]
    verdict = decide({("D", "P"): PairPoints(full.first, full.second[:-2])}, RULE)[0]
    assert verdict.unpaired == 2
    assert len(verdict.keys) == 2 * 15 - 4


def inserted(effect: float, between: float, seed: int = 4) -> Insertion:
    random = np.random.default_rng(seed)
    plant = Plant(noise=0.001)
    verdicts = decide(planted_studies.study(random, {"DP": effect}, plant), RULE)
    shared = random.normal(0, 0.006, 5)
    found = (
        planted_studies.chains(random, o, lift, shared, plant) for o, lift in (("DQP", between), ("PQD", -between))
    )
    (insertion,) = insert(verdicts, {("D", "P", "Q"): PairPoints(*found)}, RULE)
    return insertion


@pytest.mark.parametrize(
    ("effect", "between", "holding"),
    [
        (0.01, 0.01, Holding.HOLDS),
        (-0.01, -0.01, Holding.HOLDS),
        (0.01, -0.01, Holding.CONTRADICTED),
        (0.01, 0.0, Holding.NOT_CONTRADICTED),
        (0.0, 0.01, Holding.NO_VERDICT),
    ],
)
def test_a_technique_between_a_pair_leaves_its_verdict_or_contradicts_it(effect, between, holding):
    insertion = inserted(effect, between)
    assert insertion.holding is holding
    assert insertion.third == "Q"
    assert insertion.verdict.pair == ("D", "P")
    assert insertion.verdict.orders == ("DQP", "PQD")


def test_verdicts_are_read_back_from_json_as_they_were():
    verdicts = decided(np.random.default_rng(5), EFFECTS, Plant())
    empty = decide({(x, y): PairPoints((), ()) for x, y in [LETTERS[:2]]}, RULE)
    for value in (*verdicts, *empty, inserted(0.01, 0.01)):
        assert decode(type(value), json.loads(json.dumps(encode(value)))) == value
