"""Files of published weights are read without running anything of them; foreign and cut ones are refused by name."""

import io
import os
import pickle
import sys
import warnings
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from compressor.errors import FileError, ModelError
from compressor.published.reading import read_tensors

OLD = {"_use_new_zipfile_serialization": False}
with warnings.catch_warnings(action="ignore"):
    QUANTIZED = torch.quantize_per_tensor(torch.ones(2), 0.5, 0, torch.qint8)
STATE = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).state_dict()


def same(read: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> bool:
    return read.keys() == wanted.keys() and all(torch.equal(tensor, wanted[name]) for name, tensor in read.items())


class TestFormats:
    @pytest.mark.parametrize("name", ["last.ckpt", "pytorch_model.bin", "model.pth.tar", "weights", "net.safetensors"])
    def test_the_content_says_what_a_file_is_and_its_name_does_not(self, tmp_path, name):
        torch.save({"epoch": 3, "state_dict": STATE}, tmp_path / name)
        assert same(read_tensors(tmp_path / name), STATE)
        save_file(STATE, tmp_path / name)
        assert same(read_tensors(tmp_path / name), STATE)

    def test_a_whole_checkpoint_of_a_training_is_read_for_its_network(self, tmp_path):
        net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
        optimizer = torch.optim.AdamW(net.parameters())
        net(torch.ones(2, 1, 5, 5)).sum().backward()
        optimizer.step()
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, 10)
        kept = {"optimizer": optimizer.state_dict(), "epoch": 3, "lr_schedulers": [schedule.state_dict()["base_lrs"]]}
        for options in ({}, OLD):
            torch.save(kept | {"state_dict": net.state_dict(), "size": torch.Size([3])}, tmp_path / "c.ckpt", **options)
            assert same(read_tensors(tmp_path / "c.ckpt"), net.state_dict())

    @pytest.mark.parametrize("options", [{}, OLD])
    def test_parameters_views_and_tied_tensors_are_read_as_they_were(self, tmp_path, options):
        whole = torch.arange(12.0).reshape(3, 4)
        state = {"a": nn.Parameter(whole), "b": whole, "c": whole.T, "d": whole[1:, ::2], "e": torch.empty(0, 3)}
        state |= {"f": torch.tensor(3), "g": torch.ones(2, dtype=torch.bfloat16), "h": torch.ones(2, dtype=torch.bool)}
        torch.save(state, tmp_path / "a.pth", **options)
        assert same(read_tensors(tmp_path / "a.pth"), state)

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
            ("empty.pth", b"", "is empty; give a state dict"),
            ("text.pth", b"not a model", "is no file of weights"),
            ("plain.pth", pickle.dumps({"a": 1}), "is a pickle that torch.save did not write"),
            ("cut.pth", bytes_of({"a": torch.ones(99)})[:500], "no whole PyTorch file"),
            ("old.pth", bytes_of({"a": torch.ones(99)}, **OLD)[:-50], "no whole PyTorch"),
            ("list.pth", bytes_of([torch.ones(2)]), "holds no tensors by name"),
            ("none.pth", bytes_of({}), "holds no tensors by name"),
            ("number.pth", bytes_of({"a": torch.ones(2), "b": 3}), "'b' is a int, no tensor"),
            ("keys.pth", bytes_of({3: torch.ones(2), "a": torch.ones(2)}), "names a tensor by a int"),
            ("long.pth", bytes_of({"a" * 301: torch.ones(2)}), "by a str of 301 characters"),
            ("sparse.pth", bytes_of({"a": torch.eye(2).to_sparse()}), "tensors that are sparse"),
            ("meta.pth", bytes_of({"a": torch.ones(2, device="meta")}), "tensors that are without numbers"),
            ("int8.pth", bytes_of({"a": QUANTIZED}), "tensors that are quantized"),
            ("repeated.pth", bytes_of({"a": torch.ones(1).expand(9)}), "a tensor of more numbers than its storage"),
            ("module.pth", bytes_of(nn.Linear(2, 2)), "wants to load torch.nn.modules.linear.Linear"),
            ("module.pth", bytes_of(nn.Linear(2, 2), **OLD), "it is a whole module"),
            ("empty.safetensors", b"", "is empty"),
            ("text.safetensors", b"not a model at all", "is no file of weights"),
            ("cut.safetensors", b"\x40\0\0\0\0\0\0\0{", "no whole safetensors file: its header has 64 bytes"),
            ("odd.safetensors", b"\x02\0\0\0\0\0\0\0{]", "no whole safetensors file"),
        ],
    )
    def test_a_foreign_or_cut_file_is_refused_in_one_line_by_name(self, tmp_path, name, data, message):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ModelError) as caught:
            read_tensors(tmp_path / name)
        assert str(caught.value).startswith(str(tmp_path / name))
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_a_pipe_a_device_and_a_file_larger_than_weights_are_refused_at_once(self, tmp_path):
        os.mkfifo(tmp_path / "pipe.pth")
        (tmp_path / "zero.pth").symlink_to("/dev/zero")
        with (tmp_path / "large.pth").open("wb") as file:
            file.truncate(3 * 10**9)
        for name, message in (("pipe", "is a pipe"), ("zero", "is a device"), ("large", "has 3000000000 bytes")):
            with pytest.raises(FileError, match=message):
                read_tensors(tmp_path / f"{name}.pth")

    def test_a_missing_file_and_a_folder_are_refused_by_name(self, tmp_path):
        (tmp_path / "folder.pth").mkdir()
        for name, message in (("absent.pth", "there is no such file"), ("folder.pth", "is a folder")):
            with pytest.raises(ModelError, match=f"{name}: {message}"):
                read_tensors(tmp_path / name)

    def test_a_changed_number_in_a_zipped_file_is_found_by_its_checksum(self, tmp_path):
        data = bytearray(bytes_of({"a": torch.arange(500.0)}))
        place = data.index(torch.arange(500.0).numpy().tobytes())
        for at in range(place, place + 2000, 100):
            data[at] ^= 4
            (tmp_path / "flip.pth").write_bytes(data)
            with pytest.raises(ModelError, match=r"flip\.pth: record '\w+/data/0' is not what its checksum says"):
                read_tensors(tmp_path / "flip.pth")
            data[at] ^= 4

    def test_a_file_that_was_saved_without_checksums_is_read(self, tmp_path):
        torch.serialization.set_crc32_options(compute_crc32=False)
        try:
            torch.save(STATE, tmp_path / "w.pth")
        finally:
            torch.serialization.set_crc32_options(compute_crc32=True)
        assert same(read_tensors(tmp_path / "w.pth"), STATE)

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
