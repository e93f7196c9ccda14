"""One network that plays every candidate: its tensors are exchanged, and what was rounded once is not rounded again."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from compressor.arch import FLOAT, Arch, Bits, Quantization, WeightBits, edges, layer_axes
from compressor.layers import Act, Conv, Linear, Weighted, axes_of
from compressor.model import Model, rebuild
from compressor.network import Rule
from compressor.phases.quantize import is_scale
from compressor.quantization import RoundWeight, act_range, best_weight_scale, each_of, weight_levels

CACHED = 512 * 2**20
"""Bytes of rounded weights that are remembered."""

Table = dict[int, tuple[Tensor, Tensor]]
"""By bits: a layer's weights, (out, ...), as rounded with certain inputs, and which channels are known, (out,)."""


@dataclass(frozen=True)
class Plan:
    """What a policy comes to: the channels that are there, of the original's, rising, and the arch that they make."""

    kept: dict[str, tuple[int, ...]]
    arch: Arch


class Stage:
    """A network of a model's layers that is cut to one candidate after the other."""

    def __init__(self, model: Model) -> None:
        floats = tuple(WeightBits(name, axis, (FLOAT,)) for name, axis in layer_axes(model.arch).items())
        arch = replace(model.arch, quantization=Quantization(Bits(FLOAT, 8), 8, floats))
        self.net = rebuild(model, arch, new=is_scale, seed=0).net
        self.net.requires_grad_(requires_grad=False)
        self.net.eval()
        self.axes = axes_of(model.net)
        self.state = {name: tensor.detach().clone() for name, tensor in model.net.state_dict().items()}
        modules = dict(self.net.named_modules())
        self.layers = {name: module for name, module in modules.items() if isinstance(module, Weighted)}
        self.acts = {name: module for name, module in modules.items() if isinstance(module, Act)}
        self.deep = [name for name, module in self.layers.items() if isinstance(module, Conv) and module.groups > 1]
        rest = [name for name in self.state if name.removesuffix(".weight") not in self.layers]
        self.rest = {name: (modules[name.rpartition(".")[0]], name.rpartition(".")[2]) for name in rest}
        self.rounded = Rounded()

    @torch.no_grad()
    def play(self, plan: Plan) -> Model:
        """Give the network of a plan; it is the same object each time.

        Its weights are rounded, its norms have the statistics of the original, its activations wait for scales.
        """
        index = {axis: torch.tensor(kept) for axis, kept in plan.kept.items()}
        rule, ends = Rule(plan.arch), edges(plan.arch)
        for name, (module, leaf) in self.rest.items():
            getattr(module, leaf).data = _cut(self.state[name], self.axes[name], index)
        for name, layer in self.layers.items():
            self._weigh(name, layer, rule.weight(name, edge=name in ends), plan.kept)
        for name, act in self.acts.items():
            act.bits = rule.act(name, edge=name in ends)
            act.low, act.high = act_range(act.bits, act.signed)
            act.scale.zero_()
        return Model(plan.arch, self.net)

    def _weigh(self, name: str, layer: Weighted, bits: tuple[int, ...], kept: Mapping[str, Sequence[int]]) -> None:
        full, (writes, reads) = self.state[f"{name}.weight"], self.axes[f"{name}.weight"]
        out = kept.get(writes, range(full.shape[0]))
        into = tuple(kept[reads]) if reads in kept else None
        each = torch.tensor(each_of(bits, len(out)))
        layer.weight.data = self.rounded.rows(name, full, torch.tensor(list(out)), into, each)
        if name in self.deep:
            assert isinstance(layer, Conv)
            layer.groups = len(out)
        if 0 not in bits:
            return
        dead = each == 0
        if isinstance(layer, Linear):
            layer.bias.data[dead] = 0
        else:
            prefix, _, leaf = name.rpartition(".")
            norm = self.net.get_submodule(f"{prefix}.{leaf.replace('conv', 'norm')}")
            for tensor in (norm.weight, norm.bias):
                assert isinstance(tensor, Tensor)
                tensor.data[dead] = 0


def _cut(tensor: Tensor, axes: tuple[str, ...], index: Mapping[str, Tensor]) -> Tensor:
    """Give the channels of a tensor that are there, as a copy."""
    found = [(dim, index[axis]) for dim, axis in enumerate(axes) if axis in index]
    for dim, chosen in found:
        tensor = tensor.index_select(dim, chosen)
    return tensor if found else tensor.clone()


class Rounded:
    """Weights that were rounded, by layer, the inputs that are there, bits and channel; the oldest are forgotten."""

    def __init__(self, limit: int = CACHED) -> None:
        self.limit, self.held = limit, 0
        self.tables: OrderedDict[tuple[str, tuple[int, ...] | None], Table] = OrderedDict()

    def rows(self, layer: str, full: Tensor, out: Tensor, into: tuple[int, ...] | None, bits: Tensor) -> Tensor:
        """Give the rounded weights of channels `out` (n,) with bits (n,), of which 0 gives 0.

        Each channel is rounded with its scale of least error over the inputs `into`, None for all, as calibration does.
        """
        cut = full if into is None else full.index_select(1, torch.tensor(into))
        table = self.tables.setdefault((layer, into), {})
        self.tables.move_to_end((layer, into))
        result = torch.zeros(len(out), *cut.shape[1:])
        widths = [int(b) for b in bits.unique() if b]
        for b in widths:
            if b not in table:
                table[b] = torch.empty_like(cut), torch.zeros(len(cut), dtype=torch.bool)
                self.held += cut.numel() * cut.element_size()
        chosen = {b: (bits == b).nonzero()[:, 0] for b in widths}
        missing = {b: out[at][~table[b][1][out[at]]] for b, at in chosen.items()}
        self._round(cut, {b: channels for b, channels in missing.items() if len(channels)}, table)
        for b, at in chosen.items():
            result[at] = table[b][0][out[at]]
        self._forget()
        return result

    @staticmethod
    def _round(cut: Tensor, missing: Mapping[int, Tensor], table: Table) -> None:
        if not missing:
            return
        bits = tuple(b for b, channels in missing.items() for _ in range(len(channels)))
        levels = weight_levels(bits, len(bits))
        rows = cut[torch.cat(list(missing.values()))]
        done = RoundWeight.apply(rows, best_weight_scale(rows, levels), levels, torch.tensor([b == 1 for b in bits]))
        assert isinstance(done, Tensor)
        for (b, channels), part in zip(missing.items(), done.split([len(c) for c in missing.values()]), strict=True):
            table[b][0][channels] = part
            table[b][1][channels] = True

    def _forget(self) -> None:
        while self.held > self.limit and len(self.tables) > 1:
            _, table = self.tables.popitem(last=False)
            self.held -= sum(values.numel() * values.element_size() for values, _ in table.values())
