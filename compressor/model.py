"""A model is an arch and its network; on disk, a JSON file and a file of tensors."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from compressor.arch import Arch
from compressor.arch import keep as keep_channels
from compressor.codec import encode
from compressor.errors import FileError, ModelError
from compressor.files import open_regular, write_shared
from compressor.folders import ARCH, FORMAT, WEIGHTS, digest_of, read_arch
from compressor.images import refuse_images
from compressor.layers import axes_of
from compressor.memory import pass_on
from compressor.network import Network, build

MOST_EXTRA = 2**20
"""Bytes that a file may have for a tensor beside its numbers: its name, its type, its shape."""


class Trainable(Protocol):
    """What can be trained: anything that has a network."""

    @property
    def net(self) -> nn.Module:
        """Give the network; it returns a tuple of outputs (N, outputs), the one that counts last."""
        ...


@dataclass
class Model:
    """An architecture and the network built from it."""

    arch: Arch
    net: Network


def fresh(arch: Arch, seed: int) -> Model:
    """Give a model with newly initialised weights."""
    return Model(arch, build(arch, seed))


def rebuild(
    model: Model, arch: Arch, *, new: Callable[[str], bool], seed: int, kept: Mapping[str, Sequence[int]] | None = None
) -> Model:
    """Move the weights of `model` into `arch`, of the axes in `kept` those of the given channels.

    Tensors whose name is `new` start afresh, or keep the value they had where it still fits; every other tensor must
    be on both sides with one shape.

    Raises:
        ModelError: a tensor is on one side only, or of two shapes.
    """
    out = fresh(arch, seed)
    have, want = _cut(model, kept or {}), out.net.state_dict()
    fits = {name for name in want if name in have and have[name].shape == want[name].shape}
    wrong = [name for name in have.keys() | want.keys() if name not in fits and not new(name)]
    if wrong:
        raise ModelError(f"weights do not fit the new network: {', '.join(sorted(wrong)[:3])}")
    out.net.load_state_dict(want | {name: have[name] for name in fits})
    return out


def select(model: Model, kept: Mapping[str, Sequence[int]]) -> Model:
    """Keep the given channels of each named axis, in every tensor that has it, and drop the others."""
    out = fresh(keep_channels(model.arch, kept), seed=0)
    out.net.load_state_dict(_cut(model, kept))
    return out


def _cut(model: Model, kept: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """Give a model's tensors with the given channels of each named axis only."""
    indices = {axis: torch.tensor(list(index)) for axis, index in kept.items()}
    state = model.net.state_dict()
    for name, names in axes_of(model.net).items():
        for dim, axis in enumerate(names):
            if axis in indices:
                state[name] = state[name].index_select(dim, indices[axis])
    return state


