"""Limits, and the bill of a policy: counted as `cost` counts the model that is built of it, but in whole numbers only.

A channel goes by `keep`, or because nothing reads it as other than 0, as the layers that decide that give it 0 bits;
one that has 0 bits in some of these layers only stays, masked, and is counted.
"""

from collections.abc import Iterable
from copy import copy
from dataclasses import dataclass
from functools import lru_cache
from operator import mul

from compressor.config.search import SearchBudget
from compressor.cost import BIAS_BITS, MIXED_BITS, SCALE_BITS
from compressor.errors import ConfigError
from compressor.search.space import EDGE, LEAST_ACT, MOST, Space, split
from compressor.search.types import Bill, Mode, Policy

NAMES = ("size", "bitops", "macs", "latency")
PLAIN_BITS = BIAS_BITS + SCALE_BITS
MARKED_BITS = PLAIN_BITS + MIXED_BITS
"""Bits of a channel beside its weights: of a layer whose channels have one width, and of several widths."""


@dataclass(frozen=True)
class Limits:
    """What a model may cost at most: bits, BitOps and MACs of an image, milliseconds; None: no such limit."""

    size: int | None = None
    bitops: int | None = None
    macs: int | None = None
    latency: float | None = None

    @classmethod
    def of(cls, budget: SearchBudget, space: Space, baseline: Bill | None = None) -> "Limits":
        """Turn a budget, shares of the baseline's bill, into absolute limits.

        Raises:
            ConfigError: not even the smallest model that the space has meets it; the line says what that one costs.
        """
        whole = baseline or space.baseline
        if budget.latency_ms is not None and space.table is None:
            raise ConfigError("search.budget.latency_ms: the layers have not been timed; give the space their table")
        shares = {name: getattr(budget, name) for name in ("size", "bitops", "macs")}
        totals = {name: int(share * getattr(whole, name)) for name, share in shares.items() if share is not None}
        limits = cls(**totals, latency=budget.latency_ms)
        if said := shortfall(budget, limits, least_of(space).bill(), whole):
            raise ConfigError(said)
        return limits

    def totals(self) -> tuple[float | None, ...]:
        """Give the limits in the order of `NAMES`."""
        return self.size, self.bitops, self.macs, self.latency

    def allow(self, bill: Bill) -> bool:
        """Tell whether a bill is within every limit."""
        return all((limit := getattr(self, name)) is None or getattr(bill, name) <= limit for name in NAMES)


def shortfall(budget: SearchBudget, limits: Limits, least: Bill, whole: Bill) -> str:
    """Say which limit the least that is possible exceeds, and what would be right; '' where it exceeds none."""
    for name in NAMES:
        limit, need = getattr(limits, name), getattr(least, name)
        if limit is None or need <= limit:
            continue
        setting = "latency_ms" if name == "latency" else name
        feasible = need if name == "latency" else need / getattr(whole, name)
        given = f"search.budget.{setting}={getattr(budget, setting):g}"
        return f"{given}: the smallest feasible value is {_up(feasible)}"
    return ""


def _up(value: float) -> str:
    """Write a number with three digits, rounded up, so that it is feasible when typed."""
    text = f"{value:.3g}"
    return text if float(text) >= value else f"{value * 1.005:.3g}"


def bill_of(policy: Policy, space: Space) -> Bill:
    """Give what the model of a policy costs: `cost.size_bits`, its worst path's BitOps and MACs, and its latency.

    The latency is that of the space's table, None without one.
    """
    tally = least_of(space).copy()
    for axis, count in policy.keep.items():
        tally.keep(axis, count)
    for tensor, bits in policy.acts.items():
        tally.act(tensor, bits)
    for layer, groups in policy.bits.items():
        for group, bits in enumerate(groups):
            tally.weigh(layer, group, bits)
    return tally.bill()


@lru_cache(maxsize=8)
def least_of(space: Space) -> "Tally":
    """Give the tally with every decision at its minimum; copy it before changing it."""
    return Tally(space)


Row = tuple[int, int, int, int]


