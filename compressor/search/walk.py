"""One policy, decided step by step. A walk never leaves its budget: what is left, at its minimum, always fits."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from compressor.errors import ConfigError
from compressor.search.budget import Limits, least_of
from compressor.search.space import LEAST_ACT, MOST, Layer, Space
from compressor.search.types import Policy

KINDS = ("conv", "depthwise", "linear")


@dataclass(frozen=True)
class Decision:
    """One number to decide.

    `kind` is keep, acts or bits; `name` the axis, tensor or layer; `group` the group of a layer's channels, 0 being the
    most important; `before` are the shares of the weights and MACs that layers decided earlier have; `traits` are what
    the features say of it however the walk went.
    """

    kind: str
    name: str
    group: int
    before: tuple[float, float]
    traits: tuple[float, ...]


@lru_cache(maxsize=8)
def decisions_of(space: Space) -> tuple[Decision, ...]:
    """List what a walk decides, in its order: axis by axis channels and activations' bits, then layers' bits."""
    own = {axis: [layer for layer in space.layers if layer.writes == axis] for axis in space.axes}
    found: list[Decision] = []
    done = (0.0, 0.0)
    for axis, layers in own.items():
        traits = (*_traits(space, layers), *space.curves[axis])
        found.append(Decision("keep", axis, 0, done, traits))
        if space.search_acts:
            tensors = [tensor for tensor, of in space.tensors.items() if of == axis]
            found += [Decision("acts", tensor, 0, done, traits) for tensor in tensors]
        done = _plus(done, _shares(space, layers))
    done = (0.0, 0.0)
    for layer in space.layers:
        if not layer.edge:
            traits = (*_traits(space, [layer]), *space.curves[layer.writes])
            found += [Decision("bits", layer.name, group, done, traits) for group in range(space.groups)]
        done = _plus(done, _shares(space, [layer]))
    return tuple(found)


def _plus(a: tuple[float, float], b: tuple[float, float]) -> tuple[float, float]:
    return min(1.0, a[0] + b[0]), min(1.0, a[1] + b[1])


def _weights(layer: Layer) -> int:
    return layer.area * layer.out * (1 if layer.kind == "depthwise" else layer.into)


def _shares(space: Space, layers: list[Layer]) -> tuple[float, float]:
    """Give some layers' shares of all weights and of all MACs."""
    weights, macs = (
        sum(_weights(layer) * (layer.positions if mapped else 1) for layer in layers) for mapped in (False, True)
    )
    all_weights, all_macs = (
        sum(_weights(layer) * (layer.positions if mapped else 1) for layer in space.layers) for mapped in (False, True)
    )
    return weights / all_weights, macs / all_macs


def _traits(space: Space, layers: list[Layer]) -> tuple[float, ...]:
    """Describe layers, the first of them foremost: place, kind, channels, kernel, stride, map and shares, in 0..1."""
    layer, count = layers[0], len(space.layers)
    widest = max(max(each.out, each.into) for each in space.layers)
    largest = max(each.positions for each in space.layers)
    return (
        space.layers.index(layer) / max(1, count - 1),
        *(float(layer.kind == kind) for kind in KINDS),
        layer.into / widest,
        layer.out / widest,
        min(1.0, layer.kernel / 7),
        layer.stride / 4,
        (layer.positions / largest) ** 0.5,
        *_shares(space, layers),
        len(layers) / count,
    )