def save(model: Model, folder: Path) -> str:
    """Write `arch.json` and `weights.safetensors`, and return their digest."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.net.state_dict().items()}
    write_shared(folder / WEIGHTS, lambda path: save_file(tensors, path))
    text = json.dumps({"format": FORMAT, "arch": encode(model.arch)}, indent=1) + "\n"
    (folder / ARCH).write_text(text, encoding="utf-8")
    return digest_of(folder)


def load(folder: Path) -> Model:
    """Read a model; nothing in the files is run, and nothing is built before names and shapes agree.

    Raises:
        ModelError: a file is missing, cut, changed, foreign, or does not fit the other.
    """
    arch = read_arch(folder)
    path = folder / WEIGHTS
    with torch.device("meta"):
        expected = Network(arch).state_dict()
    state = read_state(path, expected, ARCH)
    model = fresh(arch, seed=0)
    model.net.load_state_dict(state)
    return model


def read_state(path: Path, expected: Mapping[str, Tensor], form: str) -> dict[str, Tensor]:
    """Read the tensors whose names, shapes and types `expected` has; `form` is the file beside it that says so.

    Raises:
        ModelError: the file is missing, cut or foreign, or holds others, or numbers that are not finite.
    """
    _refuse_irregular(path, expected, form)
    found, said = _shapes(path), path.with_name(form)
    if missing := sorted(expected.keys() ^ found.keys()):
        side = "lacks" if missing[0] in expected else "has an unknown"
        raise ModelError(f"{path}: {side} tensor {missing[0]!r}; it does not belong to {said}")
    for name, tensor in expected.items():
        if found[name] != (shape := list(tensor.shape)):
            raise ModelError(f"{path}: tensor {name!r} has shape {found[name]}, {said} says {shape}")
    state = load_file(path)
    for name, tensor in state.items():
        if tensor.dtype != (wanted := expected[name].dtype):
            raise ModelError(f"{path}: tensor {name!r} is {tensor.dtype}, expected {wanted}")
        if reason := impossible(name, tensor):
            raise ModelError(f"{path}: tensor {name!r} {reason}")
    return state


def impossible(name: str, tensor: Tensor) -> str | None:
    """Return why no network has such numbers in the tensor of that name; None where it may have."""
    bad = tensor.isnan() if is_threshold(name) else ~tensor.isfinite()
    if tensor.is_floating_point() and bad.any():
        return "holds numbers that are not finite"
    last = name.rpartition(".")[2]
    if last == "running_var" and (tensor < 0).any():
        return f"holds a variance of {tensor.min().item():.3g}; a variance is 0 or more"
    if last == "map" and ((tensor > 1).any() or (tensor.sum(dim=1) > 1).any()):
        return "copies a channel from one that is not there, or from several; a row has one 1 at most"
    return None


def is_threshold(name: str) -> bool:
    """Tell whether a tensor of a state holds the thresholds of early exits, which may be infinite."""
    return name.rpartition(".")[2] == "thresholds"


def _refuse_irregular(path: Path, expected: Mapping[str, Tensor], form: str) -> None:
    """Refuse pipes and devices, which would be waited for, and files that are far larger than the tensors."""
    most = sum(MOST_EXTRA + tensor.numel() * 8 for tensor in expected.values())
    try:
        open_regular(path, most + MOST_EXTRA).close()
    except FileError as error:
        raise ModelError(f"{error}; a model is {form} and {WEIGHTS}") from None
    except OSError as error:
        line = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
        raise ModelError(f"{path}: {line}; a model is {form} and {WEIGHTS}") from None


def _shapes(path: Path) -> dict[str, list[int]]:
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError) as error:
        pass_on(error)
        raise ModelError(f"{path}: is cut, changed or not a safetensors file ({error})") from None


def refuse_unfit(images: Tensor, channels: int) -> None:
    """Refuse images that a network would answer wrongly: no tensor (N, C, H, W) of uint8, or of floats in 0..1."""
    wanted = f"uint8 (N, {channels}, H, W), or floats of 0 to 1: the network normalises them itself"
    if not isinstance(images, Tensor):
        raise ModelError(f"images are a {type(images).__name__}; give a tensor, {wanted}")
    refuse_images(str(images.dtype).removeprefix("torch."), images.shape, wanted, channels, floats=True)
    if images.is_floating_point() and images.numel():
        low, high = (bound.item() for bound in images.aminmax())
        if not (low >= 0 and high <= 1):  # nan is neither
            raise ModelError(f"images are floats of {low:.4g} to {high:.4g}; give {wanted}")


def guarded(net: Network) -> Network:
    """Let a network refuse images that do not fit whenever it is called to answer, and return it.

    A network that trains, or is compiled or exported, does not look at them.
    """
    net.register_forward_pre_hook(_guard)
    return net


def _guard(net: nn.Module, given: tuple[Tensor, ...]) -> None:
    assert isinstance(net, Network), "only networks are guarded"
    if given and not net.training and not torch.compiler.is_compiling():
        refuse_unfit(given[0], net.arch.input.channels)


def same(a: Model, b: Model) -> bool:
    """Tell whether two models are equal bit for bit."""
    left, right = a.net.state_dict(), b.net.state_dict()
    return a.arch == b.arch and left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)