class Tally:
    """A bill that is kept up to date as decisions change; it begins with every decision at its minimum.

    That is: the least channels, the fewest bits of activations, and of a layer's groups one bit (in fixed mode the
    given number) for the most important and 0 for the others. `sizes` are those of each axis' groups, `live` the same
    with 0 for groups that are not there, `present` their sums.
    """

    def __init__(self, space: Space) -> None:
        self.space, self.layers = space, space.layers
        self.first = space.bits if space.mode is Mode.FIXED else 1
        self.options = (space.bits,) if space.mode is Mode.FIXED else tuple(range(1, MOST + 1))
        self.index = {layer.name: i for i, layer in enumerate(self.layers)}
        self.deciders = {axis: self._deciding(axis) for axis in space.axes}
        self.touched = {
            axis: [i for i, layer in enumerate(self.layers) if axis in (layer.writes, layer.reads)]
            for axis in space.axes
        }
        self.users: dict[str, list[int]] = {}
        for i, layer in enumerate(self.layers):
            self.users.setdefault(layer.tensor, []).append(i)
        fewest = LEAST_ACT if space.search_acts else space.act_bits
        self.acts = dict.fromkeys(self.users, EDGE) | dict.fromkeys(space.tensors, fewest)
        fewest_of = [self.first] + [0] * (space.groups - 1)
        self.bits = [[EDGE] * space.groups if layer.edge else list(fewest_of) for layer in self.layers]
        self.sizes = {axis: split(least, space.groups) for axis, least in space.least.items()}
        self.live = {axis: self._living(axis) for axis in space.axes}
        self.present = {axis: sum(live) for axis, live in self.live.items()}
        self.rows: list[Row] = [(0, 0, 0, 0)] * len(self.layers)
        self.size, self.bitops, self.macs = SCALE_BITS * space.rounded, 0, 0
        self.nanoseconds = space.table.base if space.table else 0
        self._update(range(len(self.layers)))

    def _deciding(self, axis: str) -> list[int]:
        """Number the layers that decide whether an axis' channels are there; none where they always are."""
        found = [self.index[name] for name in self.space.deciders[axis]]
        return [] if any(self.layers[i].edge for i in found) else found

    def copy(self) -> "Tally":
        """Give another tally in the same state."""
        other = copy(self)
        other.acts, other.sizes, other.present = dict(self.acts), dict(self.sizes), dict(self.present)
        other.live = {axis: list(live) for axis, live in self.live.items()}
        other.bits, other.rows = [list(bits) for bits in self.bits], list(self.rows)
        return other

    def _living(self, axis: str) -> list[int]:
        sizes, deciders = self.sizes[axis], self.deciders[axis]
        if not deciders:
            return list(sizes)
        return [size if any(self.bits[i][j] for i in deciders) else 0 for j, size in enumerate(sizes)]

    def _row(self, i: int) -> Row:
        """Count one layer: size, BitOps, MACs and nanoseconds."""
        layer, bits = self.layers[i], self.bits[i]
        into = self.present[layer.reads] if layer.reads else layer.into
        each = layer.area if layer.kind == "depthwise" else layer.area * into
        if not layer.writes:
            out, total, mixed = layer.out, layer.out * EDGE, False
        else:
            live, out = self.live[layer.writes], self.present[layer.writes]
            total = sum(map(mul, live, bits))
            mixed = total != bits[0] * out or (bits.count(bits[0]) < len(live) and len(_found(live, bits)) > 1)
        work, table = each * layer.positions, self.space.table
        return (
            each * total + (MARKED_BITS if mixed else PLAIN_BITS) * out,
            work * total * self.acts[layer.tensor],
            work * out,
            table.nanoseconds(layer.name, into, out) if table else 0,
        )

    def _update(self, layers: Iterable[int]) -> None:
        for i in layers:
            size, bitops, macs, nanoseconds = self.rows[i]
            row = self.rows[i] = self._row(i)
            self.size += row[0] - size
            self.bitops += row[1] - bitops
            self.macs += row[2] - macs
            self.nanoseconds += row[3] - nanoseconds

    def keep(self, axis: str, count: int) -> None:
        """Set the number of channels that an axis keeps."""
        self.sizes[axis] = split(count, self.space.groups)
        live = self.live[axis] = self._living(axis)
        self.present[axis] = sum(live)
        self._update(self.touched[axis])

    def act(self, tensor: str, bits: int) -> None:
        """Set the bits of an activation."""
        self.acts[tensor] = bits
        self._update(self.users.get(tensor, ()))

    def weigh(self, layer: str, group: int, bits: int) -> None:
        """Set the bits of a group of a layer's channels."""
        i = self.index[layer]
        before, self.bits[i][group] = self.bits[i][group], bits
        axis = self.layers[i].writes
        if (before == 0) != (bits == 0) and i in (deciders := self.deciders[axis]):
            live, was = self.live[axis], self.live[axis][group]
            now = live[group] = self.sizes[axis][group] if any(self.bits[d][group] for d in deciders) else 0
            if now != was:
                self.present[axis] += now - was
                self._update(self.touched[axis])
                return
        self._update((i,))

    def fitting(self, layer: str, group: int, limits: Limits) -> tuple[int, ...]:
        """Give the bits that a group may have within the limits; it must have the fewest, and keeps them.

        From 1 bit on size and BitOps rise by equal steps, but for the bits that say how wide each channel is.
        """
        i, spec = self.index[layer], self.layers[self.index[layer]]
        fewest = self.bits[i][group]
        if group >= len(self.sizes[spec.writes]):
            return (0,)
        if not fewest:
            self.weigh(layer, group, self.options[0])
        live, work = self.live[spec.writes], spec.positions * self.acts[spec.tensor]
        step = live[group] * spec.area
        if spec.kind != "depthwise":
            step *= self.present[spec.reads] if spec.reads else spec.into
        others = _found(live, self.bits[i], group)
        mark = MIXED_BITS * self.present[spec.writes] if live[group] and others else 0
        size = self.size - (mark if others != {self.options[0]} else 0)
        fits = []
        if self._within_shape(limits):
            for more, bits in enumerate(self.options):
                spent = size + step * more + (mark if others != {bits} else 0)
                if (limits.size is None or spent <= limits.size) and (
                    limits.bitops is None or self.bitops + step * more * work <= limits.bitops
                ):
                    fits.append(bits)
        if not fewest:
            self.weigh(layer, group, 0)
            fits.insert(0, 0)
        return tuple(fits)

    def totals(self) -> tuple[int, int, int, float]:
        """Give size, BitOps, MACs and milliseconds."""
        return self.size, self.bitops, self.macs, self.nanoseconds / 1e6

    def bill(self) -> Bill:
        """Give the bill as it is."""
        return Bill(self.size, self.bitops, self.macs, self.nanoseconds / 1e6 if self.space.table else None)

    def policy(self) -> Policy:
        """Give the policy that is counted."""
        return Policy(
            keep={axis: sum(sizes) for axis, sizes in self.sizes.items()},
            bits={
                layer.name: tuple(bits[: len(self.sizes[layer.writes])])
                for layer, bits in zip(self.layers, self.bits, strict=True)
                if not layer.edge
            },
            acts={tensor: self.acts[tensor] for tensor in self.space.tensors},
        )

    def within(self, limits: Limits) -> bool:
        """Tell whether the bill is within every limit."""
        return (
            (limits.size is None or self.size <= limits.size)
            and (limits.bitops is None or self.bitops <= limits.bitops)
            and self._within_shape(limits)
        )

    def _within_shape(self, limits: Limits) -> bool:
        """Tell whether what does not depend on bits is within its limits."""
        return (limits.macs is None or self.macs <= limits.macs) and (
            limits.latency is None or self.nanoseconds <= limits.latency * 1e6
        )


def _found(live: list[int], bits: list[int], but: int = -1) -> set[int]:
    """Give the bits of a layer's groups that are there, one of them left out."""
    return {b for j, (size, b) in enumerate(zip(live, bits, strict=False)) if size and j != but}
