"""What a joint search came to: each agent over seeds, and how far the method is ahead of each rival. No torch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from compressor.config.search import SearchConfig
from compressor.data.types import Data
from compressor.records import Cost, Metrics, Quality, Value
from compressor.search.found import Found, LayerNote, Try
from compressor.search.types import Agent
from compressor.studies.moe_results import over_seeds
from compressor.studies.results import score
from compressor.studies.study import Failure

SCHEMA = 1


@dataclass(frozen=True)
class Timings:
    """How latency was foretold: by layers' timings on an engine, off whole networks by at most the share `error`."""

    engine: str
    error: float


@dataclass(frozen=True)
class Baseline:
    """The uncompressed network of a seed; `macs` and `bitops` are of one image."""

    seed: int
    key: str
    val: Quality
    test: Quality
    cost: Cost


@dataclass(frozen=True)
class Trial:
    """One agent with one seed.

    `search` is the key of its search, `keys` those of the training of what it found, first to last. `proxy` is the
    chosen candidate's score on the subset of val, before any training; `val`, `test` and `cost` are of the trained
    network, `latency_ms` what the layers' timings say of it where latency is limited. `evaluations` are different
    candidates, `seconds` the search's.
    """

    agent: Agent
    seed: int
    search: str
    keys: tuple[str, ...]
    proxy: float
    val: Quality
    test: Quality
    cost: Cost
    latency_ms: float | None
    evaluations: int
    seconds: float
    layers: tuple[LayerNote, ...]
    tries: tuple[Try, ...]


@dataclass(frozen=True)
class Summary:
    """An agent over its seeds: means; `val` and `test` with t-intervals of 95 % over seeds (one seed: over images).

    `size`, `bitops` and `macs` are shares of the baseline's, `per_second` candidates.
    """

    agent: Agent
    n: int
    proxy: float
    val: Value
    test: Value
    size: float
    bitops: float
    macs: float
    latency_ms: float | None
    evaluations: float
    per_second: float


@dataclass(frozen=True)
class Duel:
    """The method less a rival, on test, seed by seed, in score (a negative MAE for regression)."""

    rival: Agent
    seeds: tuple[int, ...]
    differences: tuple[float, ...]
    difference: Value

    @property
    def wins(self) -> int:
        """Count the seeds in which the method is strictly above."""
        return sum(difference > 0 for difference in self.differences)


@dataclass(frozen=True)
class Study:
    """The content of search.json.

    `quality` is accuracy (0..1) or -mae; `latency` None where it is not limited; `seconds` sum up all steps' records.
    """

    schema: int
    name: str
    data: str
    skipped: int
    quality: str
    n_val: int
    n_test: int
    settings: SearchConfig
    latency: Timings | None
    baselines: tuple[Baseline, ...]
    trials: tuple[Trial, ...]
    summaries: tuple[Summary, ...]
    duels: tuple[Duel, ...]
    failures: tuple[Failure, ...]
    seconds: float

    @property
    def keys(self) -> tuple[str, ...]:
        """Give the keys of all steps that a number is from, each once."""
        found = [baseline.key for baseline in self.baselines]
        found += [key for trial in self.trials for key in (trial.search, *trial.keys)]
        return tuple(dict.fromkeys(found))


def trial(agent: Agent, found: Found, search: str, metrics: Sequence[Metrics]) -> Trial:
    """Take what an agent found, and the metrics of the steps that trained it, first to last."""
    after = metrics[-1].after
    return Trial(
        agent=agent,
        seed=found.seed,
        search=search,
        keys=tuple(each.key for each in metrics),
        proxy=found.quality,
        val=after.val.quality,
        test=after.test.quality,
        cost=after.cost,
        latency_ms=found.bill.latency,
        evaluations=found.unique,
        seconds=found.seconds,
        layers=found.layers,
        tries=found.tries,
    )


def conclude(
    name: str,
    settings: SearchConfig,
    baselines: Sequence[Baseline],
    trials: Sequence[Trial],
    failures: Sequence[Failure],
    data: Data,
    seconds: float,
    latency: Timings | None,
) -> Study:
    """Take the means over seeds, and the differences seed by seed."""
    accuracy = all("accuracy" in baseline.test.scores for baseline in baselines)
    return Study(
        SCHEMA,
        name,
        data.fingerprint,
        data.skipped,
        "accuracy" if accuracy else "-mae",
        len(data.val),
        len(data.test),
        settings,
        latency,
        tuple(baselines),
        tuple(trials),
        summaries(trials, baselines),
        duels(trials, settings.agent),
        tuple(failures),
        seconds,
    )


def summaries(trials: Sequence[Trial], baselines: Sequence[Baseline]) -> tuple[Summary, ...]:
    """Give each agent's means, in the order in which agents first appear."""
    groups = {t.agent: [other for other in trials if other.agent is t.agent] for t in trials}
    whole = {baseline.seed: baseline.cost for baseline in baselines}
    return tuple(_summary(agent, group, [whole[t.seed] for t in group]) for agent, group in groups.items())


def _summary(agent: Agent, group: Sequence[Trial], whole: Sequence[Cost]) -> Summary:
    pairs = list(zip((t.cost for t in group), whole, strict=True))
    times = [t.latency_ms for t in group if t.latency_ms is not None]
    return Summary(
        agent,
        len(group),
        proxy=float(np.mean([t.proxy for t in group])),
        val=mean_score([t.val for t in group]),
        test=mean_score([t.test for t in group]),
        size=float(np.mean([ours.size_bits / theirs.size_bits for ours, theirs in pairs])),
        bitops=float(np.mean([ours.bitops / theirs.bitops for ours, theirs in pairs])),
        macs=float(np.mean([ours.macs / theirs.macs for ours, theirs in pairs])),
        latency_ms=float(np.mean(times)) if times else None,
        evaluations=float(np.mean([t.evaluations for t in group])),
        per_second=sum(t.evaluations for t in group) / max(1e-9, sum(t.seconds for t in group)),
    )


def mean_score(qualities: Sequence[Quality]) -> Value:
    """Give the mean score with its interval: over seeds, or of one seed over images; higher is better."""
    scores = qualities[0].scores
    if len(qualities) > 1:
        value = over_seeds([score(quality) for quality in qualities])
        return Value(value.value, max(0.0, value.low), min(1.0, value.high)) if "accuracy" in scores else value
    if "accuracy" in scores:
        return scores["accuracy"]
    return Value(-scores["mae"].value, -scores["mae"].high, -scores["mae"].low)


def duels(trials: Sequence[Trial], ours: Agent) -> tuple[Duel, ...]:
    """Compare the method with each rival by the seeds that both have."""
    scores = {(t.agent, t.seed): score(t.test) for t in trials}
    rivals = dict.fromkeys(t.agent for t in trials if t.agent is not ours)
    found = []
    for rival in rivals:
        seeds = tuple(seed for agent, seed in scores if agent is rival and (ours, seed) in scores)
        differences = tuple(scores[ours, seed] - scores[rival, seed] for seed in seeds)
        if seeds:
            found.append(Duel(rival, seeds, differences, over_seeds(differences)))
    return tuple(found)
