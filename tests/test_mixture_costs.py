"""What a mixture costs, counted by hand; what is shared counts once."""

from dataclasses import replace

import mixtures
import pytest
import samples
import torch

from compressor import cost
from compressor.arch import (
    Arch,
    Bits,
    Block,
    BlockKind,
    Quantization,
    Routing,
    Rule,
    Stage,
    Task,
    TaskKind,
    Unit,
)
from compressor.mixture import Mixture, answer, assemble, cost_table, costs
from compressor.mixture.costs import PartCost
from compressor.mixture.measuring import measure

SIZE, TASK = 8, Task(TaskKind.MULTICLASS, 3)


def plain(*widths: int, outputs: int = 3, stages: int = 1, rule: Quantization | None = None) -> Arch:
    """Give a chain of 3x3 convolutions of stride 2 on 8 x 8 images, and a linear layer."""
    blocks = [Block(BlockKind.PLAIN, (width,), 2) for width in widths]
    parts = [tuple(blocks)] if stages == 1 else [(block,) for block in blocks]
    return replace(
        samples.arch(),
        stem=None,
        task=replace(TASK, outputs=outputs),
        stages=tuple(Stage(part) for part in parts),
        quantization=rule,
    )


def two(*, shared: bool = False) -> Mixture:
    """Give two experts, 2 and 4 channels then 3, and a router of 5 channels, 4-bit weights and 6-bit activations."""
    first = plain(2, 3, stages=2)
    second = plain(2, 5, stages=2) if shared else plain(4, 3)
    router = plain(2, 5, outputs=2, stages=2) if shared else plain(5, outputs=2, rule=Quantization(Bits(4, 6), 8))
    rule = Rule(Routing.TOP1, 1, shared, (0, 1), (0.0, 0.0), 0.5)
    experts = tuple(samples.model(arch, seed) for seed, arch in enumerate((first, second)))
    return assemble(rule, samples.model(router, 2), experts)


class TestByHand:
    def test_each_network_of_two_experts_and_a_router(self):
        found = costs(two())
        assert found.first == PartCost(0, 0, (cost.PathCost(0, 0),))
        macs = [16 * 9 * 2 + 4 * 9 * 2 * 3 + 3 * 3, 16 * 9 * 4 + 4 * 9 * 4 * 3 + 3 * 3, 16 * 9 * 5 + 5 * 2]
        assert [part.macs for part in (*found.experts, found.router)] == macs
        assert [part.bitops for part in found.experts] == [each * 32 * 32 for each in macs[:2]]
        assert found.router.bitops == 16 * 9 * 5 * 8 * 8 + 5 * 2 * 8 * 8
        params = [9 * 2 + 4 + 9 * 6 + 6 + 9 + 3, 9 * 4 + 8 + 9 * 12 + 6 + 9 + 3, 9 * 5 + 10 + 10 + 2]
        assert [part.params for part in (*found.experts, found.router)] == params
        bits = [32 * (18 + 2 + 54 + 3 + 9 + 3), 32 * (36 + 4 + 108 + 3 + 9 + 3)]
        assert [part.size_bits for part in found.experts] == bits
        scales = 32 * (5 + 2) + 32 * 3  # of two layers' channels; of the image, the convolution and the head's input
        assert found.router.size_bits == 8 * (45 + 10) + 32 * (5 + 2) + scales
        assert found.params == sum(params)
        assert found.size_bits == sum(bits) + found.router.size_bits

    def test_the_mean_is_the_router_and_whoever_answered(self):
        found = costs(two())
        weights = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.4, 0.6]])
        heads = torch.where(weights > 0, 0, -1)
        cheap, dear = (part.macs for part in found.experts)
        assert found.mean(weights > 0, heads, Unit.MACS) == found.router.macs + (3 * cheap + 2 * dear) / 4

    def test_the_dearest_and_the_cheapest_image(self):
        mixture = two()
        found, rule = costs(mixture), mixture.rule
        cheap, dear, router = found.experts[0].bitops, found.experts[1].bitops, found.router.bitops
        assert (found.least(rule, Unit.BITOPS), found.worst(rule, Unit.BITOPS)) == (router + cheap, router + dear)
        for changed in (replace(rule, routing=Routing.SOFT), replace(rule, routing=Routing.TOPK, k=2)):
            assert found.worst(changed, Unit.BITOPS) == router + cheap + dear

    def test_a_shared_first_stage_counts_once(self):
        found = costs(two(shared=True))
        first = 16 * 9 * 2
        assert found.first.macs == first
        assert found.first.params == 9 * 2 + 4
        assert found.first.size_bits == 32 * (18 + 2)
        assert [part.macs for part in found.experts] == [4 * 9 * 2 * 3 + 3 * 3, 4 * 9 * 2 * 5 + 5 * 3]
        assert found.router.macs == 4 * 9 * 2 * 5 + 5 * 2
        assert found.always(Unit.MACS) == first + found.router.macs
        params = (9 * 2 + 4) + (54 + 6 + 9 + 3) + (90 + 10 + 15 + 3) + (90 + 10 + 10 + 2)
        assert found.params == params

    def test_a_threshold_and_prices_are_stored_in_32_bits_each(self):
        mixture = two()
        before = costs(mixture).size_bits
        mixture.follow(replace(mixture.rule, prices=(0.0, 0.5)))
        assert costs(mixture).size_bits == before + 64
        mixture.follow(replace(mixture.rule, prices=(0.0, 0.0), routing=Routing.THRESHOLD))
        assert costs(mixture).size_bits == before + 32


