"""Pruning takes the weakest channels, as many as it was told, and never all."""

from dataclasses import replace

import pytest
import samples
import torch
from hypothesis import given
from hypothesis import strategies as st

from compressor.arch import BlockKind, Stage, widths
from compressor.config import Importance, PruneConfig, PruneTarget, Scope
from compressor.cost import params, paths
from compressor.data.types import Split
from compressor.errors import ConfigError
from compressor.layers import axes_of
from compressor.losses import task_loss
from compressor.model import Model, same
from compressor.phases.importance import TAYLOR_BATCH, importance, strongest
from compressor.phases.prune import global_counts, layer_counts, prune
from compressor.training import Context, batches

SHORT = replace(samples.FIT, epochs=0)
TARGETS = [(kind, Scope.LAYER, "macs", 0.5) for kind in BlockKind]
TARGETS += [(BlockKind.BASIC, Scope.GLOBAL, what, goal) for what in ("macs", "params") for goal in (0.3, 0.8)]


def wide(stage: Stage) -> Stage:
    """Give a stage with enough channels for a fine target."""
    blocks = tuple(replace(block, widths=tuple(5 * n for n in block.widths)) for block in stage.blocks)
    return replace(stage, blocks=blocks, width=5 * stage.width)


def pruned(context: Context, kind: BlockKind = BlockKind.BASIC, **changes) -> tuple[Model, Model]:
    model = samples.model(samples.compressed(kind))
    config: PruneConfig = replace(samples.PRUNE, fit=SHORT, **changes)
    return model, prune(config, context, model)


@pytest.mark.parametrize("scope", Scope)
@pytest.mark.parametrize("criterion", Importance)
def test_every_criterion_prunes_in_every_scope(criterion, scope, context):
    before, after = pruned(context, criterion=criterion, scope=scope, ratio=0.5)
    was, now = widths(before.arch), widths(after.arch)
    assert all(1 <= now[axis] <= was[axis] for axis in was)
    assert sum(now.values()) == pytest.approx(0.5 * sum(was.values()), rel=0.2)
    assert after.net(samples.images())[-1].isfinite().all()


@pytest.mark.parametrize("kind", BlockKind)
@pytest.mark.parametrize("scope", Scope)
def test_no_layer_is_ever_empty(kind, scope, context):
    before, after = pruned(context, kind, ratio=0.999, scope=scope)
    assert set(widths(after.arch).values()) == {1}
    assert widths(before.arch).keys() == widths(after.arch).keys()


@pytest.mark.parametrize(("kind", "scope", "what", "goal"), TARGETS)
def test_a_target_is_met_to_2_percent_of_it(kind, scope, what, goal, context):
    arch = replace(samples.arch(kind), stages=tuple(wide(stage) for stage in samples.arch(kind).stages))
    model = samples.model(arch)
    target = replace(PruneTarget(None, None), **{what: goal})
    after = prune(replace(samples.PRUNE, target=target, scope=scope, fit=SHORT), context, model)
    sizes = [paths(m)[-1].macs if what == "macs" else params(m) for m in (after, model)]
    assert sizes[0] / sizes[1] == pytest.approx(goal, rel=0.02)


def test_a_target_that_whole_channels_cannot_meet_is_an_error_that_names_the_nearest(context):
    with pytest.raises(ConfigError, match=r"prune\.target=0\.01: the nearest that whole channels allow is 0\.\d+"):
        pruned(context, target=PruneTarget(0.01, None), round_to=4)


@pytest.mark.parametrize("round_to", [2, 4])
def test_kept_channels_are_multiples_where_there_are_enough(round_to, context):
    before, after = pruned(context, ratio=0.45, round_to=round_to)
    for axis, size in widths(after.arch).items():
        assert size % round_to == 0 or size == widths(before.arch)[axis] < round_to


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=4),
    st.floats(0, 0.999),
    st.integers(1, 9),
    st.sampled_from([layer_counts, global_counts]),
)
def test_every_axis_of_at_least_one_step_keeps_a_multiple_unless_nothing_is_cut(sizes, ratio, round_to, count):
    scores = {str(i): torch.linspace(1, 2, size) for i, size in enumerate(sizes)}
    for size, kept in zip(sizes, count(scores, ratio, round_to).values(), strict=True):
        assert 1 <= kept <= size
        assert kept == size if ratio == 0 or size < round_to else kept % round_to == 0


