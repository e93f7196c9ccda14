"""A whole study with planted effects, decided, for tests of what is shown of it."""

import itertools
from dataclasses import dataclass, replace

import numpy as np
import planted_studies
from planted_studies import LETTERS, Plant

from compressor.studies.comparing import PairPoints
from compressor.studies.ranking import Standing, rank
from compressor.studies.sorting import Claim, Sorting, claims, sort_orders
from compressor.studies.verdicts import Insertion, Rule, Verdict, decide, insert

EFFECTS = {"DP": 0.012, "DQ": 0.012, "DE": 0.012, "PQ": 0.012, "QE": -0.012}


@dataclass(frozen=True)
class Shown:
    pairs: dict[tuple[str, str], PairPoints]
    verdicts: tuple[Verdict, ...]
    sorting: Sorting
    claims: tuple[Claim, ...]
    insertions: tuple[Insertion, ...]
    permutations: tuple[Standing, ...]
    repetition: tuple[Standing, ...]


def shown(plant: Plant) -> Shown:
    random, rule = np.random.default_rng(6), Rule(0.05, 1 / plant.images, 1 / plant.images)
    pairs = planted_studies.study(random, EFFECTS, plant)
    verdicts = decide(pairs, rule)
    once = replace(plant, settings=1)
    shared = random.normal(0, plant.baseline, plant.seeds)

    def chains(order: str, lift: float):
        return planted_studies.chains(random, order, lift, shared, once)

    between = {
        (x, y, z): PairPoints(chains(x + z + y, EFFECTS.get(x + y, 0) / 2), chains(y + z + x, 0.0))
        for x, y in pairs
        for z in LETTERS
        if z not in (x, y)
    }
    orders = map("".join, itertools.permutations(LETTERS))
    standings = rank([p for i, order in enumerate(orders) for p in chains(order, -0.002 * i)], rule)
    repeated = [p for order in ("DPQE", "DPPQE", "DPQPQE") for p in chains(order, 0.0)]
    return Shown(
        pairs,
        verdicts,
        sort_orders(LETTERS, verdicts),
        claims(LETTERS, verdicts),
        insert(verdicts, between, rule),
        standings,
        rank(repeated, rule, base="DPQE"),
    )
