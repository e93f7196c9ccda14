"""Models of the digits that many tests export: trained a little, rounded to few bits, images leaving at every head."""

from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import samples
import torch

from compressor.arch import Arch, Criterion, Task, TaskKind
from compressor.calibration import calibrate
from compressor.config import Container, ExportConfig, ExportFormat, FitConfig
from compressor.data import load_data
from compressor.data.types import Data, Split
from compressor.model import Model, fresh, save
from compressor.phases.quantize import quantized
from compressor.routing import all_outputs, certainty
from compressor.training import Context, fit

PACKED = ExportConfig(ExportFormat.PACKED, Container.INT8)
ONNX = ExportConfig(ExportFormat.ONNX, Container.INT8)
OPENVINO = ExportConfig(ExportFormat.OPENVINO, Container.INT8)


def trained(arch: Arch, context: Context, epochs: int = 8) -> Model:
    """Train an arch for a second or two, then with its bits; of the images a third leaves at each exit it has."""
    model = fit(fresh(replace(arch, quantization=None), 0), settings(epochs), samples.afresh(context, "float"))
    if arch.quantization:
        model = quantized(model, arch, 0)
        calibrate(model, context, images=80, seed=0)
        model = fit(model, settings(2), samples.afresh(context, "rounded"))
    leaving(model, context.data.test)
    model.net.eval()
    return model


def settings(epochs: int) -> FitConfig:
    """Give settings of a quick training."""
    return replace(samples.FIT, epochs=epochs, lr=0.1)


@cache
def exiting(criterion: Criterion = Criterion.CONFIDENCE) -> Model:
    """Give one well trained model of the digits, 4 bits and two exits, that images leave by a criterion."""
    arch, model = samples.compressed(), _whole()
    assert arch.exits is not None
    out = Model(replace(arch, exits=replace(arch.exits, criterion=criterion)), deepcopy(model.net))
    leaving(out, load_data(samples.DATASET, samples.RUNTIME).test)
    return out


@cache
def _whole() -> Model:
    data = load_data(replace(samples.DATASET, limit=400), samples.RUNTIME)
    with TemporaryDirectory() as folder:
        scratch = Path(folder) / "scratch"
        scratch.mkdir()
        return trained(samples.compressed(), Context(data, scratch, samples.RUNTIME), epochs=15)


def leaving(model: Model, split: Split) -> None:
    """Set each exit's threshold between two scores, so that a third of the images reach it, in place."""
    rule = model.arch.exits
    if rule is None:
        return
    outputs = all_outputs(model, split)
    model.net.thresholds.fill_(torch.inf)
    for i in range(len(outputs) - 1):
        scores = np.unique(certainty(list(outputs[: i + 1]), rule, model.arch.task).numpy())
        scores = scores[np.isfinite(scores)]
        if len(scores) > 1:
            at = len(scores) * 2 // 3
            model.net.thresholds[i] = torch.tensor(float(scores[at - 1] + scores[at]) / 2)


def folder_of(model: Model, folder: Path) -> Path:
    """Save a model and give its folder."""
    folder.mkdir(parents=True)
    save(model, folder)
    return folder


@cache
def asked(kind: TaskKind) -> tuple[Data, Model]:
    """Ask something else of the digits, a few labels or a number, and give a model with bits and exits that answers."""
    data = load_data(samples.DATASET, samples.RUNTIME)
    several = kind is TaskKind.MULTILABEL
    names = ("large", "even", "eight") if several else ("digit",)
    task = Task(kind, len(names), names, *((), ()) if several else ((4.5,), (2.9,)))
    parts = {name: _targets(getattr(data, name), several) for name in ("train", "val", "test")}
    data = replace(data, task=task, **parts)
    with TemporaryDirectory() as folder:
        scratch = Path(folder) / "scratch"
        scratch.mkdir()
        context = Context(data, scratch, samples.RUNTIME)
        return data, trained(replace(samples.compressed(), task=task), context, epochs=4)


def _targets(split: Split, several: bool) -> Split:
    digit = split.targets
    columns = [digit > 4, digit % 2 == 0, digit == 8] if several else [digit]
    return Split(split.images, np.stack(columns, axis=1).astype(np.float32))
