"""Splits, fingerprints and the cache of decoded sets."""

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import layouts
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from layouts import load, settings

from compressor.config import AugmentConfig
from compressor.data import load_data
from compressor.data.images import decoded
from compressor.data.splits import pick, split
from compressor.data.types import Rows
from compressor.errors import DataError

PARTS = ("train", "val", "test")


@given(st.lists(st.integers(0, 6), min_size=1, max_size=200), st.data(), st.integers(0, 2**31))
def test_a_pick_has_the_asked_size_and_each_group_in_proportion(groups, draw, seed):
    count = draw.draw(st.integers(0, len(groups)))
    chosen = pick(np.array(groups), count, np.random.RandomState(seed))
    assert len(chosen) == count
    assert len(set(chosen.tolist())) == count
    for group in set(groups):
        share = count * groups.count(group) / len(groups)
        assert abs(sum(groups[i] == group for i in chosen) - share) < 1


@given(
    st.sampled_from([{"all": 100}, {"train": 80, "test": 20}, {"train": 60, "val": 20, "test": 20}]),
    st.sampled_from(["auto", "0.3", "test_half"]),
    st.sampled_from([None, 10, 30, 1000]),
    st.integers(0, 5),
)
def test_splits_are_disjoint_seeded_and_within_the_limit(parts, val, limit, seed):
    targets = np.arange(100) % 4
    config = settings("digits", val=val, limit=limit, seed=seed)
    rows = split(parts, targets, config)
    together = np.concatenate([rows[name] for name in PARTS])
    assert len(set(together.tolist())) == len(together) <= 100
    assert limit != 1000 or len(together) == 100
    assert all(len(rows[name]) <= (limit or 100) for name in PARTS)
    assert all(np.array_equal(rows[name], split(parts, targets, config)[name]) for name in PARTS)
    if "test" in parts:
        assert not set(rows["train"].tolist()) & set(range(100 - parts["test"], 100))


def test_the_limit_keeps_classes_in_proportion(tmp_path):
    data = load(tmp_path, "digits", limit=50)
    assert [len(getattr(data, name)) for name in PARTS] == [50, 50, 50]
    assert np.ptp(np.bincount(data.train.targets, minlength=10)) <= 1


def test_a_limit_above_the_size_changes_nothing(tmp_path):
    assert load(tmp_path, "digits", limit=100_000).fingerprint == load(tmp_path, "digits").fingerprint


def test_half_of_test_is_val_and_the_other_half_test(tmp_path):
    layouts.cifar(tmp_path)
    whole = load(tmp_path / "cache", "cifar10", root=tmp_path)
    data = load(tmp_path / "cache", "cifar10", root=tmp_path, val="test_half")
    assert [len(data.train), len(data.val), len(data.test)] == [100, 10, 10]
    together = np.concatenate([data.val.images[:], data.test.images[:]])
    assert sorted(image.tobytes() for image in together) == sorted(image.tobytes() for image in whole.test.images[:])


def test_mean_and_std_are_those_of_the_train_pixels(tmp_path):
    root = layouts.folder(tmp_path / "set")
    data = load(tmp_path / "cache", "imagefolder", root=root, image_size=8)
    pixels = data.train.images[:].astype(np.float64) / 255
    assert np.allclose(data.mean, pixels.mean((0, 2, 3)))
    assert np.allclose(data.std, pixels.std((0, 2, 3)))


def test_std_has_a_floor(tmp_path):
    root = tmp_path / "black"
    for part in ("train", "test"):
        for name in ("a", "b"):
            (root / part / name).mkdir(parents=True)
            for i in range(10):
                (root / part / name / f"{i}.pgm").write_bytes(b"P5 4 4 255\n" + bytes(16))
    assert load(tmp_path / "cache", "imagefolder", root=root, image_size=4).std == (1e-3,) * 3


@pytest.mark.parametrize(
    "changes",
    [{"limit": 30}, {"val": "0.3"}, {"val": "test_half"}, {"seed": 1}, {"augment": AugmentConfig(1, False, 0)}],
)
def test_what_can_change_a_result_changes_the_fingerprint(changes, tmp_path):
    assert load(tmp_path, "digits", **changes).fingerprint != load(tmp_path, "digits").fingerprint


