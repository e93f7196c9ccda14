"""The step that applies a policy of sparsity and bits: as pruning, as quantization, and what may come after it."""

import json
import os
import signal
from contextlib import contextmanager
from dataclasses import replace

import pytest
import samples
import torch
from zero_bits import at_random, counts, with_zeros

from compressor.arch import (
    FLOAT,
    ActBits,
    Arch,
    Bits,
    BlockKind,
    Quantization,
    WeightBits,
    keep,
    layer_axes,
    removable,
    widths,
)
from compressor.codec import decode, encode
from compressor.config import Importance
from compressor.config.joint import JointConfig
from compressor.cost import paths, size_bits
from compressor.errors import ConfigError, Interrupted, ModelError
from compressor.layers import Weighted
from compressor.measure import measure
from compressor.model import Model, fresh, load, same, save
from compressor.phase import BY_LETTER, BY_NAME, JOINT
from compressor.phases.importance import importance
from compressor.phases.joint import assign, assigned, unsettled
from compressor.phases.quantize import quantize
from compressor.pipeline import Bench, Step, run
from compressor.progress import silent
from compressor.store import Store
from compressor.training import Context, fit

EIGHT = Quantization(Bits(8, 8), 8)
SHORT = replace(samples.FIT, epochs=0)
PLAIN = JointConfig({}, EIGHT, 80, 80, samples.ALONE, SHORT)
KEPT = {"s0": (0, 2, 3, 5), "s1": (1, 2, 3, 4, 7), "s0b0.0": (1, 2, 3), "s1b1.0": (0, 4)}


def policy(arch: Arch = samples.STANDARD, *, share: float = 0.4, fit=SHORT) -> JointConfig:
    """Give a policy that prunes some axes, and gives the rest 0 to 8 bits and activations 2 to 8."""
    kept = {axis: index for axis, index in KEPT.items() if axis in widths(arch)}
    rule = at_random(keep(arch, kept), share, 1, Quantization(Bits(4, 6), 8)).quantization
    assert rule is not None
    return replace(PLAIN, kept=kept, quantization=replace(rule, acts=(ActBits("blocks.s0b1.act", 3),)), fit=fit)


def zeros(model: Model) -> dict[str, tuple[int, ...]]:
    """Give the bits of each layer that has channels of 0 bits."""
    return {name: m.bits for name, m in model.net.named_modules() if isinstance(m, Weighted) and 0 in m.bits}


class TestQuantization:
    @pytest.mark.parametrize("epochs", [0, 2])
    @pytest.mark.parametrize("kind", BlockKind)
    def test_a_policy_of_8_bits_that_prunes_nothing_is_plain_quantization_bit_for_bit(self, kind, epochs, context):
        arch, fit = samples.arch(kind), replace(samples.FIT, epochs=epochs)
        axes, sizes = layer_axes(arch), counts(arch)
        spelled = tuple(WeightBits(name, axis, (8,) * sizes[name]) for name, axis in axes.items())
        whole = {axis: tuple(range(size)) for axis, size in widths(arch).items()}
        plain = replace(samples.QUANTIZE, bits=Bits(8, 8), edge_bits=8, fit=fit)
        want = quantize(plain, samples.afresh(context, "plain"), samples.model(arch))
        for i, config in enumerate((PLAIN, replace(PLAIN, kept=whole, quantization=replace(EIGHT, weights=spelled)))):
            found = assign(replace(config, fit=fit), samples.afresh(context, str(i)), samples.model(arch))
            assert same(found, want)


