"""Every phase keeps one contract, and each does what its settings say."""

import math
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import samples
import torch

from compressor.arch import Arch, Bits, BlockKind, Criterion, Exits, Quantization, widths
from compressor.config import BaselineConfig, ExitConfig, Importance, Init, PruneConfig, PruneTarget, RecoveryConfig, Scope, Train
from compressor.cost import paths
from compressor.errors import ConfigError, Interrupted
from compressor.folders import digest_of
from compressor.model import Model, fresh, load, same, save
from compressor.network import Network
from compressor.phase import BY_LETTER, PHASES, Phase, parse_order
from compressor.phases import prune as pruning
from compressor.phases.distill import distill
from compressor.phases.exits import add_exits
from compressor.phases.importance import importance, strongest
from compressor.phases.prune import prune
from compressor.phases.quantize import is_scale, quantize
from compressor.training import Context, copied
from compressor.config import ArchitectureConfig
from compressor.families import architecture

CONFIGS = {
    "baseline": BaselineConfig(samples.STANDARD, None, {}, samples.FIT),
    "distill": samples.DISTILL,
    "prune": samples.PRUNE,
    "quantize": samples.QUANTIZE,
    "exit": samples.EXIT,
}
CHANGED = [phase for phase in PHASES if phase.reads]
SHORT = replace(samples.FIT, epochs=0)


def inputs(phase: Phase, arch: Arch = samples.STANDARD) -> dict[str, Model]:
    return {role: samples.model(arch, seed) for seed, role in enumerate(phase.reads)}


def done(phase: Phase, context: Context, arch: Arch = samples.STANDARD, **changes) -> Model:
    return phase.run(replace(CONFIGS[phase.name], **changes), context, **inputs(phase, arch))


def afresh(context: Context, name: str) -> Context:
    folder = context.scratch.parent / name
    folder.mkdir()
    return replace(context, scratch=folder)


@pytest.mark.parametrize("phase", PHASES, ids=lambda phase: phase.name)
class TestContract:
    def test_its_model_reloads_bit_for_bit_and_unpickles_nothing(self, phase, context, tmp_path, unpickled):
        model = done(phase, context)
        folder = tmp_path / "model"
        folder.mkdir()
        assert save(model, folder) == digest_of(folder)
        again = load(folder)
        assert same(model, again)
        x = samples.images(9)
        with torch.no_grad():
            for ours, theirs in zip(model.net(x), again.net.eval()(x), strict=True):
                assert torch.equal(ours, theirs)
        assert unpickled == []

    def test_it_gives_the_same_bits_each_time(self, phase, context):
        first = done(phase, context)
        torch.rand(7)
        assert same(first, done(phase, afresh(context, "again")))

    def test_an_interrupted_run_ends_in_the_same_weights(self, phase, context, signals):
        whole = done(phase, context)
        cut = afresh(context, "cut")
        slow = replace(CONFIGS[phase.name].fit, epochs=1)
        told: list[str] = []

        def progress(title: str, total: int):
            class Bar:
                def __enter__(self):
                    return self.advance

                def __exit__(self, *_: object) -> None:
                    pass

                def advance(self, units: int, remark: str) -> None:
                    told.append(remark)
                    if len(told) == 3:
                        os.kill(os.getpid(), signal.SIGTERM)

            return Bar()

        with pytest.raises(Interrupted):
            done(phase, replace(cut, progress=progress), fit=slow)
        signals()
        assert same(done(phase, cut, fit=slow), whole)

    def test_it_writes_into_its_scratch_folder_alone(self, phase, context, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        done(phase, context)
        assert [path.name for path in tmp_path.iterdir()] == ["scratch"]
        assert (context.scratch / "history.jsonl").read_text().count("\n") == 1

    def test_its_model_is_in_evaluation_mode_and_can_be_trained_on(self, phase, context):
        model = done(phase, context)
        assert isinstance(model.net, Network)
        assert not model.net.training
        assert all(p.requires_grad for p in model.net.parameters())
        model.net.train()(samples.images(8))[-1].sum().backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in model.net.parameters())

    def test_it_needs_no_epochs(self, phase, context):
        model = done(phase, context, fit=SHORT)
        assert model.net(samples.images())[-1].isfinite().all()
        assert list(context.scratch.iterdir()) == []

    def test_it_leaves_the_callers_random_state(self, phase, context):
        before = torch.get_rng_state()
        done(phase, context)
        assert torch.equal(torch.get_rng_state(), before)

    def test_its_seed_counts(self, phase, context):
        other = replace(CONFIGS[phase.name].fit, seed=5)
        assert not same(done(phase, context), done(phase, afresh(context, "other"), fit=other))


