"""Between a trainable model and the packed file: folded on the way out, rebuilt with norms that scale and shift."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from compressor.arch import FLOAT, MixtureArch, check_mixture
from compressor.deploy.folding import picked
from compressor.deploy.graph import stages_of
from compressor.deploy.nodes import Layer
from compressor.deploy.note import MixtureNote
from compressor.deploy.packed import Packed, PackedLayer, read_packed
from compressor.errors import CompressorError, ModelError
from compressor.layers import Act, PadShortcut
from compressor.memory import pass_on
from compressor.mixture.types import FIRST, Mixture, assemble
from compressor.model import Model, fresh
from compressor.network import Network

T = TypeVar("T")


def packed_of(model: Model) -> Packed:
    """Give what the packed file holds of a model; its integers are those of every other exported format."""
    layers = {
        node.name: _layer(node, model) for stage in stages_of(model) for node in stage.nodes if isinstance(node, Layer)
    }
    named = dict(model.net.named_modules())
    acts = {name: act.scale.item() for name, act in named.items() if isinstance(act, Act) and act.bits != FLOAT}
    maps = {name: picked(pad) for name, pad in named.items() if isinstance(pad, PadShortcut)}
    thresholds = model.net.thresholds.numpy().copy() if len(model.net.exits) else np.empty(0, np.float32)
    return Packed(model.arch, layers, acts, maps, thresholds)


def _layer(node: Layer, model: Model) -> PackedLayer:
    bits = model.net.get_submodule(node.name).bits
    assert isinstance(bits, tuple), "a layer with weights has bits"
    return PackedLayer(node.weight, bits, node.scale, node.bias)


def packed_parts(mixture: Mixture) -> tuple[Packed | None, tuple[Packed, ...]]:
    """Give what the packed files of a mixture hold, the router's, which alone has what all share, and the experts'."""
    experts = tuple(map(packed_of, mixture.experts))
    if mixture.rule.shared:
        experts = tuple(_of_first(each, wanted=False) for each in experts)
    return mixture.router and packed_of(mixture.router), experts


def _of_first(packed: Packed, *, wanted: bool) -> Packed:
    """Keep what lies in the first stage, which networks of a mixture may share, or else what does not."""

    def kept(named: Mapping[str, T]) -> dict[str, T]:
        return {name: value for name, value in named.items() if f"{name}.".startswith(FIRST) is wanted}

    return replace(packed, layers=kept(packed.layers), acts=kept(packed.acts), maps=kept(packed.maps))


def rebuilt_mixture(folder: Path, note: MixtureNote) -> Mixture:
    """Read the packed files of a mixture.

    Raises:
        ModelError: a file is damaged, or they do not belong together.
    """
    path = note.router and folder / note.router.file
    lent = _of_first(read_packed(path), wanted=True) if path and note.rule.shared else None
    router = path and rebuilt(path)
    experts = tuple(rebuilt(folder / part.stages[0].file, lent) for part in note.experts)
    try:
        check_mixture(MixtureArch(note.rule, router and router.arch, tuple(expert.arch for expert in experts)))
    except ModelError as error:
        raise ModelError(f"{folder}: {error}") from None
    return assemble(note.rule, router, experts)


def rebuilt(path: Path, lent: Packed | None = None) -> Model:
    """Read a packed file, as `read_packed` does, as a model of torch; its outputs differ in the last bits at most.

    Raises:
        ModelError: the file is damaged, or its tensors do not fit its network.
    """
    packed = read_packed(path, lent)
    try:
        return _model(packed)
    except (KeyError, RuntimeError, CompressorError) as error:
        pass_on(error)
        text = " ".join(str(error).split())
        raise ModelError(f"{path}: its tensors do not fit its network ({text[:150]})") from None


@torch.no_grad()
def _model(packed: Packed) -> Model:
    """Make the tensors first, for a network without memory; the one that is built after has no other shapes."""
    with torch.device("meta"):
        want = Network(packed.arch).state_dict()
    state = {name: torch.zeros(()).to(t.dtype) for name, t in want.items() if name.endswith("num_batches_tracked")}
    for name, layer in packed.layers.items():
        state |= _tensors(name, layer, want)
    state |= {f"{name}.scale": torch.tensor(scale) for name, scale in packed.acts.items()}
    state |= {f"{name}.map": _map(sources, want[f"{name}.map"]) for name, sources in packed.maps.items()}
    if len(packed.thresholds):
        state["thresholds"] = torch.from_numpy(packed.thresholds.copy())
    for name, tensor in want.items():
        if name not in state or state[name].shape != tensor.shape:
            raise RuntimeError(f"{name} is missing or has another shape than {list(tensor.shape)}")
    model = fresh(packed.arch, seed=0)
    model.net.load_state_dict(state)
    model.net.eval()
    return model


def _tensors(name: str, layer: PackedLayer, want: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give the state of a layer, and of the norm after a convolution, which multiplies by the scales."""
    weights, biases = torch.tensor(layer.weights, dtype=torch.float32), torch.from_numpy(layer.biases.copy())
    scales = torch.ones_like(biases) if layer.scales is None else torch.from_numpy(layer.scales.copy())
    norm, state = _norm(name), {}
    if norm:
        state |= _plain(norm, scales, biases)
        scales = torch.ones_like(scales)
    else:
        state[f"{name}.bias"] = biases
        weights = weights * scales.view(-1, *[1] * (weights.ndim - 1))
    if layer.scales is not None:
        state[f"{name}.scale"] = scales
    return state | {f"{name}.weight": weights.reshape(want[f"{name}.weight"].shape)}


def _norm(name: str) -> str | None:
    """Name the norm that follows a convolution; linear layers have none."""
    owner, _, last = name.rpartition(".")
    return f"{owner}.{last.replace('conv', 'norm')}" if last.startswith("conv") else None


def _plain(norm: str, scales: Tensor, biases: Tensor) -> dict[str, Tensor]:
    """Give the state of a norm that multiplies by `scales` and adds `biases`."""
    variance = torch.full_like(scales, 1 - 1e-5)  # plus BatchNorm2d's eps: 1
    parts = {"weight": scales, "bias": biases, "running_mean": torch.zeros_like(scales), "running_var": variance}
    return {f"{norm}.{part}": value for part, value in parts.items()}


def _map(sources: tuple[int, ...], like: Tensor) -> Tensor:
    """Turn what each output channel copies into the 0/1 buffer (out, in) of an option-A shortcut, shaped `like` one."""
    out, taken = torch.zeros(like.shape, dtype=like.dtype), torch.tensor(sources)
    rows = torch.nonzero(taken >= 0).flatten()
    out[rows, taken[rows]] = 1
    return out
