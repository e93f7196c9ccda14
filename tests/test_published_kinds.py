"""What is no file of weights is told apart by its content, and the line says what to give instead."""

import io
import warnings
import zipfile
from copy import copy
from pathlib import Path

import onnx
import pytest
import samples
import torch
from safetensors.torch import save
from torch import nn

from compressor.errors import ModelError
from compressor.published.kinds import Kind, kind_of

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
PAGE = b"<!DOCTYPE html>\n<html><head><title>404</title></head></html>"


def saved(value: object, **options) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def zipped(records: dict[str, bytes], compression: int = zipfile.ZIP_STORED, comment: bytes = b"") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.comment = comment
        for name, data in records.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def scripted() -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings(action="ignore"):
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), buffer)
    return buffer.getvalue()


def graph() -> bytes:
    make = onnx.helper
    value = make.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    node = make.make_node("Relu", ["x"], ["y"])
    found = make.make_graph([node], "g", [value], [make.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])])
    return make.make_model(found, producer_name="pytorch").SerializeToString()


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (saved({"a": torch.ones(2)}), Kind.ZIPPED),
        (saved({"a": torch.ones(2)}, _use_new_zipfile_serialization=False), Kind.LEGACY),
        (save({"a": torch.ones(2)}), Kind.SAFETENSORS),
    ],
)
def test_files_of_weights_are_known_by_their_content(data: bytes, kind: Kind, tmp_path: Path) -> None:
    (tmp_path / "file.onnx").write_bytes(data)
    assert kind_of(tmp_path / "file.onnx") is kind


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (LFS, "pointer of Git LFS, not the weights; run `git lfs pull`"),
        (PAGE, "is a web page, not the weights; download"),
        (b"\xef\xbb\xbf\n<html>", "is a web page"),
        (b'<?xml version="1.0"?>\n<net name="Model0" version="11">', "is a network of OpenVINO"),
        (b"\x89HDF\r\n\x1a\n" + bytes(50), "is an HDF5 file, as Keras and TensorFlow write"),
        (b"\x1c\0\0\0TFL3" + bytes(50), "is a network of TensorFlow Lite"),
        (b"\x08\x01\x12\xf0\x8b\x03", "is a SavedModel of TensorFlow"),
        (b"\n\x2f\n\x07input_1\x12\x0bPlaceholder", "is a graph of TensorFlow"),
        (b"\x93NUMPY\x01\0", "is an array of NumPy"),
        (b"GGUF" + bytes(20), "is a file of GGML"),
        (b"\x1f\x8b\x08" + bytes(20), "is compressed; unpack it"),
        (bytes(257) + b"ustar", "is a tar archive; unpack it"),
        (zipped({"model.weights.h5": b"", "config.json": b"{}"}), "is a network of Keras"),
        (zipped({"a/saved_model.pb": b""}), "is a SavedModel of TensorFlow"),
        (zipped({"weights.npy": b""}), "is an archive of NumPy"),
        (zipped({"weights.pth": b""}), "is a zip archive, no PyTorch file; unpack it"),
        (zipped({"e/models/model.json": b"", "e/archive_format": b"pt2"}), "is an exported program (.pt2)"),
        (zipped({"a/data.pkl": b"", "a/../../b": b""}), "records that torch.save does not write ('a/../../b')"),
        (zipped({"a/data.pkl": b"", "/etc/x": b""}), "records that torch.save does not write ('/etc/x')"),
        (zipped({"a/data.pkl": b""}, comment=b"PK"), "records that torch.save does not write"),
        (zipped({"a/data.pkl": b"", "a/data/0": bytes(10**7)}, zipfile.ZIP_DEFLATED), "holds compressed records"),
        (b"PK\x03\x04" + bytes(100), "is no whole PyTorch file"),
        (bytes(100), "is no file of weights"),
    ],
)
def test_another_kind_is_refused_by_its_name_with_what_to_do(data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(data)
    with pytest.raises(ModelError) as caught:
        kind_of(tmp_path / "w.pth")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_networks_that_other_programs_wrote_are_told_apart(tmp_path: Path) -> None:
    for data, message in ((scripted(), "TorchScript archive; give torch.jit.load"), (graph(), "is an ONNX network")):
        (tmp_path / "w.pth").write_bytes(data)
        with pytest.raises(ModelError, match=message):
            kind_of(tmp_path / "w.pth")


def test_records_that_share_their_bytes_are_refused_before_they_become_more_than_the_file(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.pth", "w") as archive:
        archive.writestr("a/data.pkl", b"x")
        archive.writestr("a/data/0", bytes(10_000))
        for i in range(1, 20):
            shared = copy(archive.getinfo("a/data/0"))
            shared.filename = f"a/data/{i}"
            archive.filelist.append(shared)
    with pytest.raises(ModelError, match="says that its records have more bytes than the file"):
        kind_of(tmp_path / "w.pth")


def test_a_folder_is_refused_with_what_to_give_of_it(tmp_path: Path) -> None:
    ours = samples.saved(tmp_path / "ours")
    with pytest.raises(ModelError, match="model's folder of this program; go on from it with checkpoint=FOLDER"):
        kind_of(ours)
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ModelError, match=r"is a folder; give a file of weights, such as pytorch_model\.bin in it"):
        kind_of(tmp_path / "hub")