class TestPruning:
    @pytest.mark.parametrize("kind", BlockKind)
    @pytest.mark.parametrize("epochs", [0, 1])
    def test_0_bits_wherever_an_axis_is_written_are_pruning_bit_for_bit(self, kind, epochs, context):
        arch, fit = samples.arch(kind), replace(samples.FIT, epochs=epochs)
        axes, cut = layer_axes(arch), {"s1b0.0": [1, 3], "s1b1.0": [0, 2, 4]}
        kept = {axis: tuple(i for i in range(widths(arch)[axis]) if i not in gone) for axis, gone in cut.items()}
        masked = with_zeros(arch, {name: cut[axis] for name, axis in axes.items() if axis in cut}, EIGHT).quantization
        assert masked is not None
        found = [
            assign(replace(config, fit=fit), samples.afresh(context, str(i)), samples.model(arch))
            for i, config in enumerate((replace(PLAIN, kept=kept), replace(PLAIN, quantization=masked)))
        ]
        assert widths(found[0].arch)["s1b1.0"] == widths(arch)["s1b1.0"] - 3
        assert same(replace(found[0], arch=found[1].arch), found[1])
        assert encode(found[0].arch) == encode(replace(found[1].arch, quantization=EIGHT))

    def test_what_cannot_go_stays_masked_and_what_can_is_gone(self, context):
        config = policy()
        model = assign(config, context, samples.model(samples.STANDARD))
        assert removable(model.arch) == {}
        assert zeros(model)
        assert widths(model.arch)["s0"] == 4
        assert model.net(samples.images())[-1].isfinite().all()
        bare = assigned(samples.model(samples.STANDARD), config.kept, config.quantization, 0)
        assert (bare.arch, size_bits(bare)) == (model.arch, size_bits(model))

    def test_norms_see_what_the_masked_network_computes(self, context):
        start = fit(
            fresh(samples.STANDARD, 0), replace(samples.FIT, epochs=6, lr=0.1), samples.afresh(context, "start")
        )
        found = {count: assign(replace(policy(share=0.2), recalibrate=count), context, start) for count in (0, 120)}
        names = {n for n, t in found[0].net.state_dict().items() if not torch.equal(t, found[120].net.state_dict()[n])}
        assert {name.rpartition(".")[2] for name in names} == {
            "running_mean", "running_var", "num_batches_tracked", "scale"
        }  # fmt: skip
        assert all("act" in name or name == "image.scale" for name in names if name.endswith("scale"))

    @pytest.mark.parametrize(("bits", "anew"), [(8, False), (7, True), (2, True)])
    def test_norms_are_taken_anew_where_weights_are_coarse_though_nothing_goes(self, bits, anew, context):
        for edge in (8, 2):
            coarse = replace(PLAIN, quantization=Quantization(Bits(bits, 8), edge))
            old, new = (
                assign(replace(coarse, recalibrate=count), context, samples.model(samples.STANDARD))
                for count in (0, 80)
            )
            assert same(old, new) is not anew

    def test_the_rule_of_a_pruned_network_alone_takes_norms_anew_when_it_is_quantized_next(self, context):
        untouched = Quantization(Bits(FLOAT, FLOAT), FLOAT)
        pruned = assign(replace(PLAIN, kept=KEPT, quantization=untouched), context, samples.model(samples.STANDARD))
        assert not unsettled(replace(pruned.arch, quantization=EIGHT), pruned.arch)
        assert unsettled(replace(pruned.arch, quantization=Quantization(Bits(3, 8), 8)), pruned.arch)

    def test_a_layer_of_nothing_but_0_bits_leaves_a_residual_network_that_learns(self, context):
        arch = with_zeros(samples.STANDARD, {"blocks.s0b1.conv2": range(6), "blocks.s1b1.conv1": range(8)}, EIGHT)
        assert arch.quantization is not None
        config = replace(PLAIN, quantization=arch.quantization, fit=replace(samples.FIT, epochs=15, lr=0.1))
        start = fit(
            fresh(samples.STANDARD, 0), replace(samples.FIT, epochs=30, lr=0.1), samples.afresh(context, "start")
        )
        model = assign(config, context, start)
        assert zeros(model)["blocks.s0b1.conv2"] == (0,) * 6
        assert widths(model.arch)["s1b1.0"] == 1
        assert measure(model, context.data, samples.RUNTIME).test.quality.scores["accuracy"].value > 0.5

    def test_a_chain_whose_layer_has_nothing_but_0_bits_stays_finite(self, context):
        arch = with_zeros(samples.arch(BlockKind.PLAIN), {"blocks.s1b0.conv1": range(8), "head.fc0": range(7)}, EIGHT)
        assert arch.quantization is not None
        config = replace(PLAIN, quantization=arch.quantization, fit=samples.FIT)
        model = assign(config, context, samples.model(samples.arch(BlockKind.PLAIN)))
        found = model.net(samples.images(4))[-1]
        assert torch.equal(found, found[:1].expand(4, -1))
        assert all(tensor.isfinite().all() for tensor in model.net.state_dict().values())


