"""Whatever happened to a set's files: it is read right, or refused in one line, quickly and in little memory."""

import os
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import layouts
import pytest
from layouts import load

from compressor.errors import CompressorError


def cifar(root: Path) -> dict:
    layouts.cifar(root, each=4)
    return {"root": root}


def svhn(root: Path) -> dict:
    layouts.svhn(root, count=10)
    return {"root": root}


def fashion(root: Path) -> dict:
    layouts.fashion(root, zipped=True, count=10)
    return {"root": root}


def medical(root: Path) -> dict:
    layouts.medical(root / "bloodmnist.npz", size=28, colour=True, labels=8)
    return {"root": root, "flag": "bloodmnist"}


def folder(root: Path) -> dict:
    layouts.folder(root, each=3)
    return {"root": root, "image_size": 8}


SETS: dict[str, Callable[[Path], dict]] = {
    "cifar10": cifar,
    "svhn": svhn,
    "fashion_mnist": fashion,
    "medmnist": medical,
    "imagefolder": folder,
}


def flip(path: Path, draw: random.Random) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(draw.choice([1, 1, 8])):
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


def flip_head(path: Path, draw: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[draw.randrange(min(200, len(content)))] = draw.randrange(256)
    path.write_bytes(content)


def cut(path: Path, draw: random.Random) -> None:
    path.write_bytes(path.read_bytes()[: draw.randrange(path.stat().st_size)])


def zero(path: Path, draw: random.Random) -> None:
    content = bytearray(path.read_bytes())
    start = draw.randrange(len(content))
    content[start : start + 64] = bytes(len(content[start : start + 64]))
    path.write_bytes(content)


def swap(path: Path, draw: random.Random) -> None:
    others = sorted(p for p in path.parent.rglob("*") if p.is_file() and p != path)
    if others:
        shutil.copyfile(draw.choice(others), path)


def grow(path: Path, draw: random.Random) -> None:
    os.truncate(path, draw.choice([2**33, 2**41]))


def pipe(path: Path, draw: random.Random) -> None:
    path.unlink()
    os.mkfifo(path)


def loop(path: Path, draw: random.Random) -> None:
    path.unlink()
    path.symlink_to(path.name)


MUTATIONS = (flip, flip, flip, flip_head, flip_head, cut, zero, swap, grow, pipe, loop)


def tried(name: str, seed: int, tmp_path: Path) -> None:
    draw = random.Random(f"{name} {seed}")
    root = tmp_path / "set"
    root.mkdir(parents=True)
    words = SETS[name](root)
    before = load(tmp_path / "cache", name, **words)
    path = draw.choice(sorted(p for p in root.rglob("*") if p.is_file()))
    mutation = draw.choice(MUTATIONS)
    mutation(path, draw)
    began = time.monotonic()
    try:
        after = load(tmp_path / "cache", name, **words)
    except CompressorError as error:
        assert "\n" not in str(error)  # noqa: PT017 - the line is the promise
        assert str(path.name) in str(error) or str(path.parent) in str(error)  # noqa: PT017
    else:
        fresh = load(tmp_path / "fresh", name, **words)
        assert after.fingerprint == fresh.fingerprint, mutation.__name__
        assert len(after.train) <= len(before.train) + len(before.val) + len(before.test)
    assert time.monotonic() - began < 30, mutation.__name__


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("name", SETS)
def test_a_changed_file_is_read_right_or_refused_by_name(name, seed, tmp_path):
    tried(name, seed, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("hundred", range(1, 3))
@pytest.mark.parametrize("name", SETS)
def test_a_hundred_changed_files_are_read_right_or_refused_by_name(name, hundred, tmp_path):
    for seed in range(100 * hundred, 100 * hundred + 100):
        tried(name, seed, tmp_path / str(seed))
