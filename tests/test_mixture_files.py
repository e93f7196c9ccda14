"""A mixture on disk: it reloads bit for bit, what is shared is stored once, and what is damaged is refused."""

import json
from dataclasses import replace

import mixtures
import pytest
import samples
import torch
from safetensors.torch import load_file, save_file

from compressor.arch import Limit, Routing, Unit
from compressor.errors import CompressorError, ConfigError, ModelError
from compressor.folders import digest_of
from compressor.mixture import Mixture, answer, load_mixture, save_mixture
from compressor.pipeline import given
from compressor.planning import fitting

MAKE = {
    "own": mixtures.toy,
    "exits": lambda: mixtures.toy(exits=True),
    "shared": mixtures.shared_toy,
    "cascade": lambda: mixtures.toy(Routing.CASCADE),
    "threshold": lambda: mixtures.toy(Routing.THRESHOLD, limit=Limit(Unit.MACS, 1e6), prices=(0.0, 0.25, 1 / 3)),
}


@pytest.fixture(params=MAKE)
def mixture(request) -> Mixture:
    return MAKE[request.param]()


class TestFiles:
    def test_it_reloads_bit_for_bit_and_unpickles_nothing(self, mixture, tmp_path, digits, unpickled):
        assert save_mixture(mixture, tmp_path) == digest_of(tmp_path)
        again = load_mixture(tmp_path)
        assert mixtures.same(mixture, again)
        ours, theirs = answer(mixture, digits.test), answer(again, digits.test)
        assert torch.equal(ours.outputs, theirs.outputs)
        assert torch.equal(ours.weights, theirs.weights)
        assert unpickled == []

    def test_every_parameter_is_stored_once(self, mixture, tmp_path):
        save_mixture(mixture, tmp_path)
        stored = load_file(tmp_path / "weights.safetensors")
        named = dict(mixture.net.named_parameters())
        assert named.keys() <= stored.keys()
        assert len({tensor.data_ptr() for tensor in mixture.net.state_dict().values()}) == len(stored)

    def test_its_digest_covers_both_files(self, mixture, tmp_path):
        before = save_mixture(mixture, tmp_path)
        mixture.follow(replace(mixture.rule, threshold=0.61))
        changed = save_mixture(mixture, tmp_path)
        with torch.no_grad():
            (mixture.router or mixture.experts[0]).net.head.score.bias += 1
        assert len({before, changed, save_mixture(mixture, tmp_path)}) == 3

    def test_shared_modules_are_shared_again(self, tmp_path):
        save_mixture(mixtures.shared_toy(), tmp_path)
        again = load_mixture(tmp_path)
        first, second = (expert.net for expert in again.experts)
        assert first.stem is second.stem is mixtures.router_of(again).net.stem
        assert first.blocks["s0b0"] is second.blocks["s0b0"]
        assert first.blocks["s1b0"] is not second.blocks["s1b0"]


@pytest.fixture
def folder(tmp_path):
    save_mixture(mixtures.toy(), tmp_path)
    return tmp_path


def edited(folder, change) -> None:
    path = folder / "mixture.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


class TestDamage:
    @pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}', '{"format": 9, "mixture": {}}', "[" * 5000])
    def test_a_damaged_description_is_refused_in_one_line(self, folder, text):
        (folder / "mixture.json").write_text(text)
        with pytest.raises(CompressorError, match=r"mixture\.json") as caught:
            load_mixture(folder)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda mixture: mixture["experts"].pop(), "outputs for 2 experts"),
            (lambda mixture: mixture.update(experts=mixture["experts"][:1]), "2 to 16 experts"),
            (lambda mixture: mixture["rule"].update(order=[0, 1, 1]), "order"),
            (lambda mixture: mixture["rule"].update(prices=[0.0]), "prices"),
            (lambda mixture: mixture["rule"].update(k=4), "k is 4"),
            (lambda mixture: mixture["rule"].update(shared=True), "first stage"),
            (lambda mixture: mixture["rule"].update(routing="best"), "not one of top1"),
            (lambda mixture: mixture["experts"][1]["input"].update(size=9), "other images"),
            (lambda mixture: mixture["experts"][1]["task"].update(outputs=9), "another task"),
            (lambda mixture: mixture["router"].update(stages=[]), "stage"),
        ],
    )
    def test_an_impossible_mixture_is_refused_with_what_is_wrong(self, folder, change, said):
        edited(folder, lambda data: change(data["mixture"]))
        with pytest.raises(ModelError, match=said) as caught:
            load_mixture(folder)
        assert str(folder / "mixture.json") in str(caught.value)

    @pytest.mark.parametrize("change", ["drop", "extra", "shape", "nan"])
    def test_weights_that_do_not_belong_are_refused_by_name(self, folder, change):
        path = folder / "weights.safetensors"
        tensors = load_file(path)
        name = "experts.1.stem.conv.weight"
        if change == "extra":
            tensors["experts.3.stem.conv.weight"] = tensors[name].clone()
        elif change == "drop":
            del tensors[name]
        else:
            tensors[name] = tensors[name][1:] if change == "shape" else tensors[name] * torch.nan
        save_file(tensors, path)
        with pytest.raises(ModelError, match=r"experts\.\d\.stem\.conv\.weight"):
            load_mixture(folder)

    def test_missing_weights_are_refused_with_what_a_mixture_is(self, folder):
        (folder / "weights.safetensors").unlink()
        with pytest.raises(ModelError, match=r"is missing; a model is mixture\.json and"):
            load_mixture(folder)


class TestFolders:
    def test_phases_refuse_it_by_name_and_evaluation_takes_it(self, folder, digits):
        with pytest.raises(ModelError, match="is a mixture of models"):
            given(folder)
        source = fitting(folder, "checkpoint", digits, mixtures=True)
        assert source.key == f"given-{digest_of(folder)}"

    def test_one_of_other_images_or_classes_is_refused(self, tmp_path, digits):
        save_mixture(mixtures.toy(task=mixtures.TASKS["binary"]), tmp_path)
        with pytest.raises(ConfigError, match="answers binary with 2 outputs"):
            fitting(tmp_path, "checkpoint", digits, mixtures=True)

    def test_a_network_where_a_mixture_is_wanted_is_refused(self, tmp_path):
        folder = samples.saved(tmp_path / "one")
        with pytest.raises(CompressorError, match=r"mixture\.json"):
            load_mixture(folder)
