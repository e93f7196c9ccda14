"""Whatever is chosen hangs on val: other test images change nothing of it, other val images do."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import mixtures
import numpy as np
import pytest
import samples
import spaces
import torch

from compressor.arch import Limit, Routing, Unit
from compressor.data.types import Data, Split
from compressor.measure import settle, val_loss
from compressor.mixture import Mixture, at_budget, costs, decide, measure, mix, survey
from compressor.mixture import settle as settle_mixture
from compressor.mixture.execution import run
from compressor.mixture.rule import reach
from compressor.search.evaluation import Evaluator
from compressor.search.space import ranking_of, space_of
from compressor.studies.moe_rivals import Arena, sweep
from compressor.training import Context, fit

RISING = (Routing.THRESHOLD, Routing.CASCADE)


def other(split: Split) -> Split:
    """Give as many other images: turned, and answered otherwise."""
    images = np.ascontiguousarray(np.rot90(split.images, axes=(2, 3)))
    return Split(images, (np.asarray(split.targets) + 3) % 10)


def budgeted(routing: Routing) -> Mixture:
    """Give a mixture that may spend half of what it could."""
    mixture = mixtures.toy(routing)
    counted = costs(mixture)
    least, most = counted.least(mixture.rule, Unit.MACS), counted.worst(mixture.rule, Unit.MACS)
    mixture.follow(replace(mixture.rule, limit=Limit(Unit.MACS, (least + most) / 2)))
    return mixture


def rule_of(routing: Routing) -> Callable[[Data, Context], Any]:
    def choose(data: Data, context: Context) -> Any:
        mixture = budgeted(routing)
        settle_mixture(mixture, data, samples.RUNTIME)
        return mixture.rule

    return choose


def thresholds(data: Data, context: Context) -> Any:
    """Choose the exits' thresholds of a network that has learned a little."""
    model = samples.model(samples.arch(exits=replace(mixtures.EXITS, drop=0.2)), 0)
    model = fit(model, replace(samples.FIT, epochs=2, lr=0.05), context)
    settle(model, data, samples.RUNTIME)
    return model.net.thresholds.tolist()


def reward(data: Data, context: Context) -> Any:
    """Score a candidate of a search, and train it as a finalist would be."""
    model, config = samples.model(samples.arch(), 0), spaces.config(images=0, recalibrate=64)
    space = space_of(model, config)
    evaluator = Evaluator(
        model, replace(context, data=data), space, ranking_of(model, data, config.criterion, 0), config
    )
    return evaluator.baseline, evaluator.whole.tolist()


def loss(data: Data, context: Context) -> Any:
    return val_loss(samples.model(samples.arch(), 0), data)


def swept(data: Data, context: Context) -> Any:
    """Choose the rules of a mixture's curve of cost and quality."""
    spots = sweep(Arena(mixtures.toy(Routing.THRESHOLD), "key", data, samples.RUNTIME))
    return [(spot.limit, spot.val, spot.val_bitops) for spot in spots]


CHOICES = {f"{routing} rule": rule_of(routing) for routing in (Routing.TOP1, Routing.TOPK)} | {
    "exits": thresholds,
    "search": reward,
    "loss": loss,
    "sweep": swept,
}


@pytest.mark.parametrize("name", CHOICES)
def test_what_is_chosen_hangs_on_val_and_never_on_test(name: str, context: Context) -> None:
    data = context.data

    def chosen(data: Data, number: int) -> Any:
        torch.manual_seed(0)
        return CHOICES[name](data, samples.afresh(context, f"scratch-{number}"))

    first = chosen(data, 0)
    assert chosen(replace(data, test=other(data.test)), 1) == first
    assert chosen(replace(data, val=other(data.val)), 2) != first, "the other images are no others"


def planted(mixture: Mixture, split: Split, quantile: float) -> Split:
    """Give the images the answers of the mixture at a threshold, which so is the best one."""
    found = survey(mixture, split)
    threshold = reach(found.scores, mixture.rule)[:, 0].quantile(quantile).item()
    weights = decide(found.scores, replace(mixture.rule, threshold=threshold))
    return Split(split.images, mix(found.outputs, weights, mixture.task).argmax(dim=1).numpy())


@pytest.mark.parametrize("routing", RISING)
def test_the_threshold_of_a_mixture_is_the_best_on_val_where_another_is_on_test(routing: Routing, digits: Data) -> None:
    mixture = mixtures.toy(routing)
    data = replace(digits, val=planted(mixture, digits.val, 0.3), test=planted(mixture, digits.test, 0.8))
    on_val, on_test = (
        at_budget(mixture, survey(mixture, split), float("inf"), targets=torch.from_numpy(split.targets)).threshold
        for split in (data.val, data.test)
    )
    assert abs(on_val - on_test) > 0.01, "nothing is planted"
    settle_mixture(mixture, data, samples.RUNTIME)
    assert mixture.rule.threshold == on_val


def test_a_router_has_collapsed_where_it_has_on_val(digits: Data) -> None:
    mixture = mixtures.toy()
    image = np.repeat(digits.val.images[:1], len(digits.val), axis=0)
    seen = survey(mixture, Split(image, digits.val.targets))
    expert = int(decide(seen.scores, mixture.rule)[0].argmax())
    answers = seen.outputs.argmax(dim=2)[:, 0]
    right = next(int(answer) for answer in answers if answer != answers[expert])
    single = Split(image, np.full(len(image), right))
    assert int(run(mixture, torch.from_numpy(image[:1])).outputs.argmax()) != right
    for val, test, collapsed in ((single, digits.test, expert), (digits.val, single, None)):
        measured = measure(mixture, replace(digits, val=val, test=test), samples.RUNTIME)
        assert measured.mixture is not None
        assert measured.mixture.collapsed == collapsed
