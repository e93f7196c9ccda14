"""What a study of mixtures came to: each mixture beside its rivals, over seeds, and whether it pays. No torch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from compressor.config.moe import MoeSettings
from compressor.data.types import Data
from compressor.records import Quality, TimeRecord, Value
from compressor.studies.results import score

EQUAL = 1.02
"""A network has equal active cost that needs at most this many times the mixture's BitOps."""


@dataclass(frozen=True)
class Side:
    """One split: how right the answers are, and the mean MACs and BitOps an image."""

    quality: Quality
    macs: float
    bitops: float


@dataclass(frozen=True)
class Contender:
    """A mixture or a rival, of one seed. `keys`: the steps whose results its numbers are from.

    `shares` are of the test images that each expert answers; none where there is one network only.
    """

    name: str
    keys: tuple[str, ...]
    val: Side
    test: Side
    params: int
    size_bits: int
    shares: tuple[float, ...] = ()


@dataclass(frozen=True)
class Spot:
    """What a mixture scores and costs where its budget allows `limit` BitOps an image on val."""

    limit: float
    val: float
    test: float
    val_bitops: float
    test_bitops: float


@dataclass(frozen=True)
class Collapse:
    """A router that sends nearly all of val to one expert although the choice of another would help.

    `share` is the expert's of val; `reached` and `possible` are the mixture's score on val and that of the oracle.
    """

    expert: int
    share: float
    reached: float
    possible: float
    advice: str


@dataclass(frozen=True)
class Trial:
    """One seed: its steps, the mixture and all rivals, the experts one by one, and where budgets lead.

    `by_class` is the share of each class's test images that each expert answers (none where there are no classes);
    `router_share` is the router's part of the mean MACs on test, and `times` are seconds an image, of all and of it.
    """

    seed: int
    key: str
    baseline: str
    experts: tuple[str, ...]
    contenders: tuple[Contender, ...]
    candidates: tuple[Contender, ...]
    sweep: tuple[Spot, ...]
    by_class: tuple[tuple[float, ...], ...]
    router_share: float
    times: tuple[TimeRecord, ...]
    collapse: Collapse | None


@dataclass(frozen=True)
class Summary:
    """A contender over seeds: means, of scores with a t-interval over seeds (of one seed: the interval over images)."""

    name: str
    n: int
    val: Value
    test: Value
    auc: Value | None
    macs: float
    bitops: float
    params: float
    size_bits: float
    largest_share: float | None
    macs_ratio: float
    bitops_ratio: float
    size_ratio: float


@dataclass(frozen=True)
class Verdict:
    """How far the mixture is ahead of the best single expert of equal active cost, on test, seed by seed.

    `seeds` are those with an expert that is as cheap; `difference` is None where there is none.
    """

    seeds: tuple[int, ...]
    rivals: tuple[str, ...]
    differences: tuple[float, ...]
    difference: Value | None

    @property
    def ahead(self) -> bool:
        """Tell whether the mixture's mean is strictly above."""
        return self.difference is not None and self.difference.value > 0

    @property
    def uncertain(self) -> bool:
        """Tell whether the interval over seeds holds 0."""
        return self.difference is not None and self.difference.low <= 0 <= self.difference.high


@dataclass(frozen=True)
class Study:
    """The content of moe.json. `score` is accuracy or mae; `experts` are the experts alone, in summaries' form."""

    schema: int
    name: str
    data: str
    skipped: int
    classes: tuple[str, ...]
    score: str
    settings: MoeSettings
    summaries: tuple[Summary, ...]
    experts: tuple[Summary, ...]
    verdict: Verdict
    trials: tuple[Trial, ...]

    @property
    def keys(self) -> tuple[str, ...]:
        """Give the keys of all steps that a number is from, each once."""
        contenders = (c for trial in self.trials for c in (*trial.contenders, *trial.candidates))
        return tuple(dict.fromkeys(key for c in contenders for key in c.keys))


SCHEMA = 1
MIXTURE, BASELINE, ORACLE, EQUAL_COST = "mixture", "baseline", "oracle router", "best single expert as cheap"
AS_CHEAP, AS_LARGE = "single network as cheap", "single network of its size"


def best(candidates: Sequence[Contender], limit: float | None = None) -> Contender | None:
    """Choose on val, the cheaper of equals, among those of at most `limit` mean BitOps on val."""
    cheap = [c for c in candidates if limit is None or c.val.bitops <= limit]
    return max(cheap, key=lambda c: (score(c.val.quality), -c.val.bitops), default=None)


