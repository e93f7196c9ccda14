"""Published weights into a model: rename, fold, and check every tensor, and that the network answers."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from compressor.arch import Arch, Shortcut
from compressor.errors import ModelError
from compressor.families import CIFAR_RESNETS, FAMILIES
from compressor.model import Model, fresh, impossible
from compressor.published.reading import read_tensors
from compressor.published.unwrapping import as_unwrapped

HINT = " (architecture.stem, architecture.width, dataset.channels?)"
SCORE = ("head.score.weight", "head.score.bias")


def published(arch: Arch, path: Path, names: Mapping[str, str], seed: int, images: Tensor) -> Model:
    """Return the model of `arch` with the weights of a file, as `import_weights` does; `images` are real ones.

    Raises:
        ModelError: the file cannot be read, does not fit, or its network's answers are not finite.
    """
    tensors = read_tensors(path)
    try:
        model = import_weights(arch, tensors, names, seed)
        _refuse_endless(model, tensors, images)
    except ModelError as error:
        raise ModelError(f"{path}: {str(error).removeprefix('weights: ')}") from None
    return model


@torch.no_grad()
def _refuse_endless(model: Model, tensors: Mapping[str, Tensor], images: Tensor) -> None:
    outputs = model.net.eval()(images)
    model.net.train()
    if not all(out.isfinite().all() for out in outputs):
        largest, name = max((tensor.abs().max().item(), name) for name, tensor in tensors.items() if tensor.numel())
        line = f"the largest number of its weights, {largest:.3g}, is in {name!r}"
        raise ModelError(f"weights: the network's answers to images are not finite; {line}")


def import_weights(arch: Arch, tensors: Mapping[str, Tensor], names: Mapping[str, str], seed: int = 0) -> Model:
    """Build the model of `arch` with the tensors of a published network.

    `names` maps names of the file, whole ones or those of modules ("features.0"), to names of this network; names it
    lacks stay. Empty: torchvision's and the published CIFAR ResNets' names are known by `arch.name`. A bias of a
    convolution is folded into its norm. Where the file scores another number of classes, the last layer stays fresh
    (of `seed`), as do exit heads and scales of quantization.

    Raises ModelError naming a tensor that is missing, left over, twice there, of another shape or not finite.
    """
    model = fresh(arch, seed)
    plain = fresh(replace(arch, quantization=None, exits=None), seed).net.state_dict()
    known = {as_unwrapped(name, tensors): ours for name, ours in names.items()} or _known_names(arch)
    found = _renamed(tensors, known)
    _fold_biases(found, plain)
    state = model.net.state_dict()
    for ours, theirs, tensor in _fitted(arch, found, plain):
        want = plain[ours].dtype
        if tensor.is_complex() or tensor.is_floating_point() != want.is_floating_point:
            raise ModelError(f"weights: tensor {theirs!r} holds {tensor.dtype}; {want} is needed")
        state[ours] = tensor.to(want)
        if reason := impossible(ours, state[ours]):
            raise ModelError(f"weights: tensor {theirs!r} {reason}")
    model.net.load_state_dict(state)
    return model


Found = dict[str, tuple[str, Tensor]]
"""Tensors by our name, each with its name in the file."""


def _renamed(tensors: Mapping[str, Tensor], names: Mapping[str, str]) -> Found:
    found: Found = {}
    for theirs, tensor in tensors.items():
        ours = _rename(theirs, names)
        if ours in found:
            raise ModelError(f"weights: tensors {found[ours][0]!r} and {theirs!r} are both named {ours!r} here")
        found[ours] = (theirs, tensor)
    for name in names:
        if not any(theirs == name or theirs.startswith(f"{name}.") for theirs in tensors):
            raise ModelError(f"weights: tensor {name!r} is missing; {_listed(tensors)}")
    return found


def _rename(name: str, names: Mapping[str, str]) -> str:
    """Replace the longest part of a dotted name, from its start, that the map has."""
    head, tail = name, ""
    while head:
        if head in names:
            return names[head] + tail
        head, dot, last = head.rpartition(".")
        tail = f"{dot}{last}{tail}"
    return name


def _fold_biases(found: Found, plain: Mapping[str, Tensor]) -> None:
    """Move biases of convolutions, which this network has none of, into the running means of their norms."""
    for name in [name for name in found if name.endswith(".bias") and name not in plain]:
        module, _, last = name.removesuffix(".bias").rpartition(".")
        mean = f"{module}.{last.replace('conv', 'norm')}.running_mean"
        if not last.startswith("conv") or mean not in plain or mean not in found:
            continue
        theirs, bias = found[name]
        means, value = found[mean]
        if wrong := [t for t, x in ((theirs, bias), (means, value)) if x.shape != plain[mean].shape]:
            raise ModelError(f"weights: tensor {wrong[0]!r} does not have the shape {_shape(plain[mean])}")
        del found[name]
        found[mean] = (means, value - bias)


def _fitted(arch: Arch, found: Found, plain: Mapping[str, Tensor]) -> Iterator[tuple[str, str, Tensor]]:
    """Give (our name, their name, tensor in our shape) for all that is taken from the file."""
    if unused := [theirs for ours, (theirs, _) in found.items() if ours not in plain]:
        raise ModelError(f"weights: tensor {unused[0]!r} has no place in {arch.name!r} ({len(unused)} such)")
    found = {ours: (theirs, _reshaped(tensor, plain[ours])) for ours, (theirs, tensor) in found.items()}
    other_classes = all(name in found and _other_outputs(found[name][1], plain[name]) for name in SCORE)
    for ours, want in plain.items():
        if ours in SCORE and other_classes:
            continue
        if ours not in found:
            if ours.endswith(
                (".num_batches_tracked", ".shortcut.map")
            ):  # old files lack the first; no file has the second
                continue
            raise ModelError(f"weights: nothing in the file is {ours!r}; {_listed([t for t, _ in found.values()])}")
        theirs, tensor = found[ours]
        if tensor.shape != want.shape:
            raise ModelError(
                f"weights: tensor {theirs!r} is {_shape(tensor)}; {arch.name!r} needs {_shape(want)}{HINT}"
            )
        yield ours, theirs, tensor


def _reshaped(tensor: Tensor, want: Tensor) -> Tensor:
    """Give a linear layer's weight over flattened maps (out, c * k * k) the shape (out, c, k, k)."""
    flat = tensor.ndim == 2 and want.ndim == 4 and tensor.shape[1] == want[0].numel()
    return tensor.reshape(-1, *want.shape[1:]) if flat else tensor


