"""A saved model is read back bit for bit or refused by name; nothing in its files is ever run."""

import copy
from dataclasses import replace

import pytest
import samples
import terminal
import torch

from compressor.arch import Bits, BlockKind, Exits, Quantization, Shortcut, WeightBits, widths
from compressor.errors import ModelError
from compressor.folders import digest_of
from compressor.layers import axes_of
from compressor.model import Model, fresh, load, rebuild, same, save, select
from compressor.phases.exits import is_exit

ARCHS = {f"{kind}": samples.compressed(kind) for kind in BlockKind} | {"float": samples.arch()}


class TestReload:
    @pytest.mark.parametrize("name", ARCHS)
    def test_a_model_reloads_bit_for_bit_and_unpickles_nothing(self, name, tmp_path, unpickled):
        model = samples.model(ARCHS[name])
        digest = save(model, tmp_path)
        again = load(tmp_path)
        assert same(model, again)
        assert all(torch.equal(a, b) for a, b in zip(samples.outputs(model), samples.outputs(again), strict=True))
        assert digest == digest_of(tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["arch.json", "weights.safetensors"]
        assert unpickled == []

    def test_saving_what_was_loaded_writes_the_same_bytes(self, tmp_path):
        first = samples.saved(tmp_path / "first", ARCHS["basic"])
        (tmp_path / "again").mkdir()
        save(load(first), tmp_path / "again")
        for name in ("arch.json", "weights.safetensors"):
            assert (first / name).read_bytes() == (tmp_path / "again" / name).read_bytes()

    def test_loading_leaves_the_callers_random_state(self, tmp_path):
        samples.saved(tmp_path)
        before = torch.get_rng_state()
        load(tmp_path)
        assert torch.equal(torch.get_rng_state(), before)

    @pytest.mark.parametrize("name", ARCHS)
    def test_loading_imports_no_compiler_which_takes_seconds(self, name, tmp_path):
        samples.saved(tmp_path, ARCHS[name])
        script = "import sys, compressor; compressor.load('.'); print({'sympy', 'torch._dynamo'} & set(sys.modules))"
        assert terminal.process("-c", script, folder=tmp_path).stdout == "set()\n"

    @pytest.mark.parametrize("change", ["arch", "weight"])
    def test_models_that_differ_are_not_the_same(self, change):
        model, other = samples.model(samples.STANDARD), samples.model(samples.STANDARD)
        if change == "arch":
            other.arch = replace(other.arch, name="other")
        else:
            other.net.state_dict()["head.score.bias"][3] += 1e-6
        assert same(model, model)
        assert not same(model, other)


class TestRebuild:
    def test_new_tensors_start_afresh_and_every_other_one_moves(self):
        model = samples.model(samples.arch())
        out = rebuild(model, replace(model.arch, exits=Exits((0.5,), width=3)), new=is_exit, seed=0)
        before, after = model.net.state_dict(), out.net.state_dict()
        assert all(torch.equal(before[name], after[name]) for name in before)
        assert all(is_exit(name) for name in after.keys() - before.keys())
        assert torch.equal(samples.outputs(model)[-1], samples.outputs(out)[-1])

    def test_new_tensors_that_fit_keep_their_value(self):
        model = samples.model(samples.arch(exits=Exits((0.3, 0.6))))
        out = rebuild(model, replace(model.arch, exits=Exits((0.3,))), new=is_exit, seed=0)
        name = "exits.0.score.weight"
        assert torch.equal(out.net.state_dict()[name], model.net.state_dict()[name])

    def test_tensors_that_are_lost_missing_or_of_another_shape_are_refused(self):
        model = samples.model(samples.arch())
        for arch in (
            replace(model.arch, tail=3),
            samples.arch(depth=1),
            samples.arch(quantization=Quantization(Bits(4, 4), 8)),
        ):
            with pytest.raises(ModelError, match="weights do not fit the new network"):
                rebuild(model, arch, new=is_exit, seed=0)


def silenced(model: Model, dropped: dict[str, list[int]]) -> None:
    """Set every weight of some channels to zero, wherever their axes stand."""
    state = model.net.state_dict()
    for name, names in axes_of(model.net).items():
        for dim, axis in enumerate(names):
            if axis in dropped and name.rpartition(".")[2] in ("weight", "bias", "running_mean"):
                state[name].index_fill_(dim, torch.tensor(dropped[axis]), 0)


class TestSelect:
    @pytest.mark.parametrize("bits", [None, Bits(4, 4)], ids=["float", "quantized"])
    @pytest.mark.parametrize("kind", BlockKind)
    @pytest.mark.parametrize("shortcut", Shortcut)
    def test_removing_channels_whose_weights_are_zero_changes_no_output(self, kind, shortcut, bits):
        stages = tuple(replace(stage, shortcut=shortcut) for stage in samples.arch(kind).stages)
        rule = bits and Quantization(bits, 8)
        model = samples.model(samples.arch(kind, stages=stages, quantization=rule, exits=Exits((0.3, 0.6), width=4)))
        dropped = {axis: [1, size - 1] for axis, size in widths(model.arch).items()}
        silenced(model, dropped)
        kept = {axis: [c for c in range(size) if c not in dropped[axis]] for axis, size in widths(model.arch).items()}
        smaller = select(model, kept)
        assert widths(smaller.arch) == {axis: size - 2 for axis, size in widths(model.arch).items()}
        for ours, theirs in zip(samples.outputs(smaller), samples.outputs(model), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
            assert ours.std() > 0.01

    def test_it_leaves_the_model_it_was_given(self):
        model = samples.model(samples.compressed())
        before = copy.deepcopy(model)
        select(model, {"s0": [0, 2], "s1b0.0": [1]})
        assert same(model, before)

    def test_every_tensor_is_the_kept_part_of_the_one_before(self):
        model = samples.model(samples.compressed(BlockKind.BOTTLENECK))
        out = select(model, {"s0": [4, 1]})
        before, after, axes = model.net.state_dict(), out.net.state_dict(), axes_of(model.net)
        assert sum("s0" in names for names in axes.values()) > 20
        for name, names in axes.items():
            want = before[name]
            for dim, axis in enumerate(names):
                want = want[(slice(None),) * dim + ([4, 1],)] if axis == "s0" else want
            assert torch.equal(after[name], want), name

    def test_bits_of_single_channels_go_with_them(self):
        rule = Quantization(Bits(4, 4), 8, (WeightBits("blocks.s0b0.conv1", "s0b0.0", (2, 3, 4, 5, 6, 7)),))
        model = samples.model(samples.arch(quantization=rule))
        conv = select(model, {"s0b0.0": [5, 0]}).net.blocks["s0b0"].conv1
        assert conv.bits == (7, 2)  # pyright: ignore
        assert torch.equal(conv.rounded(), model.net.blocks["s0b0"].conv1.rounded()[[5, 0]])  # pyright: ignore


@pytest.mark.parametrize("count", [0, 5, 7])
def test_bits_for_another_number_of_channels_than_the_layer_has_are_refused(count):
    weights = (WeightBits("blocks.s0b0.conv1", "s0b0.0", (4,) * count),)
    with pytest.raises(ModelError, match=f"explicit bits for {count} channels, the layer has 6"):
        fresh(samples.arch(quantization=Quantization(Bits(4, 4), 8, weights)), 0)