def named(trial: Trial, name: str) -> Contender | None:
    """Find a contender."""
    return next((c for c in trial.contenders if c.name == name), None)


def verdict(trials: Sequence[Trial]) -> Verdict:
    """Compare the mixtures with the best single experts of equal active cost."""
    pairs = [(t, named(t, MIXTURE), named(t, EQUAL_COST)) for t in trials]
    found = [(t.seed, ours, rival) for t, ours, rival in pairs if ours and rival]
    differences = tuple(score(ours.test.quality) - score(rival.test.quality) for _, ours, rival in found)
    seeds, rivals = tuple(seed for seed, _, _ in found), tuple(rival.keys[0] for _, _, rival in found)
    return Verdict(seeds, rivals, differences, over_seeds(differences) if differences else None)


def over_seeds(values: Sequence[float]) -> Value:
    """Give a mean with its t-interval of 95 %; one value has none."""
    mean, n = float(np.mean(values)), len(values)
    if n == 1:
        return Value(mean, mean, mean)
    half = float(stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) / n**0.5)
    return Value(mean, mean - half, mean + half)


def conclude(name: str, settings: MoeSettings, trials: Sequence[Trial], data: Data) -> Study:
    """Take the means over seeds, and the verdict."""
    accuracy = "accuracy" in trials[0].contenders[0].test.quality.scores
    rows, experts = ([getattr(trial, part) for trial in trials] for part in ("contenders", "candidates"))
    originals = [c for trial in trials if (c := named(trial, BASELINE))]
    return Study(
        SCHEMA,
        name,
        data.fingerprint,
        data.skipped,
        data.task.names or tuple(str(i) for i in range(data.task.outputs)),
        "accuracy" if accuracy else "mae",
        settings,
        summaries(rows, originals),
        summaries(experts, originals),
        verdict(trials),
        tuple(trials),
    )


def summaries(rows: Sequence[Sequence[Contender]], originals: Sequence[Contender]) -> tuple[Summary, ...]:
    """Give each contender's means, in the order of the first seed; ratios are to the means of the originals."""
    names = dict.fromkeys(c.name for row in rows for c in row)
    groups = {name: [c for row in rows for c in row if c.name == name] for name in names}
    return tuple(_summary(name, group, originals) for name, group in groups.items())


def _summary(name: str, group: Sequence[Contender], originals: Sequence[Contender]) -> Summary:
    macs, bitops, size = (_mean(group, part) for part in (_macs, _bitops, _size))
    aucs = [c.test.quality.scores["auc"] for c in group if "auc" in c.test.quality.scores]
    largest = [max(c.shares) for c in group if c.shares]
    return Summary(
        name,
        len(group),
        val=_score([c.val.quality for c in group]),
        test=_score([c.test.quality for c in group]),
        auc=_auc(aucs),
        macs=macs,
        bitops=bitops,
        params=_mean(group, lambda c: c.params),
        size_bits=size,
        largest_share=float(np.mean(largest)) if largest else None,
        macs_ratio=_mean(originals, _macs) / macs,
        bitops_ratio=_mean(originals, _bitops) / bitops,
        size_ratio=_mean(originals, _size) / size,
    )


def _auc(values: Sequence[Value]) -> Value | None:
    if len(values) < 2:
        return values[0] if values else None
    return _share(over_seeds([value.value for value in values]))


def _score(qualities: Sequence[Quality]) -> Value:
    """Give accuracy, or MAE where there is none (as it is, so that lower is better)."""
    name = "accuracy" if "accuracy" in qualities[0].scores else "mae"
    if len(qualities) == 1:
        return qualities[0].scores[name]
    value = over_seeds([quality.scores[name].value for quality in qualities])
    return _share(value) if name == "accuracy" else value


def _share(value: Value) -> Value:
    """Keep an interval within 0 to 1."""
    return Value(value.value, max(0.0, value.low), min(1.0, value.high))


def _mean(group: Sequence[Contender], part) -> float:
    return float(np.mean([part(c) for c in group]))


def _macs(contender: Contender) -> float:
    return contender.test.macs


def _bitops(contender: Contender) -> float:
    return contender.test.bitops


def _size(contender: Contender) -> float:
    return contender.size_bits
