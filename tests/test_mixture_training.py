"""Making a mixture: it ends in the same bits however it is interrupted, and it is worth more than chance."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import mixtures
import pytest
import samples
import torch

from compressor import history, losses
from compressor.arch import FLOAT, BlockKind, Routing, stream, widths, with_widths
from compressor.config import RecoveryConfig
from compressor.config.moe import BudgetConfig, MoeStem
from compressor.cost import paths
from compressor.errors import ConfigError, Interrupted
from compressor.mixture import Mixture, outcome, survey
from compressor.mixture.losses import each_imitation, each_task_loss
from compressor.mixture.sharing import sharing
from compressor.model import select
from compressor.phase import MOE
from compressor.training import Context


class KilledError(Exception):
    """Stands for a kill that leaves no time to save."""


def die() -> None:
    raise KilledError


CONFIGS = {
    "own": mixtures.CONFIG,
    "shared": replace(
        mixtures.CONFIG,
        stem=MoeStem.SHARED,
        joint=replace(mixtures.CONFIG.joint, fit=replace(mixtures.FIT, ema=0.9)),
    ),
    "cascade": replace(mixtures.CONFIG, routing=Routing.CASCADE),
    "judging": replace(mixtures.CONFIG, routing=Routing.THRESHOLD, router=mixtures.JUDGING),
    "shared judging": replace(mixtures.CONFIG, routing=Routing.THRESHOLD, router=mixtures.JUDGING, stem=MoeStem.SHARED),
}


@pytest.fixture(scope="module")
def whole(digits, tmp_path_factory) -> Callable[[str], tuple[Mixture, Path]]:
    """Give the mixture of each config and the folder it was made in."""
    found: dict[str, tuple[Mixture, Path]] = {}

    def give(name: str) -> tuple[Mixture, Path]:
        if name not in found:
            folder = tmp_path_factory.mktemp("whole")
            found[name] = mixtures.made(Context(digits, folder, samples.RUNTIME), CONFIGS[name]), folder
        return found[name]

    return give


def timeless(folder: Path) -> list[dict]:
    return [{name: value for name, value in line.items() if name != "seconds"} for line in history.read(folder)]


class TestResuming:
    @pytest.mark.parametrize(
        ("name", "stage", "step"),
        [
            ("own", "router", 2),
            ("own", "router", 3),
            ("own", "joint", 5),
            ("shared", "adapt", 4),
            ("shared", "joint", 2),
            ("cascade", "joint", 3),
            ("judging", "task", 3),
            ("judging", "joint", 4),
            ("shared judging", "router", 2),
        ],
    )
    def test_an_interrupted_step_ends_in_the_same_bits(self, name, stage, step, whole, context, signals):
        with pytest.raises(Interrupted):
            mixtures.made(replace(context, progress=mixtures.stopping(stage, step, mixtures.terminate)), CONFIGS[name])
        signals()
        mixture, folder = whole(name)
        assert mixtures.same(mixtures.made(context, CONFIGS[name]), mixture)
        assert timeless(context.scratch) == timeless(folder)

    @pytest.mark.parametrize(
        ("name", "stage", "step"),
        [("own", "router", 5), ("own", "joint", 4), ("shared", "router", 1), ("judging", "router", 3)],
    )
    def test_a_killed_step_goes_on_from_its_last_save(self, name, stage, step, whole, context):
        often = replace(context, runtime=replace(context.runtime, save_seconds=1e-9))
        with pytest.raises(KilledError):
            mixtures.made(replace(often, progress=mixtures.stopping(stage, step, die)), CONFIGS[name])
        mixture, folder = whole(name)
        assert mixtures.same(mixtures.made(context, CONFIGS[name]), mixture)
        assert timeless(context.scratch) == timeless(folder)

    def test_its_history_counts_the_epochs_of_all_trainings_through(self, whole):
        for name, count in (("own", 4), ("shared", 6), ("judging", 7)):
            lines = history.read(whole(name)[1])
            assert [line["epoch"] for line in lines] == list(range(1, count + 1))
            seconds = [line["seconds"] for line in lines]
            assert seconds == sorted(seconds)


class TestTraining:
    def test_the_router_is_trained_alone_and_then_all(self, whole, context):
        alone = replace(CONFIGS["own"], joint=replace(CONFIGS["own"].joint, fit=replace(mixtures.FIT, epochs=0)))
        mixture, experts = mixtures.made(context, alone), mixtures.networks()
        for i, expert in enumerate(mixture.experts):
            before = experts[f"expert{i}"].net.state_dict()
            assert all(torch.equal(before[name], tensor) for name, tensor in expert.net.state_dict().items())
        joint = whole("own")[0]
        for ours, theirs in zip(mixture.experts, joint.experts, strict=True):
            assert not torch.equal(ours.net.head.score.weight, theirs.net.head.score.weight)

    def test_the_router_has_the_bits_asked_for(self, whole):
        rule = whole("own")[0].router.arch.quantization
        assert rule is not None
        assert (rule.bits, rule.edge) == (mixtures.ROUTER.bits, mixtures.ROUTER.edge_bits)

    def test_it_is_in_evaluation_mode_and_leaves_the_callers_random_state(self, context):
        before = torch.get_rng_state()
        mixture = mixtures.made(context)
        assert torch.equal(torch.get_rng_state(), before)
        assert not any(module.training for module in mixture.net.modules())

    def test_balance_spreads_images_and_cost_sends_them_to_the_cheapest(self, context):
        def shares(cost: float) -> tuple[float, ...]:
            router = replace(mixtures.ROUTER, fit=replace(mixtures.FIT, epochs=6))
            joint = replace(mixtures.CONFIG.joint, fit=replace(mixtures.FIT, epochs=0))
            config = replace(mixtures.CONFIG, router=router, joint=joint, balance=1.0, cost=cost)
            mixture = mixtures.made(samples.afresh(context, str(cost)), config)
            return outcome(mixture, survey(mixture, context.data.train), mixture.rule).shares

        even, dear = shares(0.0), shares(30.0)
        assert max(even) < 0.8
        assert dear[1] > even[1] + 0.2

    def test_a_teacher_changes_what_is_learned(self, whole, context):
        joint = replace(mixtures.CONFIG.joint, recovery=RecoveryConfig("baseline", 4.0, 0.9))
        taught = mixtures.made(context, replace(mixtures.CONFIG, joint=joint), teacher=mixtures.networks()["original"])
        assert not mixtures.same(taught, whole("own")[0])

    @pytest.mark.parametrize("task", mixtures.TASKS.values(), ids=mixtures.TASKS)
    def test_the_mean_of_the_images_losses_is_the_loss(self, task, digits):
        targets = torch.from_numpy(mixtures.asking(digits, task).val.targets)
        out, teacher = samples.normal(len(targets), task.outputs), samples.normal(len(targets), task.outputs, seed=1)
        for smoothing in (0.0, 0.1):
            want = losses.task_loss(task, smoothing)((out,), out, targets)
            torch.testing.assert_close(each_task_loss(out, targets, task, smoothing).mean(), want)
        want = losses.imitation(out, teacher, task, 3.0)
        torch.testing.assert_close(each_imitation(out, teacher, task, 3.0).mean(), want)


class TestSharing:
    def test_all_networks_have_the_first_stage_of_the_cheapest(self, whole):
        mixture, _ = whole("shared")
        assert mixture.rule.order[0] == 1
        cheap = mixture.experts[1]
        for model in (mixture.router, *mixture.experts):
            assert model.net.stem is cheap.net.stem
            assert model.arch.stages[0] == cheap.arch.stages[0]
            assert model.net.stem.conv.bits == (8,)
        assert mixture.experts[2].net.blocks["s1b0"].conv1.bits == (4,)
        assert mixture.experts[0].net.blocks["s1b0"].conv2.bits == (FLOAT,)

    @pytest.mark.parametrize("kind", BlockKind)
    def test_a_stage_whose_channels_only_stand_in_another_order_is_read_without_loss(self, kind, digits):
        expert = samples.model(samples.arch(kind), 0)
        axis = stream(expert.arch, 0, len(expert.arch.stages[0].blocks) - 1)
        order = list(range(widths(expert.arch)[axis]))[::-1]
        source = select(expert, {axis: order})
        source.net.eval()
        joined = sharing(expert, source, digits, 0)
        images = torch.from_numpy(digits.test.images[:])
        with torch.no_grad():
            want, read = expert.net(images)[-1], joined.net(images)[-1]
        torch.testing.assert_close(read, want, rtol=0.02, atol=0.02 * float(want.std()))
        name = "blocks.s0b1.norm1.running_mean"
        assert torch.equal(joined.net.state_dict()[name], source.net.state_dict()[name])
        assert sharing(expert, expert, digits, 0) is expert

    def test_experts_stand_in_the_order_of_what_they_cost_once_they_share_it(self, context):
        plain = samples.arch()
        slim = with_widths(plain, {"s0": 4, "s0b0.0": 4, "s0b1.0": 4, "s1b0.0": 16, "s1b1.0": 16})
        heavy = with_widths(samples.arch(depth=1), {"s0b0.0": 30})
        experts = {"expert0": samples.model(slim, 0), "expert1": samples.model(heavy, 1)}
        before = [paths(model)[-1].bitops for model in experts.values()]
        config = replace(CONFIGS["shared"], routing=Routing.THRESHOLD, budget=BudgetConfig(None, None))
        mixture = MOE.run(config, context, original=samples.model(samples.arch(depth=4), 9), **experts)
        after = [paths(model)[-1].bitops for model in mixture.experts]
        assert (before[0] < before[1], after[0] > after[1]) == (True, True)
        assert mixture.rule.order == (1, 0)

    def test_experts_with_exits_are_refused_in_one_line(self, context):
        with pytest.raises(ConfigError, match=r"moe\.stem=shared: expert 0 has early exits"):
            mixtures.made(context, CONFIGS["shared"], **mixtures.networks(exits=True))


class TestBadInput:
    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"k": 4, "routing": Routing.TOPK}, "k is 4"),
            ({"budget": BudgetConfig(1e-6, None)}, r"moe\.budget\.macs=1e-06: the cheapest expert and the router need"),
            ({"budget": BudgetConfig(None, 1e-6)}, r"moe\.budget\.bitops=1e-06"),
        ],
    )
    def test_an_impossible_setting_is_refused_before_training(self, changes, said, context):
        with pytest.raises(ConfigError, match=said) as caught:
            mixtures.made(context, replace(mixtures.CONFIG, **changes))
        assert "\n" not in str(caught.value)
        assert not list(context.scratch.iterdir())

    def test_experts_of_another_task_or_images_are_refused(self, context):
        other = samples.model(samples.arch(task=mixtures.TASKS["binary"]))
        with pytest.raises(ConfigError, match="expert 1 answers another task"):
            mixtures.made(context, expert1=other)
