"""Files of published weights are read without running anything of them; foreign and cut ones are refused by name."""

import io
import os
import pickle
import sys
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from compressor.errors import ModelError
from compressor.importing import read_tensors

STATE = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).state_dict()


class TestFormats:
    def test_weights_saved_by_data_parallel_training_are_the_same(self, tmp_path):
        state = {f"module.{name}": tensor for name, tensor in STATE.items()}
        torch.save({"epoch": 3, "best_prec1": 91.7, "state_dict": OrderedDict(state)}, tmp_path / "model.th")
        read = read_tensors(tmp_path / "model.th")
        assert read.keys() == STATE.keys()
        assert all(torch.equal(tensor, STATE[name]) for name, tensor in read.items())

    def test_both_kinds_of_file_hold_the_same_tensors(self, tmp_path):
        save_file(STATE, tmp_path / "a.safetensors")
        torch.save(STATE, tmp_path / "b.pth")
        torch.save(STATE, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
        for file in ("a.safetensors", "b.pth", "old.pth"):
            read = read_tensors(tmp_path / file)
            assert read.keys() == STATE.keys()
            assert all(torch.equal(read[name], STATE[name]) for name in STATE)


class Hostile:
    """Runs a command when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.path}",)


def bytes_of(value: object, **options) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


class TestHostileFiles:
    @pytest.mark.parametrize("zipped", [True, False])
    def test_a_file_that_wants_to_run_code_is_refused_and_runs_nothing(self, tmp_path, zipped):
        mark, found, active = tmp_path / "mark", [], [True]
        data = bytes_of({"conv1.weight": Hostile(mark)}, _use_new_zipfile_serialization=zipped)
        (tmp_path / "bad.pth").write_bytes(data)
        sys.addaudithook(lambda event, _: found.append(event) if active[0] and event == "pickle.find_class" else None)
        with pytest.raises(ModelError, match=r"bad\.pth: wants to load \w+\.system, which is no tensor"):
            read_tensors(tmp_path / "bad.pth")
        active[0] = False  # a hook cannot be taken away
        assert not mark.exists()
        assert not found

    @pytest.mark.parametrize(
        ("name", "data", "message"),
        [
            ("w.onnx", b"x", "weights are .safetensors or .pth"),
            ("empty.pth", b"", "no whole PyTorch file"),
            ("text.pth", b"not a model", "holds more than plain tensors, or is cut"),
            ("plain.pth", pickle.dumps({"a": 1}), "holds more than plain tensors, or is cut"),
            ("cut.pth", bytes_of({"a": torch.ones(99)})[:500], "no whole PyTorch file"),
            (
                "old.pth",
                bytes_of({"a": torch.ones(99)}, _use_new_zipfile_serialization=False)[:-50],
                "no whole PyTorch",
            ),
            ("list.pth", bytes_of([torch.ones(2)]), "holds no tensors by name"),
            ("none.pth", bytes_of({}), "holds no tensors by name"),
            ("number.pth", bytes_of({"a": torch.ones(2), "b": 3}), "'b' is a int, no tensor"),
            ("nested.pth", bytes_of({"model": {"a": torch.ones(2)}}), "'model' is a dict, no tensor"),
            ("sparse.pth", bytes_of({"a": torch.eye(2).to_sparse()}), "tensor 'a' is not dense"),
            ("meta.pth", bytes_of({"a": torch.ones(2, device="meta")}), "tensor 'a' is not dense"),
            ("module.pth", bytes_of(nn.Linear(2, 2)), "wants to load torch.nn.modules.linear.Linear"),
            ("empty.safetensors", b"", "no whole safetensors file"),
            ("text.safetensors", b"not a model at all", "no whole safetensors file"),
            ("cut.safetensors", b"\x40\0\0\0\0\0\0\0{", "no whole safetensors file"),
        ],
    )
    def test_a_foreign_or_cut_file_is_refused_in_one_line_by_name(self, tmp_path, name, data, message):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ModelError) as caught:
            read_tensors(tmp_path / name)
        assert str(caught.value).startswith(str(tmp_path / name))
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_a_missing_file_and_a_folder_are_refused_by_name(self, tmp_path):
        (tmp_path / "folder.pth").mkdir()
        for name in ("absent.pth", "folder.pth"):
            with pytest.raises(ModelError, match=f"{name}: there is no such file"):
                read_tensors(tmp_path / name)

    def test_a_file_with_any_byte_changed_is_read_or_refused_in_one_line(self, tmp_path):
        generator = torch.Generator().manual_seed(0)
        for zipped in (True, False):
            data = bytes_of({"a": torch.ones(3), "b": torch.zeros(2)}, _use_new_zipfile_serialization=zipped)
            for _ in range(150):
                place, byte = (int(torch.randint(high, (), generator=generator)) for high in (len(data), 256))
                (tmp_path / "flip.pth").write_bytes(data[:place] + bytes([byte]) + data[place + 1 :])
                try:
                    read_tensors(tmp_path / "flip.pth")
                except ModelError as error:
                    assert "\n" not in str(error)  # noqa: PT017 - being read is right too
