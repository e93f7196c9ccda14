"""The one training loop. It resumes to the bit from wherever it was saved."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from compressor import checkpointing, history
from compressor.compute import autocast, device_of, place, threads
from compressor.config import FitConfig, Optimizer, RuntimeConfig, Schedule
from compressor.data.augment import augment
from compressor.data.types import Data, Split
from compressor.errors import DataError, TrainingError
from compressor.interrupts import deferred
from compressor.losses import Loss, task_loss
from compressor.measure import val_loss, worst_macs
from compressor.model import Model, Trainable, is_threshold
from compressor.progress import Advance, Progress, silent

T = TypeVar("T", bound=Trainable)


@dataclass(frozen=True)
class Context:
    """What a phase may use beside its config and models. Nothing here is part of a key.

    `scratch` is where a training keeps its resume state, history and curves; `files` gives the file of each digest
    that a config names.
    """

    data: Data
    scratch: Path
    runtime: RuntimeConfig
    files: Mapping[str, Path] = field(default_factory=dict)
    progress: Progress = silent


@dataclass
class Place:
    """Where a training is: whole epochs done, batches of the running one, its summed loss, and seconds so far."""

    epoch: int = 0
    batch: int = 0
    loss: float = 0.0
    seconds: float = 0.0


@dataclass
class Fitting:
    """One training under way: what it was told, and all that moves."""

    model: Trainable
    config: FitConfig
    context: Context
    loss: Loss
    only: str | None
    device: torch.device
    forward: nn.Module
    optimizer: torch.optim.Optimizer
    average: dict[str, Tensor] | None
    scales: list[Tensor]
    place: Place = field(default_factory=Place)

    @property
    def per_epoch(self) -> int:
        """Give the number of batches of an epoch."""
        return max(1, len(self.context.data.train) // self.config.batch)

    @property
    def step(self) -> int:
        """Give the number of batches done."""
        return self.place.epoch * self.per_epoch + self.place.batch


def batches(split: Split, size: int, *, seed: int, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield shuffled uint8 images and targets that depend on seed and epoch alone, from batch `start` on.

    The last part of an epoch that fills no batch is left out, except where it is all there is.
    """
    order = torch.randperm(len(split), generator=generator(seed, epoch)).numpy()
    for first in range(start * size, max(1, len(order) - size + 1), size):
        index = np.sort(order[first : first + size])
        yield torch.from_numpy(np.ascontiguousarray(split.images[index])), torch.from_numpy(split.targets[index])


def generator(*parts: int) -> torch.Generator:
    """Give a source of random numbers that depends on the given numbers alone."""
    mixed = np.random.SeedSequence(parts).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(mixed >> np.uint64(1)))


def rate(config: FitConfig, step: int, per_epoch: int) -> float:
    """Give the learning rate of a step: linear warm-up, then the schedule; one-cycle climbs for 30 % of the steps."""
    total, warm = max(1, config.epochs * per_epoch), config.warmup * per_epoch
    if config.schedule is Schedule.ONECYCLE:
        peak = 0.3 * total
        if step < peak:
            return config.lr * (0.04 + 0.96 * step / peak)
        return config.lr * (1e-4 + 0.9999 * 0.5 * (1 + math.cos(math.pi * (step - peak) / (total - peak))))
    if step < warm:
        return config.lr * (step + 1) / (warm + 1)
    if config.schedule is Schedule.CONSTANT:
        return config.lr
    return config.lr * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))


def optimizer_for(net: nn.Module, config: FitConfig) -> torch.optim.Optimizer:
    """Give the optimizer of what is trainable; weight decay is for weights of layers, not norms, biases or scales."""
    named = [(name, p) for name, p in net.named_parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for _, p in named if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for _, p in named if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if config.optimizer is Optimizer.ADAMW:
        return torch.optim.AdamW(groups, lr=config.lr, betas=(config.momentum, 0.999), fused=True)
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.momentum > 0, fused=True)


def fit(model: Model, config: FitConfig, context: Context, loss: Loss | None = None, only: str | None = None) -> Model:
    """Train in place and return the model, in eval mode; an interrupted call goes on where it was.

    Args:
        model: what to train; its weights end as their running average where `fit.ema` is above 0.
        config: how.
        context: the data and where to keep the state; `history.jsonl` gets a line an epoch.
        loss: what to minimise; the task's loss over all heads by default.
        only: the one child module to train, such as "exits"; everything else then stays bit for bit.

    Raises:
        DataError: there is one training image, of which batch normalisation learns nothing.
        TrainingError: the loss is no longer finite.
        Interrupted: a signal arrived; the state is saved.
    """
    with threads(context.runtime, lambda: worst_macs(model)):
        return train(model, config, context, loss, only)


def train(model: T, config: FitConfig, context: Context, loss: Loss | None = None, only: str | None = None) -> T:
    """Do as `fit`, for anything that can be trained, with the threads that are set."""
    if config.epochs == 0:
        return model
    if len(context.data.train) < 2:
        raise DataError(f"dataset {context.data.name}: one training image; batch normalisation needs at least 2")
    fitting = begin(model, config, context, loss, only)
    checkpointing.restore(fitting)
    _run(fitting)
    history.write_curves(context.scratch)
    if fitting.average is not None:
        model.net.load_state_dict(fitting.average)
    model.net.requires_grad_(requires_grad=True).to("cpu").to(memory_format=torch.contiguous_format)  # pyright: ignore
    model.net.eval()
    return model