def _other_outputs(tensor: Tensor, want: Tensor) -> bool:
    return tensor.ndim == want.ndim and tensor.shape[1:] == want.shape[1:] and len(tensor) != len(want)


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a single number"


def _listed(names: Iterable[str]) -> str:
    """Say the first names of a file, so that the reader sees whose network it is."""
    return f"it has {', '.join([*names][:3])} and so on"


def _known_names(arch: Arch) -> dict[str, str]:
    """Give the map from modules of the published network that `arch` is named after; empty where none is known."""
    if arch.name not in FAMILIES:
        return {}
    if arch.name.startswith("resnet"):
        return dict(_resnet_modules(arch))
    if arch.name.startswith("vgg"):
        return dict(_vgg_modules(arch))
    return dict(_mobilenet_modules(arch)) if arch.name == "mobilenet_v2" else {}


Modules = Iterator[tuple[str, str]]
"""Pairs of a module's name in the published network and here."""


def _resnet_modules(arch: Arch) -> Modules:
    yield from (("conv1", "stem.conv"), ("bn1", "stem.norm"))
    for s, stage in enumerate(arch.stages):
        for b, block in enumerate(stage.blocks):
            theirs, ours = f"layer{s + 1}.{b}", f"blocks.s{s}b{b}"
            for i in range(1, len(block.widths) + 2):
                yield from ((f"{theirs}.conv{i}", f"{ours}.conv{i}"), (f"{theirs}.bn{i}", f"{ours}.norm{i}"))
            joined = s == 0 and arch.stem is not None and arch.stem.width is None
            if b == 0 and not joined and stage.shortcut is Shortcut.PROJECT:
                yield from _pair(f"{theirs}.downsample", ("0", "1"), f"{ours}.shortcut", "")
    yield "linear" if arch.name in CIFAR_RESNETS else "fc", "head.score"


def _vgg_modules(arch: Arch) -> Modules:
    n = 0
    for s, stage in enumerate(arch.stages):
        for b in range(len(stage.blocks)):
            yield from _pair("features", (str(n), str(n + 1)), f"blocks.s{s}b{b}", "1")
            n += 3  # convolution, norm, activation
        n += 1  # pooling
    hidden = len(arch.head.hidden)
    yield from ((f"classifier.{3 * i}", f"head.fc{i}") for i in range(hidden))
    yield f"classifier.{3 * hidden}" if hidden else "classifier", "head.score"


def _mobilenet_modules(arch: Arch) -> Modules:
    yield from _pair("features.0", ("0", "1"), "stem", "")
    last, k = arch.stem.width if arch.stem else None, 0
    for s, stage in enumerate(arch.stages):
        if stage.width == last and stage.blocks[0].stride == 1:
            raise ModelError(
                f"weights: the published {arch.name} of this width adds stage {s - 1} to {s}; this one does not"
            )
        for b, block in enumerate(stage.blocks):
            k, last, ours = k + 1, stage.width, f"blocks.s{s}b{b}"
            end = len(block.widths) + 2
            for i in range(1, end + 1):
                layer = (f"{i - 1}.0", f"{i - 1}.1") if i < end else (f"{i - 1}", f"{i}")
                yield from _pair(f"features.{k}.conv", layer, ours, str(i))
    yield from _pair(f"features.{k + 1}", ("0", "1"), "tail", "")
    yield "classifier.1", "head.score"


def _pair(theirs: str, layers: tuple[str, str], ours: str, number: str) -> Modules:
    """Pair a convolution and its norm."""
    yield f"{theirs}.{layers[0]}", f"{ours}.conv{number}"
    yield f"{theirs}.{layers[1]}", f"{ours}.norm{number}"
