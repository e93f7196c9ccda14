"""Models of the digits that many tests export: trained a little, rounded to few bits, images leaving at every head."""

from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import mixtures
import numpy as np
import samples
import torch

from compressor.arch import Arch, Criterion, Routing, Task, TaskKind
from compressor.calibration import calibrate
from compressor.config import Container, ExportConfig, ExportFormat, FitConfig
from compressor.config.moe import MoeStem
from compressor.data import load_data
from compressor.data.types import Data, Split
from compressor.deploy.runtime import Exported, Routed, Routes
from compressor.mixture import Mixture, survey
from compressor.model import Model, fresh, save
from compressor.phase import MOE
from compressor.phases.quantize import quantized
from compressor.routing import all_outputs, certainty
from compressor.training import Context, fit

PACKED = ExportConfig(ExportFormat.PACKED, Container.INT8)
ONNX = ExportConfig(ExportFormat.ONNX, Container.INT8)
OPENVINO = ExportConfig(ExportFormat.OPENVINO, Container.INT8)
BLOCKED = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
"""
"""Makes packages absent: put `absent` in, and it before a script."""
ALONE = BLOCKED.format(
    absent=["torch", "hydra", "omegaconf", "safetensors", "rich", "PIL", "yaml", "filelock", "scipy"]
)
"""Leaves an exported model what it may use: numpy and its engine."""


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
    arch, model = samples.compressed(), learned(samples.compressed(), 15)
    assert arch.exits is not None
    out = Model(replace(arch, exits=replace(arch.exits, criterion=criterion)), deepcopy(model.net))
    leaving(out, load_data(samples.DATASET, samples.RUNTIME).test)
    return out


@cache
def learned(arch: Arch, epochs: int) -> Model:
    """Give an arch trained on 400 digits, which takes a second or two."""
    data = load_data(replace(samples.DATASET, limit=400), samples.RUNTIME)
    with TemporaryDirectory() as folder:
        scratch = Path(folder) / "scratch"
        scratch.mkdir()
        return trained(arch, Context(data, scratch, samples.RUNTIME), epochs)


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


@cache
def mixed(
    kind: TaskKind = TaskKind.MULTICLASS, routing: Routing = Routing.TOP1, *, shared: bool = False
) -> tuple[Data, Mixture]:
    """Give trained networks as a mixture that sends images to each, and its data.

    Of the three two have few bits and, unless all share a first stage, two have an exit.
    """
    plain = kind is TaskKind.MULTICLASS
    data = load_data(replace(samples.DATASET, limit=400), samples.RUNTIME) if plain else asked(kind)[0]
    stem = MoeStem.SHARED if shared else MoeStem.OWN
    router = replace(mixtures.ROUTER, fit=replace(mixtures.FIT, epochs=15))
    config = replace(mixtures.CONFIG, routing=routing, k=2, stem=stem, router=router)
    with TemporaryDirectory() as folder:
        archs = mixtures.archs(data.task, exits=not shared)
        experts = [trained(arch, _context(data, Path(folder) / f"{i}")) for i, arch in enumerate(archs)]
        roles = {"original": experts[0]} | {f"expert{i}": expert for i, expert in enumerate(experts)}
        mixture = MOE.run(config, _context(data, Path(folder) / "mixture"), **roles)
    for expert in mixture.experts:
        leaving(expert, data.test)
    if routing is Routing.CASCADE:
        return data, mixtures.risen(mixture, survey(mixture, data.val))
    scores = survey(mixture, data.val).scores.mean(dim=0)
    mixture.follow(replace(mixture.rule, prices=tuple(scores.tolist())))  # each is preferred about equally often
    return data, mixture


def _context(data: Data, folder: Path) -> Context:
    (folder / "scratch").mkdir(parents=True)
    return Context(data, folder / "scratch", samples.RUNTIME)


def _targets(split: Split, several: bool) -> Split:
    digit = split.targets
    columns = [digit > 4, digit % 2 == 0, digit == 8] if several else [digit]
    return Split(split.images, np.stack(columns, axis=1).astype(np.float32))


def routes(exported: Exported | Routed, images: np.ndarray, batch: int) -> Routes:
    """Answer images a batch at a time."""
    assert isinstance(exported, Routed)
    parts = [exported.predict(images[i : i + batch]) for i in range(0, len(images), batch)]
    return Routes(*(np.concatenate([getattr(p, name) for p in parts]) for name in ("outputs", "weights", "heads")))
