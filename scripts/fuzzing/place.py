"""A folder with a file of every kind that commands read, made by the commands themselves from the digits."""

import os
import random
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from fuzzing.trying import Running, begin, remove, wait

COMMON = ("runtime.progress=false", "runtime.threads=1", "runtime.workers=1", "runtime.data_cache=cache")
TINY = (*COMMON, "fit=smoke", "fit.epochs=0", "architecture.width=0.25", "dataset.limit=60", "dataset.augment.crop=0")
CHAIN = ("run", *TINY, "name=chain", "order=QE", "exit.width=0")
FEW = (*TINY, "compression=none")
MIXED = ("moe", *TINY, "name=mixed", "moe.experts=[{order:D,distill:{width:0.5}},{order:D,distill:{width:1.0},seed:1}]",
         "moe.equal=null", "moe.figures=false")  # fmt: skip
FOUND = ("search", *TINY, "name=found", "search.budget.size=0.25", "search.evaluations=4", "search.warmup=2",
         "search.images=30", "search.recalibrate=20", "search.joint.calibrate=20", "search.joint.recalibrate=20",
         "search.tune=0", "search.finalists=0", "search.seeds=[0]", "search.rivals=[]",
         "search.figures=false")  # fmt: skip
TRAINED = ("run", *COMMON, "fit=smoke", "architecture.width=0.25", "dataset.limit=60", "name=draft", "order=")
DRAFTED = (*TRAINED, "fit.epochs=3")
PARTED = ("predict", "model=exports/packed", "input=photos", *COMMON, "predict.batch=2", "predict.output=answers.csv")
PICTURES = "imagefolder", "dataset.root=pictures", "dataset.image_size=8"


OWN = """# @package _global_
defaults:
  - override /fit: smoke
  - _self_
fit:
  epochs: 0
dataset:
  limit: 60
architecture:
  width: 0.25
name: own
"""
"""An experiment of one's own."""

PARTS = {
    "chain": ("{step}", "outputs/chain", "outputs/store", "exports/", "answers.csv"),
    "mixed": ("{moe}",),
    "found": ("outputs/found", "outputs/store/joint"),
    "cache": ("cache/data",),
    "onnx": ("exports/*", "exports/onnx"),
    "openvino": ("exports/*", "exports/openvino"),
    "packed": ("exports/*", "exports/packed", "answers.csv"),
    "draft": (".draft",),
    "answers": ("answers.csv",),
}
"""The parts of a place that commands make, in their order, and how files and commands name them."""


@dataclass(frozen=True)
class Kind:
    """Files of one kind and the commands that read them.

    `covered`: no change of a file may change what is printed by a command that ends well; `codes`: how one may end.
    """

    name: str
    files: tuple[str, ...]
    commands: tuple[tuple[str, ...], ...]
    covered: bool = True
    codes: tuple[int, ...] = (0, 2)

    @property
    def needs(self) -> set[str]:
        """The parts of a place that its files and commands name."""
        text = " ".join((*self.files, *(word for command in self.commands for word in command)))
        return {part for part, names in PARTS.items() if any(name in text for name in names)}


def set_of(name: str, *words: str) -> tuple[str, ...]:
    """Give the command that reads a data set and trains nothing."""
    limited = tuple(word for word in TINY if not word.startswith("dataset."))
    return "run", *limited, f"dataset={name}", *words, "name=set", "order=", "baseline.fit.epochs=0"


