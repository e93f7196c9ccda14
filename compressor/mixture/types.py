"""A mixture in memory: the experts and the router as models, and all their modules as one network to run and train."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compressor.arch import MixtureArch, Rule, Task
from compressor.mixture.rule import certainties, decide, mix
from compressor.model import Model
from compressor.network import Network

FIRST = ("image.", "stem.", "blocks.s0b")
"""How the names begin of the layers that experts and router may share."""


class First(nn.Module):
    """What lies before the second stage, in one network for all that share it."""

    def __init__(self, net: Network) -> None:
        super().__init__()
        self.enter = net.enter
        self.image, self.stem = net.image, net.stem
        self.blocks = nn.ModuleDict({name: block for name, block in net.blocks.items() if name.startswith("s0b")})

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, C, H, W) to the stream that the second stages read."""
        x = self.enter(images)
        for block in self.blocks.values():
            x = block(x)
        return x


class Rest(nn.Module):
    """What a network has from its second stage on; it reads what `First` gives."""

    def __init__(self, net: Network) -> None:
        super().__init__()
        self.blocks = nn.ModuleDict({name: block for name, block in net.blocks.items() if not name.startswith("s0b")})
        self.tail, self.head = net.tail, net.head

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Give the outputs (N, outputs) of the one head."""
        for block in self.blocks.values():
            x = block(x)
        return (self.head(self.tail(x) if self.tail else x),)


class MixtureNet(nn.Module):
    """All networks of a mixture, each parameter once. `forward` is for training: it runs every expert."""

    def __init__(self, rule: Rule, task: Task, router: Network | None, experts: tuple[Network, ...]) -> None:
        super().__init__()
        self.rule, self.task = rule, task
        self.first = First(router) if router and rule.shared else None
        self.router = Rest(router) if router and rule.shared else router
        self.experts = nn.ModuleList([Rest(net) if rule.shared else net for net in experts])

    def enter(self, images: Tensor) -> Tensor:
        """Give what router and experts read: the images themselves, or the shared first stage's stream."""
        return images if self.first is None else self.first(images)

    def scores(self, x: Tensor) -> Tensor | None:
        """Give the router's scores (N, experts) of what `enter` gave; a cascade has none before its experts answer."""
        return None if self.router is None else self.router(x)[-1].float()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Give the scores, then every head of every expert in turn, then the mixture's own outputs."""
        x = self.enter(images)
        scores, heads = self.scores(x), [expert(x) for expert in self.experts]
        finals = torch.stack([outs[-1].float() for outs in heads])
        if scores is None:
            scores = certainties(finals, self.task)
        with torch.no_grad():
            mixed = mix(finals, decide(scores, self.rule), self.task)
        return (scores, *(out for outs in heads for out in outs), mixed)


@dataclass
class Mixture:
    """The networks of a mixture, and the rule by which images are sent. With `rule.shared` they share modules.

    A cascade has no router.
    """

    rule: Rule
    router: Model | None
    experts: tuple[Model, ...]
    net: MixtureNet

    @property
    def task(self) -> Task:
        """What it answers."""
        return self.experts[0].arch.task

    @property
    def arch(self) -> MixtureArch:
        """Describe it without its tensors."""
        router = self.router and self.router.arch
        return MixtureArch(self.rule, router, tuple(expert.arch for expert in self.experts))

    def follow(self, rule: Rule) -> None:
        """Send images by another rule, over the same networks."""
        self.rule = self.net.rule = rule


def assemble(rule: Rule, router: Model | None, experts: tuple[Model, ...]) -> Mixture:
    """Make networks a mixture; where the first stage is shared, all take that of the cheapest expert."""
    if router and rule.shared:
        source = experts[rule.order[0]].net
        for model in (router, *experts):
            take_first(model.net, source)
    net = MixtureNet(rule, experts[0].arch.task, router and router.net, tuple(expert.net for expert in experts))
    return Mixture(rule, router, experts, net.eval())


def take_first(net: Network, source: Network) -> None:
    """Let a network read what another's first stage gives; both then hold the same modules."""
    net.image, net.stem = source.image, source.stem
    for name in source.blocks:
        if name.startswith("s0b"):
            net.blocks[name] = source.blocks[name]


def heads_of(mixture: Mixture, outputs: tuple[Tensor, ...]) -> tuple[Tensor, list[tuple[Tensor, ...]]]:
    """Take apart what the network gives in training: the scores, and each expert's heads."""
    found, start = [], 1
    for expert in mixture.experts:
        count = len(expert.net.cuts)
        found.append(outputs[start : start + count])
        start += count
    return outputs[0], found
