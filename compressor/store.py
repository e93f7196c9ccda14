"""Finished steps on disk, one folder a key: drafted, published by one rename, verified whenever they are used."""

import logging
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from compressor.errors import CompressorError, StoreError
from compressor.folders import (
    ARCH,
    CANDIDATES,
    CONFIG,
    CURVES,
    FOUND,
    HISTORY,
    METRICS,
    MIXTURE,
    RECORD,
    RUNS,
    STORE,
    TRIALS,
    WEIGHTS,
    digest_of,
    disk,
    read_metrics,
    read_record,
    verify,
)
from compressor.records import Record

__all__ = ["Store", "digest_of", "read_metrics", "read_record"]

REMOVERS = 8
"""Folders that are deleted at a time."""

log = logging.getLogger(__name__)


class Store:
    """Finished steps in the folder `root`, which is made when something is written."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, key: str) -> Path:
        """Say where the step of a key is, or would be."""
        return self.root / key

    def record(self, key: str) -> Record | None:
        """Give the verified record of a finished step, or None. Damage is an error that says what to remove."""
        folder = self.folder(key)
        with disk(folder, STORE):
            if not folder.is_dir():
                return None
        try:
            record = read_record(folder)
            verify(folder, record)
        except CompressorError as error:
            raise StoreError(f"{error}; remove {folder} and the step is run again") from None
        if record.key != key:
            raise StoreError(f"{folder}: holds the step {record.key}; remove {folder} and the step is run again")
        return record

    @contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """Hold the step of a key for this process; wait, saying so once, while another one holds it."""
        folder = self.root / ".locks"
        lock = FileLock(folder / f"{key}.lock")
        with disk(self.root, STORE):
            folder.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                log.warning("%s is being run by another process; waiting for its result", key)
                lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def draft(self, key: str) -> Path:
        """Give the folder where the step of a key is made; it stays when the step is interrupted. Needs the lock."""
        folder = self._draft(key)
        with disk(folder, STORE):
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _draft(self, key: str) -> Path:
        return self.root / f".draft-{key}"

    def recover(self, key: str) -> Record | None:
        """Publish a draft that was whole when its process ended, and give its record. Needs the lock."""
        draft = self._draft(key)
        if not (draft / RECORD).exists():
            return None
        try:
            verify(draft, record := read_record(draft))
        except CompressorError:
            with disk(draft, STORE):
                (draft / RECORD).unlink()
                for path in draft.rglob("*"):  # it may have been made read-only already
                    path.chmod(path.stat().st_mode | 0o200)
            return None
        self.publish(key)
        return record

    def publish(self, key: str) -> None:
        """Make a draft, whose record was written last, the finished step of its key: by one rename. Needs the lock."""
        draft = self._draft(key)
        wanted = {ARCH, MIXTURE, WEIGHTS, METRICS, HISTORY, RECORD, CONFIG, CURVES, CANDIDATES, FOUND, TRIALS}
        with disk(draft, STORE):
            for path in draft.iterdir():
                if path.name not in wanted:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            for path in draft.rglob("*"):
                if path.is_file():
                    path.chmod(path.stat().st_mode & 0o444)  # whom the umask lets read it may
                _sync(path)
            _sync(draft)
            draft.rename(self.folder(key))
            _sync(self.root)

    def link(self, key: str, target: Path) -> None:
        """Give a run its own view of a finished step: hard links, or copies where links fail; whole or not at all."""
        source, part = self.folder(key), target.with_name(f".{target.name}.part")
        with disk(target, RUNS):
            if target.exists():
                return _same(source, target)
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            for path in sorted(source.rglob("*")):
                copy = part / path.relative_to(source)
                copy.mkdir() if path.is_dir() else _link(path, copy)
            part.rename(target)
        return None

    def unreferenced(self, referenced: Iterable[str]) -> tuple[Path, ...]:
        """List finished steps that neither these keys nor what they were made from name, and drafts nobody runs."""
        used = self._closure(referenced)
        with disk(self.root, STORE):
            folders = sorted(path for path in self.root.glob("*") if path.is_dir() and path.name != ".locks")
        return tuple(path for path in folders if path.name not in used and not self._busy(path))

    def _closure(self, keys: Iterable[str]) -> set[str]:
        used, pending = set(), set(keys)
        while pending:
            used.add(key := pending.pop())
            try:
                record = read_record(self.folder(key))
            except CompressorError:  # what is damaged or absent names nothing else
                continue
            pending |= {record.original.key, *(source.key for source in record.inputs.values())} - used
        return used

    def _busy(self, path: Path) -> bool:
        place = self.root / ".locks" / f"{_key(path)}.lock"
        if not place.exists():
            return False
        lock = FileLock(place)
        with disk(self.root, STORE):
            try:
                lock.acquire(timeout=0)
            except Timeout:
                return True
        lock.release()
        return False

    def remove(self, paths: Iterable[Path]) -> None:
        """Delete folders that `unreferenced` listed, several at a time, as a disk may take its time for each."""
        paths = tuple(paths)
        for path in paths:
            if path.parent != self.root or path.name == ".locks":
                raise StoreError(f"{path}: is no step of the store {self.root}; only its own folders are removed")
        pool = ThreadPoolExecutor(REMOVERS)
        try:
            for _ in pool.map(self._remove, paths):
                pass
        finally:  # after an error or a signal the others stay
            pool.shutdown(cancel_futures=True)

    def _remove(self, path: Path) -> None:
        """Delete a folder; a finished step first stops being one, by a rename."""
        with self.lock(_key(path)), disk(path, STORE):
            gone = path if path.name.startswith(".") else path.rename(self.root / f".removed-{path.name}")
            shutil.rmtree(gone)


def _key(path: Path) -> str:
    return re.sub(r"^\.(draft|removed)-", "", path.name)


def _same(source: Path, target: Path) -> None:
    ours, theirs = read_record(source), read_record(target) if (target / RECORD).exists() else None
    if theirs is None or (ours.key, ours.model) != (theirs.key, theirs.model):
        raise StoreError(f"{target}: already holds something else; choose another folder, such as hydra.run.dir=FOLDER")


def _link(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError:  # another file system, or one without links; a full disk says so again below
        shutil.copyfile(source, target)
        target.chmod(target.stat().st_mode & 0o444)


def _sync(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
