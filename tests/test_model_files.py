"""A model whose files are cut, changed, foreign or hostile is refused by name and quickly, before any part is used."""

import json
import os
import pickle
import random
import shutil
import struct
import time
from dataclasses import replace
from pathlib import Path

import pytest
import samples
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from compressor.arch import BlockKind, Exits
from compressor.errors import CompressorError, ModelError
from compressor.model import load, same


class TestForeignFiles:
    def refuse(self, folder: Path, message: str = "") -> None:
        with pytest.raises(ModelError, match=message) as caught:
            load(folder)
        assert "\n" not in str(caught.value)
        assert str(folder) in str(caught.value)

    def test_a_pipe_a_device_and_far_too_many_bytes_are_refused_at_once(self, tmp_path):
        path = samples.saved(tmp_path) / "weights.safetensors"
        with path.open("ab") as file:
            file.truncate(2 * 10**9)
        self.refuse(tmp_path, "has 2000000000 bytes; a file of this kind has at most")
        path.unlink()
        os.mkfifo(path)
        self.refuse(tmp_path, r"weights\.safetensors: is a pipe")
        path.unlink()
        path.symlink_to("/dev/zero")
        self.refuse(tmp_path, "is a device")

    def test_a_header_that_says_it_is_huge_is_refused_at_once(self, tmp_path):
        path = samples.saved(tmp_path) / "weights.safetensors"
        for length in (2**20, 2**31, 2**40, 2**63, 2**64 - 1):
            path.write_bytes(struct.pack("<Q", length) + path.read_bytes()[8:])
            self.refuse(tmp_path, "is cut, changed")

    @pytest.mark.parametrize("name", ["arch.json", "weights.safetensors"])
    def test_a_missing_file_is_refused(self, name, tmp_path):
        (samples.saved(tmp_path) / name).unlink()
        self.refuse(tmp_path, name)

    @pytest.mark.parametrize("share", [0, 0.001, 0.01, 0.1, 0.5, 0.9, 0.999])
    def test_cut_weights_are_refused(self, share, tmp_path):
        path = samples.saved(tmp_path) / "weights.safetensors"
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
        self.refuse(tmp_path, r"weights\.safetensors: is cut, changed or not a safetensors file")

    def test_weights_with_bytes_added_are_refused(self, tmp_path):
        path = samples.saved(tmp_path) / "weights.safetensors"
        path.write_bytes(path.read_bytes() + b"more")
        self.refuse(tmp_path, "is cut, changed")

    def test_a_changed_bit_in_the_header_is_refused_or_says_the_same(self, tmp_path):
        path = samples.saved(tmp_path) / "weights.safetensors"
        content, model, refused = path.read_bytes(), load(tmp_path), 0
        size = 8 + struct.unpack("<Q", content[:8])[0]
        places = [*range(8), *random.Random(0).sample(range(8, size), 60)]
        for place in places:
            changed = bytearray(content)
            changed[place] ^= 1 << place % 8
            path.write_bytes(changed)
            try:
                assert same(model, load(tmp_path)), place
            except ModelError:
                refused += 1
        assert refused > 0.9 * len(places)

    @pytest.mark.parametrize("kind", ["torch.save", "pickle"])
    def test_a_pickle_under_our_name_is_refused_and_not_unpickled(self, kind, tmp_path, unpickled):
        path = samples.saved(tmp_path) / "weights.safetensors"
        state = load_file(path)
        torch.save(state, path) if kind == "torch.save" else path.write_bytes(pickle.dumps(state))
        unpickled.clear()
        self.refuse(tmp_path, "not a safetensors file")
        assert unpickled == []

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda s: s.pop("stem.conv.weight"), "lacks tensor 'stem.conv.weight'"),
            (lambda s: s.update({"extra": torch.zeros(1)}), "has an unknown tensor 'extra'"),
            (
                lambda s: s.update({"head.score.bias": torch.zeros(11)}),
                r"'head.score.bias' has shape \[11\], .* \[10\]",
            ),
            (lambda s: s.update({"head.score.bias": torch.zeros(10, 1)}), "has shape"),
            (lambda s: s.update({"head.score.bias": torch.zeros(10).double()}), "is torch.float64, expected"),
            (lambda s: s.update({"head.score.bias": torch.zeros(10, dtype=torch.int32)}), "is torch.int32"),
            (lambda s: s["stem.conv.weight"].view(-1)[3:4].fill_(torch.nan), "'stem.conv.weight' holds numbers that"),
            (lambda s: s["stem.norm.running_var"][0:1].fill_(torch.inf), "'stem.norm.running_var' holds numbers that"),
            (lambda s: s["stem.norm.running_var"][0:1].fill_(-1), "'stem.norm.running_var' holds a variance of -1"),
            (lambda s: s["blocks.s1b0.shortcut.map"][1:2, 2:3].fill_(7), "map' copies a channel from one that is not"),
            (lambda s: s["blocks.s1b0.shortcut.map"][1:2].fill_(1), "or from several; a row has one 1 at most"),
        ],
    )
    def test_tensors_that_do_not_belong_to_the_arch_are_refused(self, change, message, tmp_path):
        path = samples.saved(tmp_path) / "weights.safetensors"
        state = load_file(path)
        change(state)
        save_file(state, path)
        self.refuse(tmp_path, message)

    def test_thresholds_may_be_infinite_and_nothing_else(self, tmp_path):
        path = samples.saved(tmp_path, samples.compressed()) / "weights.safetensors"
        assert load_file(path)["thresholds"].isinf().all()
        assert load(tmp_path).net.thresholds.isinf().all()
        state = load_file(path)
        state["thresholds"][0] = torch.nan
        save_file(state, path)
        self.refuse(tmp_path, "'thresholds' holds numbers that")

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda d: d.update({"format": 2}), "has format 2, this version reads 1"),
            (lambda d: d.pop("format"), "needs 'format' and 'arch'"),
            (lambda d: d["arch"].update({"depth": 3}), "unknown key 'depth'"),
            (lambda d: d["arch"].pop("stages"), "key 'stages' is missing"),
            (lambda d: d["arch"]["stages"][0].update({"width": "6"}), r"arch.stages\[0\].width: expected int"),
            (lambda d: d["arch"]["stages"][0].update({"width": 10**9}), "axis 's0' has 1000000000 channels"),
            (lambda d: d["arch"].update({"tail": 65536}), "lacks tensor 'tail.conv.weight'"),
            (lambda d: d["arch"]["stages"].extend(d["arch"]["stages"] * 2000), "more than 2000 blocks"),
            (lambda d: d["arch"]["head"].update({"hidden": [1] * 200_000}), "has 200000 hidden layers; at most 16"),
            (lambda d: d["arch"]["stages"][0].update({"width": 65536}), "has shape"),
            (lambda d: d["arch"]["input"].update({"size": 10**6}), "an input of"),
        ],
    )
    def test_an_arch_that_cannot_be_is_refused_quickly(self, change, message, tmp_path):
        path = samples.saved(tmp_path) / "arch.json"
        data = json.loads(path.read_text())
        change(data)
        path.write_text(json.dumps(data))
        began = time.process_time()
        self.refuse(tmp_path, message)
        assert time.process_time() - began < 3

    def test_the_widest_and_deepest_arch_is_refused_quickly(self, tmp_path):
        path = samples.saved(tmp_path) / "arch.json"
        data = json.loads(path.read_text())
        block = {"kind": "bottleneck", "widths": [65536, 65536], "stride": 1}
        data["arch"]["stages"] = [{"blocks": [block] * 300, "width": 65536, "shortcut": "project", "pool": False}]
        path.write_text(json.dumps(data))
        began = time.process_time()
        self.refuse(tmp_path, "tensor")
        assert time.process_time() - began < 5


