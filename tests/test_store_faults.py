"""Faults of the store: damage is refused by name, and a disk that refuses leaves finished steps intact."""

import errno
import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

import fakes
import pytest
import tampering
from fakes import chain, finish

from compressor.errors import StoreError
from compressor.folders import disk
from compressor.store import Store, digest_of

FILES = ("arch.json", "weights.safetensors", "metrics.json", "history.jsonl", "record.json", "config.yaml")


@pytest.fixture(autouse=True)
def _fakes(monkeypatch):
    fakes.install(monkeypatch)


@pytest.fixture
def finished(tmp_path):
    """A store with one finished step, and its folder."""
    record, _ = finish(tmp_path, chain(""))
    store = Store(tmp_path / "store")
    return store, store.folder(record.key)


def writable(path: Path) -> Path:
    path.chmod(0o644)
    return path


def refusal(store: Store, folder: Path) -> str:
    with pytest.raises(StoreError) as caught:
        store.record(folder.name)
    assert "\n" not in str(caught.value)
    assert f"remove {folder} " in str(caught.value)
    return str(caught.value)


class TestDamage:
    @pytest.mark.parametrize("name", FILES)
    def test_a_flipped_bit_is_refused_by_name_wherever_it_is(self, finished, name):
        store, folder = finished
        path = writable(folder / name)
        whole = path.read_bytes()
        for place in range(0, len(whole), max(1, len(whole) // 25)):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            if name != "record.json":
                refusal(store, folder)
                continue
            with suppress(StoreError):  # some of its bits say nothing that matters, such as those of a date
                record = store.record(folder.name)
                assert record is not None
                assert (record.key, record.model) == (folder.name, digest_of(folder))
        path.write_bytes(whole)
        assert store.record(folder.name) is not None

    @pytest.mark.parametrize("name", FILES)
    def test_a_cut_file_is_refused_by_name(self, finished, name):
        store, folder = finished
        path = writable(folder / name)
        path.write_bytes(path.read_bytes()[:-3])
        assert name in refusal(store, folder)

    @pytest.mark.parametrize("name", FILES)
    def test_a_missing_file_is_refused_by_name(self, finished, name):
        store, folder = finished
        (folder / name).unlink()
        assert name in refusal(store, folder)

    @pytest.mark.parametrize("text", ["[]", "{}", "null", "[" * 5000, '{"schema": 1}', '{"schema": 99}', "\x00\xff"])
    @pytest.mark.parametrize("name", ["record.json", "metrics.json", "arch.json"])
    def test_foreign_json_is_refused_by_name(self, finished, name, text):
        store, folder = finished
        writable(folder / name).write_text(text, encoding="latin-1")
        assert name in refusal(store, folder)

    @pytest.mark.parametrize("field", ["phase", "config", "data", "version", "key"])
    def test_a_record_whose_key_does_not_follow_from_it_is_refused(self, finished, field):
        store, folder = finished
        path = writable(folder / "record.json")
        other = {"config": {"amount": 2}, "version": 2}.get(field, "other")
        tampering.edited(path, lambda record: record.update({field: other}))
        assert "its key" in refusal(store, folder)

    def test_a_record_with_another_original_is_refused(self, finished):
        store, folder = finished
        path = writable(folder / "record.json")
        tampering.edited(path, lambda record: record["original"].update(bitops=2 * record["original"]["bitops"]))
        assert "original" in refusal(store, folder)

    def test_keys_that_leave_the_store_are_refused(self, finished):
        store, folder = finished
        path = writable(folder / "record.json")
        tampering.edited(path, lambda record: record["original"].update(key="../../somewhere"))
        assert "is no key" in refusal(store, folder)

    def test_a_step_under_the_name_of_another_is_refused(self, finished):
        store, folder = finished
        other = folder.with_name("prune-0123456789abcdef")
        shutil.copytree(folder, other)
        assert folder.name in refusal(store, other)


class TestFaults:
    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO])
    def test_what_the_system_refuses_is_one_line_that_names_the_place(self, number, tmp_path):
        with pytest.raises(StoreError) as caught, disk(tmp_path):
            raise OSError(number, os.strerror(number))
        assert str(caught.value).startswith(f"{tmp_path}: ")
        assert "\n" not in str(caught.value)

    def test_a_closed_pipe_is_no_fault_of_the_disk(self, tmp_path):
        with pytest.raises(BrokenPipeError), disk(tmp_path):
            raise BrokenPipeError

    @pytest.mark.parametrize("function", ["mkdir", "rename", "chmod"])
    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
    def test_a_store_that_cannot_be_written_leaves_finished_steps_intact(self, tmp_path, monkeypatch, function, number):
        record, _ = finish(tmp_path, chain(""))

        def refuse(path, *_args, **_options):
            raise OSError(number, os.strerror(number), str(path))

        with monkeypatch.context() as patch:
            patch.setattr(os, function, refuse)
            with pytest.raises(StoreError, match=str(tmp_path)):
                finish(tmp_path, chain("P"))
            assert finish(tmp_path, chain(""))[1][0][3], "what is there is used without writing"
        assert finish(tmp_path, chain("P"))[1][0][0].key == record.key

    def test_a_store_path_that_is_a_file_is_refused_by_name(self, tmp_path):
        (tmp_path / "store").write_text("a letter")
        with pytest.raises(StoreError, match="a file stands where a folder is needed"):
            finish(tmp_path, chain(""))
        assert (tmp_path / "store").read_text() == "a letter"

    def test_a_full_disk_stops_a_step_and_room_lets_it_finish(self, tmp_path):
        place = tmp_path / "store"
        place.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", place], capture_output=True).returncode:
            pytest.skip("needs the right to mount a tmpfs")
        try:
            record, _ = finish(tmp_path, chain(""))
            filler = place / "filler"
            with pytest.raises(OSError, match="No space"):
                filler.write_bytes(b"x" * 2**20)
            with pytest.raises(StoreError, match="the disk is full"):
                finish(tmp_path, chain("P"))
            filler.unlink()
            reported = finish(tmp_path, chain("P"))[1]
            assert [stored for *_, stored in reported] == [True, False]
            assert reported[0][1] == record
        finally:
            subprocess.run(["umount", place], check=True)