@pytest.mark.parametrize("kind", BlockKind)
@pytest.mark.parametrize("one", CHANGED, ids=lambda phase: phase.name)
@pytest.mark.parametrize("other", CHANGED, ids=lambda phase: phase.name)
def test_two_phases_commute_in_architecture(one, other, kind, context):
    def both(first: Phase, second: Phase) -> Arch:
        start = samples.model(samples.arch(kind))
        roles = {"teacher": samples.model(samples.arch(kind))}
        for phase in (first, second):
            config = replace(CONFIGS[phase.name], fit=SHORT)
            start = phase.run(config, context, model=start, **(roles if "teacher" in phase.reads else {}))
        return start.arch

    assert both(one, other) == both(other, one)


class TestTable:
    def test_letters_and_names_are_each_phases_own(self):
        assert [phase.letter for phase in PHASES] == ["B", "D", "P", "Q", "E"]
        assert len({phase.name for phase in PHASES}) == len(PHASES)
        assert "B" not in BY_LETTER

    def test_an_order_is_its_letters_phases_in_either_case(self):
        assert [phase.name for phase in parse_order("DPqePp")] == ["distill", "prune", "quantize", "exit", "prune", "prune"]
        assert parse_order("") == ()

    @pytest.mark.parametrize("order", ["DX", "B", "D P", "1", "é"])
    def test_an_unknown_letter_is_named_with_those_there_are(self, order):
        with pytest.raises(ConfigError, match="its letters are D, P, Q, E"):
            parse_order(order)


