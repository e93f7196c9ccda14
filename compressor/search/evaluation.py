"""How good a policy is, without training it to its end: one network whose tensors are exchanged, never rebuilt."""

import itertools
import math
import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch

from compressor.arch import condensed
from compressor.calibration import calibrate, recalibrate_norms
from compressor.config.fit import Schedule
from compressor.config.joint import JointConfig
from compressor.config.search import SearchConfig
from compressor.data.types import Split
from compressor.errors import TrainingError
from compressor.layers import float_activations
from compressor.losses import Loss
from compressor.model import Model
from compressor.phases.joint import assign, decided, unsettled
from compressor.phases.teaching import recovery_loss
from compressor.routing import all_outputs
from compressor.search.budget import bill_of
from compressor.search.candidates import Candidates, key_of
from compressor.search.scoring import Score, score_of
from compressor.search.space import Space, realise
from compressor.search.stage import Plan, Stage
from compressor.search.types import Candidate, Policy
from compressor.training import Context, batches, begin, learn, prepare

MEMORY = 100
"""Batches of which the teacher's answers are remembered: 40 bytes an image for 10 classes."""


class Evaluator:
    """Evaluates policies of one model on a fixed part of val.

    A score is that of what `phases.joint.assign` would make without epochs. `baseline` is the model's own quality.
    """

    def __init__(
        self,
        model: Model,
        context: Context,
        space: Space,
        ranking: Mapping[str, tuple[int, ...]],
        config: SearchConfig,
    ) -> None:
        self.model, self.context, self.space, self.ranking, self.config = model, context, space, ranking, config
        self.val = _part(context.data.val, config.images)
        self.targets = torch.from_numpy(np.array(self.val.targets))
        self.stage = Stage(model)
        self.count, self.seconds = 0, 0.0
        self.whole = all_outputs(model, self.val)[-1]
        self.baseline = self._score(model).quality

    @property
    def per_second(self) -> float:
        """Give the candidates evaluated in a second, so far."""
        return self.count / self.seconds if self.seconds else 0.0

    def plan(self, policy: Policy) -> Plan:
        """Give the network of a policy; two policies of one network have one plan."""
        kept, rule = realise(policy, self.space, self.ranking)
        there, arch = decided(self.model.arch, kept, rule)
        return Plan(there, condensed(arch))

    def key(self, policy: Policy) -> str:
        """Give the digest of all that is evaluated."""
        return self._key(self.plan(policy), self.config.tune)

    def _key(self, plan: Plan, tune: int) -> str:
        config = self.config
        how = [config.images, config.recalibrate, tune, config.tune_lr]
        return key_of(plan, how, config.joint, self.context.data.fingerprint)

    def evaluate(self, policy: Policy) -> Score:
        """Give the score of a policy."""
        return self._evaluate(policy, self.plan(policy), self.config.tune)

    def candidate(self, policy: Policy, known: Candidates, *, trained: bool = True) -> Candidate:
        """Evaluate a policy, trained for some batches or not at all, or give what is known of it; remember it."""
        plan, tune = self.plan(policy), self.config.tune if trained else 0
        return self._noted(self._key(plan, tune), policy, tune, known, lambda: self._evaluate(policy, plan, tune))

    def finalist(self, policy: Policy, known: Candidates) -> Candidate:
        """Score a policy after a longer training than a candidate's, or give what is known; remember it."""
        batches = self.config.finalist_batches
        key = key_of(self.key(policy), "finalist", batches)
        return self._noted(key, policy, batches, known, lambda: self._trained(policy, batches))

    def _noted(
        self, key: str, policy: Policy, batches: int, known: Candidates, score: Callable[[], Score]
    ) -> Candidate:
        if (found := known.get(key)) is None:
            began, got = time.monotonic(), score()
            bill, seconds = bill_of(policy, self.space), time.monotonic() - began
            found = Candidate(key, policy, got.likeness, got.quality, bill, batches, seconds)
            known.add(found)
        return found

    def _evaluate(self, policy: Policy, plan: Plan, tune: int) -> Score:
        began, config = time.monotonic(), self.config
        if tune:
            score = self._trained(policy, tune)
        else:
            made, seed = self.stage.play(plan), config.joint.fit.seed
            if unsettled(plan.arch, self.model.arch):
                with float_activations(made.net):
                    recalibrate_norms(made, self.context, images=config.recalibrate, seed=seed)
            calibrate(made, self.context, images=config.joint.calibrate, seed=seed)
            score = self._score(made)
        self.count, self.seconds = self.count + 1, self.seconds + time.monotonic() - began
        return score

    def made(self, policy: Policy) -> Model:
        """Make the network of a policy, trained for no epoch."""
        kept, rule = realise(policy, self.space, self.ranking)
        joint = self.config.joint
        fit = replace(joint.fit, epochs=0)
        config = JointConfig(kept, rule, self.config.recalibrate, joint.calibrate, joint.recovery, fit)
        return assign(config, self.context, self.model)

    def _trained(self, policy: Policy, count: int) -> Score:
        """Score the network of a policy after some batches of training; one that diverges is the worst."""
        try:
            return self._score(self._tuned(policy, count))
        except TrainingError:
            return self._scored(torch.full_like(self.whole, math.nan))

    def _tuned(self, policy: Policy, count: int) -> Model:
        """Make the network of a policy and train it for some batches, with the final training's teacher if it has one.

        The learning rate falls to 0 and norms' statistics are taken anew at the end: their running averages lag behind
        weights that moved for some batches only.
        """
        model, config, train = self.made(policy), self.config, self.context.data.train
        fit = replace(config.joint.fit, lr=config.tune_lr, warmup=0.0, schedule=Schedule.CONSTANT, ema=0.0)
        fitting = begin(model, fit, self.context, self._loss)
        shuffled = (
            (epoch, number, batch)
            for epoch in itertools.count()
            for number, batch in enumerate(batches(train, fit.batch, seed=fit.seed, epoch=epoch))
        )
        model.net.train()
        for left, (epoch, number, batch) in zip(range(count, 0, -1), shuffled, strict=False):
            fitting.config = replace(fit, lr=config.tune_lr * left / count)
            fitting.place.epoch, fitting.place.batch = epoch, number
            learn(fitting, *prepare(fitting, *batch))
        model.net.to("cpu")
        recalibrate_norms(model, self.context, images=config.recalibrate, seed=fit.seed)
        model.net.eval()
        return model

    @cached_property
    def _loss(self) -> Loss | None:
        """What the final training minimises; its teacher is one copy for all, as it is laid out anew.

        All short trainings see the same first batches, so it is asked once for each.
        """
        joint = self.config.joint
        teacher = deepcopy(self.model) if joint.recovery.teacher == "baseline" else None
        return recovery_loss(joint.recovery, self.context, teacher, joint.fit, memory=MEMORY)

    def _score(self, model: Model) -> Score:
        return self._scored(all_outputs(model, self.val)[-1])

    def _scored(self, out: torch.Tensor) -> Score:
        return score_of(out, self.whole, self.targets, self.context.data.task)


def _part(split: Split, count: int) -> Split:
    """Give evenly spaced images of a split, all of them for 0."""
    if count == 0 or count >= len(split):
        return split
    rows = np.arange(count) * len(split) // count
    return Split(np.ascontiguousarray(split.images[rows]), split.targets[rows])
