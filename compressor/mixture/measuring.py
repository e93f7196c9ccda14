"""Quality and cost of a mixture, who answers what, and how long the router takes; and what is chosen on val."""

import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from compressor import measure as single
from compressor.arch import Routing, TaskKind, Unit
from compressor.compute import device_of, threads
from compressor.config import RuntimeConfig
from compressor.data.types import Data, Split
from compressor.mixture.choice import at_budget, oracle, weighted
from compressor.mixture.costs import MixtureCosts, PartCost, costs
from compressor.mixture.execution import NOT_RUN, Survey, answer, entered, routed, run, survey
from compressor.mixture.rule import decide
from compressor.mixture.types import Mixture
from compressor.quality import per_image, quality
from compressor.records import (
    Cost,
    Measurement,
    MixtureRecord,
    PartRecord,
    RoutesRecord,
    SplitMetrics,
    TimeRecord,
)

COLLAPSE = 0.95
"""An expert with a greater share of val has swallowed the others, where they would help."""

MISSED, MISSED_ERROR = 0.005, 0.05
"""They would help if the oracle is better by so much accuracy, or by such a share of the MAE."""

TIMED = ((1, 24), (256, 5))
"""Batch sizes that are timed, and how often."""


def settle(mixture: Mixture, data: Data, runtime: RuntimeConfig) -> None:
    """Choose on val, in place: the experts' own exits, then the prices or threshold that the budget asks for."""
    for expert in mixture.experts:
        single.settle(expert, data, runtime)
    limit = mixture.rule.limit
    if limit is None and not mixture.rule.rising:
        return
    with threads(runtime, lambda: worst_macs(mixture)):
        found = survey(mixture, data.val)
    unit, mean = (limit.unit, limit.mean) if limit else (Unit.BITOPS, float("inf"))
    mixture.follow(at_budget(mixture, found, mean, unit, _targets(data.val)))


def worst_macs(mixture: Mixture) -> int:
    """Give the multiply-accumulates of the image that costs most."""
    return costs(mixture).worst(mixture.rule, Unit.MACS)


def measure(mixture: Mixture, data: Data, runtime: RuntimeConfig) -> Measurement:
    """Measure a mixture on val and test in fp32, as it runs; `checkpoint_bytes` is 0 until it is on disk."""
    counted = costs(mixture)
    with threads(runtime, lambda: counted.worst(mixture.rule, Unit.MACS)):
        mixture.net.to(device_of(runtime))
        found = [survey(mixture, split) for split in (data.val, data.test)]
        splits = [_split(mixture, counted, data, *pair) for pair in zip((data.val, data.test), found, strict=True)]
        times = tuple(_time(mixture, data.test, *how) for how in TIMED)
        mixture.net.to("cpu")
    (val, on_val), (test, on_test) = splits
    worst = [counted.worst(mixture.rule, unit) for unit in (Unit.MACS, Unit.BITOPS)]
    part = MixtureRecord(
        str(mixture.rule.routing),
        _part(counted.first),
        _part(counted.router),
        tuple(map(_part, counted.experts)),
        on_val,
        on_test,
        counted.router.macs / test.macs,
        _collapsed(mixture, on_val, data, found[0]),
        times,
    )
    total = Cost(counted.params, worst[0], worst[1], counted.size_bits, checkpoint_bytes=0)
    return Measurement(val, test, total, part)


def _part(part: PartCost) -> PartRecord:
    return PartRecord(part.params, part.macs, part.bitops, part.size_bits)


def _split(
    mixture: Mixture, counted: MixtureCosts, data: Data, split: Split, found: Survey
) -> tuple[SplitMetrics, RoutesRecord]:
    targets, medmnist = _targets(split), data.flag is not None
    given = answer(mixture, split)
    ran, answered = given.heads != NOT_RUN, (given.weights > 0).double()
    metrics = SplitMetrics(
        quality=quality(given.outputs, targets, data.task, medmnist=medmnist),
        heads=tuple(quality(out, targets, data.task, medmnist=medmnist) for out in found.outputs),
        shares=tuple(answered.mean(dim=0).tolist()),
        macs=counted.mean(ran, given.heads, Unit.MACS),
        bitops=counted.mean(ran, given.heads, Unit.BITOPS),
    )
    best = weighted(mixture, found, oracle(found, mixture.rule, targets, data.task))
    mean = float(per_image(best.outputs, targets, data.task).double().mean())
    return metrics, RoutesRecord(_by_class(answered, targets, data), mean)


def _targets(split: Split) -> Tensor:
    return torch.from_numpy(np.array(split.targets))


def _by_class(answered: Tensor, targets: Tensor, data: Data) -> tuple[tuple[float, ...], ...]:
    """Give the share of each class' images that each expert answers; zeros for a class without images."""
    if data.task.kind is TaskKind.REGRESSION:
        return ()
    multilabel = data.task.kind is TaskKind.MULTILABEL
    of_class = [targets[:, k] > 0.5 if multilabel else targets == k for k in range(data.task.outputs)]
    return tuple(tuple((answered[rows].sum(dim=0) / max(1, int(rows.sum()))).tolist()) for rows in of_class)


def _collapsed(mixture: Mixture, routes: RoutesRecord, data: Data, found: Survey) -> int | None:
    """Name the expert that weighs most for nearly every image of val although the others would help."""
    rule = mixture.rule
    if rule.routing is Routing.SOFT or (rule.routing is Routing.TOPK and rule.k == len(mixture.experts)):
        return None
    first = decide(found.scores, rule).argmax(dim=1)
    shares = torch.bincount(first, minlength=len(mixture.experts)).double() / max(1, len(first))
    largest = int(shares.argmax())
    if shares[largest] <= COLLAPSE:
        return None
    alone = float(per_image(found.outputs[largest], _targets(data.val), data.task).double().mean())
    missed = routes.oracle - alone
    least = MISSED_ERROR * -alone if data.task.kind is TaskKind.REGRESSION else MISSED
    return largest if missed > least else None


@torch.no_grad()
def _time(mixture: Mixture, split: Split, batch: int, times: int) -> TimeRecord:
    """Take the median time of an image in batches of a size, of all that is run and of the router's part alone."""
    rows = np.arange(batch * times) % len(split)
    parts = [torch.from_numpy(np.array(split.images[rows[i * batch : (i + 1) * batch]])) for i in range(times)]
    whole = _median(lambda images: run(mixture, images), parts)
    router = 0.0
    if mixture.router:
        router = _median(lambda x: routed(mixture, x), [entered(mixture, images) for images in parts])
    return TimeRecord(batch, whole / batch, router / batch)


def _median(call: Callable[[Tensor], object], parts: list[Tensor]) -> float:
    call(parts[0])  # the first call prepares
    seconds = []
    for part in parts:
        began = time.perf_counter()
        call(part)
        seconds.append(time.perf_counter() - began)
    return float(np.median(seconds))