class TestPrune:
    def pruned(self, context: Context, kind: BlockKind = BlockKind.BASIC, **changes) -> tuple[Model, Model]:
        model = samples.model(samples.compressed(kind))
        config: PruneConfig = replace(samples.PRUNE, fit=SHORT, **changes)
        return model, prune(config, context, model)

    @pytest.mark.parametrize("scope", Scope)
    @pytest.mark.parametrize("criterion", Importance)
    def test_every_criterion_prunes_in_every_scope(self, criterion, scope, context):
        before, after = self.pruned(context, criterion=criterion, scope=scope, ratio=0.5)
        was, now = widths(before.arch), widths(after.arch)
        assert all(1 <= now[axis] <= was[axis] for axis in was)
        assert sum(now.values()) == pytest.approx(0.5 * sum(was.values()), rel=0.2)
        assert after.net(samples.images())[-1].isfinite().all()

    @pytest.mark.parametrize("kind", BlockKind)
    @pytest.mark.parametrize("scope", Scope)
    def test_no_layer_is_ever_empty(self, kind, scope, context):
        before, after = self.pruned(context, kind, ratio=0.999, scope=scope)
        assert set(widths(after.arch).values()) == {1}
        assert widths(before.arch).keys() == widths(after.arch).keys()

    @pytest.mark.parametrize("kind", BlockKind)
    @pytest.mark.parametrize("scope", Scope)
    @pytest.mark.parametrize("goal", [0.3, 0.5, 0.8])
    @pytest.mark.parametrize("what", ["macs", "params"])
    def test_a_target_is_met_to_2_percent_of_it(self, kind, scope, goal, what, context):
        arch = replace(samples.arch(kind), stages=tuple(wide(stage) for stage in samples.arch(kind).stages))
        model = samples.model(arch)
        target = replace(PruneTarget(None, None), **{what: goal})
        after = prune(replace(samples.PRUNE, target=target, scope=scope, fit=SHORT), context, model)
        if what == "macs":
            share = paths(after)[-1].macs / paths(model)[-1].macs
        else:
            share = pruning.cost.params(after) / pruning.cost.params(model)
        assert share == pytest.approx(goal, rel=0.02)

    def test_a_target_that_whole_channels_cannot_meet_is_an_error_that_names_the_nearest(self, context):
        with pytest.raises(ConfigError, match=r"prune\.target=0\.01: the nearest that whole channels allow is 0\.\d+"):
            self.pruned(context, target=PruneTarget(0.01, None), round_to=4)

    @pytest.mark.parametrize("round_to", [2, 4])
    def test_kept_channels_are_multiples_where_there_are_enough(self, round_to, context):
        before, after = self.pruned(context, ratio=0.45, round_to=round_to)
        for axis, size in widths(after.arch).items():
            assert size % round_to == 0 or size == widths(before.arch)[axis] < round_to

    def test_a_ratio_of_0_keeps_every_weight(self, context):
        before, after = self.pruned(context, ratio=0.0, recalibrate=0)
        assert same(before, after)

    def test_the_weakest_channels_go(self, context):
        model = samples.model(samples.arch())
        weak = {"s0b0.0": [1, 4], "s1": [0, 5, 6]}
        state = model.net.state_dict()
        for axis, channels in weak.items():
            for name, names in samples_axes(model).items():
                for dim, found in enumerate(names):
                    if found == axis and name.endswith("weight"):
                        state[name].index_fill_(dim, torch.tensor(channels), 1e-4)
        for criterion in (Importance.L1, Importance.L2, Importance.BN_SCALE, Importance.FPGM):
            scores = importance(model, context.data, criterion, 0)
            for axis, channels in weak.items():
                kept = strongest(scores[axis], widths(model.arch)[axis] - len(channels))
                assert set(kept).isdisjoint(channels), (criterion, axis)

    def test_taylor_keeps_what_the_loss_hangs_on(self, context):
        model = samples.model(samples.arch(BlockKind.PLAIN))
        deaf = [2, 5]
        model.net.head.fc0.weight.data[:, :] = model.net.head.fc0.weight.data  # pyright: ignore
        model.net.head.score.weight.data[:, deaf] = 0  # pyright: ignore
        model.net.head.fc0.weight.data[deaf] = 0  # pyright: ignore
        scores = importance(model, context.data, Importance.TAYLOR, 0)["fc0"]
        assert set(strongest(scores, 5)).isdisjoint(deaf)
        assert all(p.grad is None for p in model.net.parameters())

    def test_random_importance_depends_on_the_seed(self, context):
        model = samples.model(samples.arch())
        one, same_, other = (importance(model, context.data, Importance.RANDOM, seed)["s0"] for seed in (0, 0, 1))
        assert torch.equal(one, same_)
        assert not torch.equal(one, other)

    def test_equal_scores_keep_the_first(self):
        assert strongest(torch.tensor([1.0, 2, 1, 1]), 3) == [0, 1, 2]

    def test_norms_are_taken_anew_on_training_images(self, context):
        _, stale = self.pruned(context, recalibrate=0)
        _, renewed = self.pruned(context, recalibrate=100)
        name = "stem.norm.running_mean"
        assert not torch.equal(stale.net.state_dict()[name], renewed.net.state_dict()[name])
        assert torch.equal(stale.net.state_dict()["stem.conv.weight"], renewed.net.state_dict()["stem.conv.weight"])


def wide(stage):
    """Give a stage with enough channels for a fine target."""
    blocks = tuple(replace(block, widths=tuple(5 * n for n in block.widths)) for block in stage.blocks)
    return replace(stage, blocks=blocks, width=5 * stage.width)


def samples_axes(model: Model) -> dict[str, tuple[str, ...]]:
    from compressor.layers import axes_of

    return axes_of(model.net)


