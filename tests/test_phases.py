"""Every phase keeps one contract, and each does what its settings say."""

import math
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import samples
import torch

from compressor.arch import Arch, Bits, BlockKind, Criterion, Exits, Quantization
from compressor.config import BaselineConfig, ExitConfig, RecoveryConfig, Train
from compressor.errors import ConfigError, Interrupted
from compressor.folders import digest_of
from compressor.model import Model, fresh, load, same, save
from compressor.network import Network
from compressor.phase import BY_LETTER, PHASES, Phase, parse_order
from compressor.phases.exits import add_exits
from compressor.phases.quantize import is_scale, quantize
from compressor.training import Context, copied, fit

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
        assert same(first, done(phase, samples.afresh(context, "again")))

    def test_an_interrupted_run_ends_in_the_same_weights(self, phase, context, signals):
        whole = done(phase, context)
        cut = samples.afresh(context, "cut")
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
        assert not same(done(phase, context), done(phase, samples.afresh(context, "other"), fit=other))


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
        assert [phase.name for phase in parse_order("DPqePp")] == [
            "distill",
            "prune",
            "quantize",
            "exit",
            "prune",
            "prune",
        ]
        assert parse_order("") == ()

    @pytest.mark.parametrize("order", ["DX", "B", "D P", "1", "é"])
    def test_an_unknown_letter_is_named_with_those_there_are(self, order):
        with pytest.raises(ConfigError, match="its letters are D, P, Q, E"):
            parse_order(order)


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
        model = quantize(
            config, context, fit(fresh(samples.STANDARD, 0), samples.FIT, samples.afresh(context, "start"))
        )
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
        config,
        samples.afresh(context, "helped"),
        model=samples.model(samples.STANDARD),
        teacher=samples.model(samples.STANDARD, 1),
    )
    assert helped.arch == alone.arch
    assert not same(helped, alone)


def test_a_baseline_without_epochs_is_its_first_weights(context):
    model = PHASES[0].run(replace(CONFIGS["baseline"], fit=SHORT), context)
    assert same(model, fresh(samples.STANDARD, 0))
    assert isinstance(context.scratch, Path)