def test_the_fingerprint_is_of_the_content_wherever_the_files_are(tmp_path):
    root = layouts.folder(tmp_path / "set")
    first = load(tmp_path / "cache", "imagefolder", root=root, image_size=8)
    shutil.copytree(root, tmp_path / "copy")
    copy = load(tmp_path / "other cache", "imagefolder", root=tmp_path / "copy", image_size=8)
    assert copy.fingerprint == first.fingerprint
    (root / "train" / "cat" / "001.png").write_bytes((root / "train" / "cat" / "002.png").read_bytes())
    assert load(tmp_path / "cache", "imagefolder", root=root, image_size=8).fingerprint != first.fingerprint


def test_the_second_time_nothing_is_decoded(tmp_path, monkeypatch):
    root = layouts.folder(tmp_path / "set")
    first = load(tmp_path / "cache", "imagefolder", root=root, image_size=8)
    monkeypatch.setattr("compressor.data.images.decoded", None)
    again = load(tmp_path / "cache", "imagefolder", root=root, image_size=8)
    assert again.fingerprint == first.fingerprint
    assert np.array_equal(again.train.images[:], first.train.images[:])


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 8
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [cut, flip, Path.unlink])
@pytest.mark.parametrize("name", ["images.npy", "targets.npy", "moments.npy", "meta.json"])
def test_a_damaged_cache_is_made_again(name, damage, tmp_path):
    root = layouts.folder(tmp_path / "set")
    first = load(tmp_path / "cache", "imagefolder", root=root, image_size=8)
    images = first.train.images[:]
    (path,) = (tmp_path / "cache" / "data").glob(f"imagefolder-*/{name}")
    damage(path)
    again = load(tmp_path / "cache", "imagefolder", root=root, image_size=8)
    assert again.fingerprint == first.fingerprint
    assert np.array_equal(again.train.images[:], images)
    assert not list((tmp_path / "cache" / "data").glob(".draft-*"))


def test_a_draft_of_a_killed_process_is_no_obstacle(tmp_path):
    first = load(tmp_path, "digits")
    (folder,) = (tmp_path / "data").glob("digits-*")
    folder.rename(folder.with_name(f".draft-{folder.name}"))
    assert load(tmp_path, "digits").fingerprint == first.fingerprint


def test_an_interrupt_while_decoding_leaves_nothing_behind(tmp_path, monkeypatch):
    def interrupt(*_) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("compressor.data.images.decoded", interrupt)
    with pytest.raises(KeyboardInterrupt):
        load(tmp_path / "cache", "imagefolder", root=layouts.folder(tmp_path / "set"), image_size=8)
    assert [path.name for path in (tmp_path / "cache" / "data").iterdir()] == [".locks"]


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file.*: Not a directory; runtime\.data_cache names another folder"):
        load(tmp_path / "file", "digits")


def test_a_full_disk_is_one_line_and_leaves_no_draft(tmp_path, monkeypatch):
    def full(*_) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("compressor.data.cache._Stream.append", full)
    with pytest.raises(DataError, match=r"No space left on device; runtime\.data_cache names another folder"):
        load(tmp_path, "digits")
    assert [path.name for path in (tmp_path / "data").iterdir()] == [".locks"]


def test_who_wants_a_set_that_is_being_decoded_waits_for_it(tmp_path, monkeypatch):
    seen = []

    def slow(path: str, size: int, channels: int) -> tuple:
        seen.append(path)
        time.sleep(0.001)
        return decoded(path, size, channels)

    monkeypatch.setattr("compressor.data.images.decoded", slow)
    root = layouts.folder(tmp_path / "set")
    with ThreadPoolExecutor(3) as pool:
        jobs = [pool.submit(load, tmp_path / "cache", "imagefolder", root=root, image_size=8) for _ in range(3)]
        found = [job.result().fingerprint for job in jobs]
    assert len(set(found)) == 1
    assert len(seen) == len(set(seen)) == 60


def test_a_progress_bar_is_shown_where_asked(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes the captured stream for a terminal
    load_data(settings("digits"), replace(layouts.runtime(tmp_path), progress=True))
    assert "digits" in capsys.readouterr().err


def test_rows_read_only_what_is_asked_for_and_are_writable():
    base = np.arange(24).reshape(6, 4)
    base.flags.writeable = False
    rows = Rows(base, np.array([5, 1, 3]))
    assert len(rows) == 3
    assert rows.shape == (3, 4)
    assert np.array_equal(rows[np.array([2, 0])], base[[3, 5]])
    assert np.array_equal(rows[1:], base[[1, 3]])
    assert np.array_equal(rows[1], base[1])
    assert np.array_equal(np.asarray(rows), base[[5, 1, 3]])
    assert rows[:].flags.writeable