class TestDistill:
    def taught(self, context: Context, model: Model, teacher: Model | None = None, **changes) -> Model:
        config = replace(samples.DISTILL, fit=SHORT, **changes)
        return distill(config, context, model, teacher or samples.model(samples.STANDARD, 1))

    def test_an_inheriting_student_of_the_whole_size_is_the_model(self, context):
        model = samples.model(samples.compressed())
        assert same(self.taught(context, model, depth=1.0), samples.model(samples.compressed()))

    def test_an_inheriting_student_has_the_first_blocks_weights(self, context):
        model = samples.model(samples.STANDARD)
        student = self.taught(context, model, depth=0.5).net.state_dict()
        state = model.net.state_dict()
        assert student.keys() == {name for name in state if "b1." not in name}
        assert all(torch.equal(student[name], state[name]) for name in student)

    def test_a_thinner_student_inherits_the_strongest_channels(self, context):
        model = samples.model(samples.STANDARD)
        student = self.taught(context, model, depth=1.0, width=0.5)
        assert widths(student.arch) == {axis: size // 2 for axis, size in widths(model.arch).items()}
        kept = strongest(importance(model, context.data, Importance.L2, 0)["s0b0.0"], 3)
        norm = "blocks.s0b0.norm1.bias"
        assert torch.equal(student.net.state_dict()[norm], model.net.state_dict()[norm][kept])

    def test_a_fresh_student_depends_on_the_seed_alone(self, context):
        one, other = (self.taught(context, samples.model(samples.STANDARD, s), init=Init.FRESH) for s in (0, 1))
        assert same(one, other)
        assert torch.equal(one.net.stem.conv.weight, fresh(one.arch, 0).net.stem.conv.weight)  # pyright: ignore

    def test_a_student_keeps_bits_exits_and_pruned_widths(self, context):
        small = prune(replace(samples.PRUNE, fit=SHORT), context, samples.model(samples.compressed()))
        student = self.taught(context, small, depth=0.5).arch
        assert (student.quantization, student.exits) == (small.arch.quantization, small.arch.exits)
        assert all(widths(small.arch)[axis] == size for axis, size in widths(student).items())

    def test_a_named_student_keeps_each_axis_kept_fraction_bits_and_exits(self, context):
        config = ArchitectureConfig(name="resnet20", width=0.5, stem="auto", mean=None, std=None, network=None)
        whole = architecture(config, 1, 8, (0.3,), (0.4,), samples.TASK)
        rule = Quantization(Bits(4, 4), 8)
        teacher, model = fresh(whole, 0), fresh(replace(whole, quantization=rule), 0)
        small = prune(replace(samples.PRUNE, ratio=0.5, fit=SHORT), context, model)
        student = self.taught(context, small, teacher, student="resnet32", init=Init.FRESH)
        assert student.arch.name == "resnet32"
        assert student.arch.quantization == rule
        assert {student.arch.stages[0].width, student.arch.stages[2].width} == {8, 32}
        assert sum(len(stage.blocks) for stage in student.arch.stages) == 15
        assert all((p > 0).all() for name, p in student.net.named_parameters() if is_scale(name))

    @pytest.mark.parametrize("hint", [0.0, 1.0])
    def test_hints_are_one_more_loss_between_streams(self, hint, context):
        fit = replace(samples.FIT, epochs=2)
        student = self.taught(context, samples.model(samples.STANDARD), hint=hint, fit=fit)
        assert student.net(samples.images())[-1].isfinite().all()
        others = self.taught(afresh(context, "other"), samples.model(samples.STANDARD), hint=1 - hint, fit=fit)
        assert not same(student, others)

    def test_the_teacher_stays_as_it_is_and_is_heard_in_evaluation_mode(self, context):
        teacher = samples.model(samples.arch(BlockKind.PLAIN), 1)
        before = copied(teacher.net.state_dict())
        self.taught(context, samples.model(samples.STANDARD), teacher, fit=samples.FIT)
        assert all(torch.equal(before[name], tensor) for name, tensor in teacher.net.state_dict().items())
        assert not teacher.net.training

    def test_a_student_learns_its_teachers_answers(self, context):
        teacher = fresh_fit(context, "teacher", 15)
        config = replace(samples.FIT, epochs=15, lr=0.1)
        student = self.taught(context, fresh(samples.STANDARD, 9), teacher, depth=0.5, weight=1.0, fit=config)
        x = torch.from_numpy(context.data.val.images[:])
        with torch.no_grad():
            agree = (student.net(x)[-1].argmax(dim=1) == teacher.net(x)[-1].argmax(dim=1)).float().mean()
        assert agree > 0.5


def fresh_fit(context: Context, name: str, epochs: int) -> Model:
    from compressor.training import fit

    return fit(fresh(samples.STANDARD, 0), replace(samples.FIT, epochs=epochs, lr=0.1), afresh(context, name))


class TestExits:
    def test_heads_only_leaves_the_final_outputs_bit_for_bit(self, context):
        model = samples.model(samples.arch(quantization=Quantization(Bits(4, 4), 8)))
        x = samples.images(20)
        want = model.net(x)[-1]
        out = add_exits(replace(samples.EXIT, train=Train.HEADS), context, model)
        got = out.net(x)
        assert len(got) == 3
        assert torch.equal(got[-1], want)
        scales = [p for name, p in out.net.exits.named_parameters() if is_scale(name)]
        assert scales
        assert all((p > 0).all() for p in scales)

    def test_joint_training_moves_the_whole_network(self, context):
        model = samples.model(samples.STANDARD)
        before = copied(model.net.state_dict())
        out = add_exits(samples.EXIT, context, model)
        assert not torch.equal(out.net.state_dict()["stem.conv.weight"], before["stem.conv.weight"])

    def test_exits_replace_those_there_were(self, context):
        once = add_exits(replace(samples.EXIT, fit=SHORT), context, samples.model(samples.STANDARD))
        config: ExitConfig = replace(samples.EXIT, positions=(0.5,), criterion=Criterion.ENTROPY, drop=0.1, fit=SHORT)
        again = add_exits(config, context, once)
        assert again.arch.exits == Exits((0.5,), Criterion.ENTROPY, 0.1, 4)
        assert again.net.cuts == (2, 4)

    def test_a_network_of_one_block_has_no_place_for_a_head(self, context):
        arch = samples.arch(stages=samples.arch(depth=1).stages[:1])
        with pytest.raises(ConfigError, match="has one block, so no head can stand before its end"):
            add_exits(samples.EXIT, context, samples.model(arch))


class TestQuantize:
    @pytest.mark.parametrize("bits", [Bits(1, 2), Bits(2, 4), Bits(2, 2), Bits(8, 8)])
    def test_learned_step_sizes_stay_above_zero_at_any_rate(self, bits, context):
        config = replace(samples.QUANTIZE, bits=bits, fit=replace(samples.FIT, epochs=6, lr=0.2))
        model = quantize(config, context, fresh_fit(context, "start", 3))
        scales = {name: p for name, p in model.net.named_parameters() if is_scale(name)}
        assert scales
        assert all((p > 0).all() for p in scales.values())
        assert math.isfinite(model.net(samples.images())[-1].sum().item())


@pytest.mark.parametrize("letter", "PQE")
def test_a_teacher_may_help_any_phase_recover(letter, context):
    phase = BY_LETTER[letter]
    recovery = RecoveryConfig("baseline", temperature=4.0, weight=0.9)
    config = replace(CONFIGS[phase.name], recovery=recovery)
    alone = done(phase, context)
    helped = phase.run(
        config, afresh(context, "helped"), model=samples.model(samples.STANDARD), teacher=samples.model(samples.STANDARD, 1)
    )
    assert helped.arch == alone.arch
    assert not same(helped, alone)


def test_a_baseline_without_epochs_is_its_first_weights(context):
    model = PHASES[0].run(replace(CONFIGS["baseline"], fit=SHORT), context)
    assert same(model, fresh(samples.STANDARD, 0))
    assert isinstance(context.scratch, Path)
