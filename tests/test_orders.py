"""Every order of phases is legal, ends where its letters say, reloads bit for bit, and shares what it has in common."""

import itertools
import random
from dataclasses import replace
from pathlib import Path

import pytest
import samples
import torch

from compressor.arch import Arch, BlockKind, exit_blocks, keep, shrink, widths
from compressor.arch import Exits as ExitRule
from compressor.arch import Quantization as QuantizationRule
from compressor.config import ArchitectureConfig
from compressor.cost import paths
from compressor.families import FAMILIES, architecture
from compressor.folders import digest_of
from compressor.measure import measure
from compressor.model import Model, fresh, load, same, save
from compressor.phases.prune import layer_counts
from compressor.pipeline import Step
from compressor.store import Store

ALL = tuple("".join(letters) for letters in itertools.permutations("DPQE"))


def assert_reloads(folder: Path, digest: str, again: Path) -> Model:
    model = load(folder)
    again.mkdir()
    assert save(model, again) == digest_of(folder) == digest
    reloaded = load(again)
    assert same(reloaded, model)
    x = samples.images(5, model.arch)
    with torch.no_grad():
        for ours, theirs in zip(model.net.eval()(x), reloaded.net.eval()(x), strict=True):
            assert torch.equal(ours, theirs)
    return model


def assert_did(model: Model, order: str, start: Arch) -> None:
    """Check that each letter left its mark, whatever came after it."""
    blocks = sum(len(stage.blocks) for stage in model.arch.stages)
    assert (blocks < 4) == ("D" in order)
    assert (model.arch.quantization is not None) == ("Q" in order)
    assert (model.arch.exits is not None) == ("E" in order)
    assert len(model.net(samples.images(2))) == 1 + len(exit_blocks(model.arch))
    kept = {axis: size / widths(start)[axis] for axis, size in widths(model.arch).items()}
    assert all((share < 1) == ("P" in order) for share in kept.values())


@pytest.mark.parametrize("kind", BlockKind)
def test_all_24_orders_train_reload_and_end_in_one_architecture_after_65_steps(kind, digits, tmp_path, unpickled):
    start, store, keys, ends = samples.arch(kind), Store(tmp_path / "store"), [], set()
    for order in ALL:
        last, record, metrics, ran = samples.finish(samples.settings(tmp_path, order, start), digits)
        keys += ran
        model = assert_reloads(store.folder(last.key), record.model, tmp_path / order)
        assert_did(model, order, start)
        ends.add((model.arch, metrics.after.cost.bitops, metrics.after.cost.size_bits))
        assert metrics.bitops_ratio > 5
    assert len(keys) == len(set(keys)) == 65
    assert len(ends) == 1
    assert unpickled == []


def test_a_second_call_runs_no_step_and_gives_the_same_record(digits, tmp_path):
    for order in ("DPQE", "EPDQ"):
        config = samples.settings(tmp_path, order, samples.STANDARD)
        _, record, metrics, ran = samples.finish(config, digits)
        assert ran
        assert samples.finish(config, digits)[1:] == (record, metrics, [])


def test_20_random_orders_of_up_to_7_letters_run_and_reload(digits, tmp_path, unpickled):
    source, store = random.Random(7), Store(tmp_path / "store")
    orders = ["".join(source.choices("DPQE", k=source.randint(1, 7))) for _ in range(20)]
    assert any(len(set(order)) < len(order) for order in orders)
    for i, order in enumerate(orders):
        last, record, _, _ = samples.finish(samples.settings(tmp_path, order, samples.STANDARD), digits)
        model = assert_reloads(store.folder(last.key), record.model, tmp_path / str(i))
        assert_did(model, order, samples.STANDARD)
    assert unpickled == []


def test_what_was_measured_is_what_the_reloaded_model_does(digits, tmp_path):
    last, _, metrics, _ = samples.finish(samples.settings(tmp_path, "QEP", samples.STANDARD), digits)
    again = measure(load(Store(tmp_path / "store").folder(last.key)), digits, samples.RUNTIME)
    bytes_ = metrics.after.cost.checkpoint_bytes
    assert replace(again, cost=replace(again.cost, checkpoint_bytes=bytes_)) == metrics.after
    assert bytes_ > 0


def test_the_same_order_in_another_store_gives_the_same_bits(digits, tmp_path):
    both = [samples.finish(samples.settings(tmp_path / name, "DQ", samples.STANDARD), digits)[1] for name in ("a", "b")]
    assert both[0].model == both[1].model


def test_repeating_a_letter_goes_on_from_where_it_was(digits, tmp_path):
    last, record, _, _ = samples.finish(samples.settings(tmp_path, "PP", samples.STANDARD), digits)
    first = last.inputs[0][1]
    assert isinstance(first, Step)
    assert record.inputs["model"].key == first.key
    once, twice = (widths(load(Store(tmp_path / "store").folder(step.key)).arch) for step in (first, last))
    assert all(twice[axis] < once[axis] for axis in once)


def edited(arch: Arch, letter: str) -> Arch:
    """Change an arch as the phase of a letter does, without training."""
    match letter:
        case "D":
            return shrink(arch, samples.DISTILL.depth, samples.DISTILL.width)
        case "P":
            counts = layer_counts({a: torch.zeros(n) for a, n in widths(arch).items()}, samples.PRUNE.ratio, 1)
            return keep(arch, {axis: range(count) for axis, count in counts.items()})
        case "Q":
            return replace(arch, quantization=QuantizationRule(samples.QUANTIZE.bits, samples.QUANTIZE.edge_bits))
        case _:
            return replace(arch, exits=ExitRule(samples.EXIT.positions, samples.EXIT.criterion, width=8))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_edits_of_all_24_orders_give_one_architecture_for_every_family(family):
    config = ArchitectureConfig(name=family, width=0.25, stem="auto", mean=None, std=None, network=None)
    start = architecture(config, 3, 32, (0.5,) * 3, (0.25,) * 3, samples.TASK)
    ends = set()
    for order in ALL:
        arch = start
        for letter in order:
            arch = edited(arch, letter)
        ends.add(arch)
    (end,) = ends
    before, after = (paths(fresh(arch, 0))[-1].bitops for arch in (start, end))
    assert 0 < after < before / 40