@pytest.mark.parametrize("kind", BlockKind)
class TestContract:
    def test_it_gives_the_same_bits_each_time_and_reloads_to_them(self, kind, context, tmp_path):
        config = policy(samples.arch(kind), fit=samples.FIT)
        first = assign(config, context, samples.model(samples.arch(kind)))
        torch.rand(7)
        again = assign(config, samples.afresh(context, "again"), samples.model(samples.arch(kind)))
        assert same(first, again)
        save(first, tmp_path)
        assert same(load(tmp_path), first)
        assert zeros(first)

    def test_masked_channels_do_not_move_when_the_others_learn(self, kind, context):
        config = policy(samples.arch(kind), fit=replace(samples.FIT, epochs=2, weight_decay=0.0))
        before = assign(replace(config, fit=SHORT), context, samples.model(samples.arch(kind)))
        after = assign(config, context, samples.model(samples.arch(kind)))
        assert not torch.equal(before.net.head.score.weight, after.net.head.score.weight)
        for name, bits in zeros(after).items():
            dead = torch.tensor(bits) == 0
            ours, theirs = before.net.get_submodule(name), after.net.get_submodule(name)
            assert isinstance(ours, Weighted)
            assert isinstance(theirs, Weighted)
            assert torch.equal(ours.weight[dead], theirs.weight[dead])
            assert torch.equal(ours.scale[dead], theirs.scale[dead])


class TestStep:
    def test_it_stands_in_no_order_and_its_settings_read_back(self):
        assert JOINT not in BY_LETTER.values()
        assert JOINT.name not in BY_NAME
        config = policy()
        assert decode(JointConfig, json.loads(json.dumps(encode(config)))) == config

    def test_it_is_a_step_with_a_key_of_its_policy_a_record_and_metrics(self, context, tmp_path):
        first = samples.settings(tmp_path, "", samples.STANDARD)
        base, *_ = samples.finish(first, context.data)
        bench, seen = Bench(Store(tmp_path / "store"), context.data, samples.RUNTIME, {}, silent), []

        def hear(source, record, metrics, stored) -> None:
            seen.append((source.name, stored, metrics))

        configs = [policy(fit=samples.FIT), policy(share=0.2, fit=samples.FIT)]
        steps = [Step(JOINT, config, (("model", base),), context.data.fingerprint) for config in configs]
        taught = Step(JOINT, configs[0], (("model", base), ("teacher", base)), context.data.fingerprint)
        assert len({step.key for step in (*steps, taught)}) == 3
        record = run(steps[0], bench, hear)
        run(steps[0], bench, hear)
        run(taught, bench, hear)
        assert [(name, stored) for name, stored, _ in seen] == [
            ("baseline", True), ("joint", False), ("baseline", True), ("joint", True), ("baseline", True),
            ("joint", False),
        ]  # fmt: skip
        assert (record.phase, record.version, record.original.key) == ("joint", 4, base.key)
        bare = assigned(fresh(samples.STANDARD, 0), configs[0].kept, configs[0].quantization, 0)
        cost, path = seen[1][2].after.cost, paths(bare)[-1]
        assert (cost.size_bits, cost.bitops, cost.macs) == (size_bits(bare), path.bitops, path.macs)

    def test_an_interrupted_training_ends_in_the_same_weights(self, context, signals):
        config, told = policy(fit=samples.FIT), []
        whole = assign(config, samples.afresh(context, "whole"), samples.model(samples.STANDARD))

        @contextmanager
        def progress(title: str, total: int):
            def advance(units: int, remark: str) -> None:
                told.append(remark)
                if len(told) == 3:
                    os.kill(os.getpid(), signal.SIGTERM)

            yield advance

        with pytest.raises(Interrupted):
            assign(config, replace(context, progress=progress), samples.model(samples.STANDARD))
        signals()
        assert same(assign(config, context, samples.model(samples.STANDARD)), whole)

    def test_a_teacher_changes_what_it_learns(self, context):
        config, start = policy(fit=samples.FIT), samples.STANDARD
        alone = assign(config, samples.afresh(context, "alone"), samples.model(start))
        taught = assign(config, context, samples.model(start), samples.model(start, 3))
        assert alone.arch == taught.arch
        assert not same(alone, taught)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"kept": {"s0": (2, 1)}}, r"joint.kept.s0=\[2, 1\]: give rising indices"),
            ({"kept": {"s0": ()}}, r"joint.kept.s0=\[\]"),
            ({"kept": {"s0": (-1, 2)}}, "joint.kept.s0"),
            ({"recalibrate": -1}, "joint.recalibrate=-1: give 0 to 100000"),
            ({"calibrate": 0}, "joint.calibrate=0: give 1 to 100000"),
            ({"quantization": Quantization(Bits(0, 8), 8)}, "joint.quantization: weights of 0 bits"),
            (
                {"quantization": replace(EIGHT, weights=(WeightBits("head.score", "", (0,)),))},
                "joint.quantization: layer 'head.score' has a channel of 0 bits",
            ),
        ],
    )
    def test_settings_out_of_range_are_refused(self, changes, message):
        with pytest.raises(ConfigError, match=message):
            replace(PLAIN, **changes)

    def test_a_policy_of_another_network_is_refused(self, context):
        model = samples.model(samples.STANDARD)
        with pytest.raises(ModelError, match="no axis 's7' to prune"):
            assign(replace(PLAIN, kept={"s7": (0,)}), context, model)
        unknown = replace(EIGHT, weights=(WeightBits("blocks.s7b0.conv1", "s7", (4,)),))
        with pytest.raises(ModelError, match=r"there is no 'blocks.s7b0.conv1'"):
            assign(replace(PLAIN, quantization=unknown), context, model)