LEAVES = st.sampled_from([0, 1, 2, 3, 7, -1, 70_000, 0.5, 1e-40, 1e40, True, None, "", "pad", "plain", [], [1, 2], {}])


def places(data: object, path: tuple = ()) -> list[tuple]:
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [path, *(found for key, item in items for found in places(item, (*path, key)))]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_change_of_an_arch_file_is_refused_in_one_line_or_gives_a_network_that_answers(tmp_path, data):
    kind = data.draw(st.sampled_from(["basic", "plain", "inverted"]))
    origin = tmp_path / kind
    if not origin.exists():
        samples.saved(origin, replace(samples.compressed(BlockKind(kind)), exits=Exits((0.4,), width=2)))
    content = json.loads((origin / "arch.json").read_text())
    spot = data.draw(st.sampled_from(places(content)[1:]))
    inside = content
    for key in spot[:-1]:
        inside = inside[key]
    inside[spot[-1]] = data.draw(LEAVES)
    folder = tmp_path / "changed"
    shutil.copytree(origin, folder, dirs_exist_ok=True)
    (folder / "arch.json").write_text(json.dumps(content))
    message = ""
    try:
        model = load(folder)
        assert all(out.shape == (5, model.arch.task.outputs) for out in samples.outputs(model))
    except CompressorError as error:
        message = str(error)
    assert "\n" not in message