STEP, EXPERT, MODEL = "outputs/chain/*/02-exit", "outputs/mixed/*/*-moe", "outputs/chain/*/01-quantize"
KINDS = (
    Kind("arch.json", ("{step}/arch.json",), (
        ("evaluate", "checkpoint={step}", *TINY), ("predict", "model={step}", "input=photos", *COMMON),
        ("export", "checkpoint={step}", "export.format=packed", *TINY), ("prune", "checkpoint={step}", *TINY))),
    Kind("weights.safetensors", ("{step}/weights.safetensors",), (
        ("evaluate", "checkpoint={step}", *TINY), ("predict", "model={step}", "input=photos", *COMMON))),
    Kind("record.json", ("{step}/record.json",), (
        ("evaluate", "checkpoint={step}", *TINY), ("list", *COMMON), ("quantize", "checkpoint={step}", *TINY),
        ("export", "checkpoint={step}", "export.format=packed", *TINY))),
    Kind("metrics.json", ("{step}/metrics.json",), (("list", *COMMON), ("quantize", "checkpoint={step}", *TINY))),
    Kind("stored step", ("outputs/store/baseline-*/*.*", "outputs/store/quantize-*/*.*", "outputs/store/exit-*/*.*"), (
        CHAIN, ("clean", *COMMON), ("list", *COMMON))),
    Kind("run.json", ("outputs/chain/*/run.json", "outputs/found/*/run.json"), (
        ("list", *COMMON), ("clean", *COMMON), ("clean", "clean.delete=true", *COMMON))),
    Kind("search step", ("outputs/store/joint-*/found.json", "outputs/store/joint-*/candidates.jsonl",
                         "outputs/store/joint-*/*.json"), (FOUND,), codes=(0, 1, 2)),
    Kind("mixture", ("{moe}/mixture.json", "{moe}/weights.safetensors", "{moe}/record.json"), (
        ("evaluate", "checkpoint={moe}", *TINY), ("predict", "model={moe}", "input=photos", *COMMON))),
    Kind("draft", ("outputs/store/.draft-*/*.*",), (DRAFTED,)),
    Kind("cache", ("cache/data/*/images.npy", "cache/data/*/*.npy", "cache/data/*/meta.json"), (
        set_of(*PICTURES),)),
    Kind("export.json", ("exports/*/export.json",), (("predict", "model={at}", "input=photos", *COMMON),)),
    Kind("onnx file", ("exports/onnx/*.onnx",), (("predict", "model={at}", "input=photos", *COMMON),)),
    Kind("openvino file", ("exports/openvino/*.xml", "exports/openvino/*.bin"), (
        ("predict", "model={at}", "input=photos", *COMMON),)),
    Kind("packed file", ("exports/packed/*.packed",), (("predict", "model={at}", "input=photos", *COMMON),)),
    Kind("kept answers", ("answers.csv.part",), ((*PARTED,),)),
    Kind("photo", ("photos/*.*",), (("predict", "model=exports/packed", "input=photos", *COMMON),), False, (0, 1, 2)),
    Kind("image folder", ("pictures/*/*/*.*",), (set_of(*PICTURES, "runtime.data_cache=fresh"),), False),
    Kind("CSV", ("list/list.csv",), (
        set_of("image_regression", "dataset.csv=list/list.csv", "dataset.image_size=8", "runtime.data_cache=fresh"),),
         False),
    Kind("MedMNIST", ("sets/bloodmnist.npz",), (
        set_of("medmnist", "dataset.root=sets", "dataset.flag=bloodmnist", "runtime.data_cache=fresh"),), False),
    Kind("CIFAR", ("sets/cifar-10-batches-py/*",), (
        set_of("cifar10", "dataset.root=sets", "runtime.data_cache=fresh"),), False),
    Kind("SVHN", ("sets/*.mat",), (set_of("svhn", "dataset.root=sets", "runtime.data_cache=fresh"),), False),
    Kind("Fashion-MNIST", ("sets/*ubyte*",), (
        set_of("fashion_mnist", "dataset.root=sets", "runtime.data_cache=fresh"),), False),
    Kind("weight file", ("weights/*",), (
        ("baseline", *TINY, "architecture.width=1.0", "dataset.channels=3", "baseline.weights={file}"),), False),
    Kind("settings", ("mine/experiment/own.yaml",), (
        ("baseline", "--config-dir", "mine", "+experiment=own", *COMMON),), False),
)  # fmt: skip


def targets(kind: Kind, place: Path) -> list[Path]:
    """List the files of a kind in a place."""
    names = {name for pattern in kind.files for name in place.glob(_filled(pattern, place, None))}
    return sorted(name for name in names if name.is_file() and not name.is_symlink())


def words_of(command: Sequence[str], place: Path, file: Path) -> tuple[str, ...]:
    """Give a command as it is typed in a place for a file of it."""
    return tuple(_filled(word, place, file) for word in command)


