"""What the trials of a study came to, read from the records of their steps."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from compressor.errors import CompressorError, StoreError
from compressor.folders import proved_metrics
from compressor.records import Metrics, Quality
from compressor.store import Store
from compressor.studies.board import USABLE, Outcome
from compressor.studies.fronts import Point
from compressor.studies.orders import Part, Plan, Trial


@dataclass(frozen=True)
class Result:
    """One trial that has a result.

    `keys` are its steps, first to last; the point's key is the last. `worst_ratio` is the bitops_ratio of an image that
    takes the whole way, which all orders of the same settings share.
    """

    part: Part
    point: Point
    keys: tuple[str, ...]
    worst_ratio: float
    size_ratio: float


def score(quality: Quality) -> float:
    """Give the one number that is compared, higher is better: accuracy in 0..1, or the negative MAE."""
    scores = quality.scores
    return scores["accuracy"].value if "accuracy" in scores else -scores["mae"].value


def read_results(plan: Plan, outcomes: Mapping[str, Outcome], store: Store) -> tuple[Result, ...]:
    """Read the trials whose last step has a result; each step's metrics are read once."""
    finished = (trial for trial, chain in plan.chains.items() if _usable(outcomes, chain[-1].key))
    metrics: dict[str, Metrics] = {}
    results = []
    for trial in finished:
        keys = tuple(source.key for source in plan.chains[trial])
        if keys[-1] not in metrics:
            metrics[keys[-1]] = _metrics(store, keys[-1])
        results.append(_result(trial, keys, metrics[keys[-1]]))
    return tuple(results)


def _usable(outcomes: Mapping[str, Outcome], key: str) -> bool:
    return key in outcomes and outcomes[key].state in USABLE


def _metrics(store: Store, key: str) -> Metrics:
    folder = store.folder(key)
    try:
        return proved_metrics(folder)
    except CompressorError as error:
        raise StoreError(f"{error}; remove {folder} and the step is run again") from None


def _result(trial: Trial, keys: tuple[str, ...], metrics: Metrics) -> Result:
    after, original = metrics.after, metrics.original
    point = Point(
        order=trial.order,
        setting=trial.setting,
        seed=trial.seed,
        key=keys[-1],
        val=score(after.val.quality),
        test=score(after.test.quality),
        val_bitops=original.bitops / after.val.bitops,
        test_bitops=original.bitops / after.test.bitops,
    )
    worst = original.bitops / after.cost.bitops
    return Result(trial.part, point, keys, worst, metrics.size_ratio)


def points(results: Iterable[Result], part: Part) -> tuple[Point, ...]:
    """Give the points of a part."""
    return tuple(result.point for result in results if result.part is part)
