"""The store: a finished step is whole and read-only, is linked into runs, and goes only when told."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import fakes
import pytest
from fakes import chain, finish

from compressor.errors import StoreError
from compressor.folders import read_metrics, read_record
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


def stop(*_arguments):
    raise KeyboardInterrupt


def test_a_draft_that_is_not_what_its_record_says_can_be_written_again(finished):
    store, folder = finished
    draft = folder.rename(store.root / f".draft-{folder.name}")
    (draft / "weights.safetensors").chmod(0o644)
    (draft / "weights.safetensors").write_bytes(b"cut")
    assert store.recover(folder.name) is None
    assert not (draft / "record.json").exists()
    assert all(path.stat().st_mode & 0o200 for path in draft.rglob("*"))


class TestFinishedSteps:
    def test_a_finished_step_has_all_files_and_nothing_else(self, finished):
        _, folder = finished
        assert sorted(path.name for path in folder.iterdir()) == sorted((*FILES, "tb"))

    def test_its_files_are_read_only(self, finished):
        _, folder = finished
        files = [path for path in folder.rglob("*") if path.is_file()]
        assert {path.stat().st_mode & 0o777 for path in files} == {0o444}

    def test_its_record_and_metrics_read_back(self, finished):
        store, folder = finished
        record, metrics = store.record(folder.name), read_metrics(folder)
        assert record is not None
        assert record == read_record(folder)
        assert (record.key, record.model) == (metrics.key, digest_of(folder))
        assert metrics.after.cost.checkpoint_bytes == sum((folder / name).stat().st_size for name in FILES[:2])

    def test_a_key_without_a_folder_is_no_record(self, tmp_path):
        assert Store(tmp_path / "none").record("prune-0123456789abcdef") is None

    def test_the_layout_of_arch_json_is_no_change_and_a_number_in_it_is(self, finished):
        _, folder = finished
        before, path = digest_of(folder), folder / "arch.json"
        path.write_text(json.dumps(json.loads(path.read_text()), indent=7))
        assert digest_of(folder) == before
        path.write_text(path.read_text().replace("10", "11"))
        assert digest_of(folder) != before


class TestLocks:
    HOLD = "import sys, time; from pathlib import Path; from compressor.store import Store\n"
    HOLD += "with Store(Path(sys.argv[1])).lock('prune-0123456789abcdef'): print('held', flush=True); time.sleep(60)"

    def holder(self, root: Path) -> subprocess.Popen[str]:
        process = subprocess.Popen([sys.executable, "-c", self.HOLD, str(root)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    def test_kill_9_releases_a_lock_and_a_waiting_process_says_so_once(self, tmp_path, caplog):
        with self.holder(tmp_path) as process:
            busy = tmp_path / ".draft-prune-0123456789abcdef"
            busy.mkdir()
            assert Store(tmp_path).unreferenced(()) == ()
            process.send_signal(signal.SIGKILL)
            process.wait()
        began = time.monotonic()
        with Store(tmp_path).lock("prune-0123456789abcdef"):
            assert time.monotonic() - began < 1
        assert caplog.records == []
        assert Store(tmp_path).unreferenced(()) == (busy,)

    def test_two_processes_that_want_one_step_run_it_once(self, tmp_path):
        command = [sys.executable, fakes.__file__, str(tmp_path), "P", "0.7", "0"]
        both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
        outputs = [process.communicate(timeout=60) for process in both]
        assert [process.returncode for process in both] == [0, 0], outputs
        assert len(fakes.ran(tmp_path)) == 2, "the baseline and the pruning"
        lines = [line for out, _ in outputs for line in out.splitlines()]
        assert sorted(line.split()[1] for line in lines) == ["False", "False", "True", "True"]
        waits = [line for _, errors in outputs for line in errors.splitlines()]
        assert len(waits) == 2
        assert all("another process" in line for line in waits)


class TestLinks:
    def test_a_run_gets_hard_links_that_outlive_the_store(self, finished, tmp_path):
        store, folder = finished
        target = tmp_path / "run" / "00-baseline"
        store.link(folder.name, target)
        assert (target / "weights.safetensors").samefile(folder / "weights.safetensors")
        assert (target / "tb" / "events").samefile(folder / "tb" / "events")
        shutil.rmtree(store.root)
        assert digest_of(target) == read_record(target).model

    @pytest.mark.parametrize("number", [errno.EXDEV, errno.EPERM, errno.EMLINK])
    def test_where_links_fail_a_run_gets_read_only_copies(self, finished, tmp_path, monkeypatch, number):
        def refuse(*_args, **_options):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "link", refuse)
        store, folder = finished
        target = tmp_path / "run" / "00-baseline"
        store.link(folder.name, target)
        for path in (path for path in folder.rglob("*") if path.is_file()):
            copy = target / path.relative_to(folder)
            assert copy.read_bytes() == path.read_bytes()
            assert not copy.samefile(path)
            assert copy.stat().st_mode & 0o777 == 0o444

    def test_linking_again_is_nothing_new_and_another_result_is_not_overwritten(self, finished, tmp_path):
        store, folder = finished
        target = tmp_path / "run" / "00-baseline"
        store.link(folder.name, target)
        store.link(folder.name, target)
        other = finish(tmp_path, chain("P"))[0].key
        with pytest.raises(StoreError, match="already holds something else"):
            store.link(other, target)
        assert read_record(target).key == folder.name

    def test_an_interrupted_link_leaves_no_folder_and_is_done_again(self, finished, tmp_path, monkeypatch):
        store, folder = finished
        target = tmp_path / "run" / "00-baseline"
        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", stop)
            with pytest.raises(KeyboardInterrupt):
                store.link(folder.name, target)
        assert not target.exists()
        store.link(folder.name, target)
        assert sorted(path.name for path in target.parent.iterdir()) == ["00-baseline"]


class TestClean:
    def test_what_runs_refer_to_and_what_that_was_made_from_is_kept(self, tmp_path):
        record, reported = finish(tmp_path, chain("PQ"))
        spare, _ = finish(tmp_path, chain("E"))
        store = Store(tmp_path / "store")
        keys = [source.key for source, *_ in reported]
        assert store.unreferenced([record.key]) == (store.folder(spare.key),)
        assert store.unreferenced(keys[:1]) == tuple(sorted(map(store.folder, [*keys[1:], spare.key])))

    def test_idle_drafts_are_listed_and_removed_with_the_rest(self, tmp_path):
        record, _ = finish(tmp_path, chain(""))
        store = Store(tmp_path / "store")
        draft = store.draft("prune-0123456789abcdef")
        (draft / "fit.safetensors").write_bytes(b"half")
        listed = store.unreferenced(())
        assert set(listed) == {draft, store.folder(record.key)}
        store.remove(listed)
        assert store.unreferenced(()) == ()
        assert store.record(record.key) is None

    def test_an_interrupted_removal_leaves_no_half_step(self, tmp_path, monkeypatch):
        record, _ = finish(tmp_path, chain(""))
        store = Store(tmp_path / "store")
        with monkeypatch.context() as patch:
            patch.setattr(shutil, "rmtree", stop)
            with pytest.raises(KeyboardInterrupt):
                store.remove([store.folder(record.key)])
        assert store.record(record.key) is None
        left = store.unreferenced(())
        assert len(left) == 1
        store.remove(left)
        assert store.unreferenced(()) == ()

    def test_only_the_stores_own_folders_are_removed(self, tmp_path):
        (tmp_path / "precious").mkdir()
        with pytest.raises(StoreError, match="precious"):
            Store(tmp_path / "store").remove([tmp_path / "precious"])
        assert (tmp_path / "precious").is_dir()

    def test_a_store_that_does_not_exist_has_nothing_to_clean(self, tmp_path):
        assert Store(tmp_path / "store").unreferenced(()) == ()