def test_7_channels_less_5_percent_in_steps_of_4_are_4():
    assert layer_counts({"axis": torch.ones(7)}, 0.05, 4) == {"axis": 4}


def test_a_target_is_met_in_whole_steps_on_every_axis(context):
    _, after = pruned(context, target=PruneTarget(0.6, None), round_to=2)
    assert all(size % 2 == 0 for size in widths(after.arch).values())


def test_taylor_computes_on_the_threads_that_were_asked_for(context):
    counts = []
    model = samples.model(samples.arch())
    model.net.register_forward_hook(lambda _, inputs, __: counts.append((len(inputs[0]), torch.get_num_threads())))
    context = replace(context, runtime=replace(context.runtime, threads=2))
    prune(replace(samples.PRUNE, criterion=Importance.TAYLOR, fit=SHORT), context, model)
    assert {threads for size, threads in counts if size > 1} == {2}
    assert torch.get_num_threads() == 1


def test_a_ratio_of_0_keeps_every_weight(context):
    before, after = pruned(context, ratio=0.0, recalibrate=0)
    assert same(before, after)


def test_the_weakest_channels_go(context):
    model = samples.model(samples.arch())
    weak = {"s0b0.0": [1, 4], "s1": [0, 5, 6]}
    state = model.net.state_dict()
    for axis, channels in weak.items():
        for name, names in axes_of(model.net).items():
            for dim, found in enumerate(names):
                if found == axis and name.endswith("weight"):
                    state[name].index_fill_(dim, torch.tensor(channels), 1e-4)
    for criterion in (Importance.L1, Importance.L2, Importance.BN_SCALE, Importance.FPGM):
        scores = importance(model, context.data, criterion, 0)
        for axis, channels in weak.items():
            kept = strongest(scores[axis], widths(model.arch)[axis] - len(channels))
            assert set(kept).isdisjoint(channels), (criterion, axis)


def test_taylor_is_the_squared_change_of_the_loss_when_a_channels_weights_shrink(context):
    model = samples.model(samples.arch())
    images, targets = next(batches(context.data.train, TAYLOR_BATCH, seed=0, epoch=0))
    context = replace(context, data=replace(context.data, train=Split(images.numpy(), targets.numpy())))
    scores = importance(model, context.data, Importance.TAYLOR, 0)["s0b1.0"]
    loss, state = task_loss(context.data.task, 0.0), model.net.state_dict()
    writes, reads = state["blocks.s0b1.conv1.weight"], state["blocks.s0b1.conv2.weight"].transpose(0, 1)
    want = torch.zeros(6)
    for rows in (writes, reads):
        for c in range(6):
            whole, values = rows[c].clone(), []
            for factor in (1.01, 0.99):
                rows[c] = whole * factor
                with torch.no_grad():
                    values.append(loss(model.net(images), images, targets).item())
            rows[c] = whole
            want[c] += ((values[0] - values[1]) / 0.02) ** 2
    torch.testing.assert_close(scores, want, rtol=0.05, atol=1e-4)
    assert all(p.grad is None for p in model.net.parameters())


def test_random_importance_depends_on_the_seed(context):
    model = samples.model(samples.arch())
    one, same_, other = (importance(model, context.data, Importance.RANDOM, seed)["s0"] for seed in (0, 0, 1))
    assert torch.equal(one, same_)
    assert not torch.equal(one, other)


def test_equal_scores_keep_the_first():
    assert strongest(torch.tensor([1.0, 2, 1, 1]), 3) == [0, 1, 2]


def test_norms_are_taken_anew_on_training_images(context):
    _, stale = pruned(context, recalibrate=0)
    _, renewed = pruned(context, recalibrate=100)
    name = "stem.norm.running_mean"
    assert not torch.equal(stale.net.state_dict()[name], renewed.net.state_dict()[name])
    assert torch.equal(stale.net.state_dict()["stem.conv.weight"], renewed.net.state_dict()["stem.conv.weight"])
