"""A data set is what its files hold: nothing stale is used, no damage passes, and no file blows up."""

import os
import pickle
import random
import struct
import tracemalloc
import zlib
from pathlib import Path

import layouts
import numpy as np
import pytest
from layouts import load

from compressor.data import blocks, identity
from compressor.data.types import Data
from compressor.errors import CompressorError, DataError


def folder(root: Path) -> Data:
    return load(root / "cache", "imagefolder", root=root / "set", image_size=8)


def age(path: Path) -> None:
    """Make a file's stamp old enough to be trusted, by moving the border instead of the clock."""
    then = 1_600_000_000_000_000_000
    os.utime(path, ns=(then, then))


class TestIdentity:
    def test_pictures_that_changed_places_with_equal_sizes_and_times_are_read_anew(self, tmp_path):
        layouts.folder(tmp_path / "set")
        first, second = (tmp_path / "set" / "train" / name / "001.png" for name in ("cat", "dog"))
        size = max(first.stat().st_size, second.stat().st_size)
        for path in (first, second):
            path.write_bytes(path.read_bytes().ljust(size, b"\0"))
            age(path)
        before = folder(tmp_path)
        first.rename(tmp_path / "x")
        second.rename(first)
        (tmp_path / "x").rename(second)
        after = folder(tmp_path)
        fresh = load(tmp_path / "fresh", "imagefolder", root=tmp_path / "set", image_size=8)
        assert after.fingerprint == fresh.fingerprint != before.fingerprint

    def test_a_write_in_place_that_sets_the_time_back_is_seen(self, tmp_path, monkeypatch):
        monkeypatch.setattr(identity, "COARSEST", 0)  # so that the stamps are trusted at once
        path = tmp_path / "file"
        path.write_bytes(b"one")
        age(path)
        before = identity.content_digests([str(path)], tmp_path / "memo")
        path.write_bytes(b"two")
        age(path)
        assert identity.content_digests([str(path)], tmp_path / "memo") != before

    def test_what_changed_a_moment_ago_is_read_again(self, tmp_path, monkeypatch):
        path = tmp_path / "file"
        path.write_bytes(b"one")
        monkeypatch.setattr(
            identity, "_stamp", lambda path: "1 1 3 5 99999999999999999999"
        )  # a clock that stands still
        before = identity.content_digests([str(path)], tmp_path / "memo")
        path.write_bytes(b"two")
        assert identity.content_digests([str(path)], tmp_path / "memo") != before

    def test_a_file_that_has_not_changed_is_not_read_again(self, tmp_path, monkeypatch):
        monkeypatch.setattr(identity, "COARSEST", 0)
        path = tmp_path / "file"
        path.write_bytes(b"one")
        before = identity.content_digests([str(path)], tmp_path / "memo")
        monkeypatch.setattr(identity, "_digest", lambda path: pytest.fail("it is read"))
        assert identity.content_digests([str(path)], tmp_path / "memo") == before

    def test_a_memo_that_was_changed_is_not_believed(self, tmp_path, monkeypatch):
        monkeypatch.setattr(identity, "COARSEST", 0)
        path = tmp_path / "file"
        path.write_bytes(b"one")
        before = identity.content_digests([str(path)], tmp_path / "memo")
        text = (tmp_path / "memo").read_text()
        assert before[0] in text
        (tmp_path / "memo").write_text(text.replace(before[0], "0" * 64))
        assert identity.content_digests([str(path)], tmp_path / "memo") == before

    def test_a_set_that_was_moved_is_not_decoded_again(self, tmp_path, monkeypatch):
        layouts.folder(tmp_path / "set")
        before = folder(tmp_path)
        (tmp_path / "set").rename(tmp_path / "moved")
        monkeypatch.setattr("compressor.data.images.decoded", None)
        moved = load(tmp_path / "cache", "imagefolder", root=tmp_path / "moved", image_size=8)
        assert moved.fingerprint == before.fingerprint

    def test_files_that_change_while_they_are_decoded_are_refused(self, tmp_path, monkeypatch):
        root = layouts.folder(tmp_path / "set")
        write = "compressor.data.cache._write"
        real = pytest.importorskip("compressor.data.cache")._write

        def meanwhile(*words) -> object:
            made = real(*words)
            (root / "train" / "cat" / "001.png").write_bytes(b"another")
            return made

        monkeypatch.setattr(write, meanwhile)
        with pytest.raises(DataError, match="its files changed while they were read; type the command again"):
            folder(tmp_path)


