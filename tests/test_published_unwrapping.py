"""A network is found in what trainings save around it, under names without wrappers, and never guessed at."""

from collections import OrderedDict
from itertools import product

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from compressor.errors import ModelError
from compressor.published.unwrapping import HOLDERS, OWNERS, WRAPPERS, as_unwrapped, unwrapped, without_prefixes

NET = nn.Sequential(OrderedDict(conv=nn.Conv2d(1, 2, 3), norm=nn.BatchNorm2d(2)))
STATE = NET.state_dict()
OTHER = {name: tensor + 1 for name, tensor in STATE.items()}


def prefixed(prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in STATE.items()}


def same(found: dict[str, Tensor]) -> bool:
    return found.keys() == STATE.keys() and all(
        found[name].data_ptr() == tensor.data_ptr() for name, tensor in STATE.items()
    )


class TestNames:
    @pytest.mark.parametrize("parts", [*product([*WRAPPERS, *OWNERS], repeat=2)])
    def test_wrappers_and_owners_are_taken_off_in_any_order(self, parts):
        assert same(without_prefixes(prefixed(".".join(parts) + ".")))
        assert same(without_prefixes(prefixed(f"model.{parts[0]}.module.{parts[1]}.")))

    def test_names_are_those_of_the_network_that_torch_wrapped(self):
        wrapped = [nn.DataParallel(NET), torch.compile(NET), torch.compile(nn.DataParallel(NET)), AveragedModel(NET)]
        for net in wrapped:
            assert without_prefixes(net.state_dict()).keys() == STATE.keys()

    def test_a_part_that_was_wrapped_alone_has_its_own_name(self):
        net = nn.ModuleDict({"features": nn.DataParallel(NET), "last": nn.DataParallel(nn.Linear(2, 2))})
        state = {name.replace("last.module", "last._orig_mod"): tensor for name, tensor in net.state_dict().items()}
        names = [f"features.{name}" for name in STATE]
        assert [*without_prefixes(state)] == [*names, "last.weight", "last.bias"]

    def test_names_that_would_merge_stay_apart(self):
        state = {"a.module.b": torch.zeros(1), "a.b": torch.ones(1)}
        assert without_prefixes(state) == state

    def test_an_owner_that_not_all_have_stays(self):
        state = prefixed("model.") | {"criterion.weight": torch.ones(2)}
        assert without_prefixes(state).keys() == state.keys()

    def test_a_tensor_is_never_left_without_a_name(self):
        for name in ("model", "module", "net.model", "_orig_mod"):
            assert all(without_prefixes({name: torch.ones(1)}))

    def test_a_map_may_name_modules_as_the_file_does_or_without_wrappers(self):
        tensors = without_prefixes(prefixed("model._orig_mod."))
        assert {as_unwrapped(name, tensors) for name in ("conv", "model.conv", "model._orig_mod.conv")} == {"conv"}
        assert as_unwrapped("model.absent", tensors) == "model.absent"


class TestHolders:
    @pytest.mark.parametrize("outer", HOLDERS)
    def test_a_network_is_found_in_holders_of_any_nesting(self, outer):
        beside = {"epoch": 3, "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": []}}
        assert same(unwrapped(beside | {outer: STATE}))
        assert all(same(unwrapped(beside | {outer: beside | {inner: prefixed("module.")}})) for inner in HOLDERS)

    def test_the_only_mapping_of_tensors_is_taken_whatever_its_name(self):
        assert same(unwrapped({"generator_weights": STATE, "epoch": 3}))

    @pytest.mark.parametrize(
        ("found", "names"),
        [
            ({"model": STATE, "ema": OTHER}, "'model' and 'ema'"),
            ({"state_dict": STATE, "state_dict_ema": OTHER, "epoch": 1}, "'state_dict' and 'state_dict_ema'"),
            ({"model": {"net": STATE, "ema": {"epoch": 1, "net": OTHER}}}, "'model.net' and 'model.ema.net'"),
            ({"first": STATE, "second": OTHER}, "'first' and 'second'"),
        ],
    )  # fmt: skip
    def test_two_networks_are_refused_by_their_names_and_the_line_says_how_to_choose(self, found, names, tmp_path):
        torch.save(found, tmp_path / "two.pth")
        with pytest.raises(ModelError, match="holds two networks") as caught:
            unwrapped(found)
        line = str(caught.value)
        assert names in line
        advice = line.partition("such as ")[2].replace("FILE", repr(str(tmp_path / "two.pth")))
        exec(advice.replace("weights.pth", str(tmp_path / "weights.pth")), {"torch": torch})
        chosen = unwrapped(torch.load(tmp_path / "weights.pth", weights_only=True))
        assert all(torch.equal(tensor, OTHER[name]) for name, tensor in chosen.items())

    def test_one_network_under_two_names_is_one(self):
        assert same(unwrapped({"model": STATE, "state_dict": dict(STATE)}))

    def test_mappings_that_hold_themselves_end(self):
        found: dict = {}
        found |= dict.fromkeys(HOLDERS, found)
        with pytest.raises(ModelError, match="is a dict, no tensor"):
            unwrapped(found)