@pytest.mark.parametrize("make", [mixtures.toy, mixtures.shared_toy, lambda: mixtures.toy(exits=True)])
def test_the_layers_add_up_to_the_whole(make):
    mixture = make()
    found, rows = costs(mixture), cost_table(mixture)
    whole = [found.first, found.router, *found.experts]
    assert sum(row.macs for row in rows) == sum(part.macs for part in whole)
    assert sum(row.params for row in rows) == found.params
    assert len({row.name for row in rows}) == len(rows)
    parameters = sum(p.numel() for name, p in mixture.net.named_parameters() if not name.endswith("scale"))
    assert found.params == parameters


def test_an_image_that_leaves_an_expert_early_costs_what_it_ran(digits):
    mixture = mixtures.toy(exits=True)
    for expert in mixture.experts:
        if expert.net.exits:
            expert.net.thresholds.fill_(0.2)
    given, found = answer(mixture, digits.test), costs(mixture)
    left = [(e, h) for e, h in zip(given.weights.argmax(1).tolist(), given.heads.amax(1).tolist(), strict=True)]
    spent = sum(cost.paths(mixture.experts[expert])[head].bitops for expert, head in left) / len(left)
    assert {head for expert, head in left if expert != 1} == {0, 1}
    assert found.mean(given.weights, given.heads, Unit.BITOPS) == pytest.approx(found.router.bitops + spent)


def test_a_measurement_states_these_numbers(digits):
    mixture = mixtures.toy()
    found, measured = costs(mixture), measure(mixture, digits, samples.RUNTIME)
    assert (measured.cost.params, measured.cost.size_bits) == (found.params, found.size_bits)
    assert measured.cost.bitops == found.worst(mixture.rule, Unit.BITOPS)
    part = measured.mixture
    assert part is not None
    assert [each.bitops for each in part.experts] == [each.bitops for each in found.experts]
    shares = torch.tensor(measured.test.shares)
    bitops = torch.tensor([each.bitops for each in part.experts], dtype=torch.float64)
    assert measured.test.bitops == pytest.approx(part.router.bitops + float((shares.double() * bitops).sum()))
    assert part.overhead == pytest.approx(part.router.macs / measured.test.macs)
    assert [each.batch for each in part.times] == [1, 256]
    assert all(0 < each.router < each.seconds for each in part.times)
    classes = torch.tensor(part.test.by_class)
    counts = torch.bincount(torch.from_numpy(digits.test.targets), minlength=10)
    torch.testing.assert_close((classes * counts[:, None]).sum(dim=0) / counts.sum(), shares)