def begin(
    model: Trainable, config: FitConfig, context: Context, loss: Loss | None = None, only: str | None = None
) -> Fitting:
    """Set up a training at its first step; arguments as for `fit`."""
    device = device_of(context.runtime)
    for name, parameter in model.net.named_parameters():
        parameter.requires_grad_(only is None or name.startswith(f"{only}."))
    forward = place(model.net, config, device)
    average = copied(model.net.state_dict()) if config.ema else None
    loss = loss or task_loss(context.data.task, config.label_smoothing)
    scales = [p.detach() for name, p in model.net.named_parameters() if p.requires_grad and name.endswith("scale")]
    optimizer = optimizer_for(model.net, config)
    return Fitting(model, config, context, loss, only, device, forward, optimizer, average, scales)


def title(context: Context) -> str:
    """Name the running step, for progress and errors."""
    return context.scratch.name.removeprefix(".draft-")


def copied(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy a state so that later training does not change it."""
    return {name: tensor.detach().clone() for name, tensor in state.items()}


def _run(fitting: Fitting) -> None:
    config, context = fitting.config, fitting.context
    with context.progress(title(context), config.epochs * fitting.per_epoch) as advance, deferred() as signal:
        advance(fitting.step, "")
        while fitting.place.epoch < config.epochs and signal() is None:
            for name, child in fitting.model.net.named_children():
                child.train(fitting.only is None or name == fitting.only)
            _epoch(fitting, advance, signal)
            if fitting.place.batch == fitting.per_epoch:
                _finish_epoch(fitting)
            checkpointing.save(fitting)


def _epoch(fitting: Fitting, advance: Advance, signal: Callable[[], int | None]) -> None:
    config, where, saved = fitting.config, fitting.place, time.monotonic()
    train = fitting.context.data.train
    for images, targets in batches(train, config.batch, seed=config.seed, epoch=where.epoch, start=where.batch):
        began = time.monotonic()
        where.loss += learn(fitting, *prepare(fitting, images, targets))
        where.batch += 1
        where.seconds += time.monotonic() - began
        advance(1, f"epoch {where.epoch + 1}/{config.epochs} loss {where.loss / where.batch:.3f}")
        if signal() is not None:
            return
        if time.monotonic() - saved > fitting.context.runtime.save_seconds:
            checkpointing.save(fitting)
            saved = time.monotonic()


def prepare(fitting: Fitting, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Augment a batch as its place in the training says, and move it to the device."""
    config, where, data = fitting.config, fitting.place, fitting.context.data
    fill = tuple(round(255 * mean) for mean in data.mean)
    images = augment(images, data.augment, fill, generator(config.seed, where.epoch, where.batch, 1))
    return images.to(fitting.device), targets.to(fitting.device)


def learn(fitting: Fitting, images: Tensor, targets: Tensor) -> float:
    """Take one step on a prepared batch and give its loss."""
    config, where, step = fitting.config, fitting.place, fitting.step
    now = rate(config, step, fitting.per_epoch)
    for group in fitting.optimizer.param_groups:
        group["lr"] = now
    with dropping(fitting), autocast(config, fitting.device):
        value = fitting.loss(fitting.forward(images), images, targets)
    if not math.isfinite(value.item()):
        raise TrainingError(
            f"{title(fitting.context)}: the loss is {value.item()} at epoch {where.epoch + 1}, "
            f"batch {where.batch + 1}, learning rate {now:.3g}; try a lower fit.lr"
        )
    fitting.optimizer.zero_grad(set_to_none=True)
    value.backward()
    with halving_at_most(fitting.scales):
        fitting.optimizer.step()
    if fitting.average is not None:
        average_in(fitting.average, fitting.model.net.state_dict(), min(config.ema, (1 + step) / (10 + step)))
    return value.item()


@contextmanager
def dropping(fitting: Fitting) -> Iterator[None]:
    """Let dropout draw what depends on seed and step alone; others are spared the seeding, which is slow."""
    if not any(isinstance(module, nn.Dropout) and module.p for module in fitting.model.net.modules()):
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(fitting.config.seed * 1_000_003 + fitting.step)
        yield


@contextmanager
def halving_at_most(scales: list[Tensor]) -> Iterator[None]:
    """Let learned step sizes fall to half of what they were, no further: one that passes 0 is lost for good."""
    if not scales:
        yield
        return
    halves = [0.5 * scale for scale in scales]
    yield
    for scale, half in zip(scales, halves, strict=True):
        torch.maximum(scale, half, out=scale)


def average_in(average: dict[str, Tensor], state: Mapping[str, Tensor], decay: float) -> None:
    """Move a running average towards a state, in place; whole numbers are copied."""
    floats = [name for name, tensor in state.items() if tensor.is_floating_point() and not is_threshold(name)]
    for name in floats:
        average[name].lerp_(state[name], 1 - decay)
    for name in state.keys() - set(floats):
        average[name].copy_(state[name])


def _finish_epoch(fitting: Fitting) -> None:
    where, context = fitting.place, fitting.context
    line = {
        "epoch": where.epoch + 1,
        "loss": where.loss / where.batch,
        "lr": rate(fitting.config, fitting.step - 1, fitting.per_epoch),
        "val": val_loss(fitting.model, context.data, fitting.average),
        "seconds": round(where.seconds, 3),
    }
    where.epoch, where.batch, where.loss = where.epoch + 1, 0, 0.0
    history.append(context.scratch, line)