class Walk:
    """A policy in the making: `choose` takes the decisions one by one, in order.

    Raises:
        ConfigError: not even the least model that can be decided is within the limits.
    """

    def __init__(self, space: Space, limits: Limits) -> None:
        self.space, self.decisions = space, decisions_of(space)
        self.limits, self.tally = limits, least_of(space).copy()
        self.position, self.last = 0, 0.0
        self.weighed: list[int] = []
        self._allowed: Sequence[int] = ()
        if not self.tally.within(limits):
            raise ConfigError(f"search.budget: {limits} is below what the least model costs, {self.tally.bill()}")

    @property
    def done(self) -> bool:
        """Tell whether everything is decided."""
        return self.position == len(self.decisions)

    @property
    def decision(self) -> Decision:
        """Give what is to be decided now."""
        return self.decisions[self.position]

    def bounds(self) -> tuple[int, int]:
        """Give the least and the greatest integer that may be chosen now."""
        allowed = self.allowed()
        return allowed[0], allowed[-1]

    def allowed(self) -> Sequence[int]:
        """Give the integers, rising, from which the rest, at its minimum, still meets every limit."""
        if not self._allowed:
            self._allowed = self._fitting()
        return self._allowed

    def _fitting(self) -> Sequence[int]:
        decision, tally, limits = self.decision, self.tally, self.limits
        if decision.kind == "bits":
            return tally.fitting(decision.name, decision.group, limits)
        options = self._options()
        fits, tried, high = options[0], options[-1], options[-1]
        while fits < high:  # what it costs never falls as the number rises
            self._put(tried)
            fits, high = (tried, high) if tally.within(limits) else (fits, tried - 1)
            tried = (fits + high + 1) // 2
        self._put(options[0])
        return range(options[0], fits + 1)

    def _options(self) -> Sequence[int]:
        """Give what the decision may take where nothing is limited; the tally holds the first of it."""
        kind, name = self.decision.kind, self.decision.name
        if kind == "keep":
            return range(self.space.least[name], self.space.axes[name] + 1)
        if kind == "acts":
            return range(LEAST_ACT, MOST + 1)
        layer = self.space.layers[self.tally.index[name]]
        if self.decision.group >= len(self.tally.sizes[layer.writes]):
            return (0,)
        return (0, *self.tally.options) if self.decision.group else self.tally.options

    def _put(self, number: int) -> None:
        decision = self.decision
        if decision.kind == "bits":
            self.tally.weigh(decision.name, decision.group, number)
        else:
            (self.tally.keep if decision.kind == "keep" else self.tally.act)(decision.name, number)

    def choose(self, value: float) -> int:
        """Take the allowed integer nearest to a wish of 0..1, of equally near ones the lower, and give it.

        The wish is a share: of the axis' channels, of 8 bits, or in fixed mode of the one number of bits.
        """
        decision, options = self.decision, self._allowed or self._options()
        kind = decision.kind
        top = self.space.top if kind == "bits" else self.space.axes[decision.name] if kind == "keep" else MOST
        wish = min(1.0, max(0.0, value)) * top
        chosen = _nearest(wish, options)
        self._put(chosen)
        if not self.tally.within(self.limits):
            self._put(options[0])
            chosen = _nearest(wish, self._fitting())
            self._put(chosen)
        if kind == "bits":
            self.weighed.append(chosen)
        self.position, self.last, self._allowed = self.position + 1, chosen / top, ()
        return chosen

    def features(self) -> tuple[float, ...]:
        """Describe the current decision and how the walk stands, all in 0..1.

        Those of bits have one length, those of keep and acts another.
        """
        decision = self.decision
        both = zip(self.tally.totals(), self.limits.totals(), strict=True)
        used = [min(1.0, now / limit) if limit else 0.0 for now, limit in both]
        rest = (1 - decision.before[0], 1 - decision.before[1])
        common = (*decision.traits, *used, *rest, self.last)
        return (*common, *self._group()) if decision.kind == "bits" else (*common, float(decision.kind == "acts"))

    def _group(self) -> tuple[float, ...]:
        """Describe a group: its place, its share of the channels, those kept, and the bits spent so far."""
        tally, group = self.tally, self.decision.group
        i = tally.index[self.decision.name]
        layer, before = self.space.layers[i], tally.bits[i][:group]
        sizes = tally.sizes[layer.writes]
        return (
            group / self.space.groups,
            sum(sizes[group : group + 1]) / sum(sizes),
            sum(sizes) / layer.out,
            sum(tally.sizes[layer.reads]) / layer.into if layer.reads else 1.0,
            tally.acts[layer.tensor] / MOST,
            sum(before) / (MOST * max(1, group)),
            sum(self.weighed) / (MOST * max(1, len(self.weighed))),
        )

    def policy(self) -> Policy:
        """Give what was decided, once everything is."""
        assert self.done, "a policy is whole"
        return self.tally.policy()


def _nearest(wish: float, allowed: Sequence[int]) -> int:
    if isinstance(allowed, range):
        below = int(wish)
        return min(allowed[-1], max(allowed[0], below if wish - below <= 0.5 else below + 1))
    return min(allowed, key=lambda number: abs(number - wish))
