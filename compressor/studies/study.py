"""What an order study found, as plain data: every claim names the records behind it. No torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from compressor.config import StudyConfig
from compressor.data.types import Data
from compressor.store import Store
from compressor.studies.board import USABLE, Outcome, State
from compressor.studies.comparing import PairPoints
from compressor.studies.fronts import Point
from compressor.studies.orders import Part, Plan
from compressor.studies.ranking import Standing, Summary, rank, summaries
from compressor.studies.results import Result, points, read_results
from compressor.studies.sorting import Claim, Sorting, claims, sort_orders
from compressor.studies.verdicts import Insertion, Rule, Verdict, decide, insert

SCHEMA = 1


@dataclass(frozen=True)
class Failure:
    """A step without a result, and why."""

    key: str
    state: State
    error: str


@dataclass(frozen=True)
class Study:
    """The content of study.json.

    `quality`: accuracy (0..1) or -mae; `data`: the images' fingerprint; `n_val` and `n_test`: how many images each
    number is of; `seconds`: what the records of all steps sum up to.
    """

    schema: int
    name: str
    letters: str
    quality: str
    data: str
    n_val: int
    n_test: int
    seeds: tuple[int, ...]
    level: float
    grid: dict[str, tuple[dict[str, Any], ...]]
    setting: int
    verdicts: tuple[Verdict, ...]
    sorting: Sorting | None
    reference: str
    claims: tuple[Claim, ...]
    singles: tuple[Summary, ...]
    insertions: tuple[Insertion, ...]
    permutations: tuple[Standing, ...]
    repetition: tuple[Standing, ...]
    results: tuple[Result, ...]
    failures: tuple[Failure, ...]
    steps: int
    seconds: float


def conclude(
    name: str, config: StudyConfig, plan: Plan, outcomes: Mapping[str, Outcome], store: Store, data: Data
) -> Study:
    """Decide by the results there are.

    Raises:
        StoreError: metrics that a claim would rest on are damaged.
    """
    results = read_results(plan, outcomes, store)
    counted = data.task.kind.value != "regression"
    rule = Rule(config.level, 1 / len(data.val) if counted else 0.0, 1 / len(data.test) if counted else 0.0)
    verdicts = decide(pairs_of(config.letters, results), rule) if config.parts.pairwise else ()
    between = _between(config.letters, results) if config.parts.insertion else {}
    return Study(
        schema=SCHEMA,
        name=name,
        letters=config.letters,
        quality="accuracy" if counted else "-mae",
        data=data.fingerprint,
        n_val=len(data.val),
        n_test=len(data.test),
        seeds=config.seeds,
        level=config.level,
        grid={letter: config.grid[letter] for letter in config.letters},
        setting=config.setting,
        verdicts=verdicts,
        sorting=sort_orders(config.letters, verdicts) if verdicts else None,
        reference=config.reference,
        claims=claims(config.reference, verdicts),
        singles=summaries(points(results, Part.SINGLES), config.level),
        insertions=insert(verdicts, between, rule),
        permutations=rank(points(results, Part.PERMUTATIONS), rule),
        repetition=rank(points(results, Part.REPETITION), rule, base=next(iter(config.repeats), None)),
        results=results,
        failures=failures(outcomes),
        steps=len(outcomes),
        seconds=sum(outcome.seconds for outcome in outcomes.values() if outcome.state in USABLE),
    )


def failures(outcomes: Mapping[str, Outcome]) -> tuple[Failure, ...]:
    """List the steps without a result, those that failed themselves first."""
    bad = [outcome for outcome in outcomes.values() if outcome.state not in USABLE]
    bad.sort(key=lambda outcome: outcome.state is State.BLOCKED)
    return tuple(Failure(outcome.key, outcome.state, outcome.error or "") for outcome in bad)


def pairs_of(letters: str, results: Sequence[Result]) -> dict[tuple[str, str], PairPoints]:
    """Give the points of each pair of letters, both ways."""
    found = points(results, Part.PAIRWISE)
    return {(x, y): _sides(found, x + y) for x, y in combinations(letters, 2)}


def _between(letters: str, results: Sequence[Result]) -> dict[tuple[str, str, str], PairPoints]:
    found, pairs = points(results, Part.INSERTION), combinations(letters, 2)
    return {(x, y, z): _sides(found, x + z + y) for x, y in pairs for z in letters if z not in (x, y)}


def _sides(found: Sequence[Point], order: str) -> PairPoints:
    return PairPoints(*(tuple(p for p in found if p.order == side) for side in (order, order[::-1])))
