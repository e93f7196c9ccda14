"""Pickles that would take memory or time, or reach what no state dict needs, are refused before torch reads them."""

import io
import os
import pickle
import struct
import time
import tracemalloc
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import nn

from compressor.errors import ModelError
from compressor.published.reading import read_tensors


def zipped(pickled: bytes, storage: bytes = bytes(400)) -> bytes:
    """Return a PyTorch file with a pickle of one's own."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in (("data.pkl", pickled), ("version", b"3"), ("byteorder", b"little"), ("data/0", storage)):
            archive.writestr(f"a/{name}", data)
    return buffer.getvalue()


def legacy(pickled: bytes, storage: bytes = b"") -> bytes:
    """Return a PyTorch file of the old format with a pickle of one's own."""
    whole = io.BytesIO()
    torch.save({"a": torch.ones(100)}, whole, _use_new_zipfile_serialization=False)
    start = [pickle.dumps(value, protocol=2) for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    assert whole.getvalue().startswith(start[0] + start[1])
    return b"".join(start) + pickled + pickle.dumps(["0"], protocol=2) + struct.pack("<q", 100) + storage


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value: int) -> bytes:
    data = pickle.encode_long(value)
    return b"\x8a" + bytes([len(data)]) + data


def tensor(elements: int, offset: int, size: int, stride: int, *, view: bytes = b"") -> bytes:
    """Return the pickle of a state dict with one tensor of floats."""
    stored = (
        b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + number(elements) + view + b"tQ"
    )
    shape = number(offset) + number(size) + b"\x85" + number(stride) + b"\x85"
    call = b"ctorch._utils\n_rebuild_tensor_v2\n(" + stored + shape + b"\x89ccollections\nOrderedDict\n)RtR"
    return b"\x80\x02}" + text("w") + call + b"s."


def called(name: str, *arguments: int) -> bytes:
    module, _, function = name.rpartition(".")
    given = b"".join(map(number, arguments))
    return b"\x80\x02}" + text("w") + f"c{module}\n{function}\n(".encode() + given + b"tRs."


def nested(depth: int) -> bytes:
    """Return a pickle of a mapping whose key is a tuple of two equal tuples, and so on: to hash it takes 2 ** depth."""
    return b"\x80\x02})" + b"".join(b"q" + bytes([i]) + b"h" + bytes([i]) + b"\x86" for i in range(depth)) + b"K\x01s."


HOSTILE = {
    "bytearray": called("builtins.bytearray", 10**11),
    "tensor of a size": called("torch.FloatTensor", 10**11),
    "storage of a size": called("torch.FloatStorage", 10**11),
    "untyped storage": called("torch.storage.UntypedStorage", 10**11),
    "larger than its storage": tensor(100, 0, 10**10, 1),
    "with a stride beyond": tensor(100, 0, 2, 10**9),
    "with an offset beyond": tensor(100, 10**9, 1, 1),
    "repeated": tensor(100, 0, 10**12, 0),
    "storage larger than the file": tensor(10**11, 0, 100, 1),
    "negative": tensor(-100, 0, 1, 1),
    "negative size": tensor(100, 0, -1, 1),
    "key that takes for ever": nested(60),
    "millions of lists": b"\x80\x02" + b"]" * 3_000_000 + b".",
    "a command": b"\x80\x02cposix\nsystem\n" + text("touch mark") + b"\x85R.",
    "a class of this program": b"\x80\x02ccompressor.model\nModel\n)R.",
    "escape codes": b"\x80\x02cevil\x1b[31m\nsystem\n)R.",
    "an inside": b"\x80\x02ctorch\nFloatStorage\n}b.",
    "a memo that is not there": b"\x80\x02h\x05.",
    "nothing on the stack": b"\x80\x02s.",
    "no end": b"\x80\x02}",
    "another protocol": pickle.dumps({"w": 1}, protocol=4),
}


@pytest.mark.parametrize("form", [zipped, legacy])
@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_pickle_is_refused_at_once_in_one_line(what, form, tmp_path, monkeypatch, unpickled) -> None:
    monkeypatch.chdir(tmp_path)
    Path("w.pth").write_bytes(form(HOSTILE[what]))
    began = time.process_time()
    tracemalloc.start()
    with pytest.raises(ModelError) as caught:
        read_tensors(Path("w.pth"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert str(caught.value).isprintable()
    assert time.process_time() - began < 20
    assert peak < 400 * 2**20
    assert not Path("mark").exists()
    assert not [name for name in unpickled if name[0] not in ("torch", "collections", "torch._utils")]


@pytest.mark.parametrize("form", [zipped, legacy])
def test_the_same_pickle_with_true_sizes_is_read(form, tmp_path) -> None:
    view = b"" if form is zipped else b"N"
    (tmp_path / "w.pth").write_bytes(form(tensor(100, 0, 50, 2, view=view), torch.arange(100.0).numpy().tobytes()))
    assert torch.equal(read_tensors(tmp_path / "w.pth")["w"], torch.arange(0.0, 100, 2))


class Runs:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple:
        return os.system, ("touch mark",)


class Opened(nn.Module):
    """Is a class of the file's own."""


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}])
def test_nothing_foreign_is_looked_up_whatever_a_file_names(options, tmp_path, monkeypatch, unpickled) -> None:
    monkeypatch.chdir(tmp_path)
    values = [
        {"a": Runs()},
        Opened(),
        {"state_dict": {"a": torch.ones(1)}, "hyper": Runs},
        OrderedDict(a=nn.Linear(1, 1)),
    ]
    for value in values:
        torch.save(value, "w.pth", **options)
        with pytest.raises(ModelError, match="wants to load"):
            read_tensors(Path("w.pth"))
    assert not Path("mark").exists()
    assert not unpickled
