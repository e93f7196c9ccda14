"""Each published set: its files in their real format give what the set's own reader gives."""

import errno
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import layouts
import medmnist
import numpy as np
import pytest
import torchvision
from layouts import load

from compressor.arch import TaskKind
from compressor.data.medmnist import _information
from compressor.data.rotated_digits import turn
from compressor.data.types import Data
from compressor.errors import DataError


def everything(data: Data) -> tuple[np.ndarray, np.ndarray]:
    """Train and val together in the order of the file, so that they compare with a reader that knows no val."""
    images = np.concatenate([data.train.images[:], data.val.images[:]])
    targets = np.concatenate([data.train.targets, data.val.targets])
    order = np.lexsort(images.reshape(len(images), -1)[:, :8].T)
    return images[order], targets[order]


def sorted_rows(images: Any, targets: Any) -> tuple[np.ndarray, np.ndarray]:
    images, targets = np.asarray(images), np.asarray(targets)
    order = np.lexsort(images.reshape(len(images), -1)[:, :8].T)
    return images[order], targets[order]


def same(found: tuple[np.ndarray, np.ndarray], wanted: tuple[np.ndarray, np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize("protocol", [2, 5])
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_is_what_torchvision_reads(name, protocol, tmp_path, monkeypatch):
    layouts.cifar(tmp_path, name, protocol=protocol)
    data = load(tmp_path / "cache", name, root=tmp_path)
    reader = torchvision.datasets.CIFAR10 if name == "cifar10" else torchvision.datasets.CIFAR100
    for table in ("train_list", "test_list"):  # the checksums are those of the published files
        monkeypatch.setattr(reader, table, [[file, None] for file, _ in getattr(reader, table)])
    monkeypatch.setattr(reader, "meta", reader.meta | {"md5": None})
    train, test = (reader(tmp_path, train=part) for part in (True, False))
    assert same(everything(data), sorted_rows(train.data.transpose(0, 3, 1, 2), train.targets))
    assert np.array_equal(data.test.images[:], test.data.transpose(0, 3, 1, 2))
    assert data.test.targets.tolist() == test.targets
    assert data.task.names == tuple(train.classes)


class Hostile:
    """Unpickles by running a command."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self):
        return os.system, (f"touch {self.file}",)


def test_a_hostile_cifar_batch_runs_nothing_and_is_named(tmp_path, unpickled):
    batch = layouts.cifar(tmp_path) / "data_batch_3"
    batch.write_bytes(pickle.dumps({"data": Hostile(tmp_path / "ran"), "labels": []}))
    with pytest.raises(DataError, match=r"data_batch_3: holds posix\.system"):
        load(tmp_path / "cache", "cifar10", root=tmp_path)
    assert not (tmp_path / "ran").exists()
    assert not unpickled


@pytest.mark.parametrize(
    "content",
    [b"", b"not a pickle", pickle.dumps([1]), pickle.dumps({"data": 1}), pickle.dumps({"data": np.zeros((2, 3072))})],
)
def test_a_cifar_batch_of_another_shape_is_named(content, tmp_path):
    (layouts.cifar(tmp_path) / "test_batch").write_bytes(content)
    with pytest.raises(DataError, match=r"test_batch: is cut, changed or of another format; get it again from https"):
        load(tmp_path / "cache", "cifar10", root=tmp_path)


def test_svhn_is_what_torchvision_reads(tmp_path, monkeypatch):
    layouts.svhn(tmp_path)
    data = load(tmp_path / "cache", "svhn", root=tmp_path)
    reader = torchvision.datasets.SVHN
    lists = {part: [url, file, None] for part, (url, file, _) in reader.split_list.items()}
    monkeypatch.setattr(reader, "split_list", lists)
    train, test = (reader(str(tmp_path), split=part) for part in ("train", "test"))
    assert same(everything(data), sorted_rows(train.data, train.labels))
    assert np.array_equal(data.test.images[:], test.data)
    assert np.array_equal(data.test.targets, test.labels)


def test_fashion_mnist_is_what_torchvision_reads(tmp_path):
    layouts.fashion(tmp_path / "FashionMNIST" / "raw", zipped=False)
    data = load(tmp_path / "cache", "fashion_mnist", root=tmp_path)
    train, test = (torchvision.datasets.FashionMNIST(tmp_path, train=part) for part in (True, False))
    assert same(everything(data), sorted_rows(train.data[:, None], train.targets))
    assert np.array_equal(data.test.images[:, None][:, 0], np.asarray(test.data)[:, None])
    assert data.task.names == tuple(train.classes)


def test_fashion_mnist_may_lie_flat_and_zipped(tmp_path):
    layouts.fashion(tmp_path / "torch" / "FashionMNIST" / "raw", zipped=False)
    layouts.fashion(tmp_path / "flat", zipped=True)
    found = [load(tmp_path / "cache", "fashion_mnist", root=tmp_path / name) for name in ("torch", "flat")]
    assert found[0].fingerprint == found[1].fingerprint


@pytest.mark.parametrize(
    ("flag", "kind", "colour", "labels", "columns"),
    [
        ("bloodmnist", TaskKind.MULTICLASS, True, 8, 1),
        ("pneumoniamnist", TaskKind.BINARY, False, 2, 1),
        ("retinamnist", TaskKind.ORDINAL, True, 5, 1),
        ("chestmnist", TaskKind.MULTILABEL, False, 2, 14),
    ],
)
@pytest.mark.parametrize("size", [28, 64])
def test_medmnist_is_what_its_own_reader_reads(flag, kind, colour, labels, columns, size, tmp_path, monkeypatch):
    monkeypatch.setattr("compressor.data.medmnist.CHUNK_BYTES", 20_000)
    suffix = "" if size == 28 else f"_{size}"
    layouts.medical(tmp_path / f"{flag}{suffix}.npz", size=size, colour=colour, labels=labels, columns=columns)
    data = load(tmp_path / "cache", "medmnist", root=tmp_path, flag=flag, image_size=size)
    reader = getattr(medmnist, medmnist.INFO[flag]["python_class"])
    for part in ("train", "val", "test"):
        own, split = reader(part, root=str(tmp_path), size=size), getattr(data, part)
        assert np.array_equal(split.images[:], own.imgs.transpose(0, 3, 1, 2) if colour else own.imgs[:, None])
        assert np.array_equal(split.targets, own.labels if columns > 1 else own.labels[:, 0])
    assert data.task.kind is kind
    assert data.task.outputs == len(data.task.names) == len(medmnist.INFO[flag]["label"])
    assert data.train.targets.dtype == (np.float32 if columns > 1 else np.int64)
    assert data.flag == flag


def test_a_medmnist_file_of_objects_is_not_unpickled(tmp_path, unpickled):
    path = tmp_path / "bloodmnist.npz"
    layouts.medical(path, size=28, colour=True, labels=8)
    with np.load(path) as content:
        arrays = dict(content)
    arrays: dict[str, Any] = arrays | {"val_labels": np.array([Hostile(tmp_path / "ran")] * 24, object)}
    np.savez(path, **arrays)
    with pytest.raises(DataError, match=r"bloodmnist\.npz: val_labels is object, 24; it should be integers of 0 to 7"):
        load(tmp_path / "cache", "medmnist", root=tmp_path, flag="bloodmnist")
    assert not (tmp_path / "ran").exists()
    assert not unpickled


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("val_images", lambda x: x.astype(np.uint16) * 257, r"val_images is uint16, 24 x 28 x 28 x 3; .* uint8"),
        ("test_images", lambda x: x / np.float32(255), r"test_images is float32, 24 x 28 x 28 x 3; it should be uint8"),
        ("train_images", lambda x: x[..., 0], r"train_images is uint8, 24 x 28 x 28; it should be uint8, 24 x 28"),
        ("val_images", lambda x: x[1:], r"val_images is uint8, 23 x 28 x 28 x 3; it should be uint8, 24 x 28 x 28 x 3"),
        ("train_labels", lambda x: x.astype(float), r"train_labels is float64, 24 x 1; .* integers of 0 to 7, N x 1"),
        ("test_labels", lambda x: x[:, 0], r"test_labels is int64, 24; it should be integers of 0 to 7, N x 1"),
        ("val_labels", lambda x: x + 5, r"val_labels has 5 to 12; it should be integers of 0 to 7, N x 1"),
        ("test_images", None, r"lacks the array test_images"),
    ],
)
def test_a_wrong_array_of_a_medmnist_file_is_named(name, change, message, tmp_path):
    path = tmp_path / "bloodmnist.npz"
    layouts.medical(path, size=28, colour=True, labels=8)
    with np.load(path) as content:
        arrays = dict(content)
    wrong = arrays.pop(name)
    if change is not None:
        arrays[name] = change(wrong)
    np.savez(path, **arrays)
    with pytest.raises(DataError, match=rf"bloodmnist\.npz: {message}") as caught:
        load(tmp_path / "cache", "medmnist", root=tmp_path, flag="bloodmnist")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("keep", [0, 100, -2000])
def test_a_cut_medmnist_file_is_named(keep, tmp_path):
    path = tmp_path / "bloodmnist.npz"
    layouts.medical(path, size=28, colour=True, labels=8)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"bloodmnist\.npz: is cut, changed"):
        load(tmp_path / "cache", "medmnist", root=tmp_path, flag="bloodmnist")


def test_a_medmnist_file_on_a_broken_disk_is_named_and_not_the_cache(tmp_path, monkeypatch):
    layouts.medical(tmp_path / "bloodmnist.npz", size=28, colour=True, labels=8)

    def broken(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("compressor.data.medmnist._images", broken)
    with pytest.raises(DataError, match=r"bloodmnist\.npz: is cut, changed"):
        load(tmp_path / "cache", "medmnist", root=tmp_path, flag="bloodmnist")


def test_medmnists_table_is_its_packages_and_reading_it_makes_no_folder(monkeypatch):
    def makes(*_: object, **__: object) -> None:
        raise AssertionError("a folder is made")

    monkeypatch.setattr(os, "makedirs", makes)
    assert _information() == medmnist.INFO


def test_a_bit_flipped_medmnist_file_is_named(tmp_path):
    path = tmp_path / "bloodmnist.npz"
    layouts.medical(path, size=28, colour=True, labels=8)
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"bloodmnist\.npz: is cut, changed"):
        load(tmp_path / "cache", "medmnist", root=tmp_path, flag="bloodmnist")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "cifar10"}, r"cifar-10-batches-py/data_batch_1: No such file.*cifar-10-python\.tar\.gz, unpacked in"),
        ({"name": "cifar100"}, r"cifar-100-python/train: No such file.*https://"),
        ({"name": "svhn"}, r"train_32x32\.mat: No such file.*http://"),
        ({"name": "fashion_mnist"}, r"raw/train-images-idx3-ubyte\.gz is missing.*https://"),
        ({"name": "medmnist", "flag": "pathmnist", "image_size": 64}, r"pathmnist_64\.npz: No such file.*https://"),
        ({"name": "medmnist", "flag": "bloodmist"}, r"dataset\.flag=bloodmist is no 2D set.*did you mean bloodmnist"),
        ({"name": "medmnist", "flag": "organmnist3d"}, r"organmnist3d is no 2D set"),
        ({"name": "medmnist", "flag": "bloodmnist", "image_size": 32}, r"image_size=32: MedMNIST has 28, 64, 128, 224"),
        ({"name": "medmnist"}, r"dataset\.flag is not set; there are bloodmnist"),
        ({"name": "cifar"}, r"dataset\.name=cifar: there is no such set; did you mean cifar1"),
        ({"name": "digits"}, r"dataset\.root=.*: digits has no such setting; leave it null"),
        ({"name": "cifar10", "image_size": 64}, r"dataset\.image_size=64: cifar10 has no such setting"),
        ({"name": "svhn", "root": "nowhere"}, r"dataset\.root=nowhere: .*/nowhere is not a folder.*train_32x32\.mat"),
        ({"name": "svhn", "root": None}, r"dataset\.root is not set; give the folder that holds train_32x32\.mat"),
    ],
)
def test_what_is_missing_or_mistaken_is_one_line_that_says_what_would_be_right(changes, message, tmp_path):
    with pytest.raises(DataError, match=message) as caught:
        load(tmp_path / "cache", **({"root": tmp_path} | changes))
    assert "\n" not in str(caught.value)


def test_digits_are_split_60_20_20_with_classes_in_proportion(tmp_path):
    data = load(tmp_path, "digits")
    assert [len(data.train), len(data.val), len(data.test)] == [1078, 360, 359]
    assert data.train.images.shape == (1078, 1, 8, 8)
    assert data.train.images[:].max() == 255
    for split in (data.train, data.val, data.test):
        assert np.ptp(np.bincount(split.targets) / len(split)) < 0.02


def test_rotated_digits_are_turned_by_their_target(tmp_path):
    data = load(tmp_path, "rotated_digits")
    assert data.task.kind is TaskKind.REGRESSION
    assert data.size == 16
    angles = data.train.targets[:, 0]
    assert -60 <= angles.min() < -55 < 55 < angles.max() <= 60
    digit = np.zeros((8, 8), np.uint8)
    digit[:, 3:5] = 255
    for angle in (-50.0, 0.0, 35.0):
        y, x = np.nonzero(turn(digit, 64, angle) > 128)
        right, up = np.linalg.eigh(np.cov(x, -y))[1][:, 1]
        assert abs(np.degrees(np.arctan(-right / up)) - angle) < 3


def test_another_seed_turns_the_digits_otherwise(tmp_path):
    assert load(tmp_path, "rotated_digits", seed=1).fingerprint != load(tmp_path, "rotated_digits").fingerprint


def test_grey_becomes_rgb_and_rgb_becomes_grey_where_asked(tmp_path):
    layouts.cifar(tmp_path)
    grey = load(tmp_path / "cache", "cifar10", root=tmp_path, channels=1)
    colour = load(tmp_path / "cache", "cifar10", root=tmp_path)
    weighted = np.tensordot([0.299, 0.587, 0.114], colour.test.images[:].astype(float), (0, 1))
    assert np.abs(grey.test.images[:][:, 0] - weighted).max() <= 0.51
    digits = load(tmp_path / "cache", "digits", channels=3)
    assert digits.channels == len(digits.mean) == 3
    assert np.ptp(digits.test.images[:], axis=1).max() == 0


def test_loading_a_cached_set_imports_no_torch(tmp_path):
    layouts.cifar(tmp_path)
    layouts.medical(tmp_path / "bloodmnist.npz", size=28, colour=True, labels=8)
    script = (
        "import sys; sys.path.insert(0, 'tests'); from pathlib import Path; from layouts import load\n"
        f"root = Path({str(tmp_path)!r})\n"
        "load(root / 'cache', 'cifar10', root=root); load(root / 'cache', 'digits')\n"
        "load(root / 'cache', 'medmnist', root=root, flag='bloodmnist'); assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[1])


def test_a_pipe_in_place_of_a_medmnist_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "bloodmnist.npz")
    with pytest.raises(DataError, match=r"bloodmnist\.npz: is a pipe; a regular file is needed"):
        load(tmp_path / "cache", "medmnist", root=tmp_path, flag="bloodmnist")