def joint(context: Context, kind: BlockKind, name: str = "joint") -> Model:
    return assign(policy(samples.arch(kind)), samples.afresh(context, name), samples.model(samples.arch(kind)))


@pytest.mark.parametrize("kind", BlockKind)
class TestLaterPhases:
    @pytest.mark.parametrize("letter", "DPQE")
    def test_every_phase_works_on_its_model(self, kind, letter, context):
        phase, start = BY_LETTER[letter], joint(context, kind)
        config = {"D": samples.DISTILL, "P": samples.PRUNE, "Q": samples.QUANTIZE, "E": samples.EXIT}[letter]
        roles = {"teacher": samples.model(samples.arch(kind))} if letter == "D" else {}
        model = phase.run(config, context, model=start, **roles)
        assert all(t.isfinite().all() for name, t in model.net.state_dict().items() if name != "thresholds")
        assert all(out.isfinite().all() for out in model.net(samples.images()))
        model.net.train()(samples.images(8))[-1].sum().backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in model.net.parameters())
        if letter in "QE":
            assert {n: [b == 0 for b in bits] for n, bits in zeros(model).items()} == {
                n: [b == 0 for b in bits] for n, bits in zeros(joint(context, kind, "again")).items()
            }
        if letter == "Q":
            rest = {b for name, bits in zeros(model).items() for b in bits}
            assert rest <= {0, 4, 8}

    def test_every_importance_is_finite_and_a_dead_channel_is_the_least_important(self, kind, context):
        axes, gone = layer_axes(samples.arch(kind)), {"s1b0.0": [2], "s1b1.0": [0, 4]}
        rule = {name: gone[axis] for name, axis in axes.items() if axis in gone}
        model = samples.model(with_zeros(samples.arch(kind), rule, EIGHT))
        for criterion in Importance:
            scores = importance(model, context.data, criterion, 0)
            for axis, index in gone.items():
                rest = [i for i in range(len(scores[axis])) if i not in index]
                assert scores[axis].isfinite().all()
                assert (scores[axis][index] == 0).all(), (criterion, axis)
                assert (scores[axis][rest] > 0).any(), (criterion, axis)