class TestDamage:
    @pytest.mark.parametrize("name", ["images.npy", "targets.npy", "moments.npy", "meta.json"])
    @pytest.mark.parametrize("large", [False, True])
    def test_fifty_of_fifty_flipped_bits_are_found(self, name, large, tmp_path, monkeypatch):
        if large:  # as if the images were too many to be checked at once
            monkeypatch.setattr("compressor.data.cache.CHECKED_WHOLE", 0)
            monkeypatch.setattr(blocks, "BLOCK", 512)
        whole = load(tmp_path, "digits")
        images = {part: getattr(whole, part).images[:] for part in ("train", "val", "test")}
        (path,) = (tmp_path / "data").glob(f"digits-*/{name}")
        content = path.read_bytes()
        draw = random.Random(name)
        places = [0, len(content) - 1, *range(2, 120, 6), *(draw.randrange(len(content)) for _ in range(28))]
        found = 0
        for place in places:
            damaged = bytearray(content)
            damaged[place] ^= 1 << draw.randrange(8)
            path.chmod(0o644)
            path.write_bytes(damaged)
            try:
                again = load(tmp_path, "digits")
                for part, before in images.items():
                    assert np.array_equal(getattr(again, part).images[:], before)
            except DataError as error:
                assert f"{path}: was changed or is damaged; remove {path.parent}" in str(error)  # noqa: PT017
                path.write_bytes(content)
            found += path.read_bytes() == content
        assert found == len(places)

    def test_rows_of_a_large_set_are_checked_before_they_are_read_and_others_not(self, tmp_path, monkeypatch):
        monkeypatch.setattr("compressor.data.cache.CHECKED_WHOLE", 0)
        monkeypatch.setattr(blocks, "BLOCK", 512)
        (path,) = [load(tmp_path, "digits") and next((tmp_path / "data").glob("digits-*/images.npy"))]
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
        data = load(tmp_path, "digits")
        parts = {name: getattr(data, name).images for name in ("train", "val", "test")}
        last = {name: int(part._rows.argmax()) for name, part in parts.items()}
        damaged = max(parts, key=lambda name: parts[name]._rows.max())
        for name, part in parts.items():
            if name != damaged:
                part[:100]
        with pytest.raises(DataError, match="was changed or is damaged"):
            parts[damaged][last[damaged]]


BATCH = "cifar-10-batches-py/data_batch_1"
HUGE = b"\x80\x02cnumpy.core.multiarray\nscalar\ncnumpy\ndtype\nX\x0b\x00\x00\x00V2000000000\x85RR."
"""Asks for one value of two gigabytes."""

BOMB = b"\x80\x02" + b"]" + b"r" + struct.pack("<I", 2**29) + b"."
"""Asks the reader to make room for half a billion remembered things."""


class TestHostileFiles:
    @pytest.mark.parametrize(
        ("name", "file", "make"),
        [
            ("cifar10", BATCH, lambda path: path.write_bytes(BOMB)),
            ("cifar10", BATCH, lambda path: path.write_bytes(pickle.dumps({"data": 1})[:-9] + BOMB[3:])),
            ("cifar10", BATCH, lambda path: path.write_bytes(HUGE)),
            ("cifar10", BATCH, os.mkfifo),
            ("cifar10", BATCH, lambda path: os.truncate(path.touch() or path, 2**40)),
            ("svhn", "train_32x32.mat", os.mkfifo),
            ("svhn", "train_32x32.mat", lambda path: os.truncate(path.touch() or path, 2**40)),
            ("fashion_mnist", "train-images-idx3-ubyte.gz", os.mkfifo),
            ("fashion_mnist", "train-images-idx3-ubyte.gz", lambda path: path.write_bytes(gzip_bomb())),
            ("fashion_mnist", "train-images-idx3-ubyte.gz", lambda path: path.symlink_to("/dev/zero")),
        ],
    )
    def test_it_is_refused_by_name_in_little_memory(self, name, file, make, tmp_path):
        root = made(name, tmp_path / "set")
        (place,) = root.rglob(Path(file).name)
        place.unlink()
        make(place)
        tracemalloc.start()
        with pytest.raises(CompressorError) as caught:
            load(tmp_path / "cache", name, root=root)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert str(place) in str(caught.value)
        assert "\n" not in str(caught.value)
        assert peak < 3 * 2**28


def made(name: str, root: Path) -> Path:
    """Write a whole set of a kind into a folder."""
    if name == "cifar10":
        layouts.cifar(root)
    elif name == "svhn":
        root.mkdir()
        layouts.svhn(root)
    else:
        layouts.fashion(root, zipped=True)
    return root


def gzip_bomb() -> bytes:
    """Return some 260 kB that unpack to 2**28 zeros."""
    pack = zlib.compressobj(9, wbits=31)
    parts = [pack.compress(bytes(2**24)) for _ in range(16)]
    return b"".join(parts) + pack.flush()