def _filled(text: str, place: Path, file: Path | None) -> str:
    for name, pattern in (("{step}", STEP), ("{moe}", EXPERT)):
        if name in text:
            text = text.replace(name, str(next(place.glob(pattern)).relative_to(place)))
    if file is None:
        return text
    relative = file.relative_to(place)
    return text.replace("{file}", str(relative)).replace("{at}", str(relative.parent))


def make(place: Path, kinds: Sequence[Kind]) -> None:
    """Make what kinds need of a place; raise RuntimeError where a command does not end well."""
    _sets(place)
    needed = {part for kind in kinds for part in kind.needs}
    runs = {"chain": CHAIN, "mixed": MIXED, "found": FOUND, "cache": set_of(*PICTURES)}
    for name in (part for part in PARTS if part in needed):
        if name in runs:
            _done(place, runs[name])
        elif name == "draft":
            _interrupt(place, DRAFTED, "compressor.training", "learn", 2)
        elif name == "answers":
            _interrupt(place, PARTED, "compressor.deploy.predict", "answered", 4)
        else:
            step = str(next(place.glob(STEP)).relative_to(place))
            _done(place, ("export", f"checkpoint={step}", f"export.format={name}", "hydra.run.dir=exports", *TINY))


def _sets(place: Path) -> None:
    """Write data sets in the layouts of their authors, photos, published weights and settings."""
    place.mkdir(parents=True)
    layouts: Any = import_module("layouts")
    layouts.folder(place / "pictures", each=10)
    (place / "list").mkdir()
    layouts.listed(place / "list", [[f"{i:02}.png", str(i / 3)] for i in range(40)])
    (place / "sets").mkdir()
    layouts.cifar(place / "sets")
    layouts.svhn(place / "sets")
    layouts.fashion(place / "sets", zipped=True)
    layouts.medical(place / "sets" / "bloodmnist.npz", size=28, colour=True, labels=8)
    _photos(place / "photos")
    _weights(place / "weights")
    (place / "mine" / "experiment").mkdir(parents=True)
    (place / "mine" / "experiment" / "own.yaml").write_text(OWN)


def _photos(folder: Path) -> None:
    from PIL import Image

    folder.mkdir()
    rng = random.Random(0)
    for i in range(12):
        image = Image.frombytes("L", (8, 8), rng.randbytes(64))
        image.save(folder / f"{i:02}.{('png', 'jpg', 'gif', 'bmp', 'tif', 'webp')[i % 6]}")


def _weights(folder: Path) -> None:
    """Write weights of a network as others publish them, in three formats."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir()
    published: Any = import_module("test_importing")
    state = published.published().state_dict()
    save_file(state, folder / "a.safetensors")
    torch.save(state, folder / "b.pth")
    torch.save({"state_dict": state}, folder / "c.pt", _use_new_zipfile_serialization=False)


def _done(place: Path, words: Sequence[str]) -> None:
    ended = wait(_here(place, words, lambda: None))
    if ended.code:
        raise RuntimeError(f"{' '.join(words)}: ended with {ended.code}\n{ended.out}\n{ended.err}")


def _here(place: Path, words: Sequence[str], prepare: Callable[[], None]) -> Running:
    """Run a command in the place itself."""
    beside, empty = place.with_name("making"), place.with_name("empty")
    remove(beside)
    empty.mkdir(exist_ok=True)

    def change(work: Path) -> None:
        os.chdir(place)
        prepare()

    return begin(empty, beside, words, change)


def _interrupt(place: Path, words: Sequence[str], module: str, name: str, calls: int) -> None:
    """Run a command that gets SIGTERM when a function is called for a time."""

    def prepare() -> None:
        where: Any = import_module(module)
        called, made = getattr(where, name), []

        def counted(*given: Any, **named: Any) -> Any:
            made.append(None)
            if len(made) == calls:
                os.kill(os.getpid(), signal.SIGTERM)
            return called(*given, **named)

        setattr(where, name, counted)

    ended = wait(_here(place, words, prepare))
    if ended.code != 128 + signal.SIGTERM:
        raise RuntimeError(f"{' '.join(words)}: was not interrupted but ended with {ended.code}\n{ended.err}")
