"""A run: one command's named folder with a folder of each finished phase, whole without the store, and a note."""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from compressor.checked import checked, read_checked
from compressor.codec import decode, shown
from compressor.errors import CompressorError, StoreError
from compressor.folders import KEY, RECORD, RUNS, WEIGHTS, disk, proved_metrics, write_json
from compressor.pipeline import Source
from compressor.records import RECORD_SCHEMA, Metrics, Record
from compressor.report.tables import Row, before, row_of
from compressor.store import Store

RUN = "run.json"
SCHEMA = 2
"""The version of run.json; the first had no check of its own."""
NAME, ORDER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*"), re.compile(r"[A-Za-z]*")
FOLDER, PHASE = re.compile(r"\d{2,}-[a-z_]+"), re.compile(r"[a-z_]+")
"""What a run's note names: files are read, and steps are kept, by these."""


@dataclass(frozen=True)
class StepNote:
    """One phase of a run: the name of its folder, the step's key, and whether its result was there already."""

    folder: str
    key: str
    phase: str
    stored: bool


@dataclass(frozen=True)
class RunNote:
    """The content of run.json. `skipped` counts the unreadable images that its data left out.

    `refers` are the keys of steps that it needs in the store, beside those it has folders of.
    """

    schema: int
    name: str
    order: str
    steps: tuple[StepNote, ...]
    skipped: int = 0
    refers: tuple[str, ...] = ()


def read_run(folder: Path) -> RunNote:
    """Read a run directory's note.

    Raises:
        StoreError: it was changed, or is of another version or program.
        CompressorError: it cannot be read, or is cut.
    """
    path = folder / RUN
    note = decode(RunNote, read_checked(path, "run", SCHEMA, earlier=(1,)), str(path))
    _check_words(note, path)
    if note.schema != SCHEMA:
        _prove(note, folder)
    return note


def _check_words(note: RunNote, path: Path) -> None:
    words = [(note.name, NAME, "a name"), (note.order, ORDER, "an order")]
    words += [(key, KEY, "a key") for key in (*note.refers, *(step.key for step in note.steps))]
    for step in note.steps:
        words += [(step.folder, FOLDER, "a folder of a phase"), (step.phase, PHASE, "a phase")]
    for word, form, what in words:
        if not form.fullmatch(word):
            raise StoreError(f"{path}: was changed: {shown(word)} is not the form of {what}")


def _prove(note: RunNote, folder: Path) -> None:
    """Refuse a note whose steps are not those that the folders beside it hold."""
    named = {step.folder: step.key for step in note.steps}
    for path in folder.glob(f"*/{RECORD}"):
        place = path.parent
        if FOLDER.fullmatch(place.name) and named.get(place.name) != _key_in(place, named.get(place.name)):
            raise StoreError(f"{folder / RUN}: was changed: it has not the step that {place} holds")


def _key_in(place: Path, otherwise: str | None) -> str | None:
    """Return the key of a phase's folder; of a damaged one, which proves nothing, what is said `otherwise`."""
    try:
        return read_checked(place / RECORD, "record", RECORD_SCHEMA, earlier=(1,)).get("key")
    except CompressorError:
        return otherwise


def find_runs(root: Path, besides: Path) -> tuple[Path, ...]:
    """List the run directories below a folder, oldest name first, besides the store.

    A folder that cannot be looked into is listed as one, whose note cannot be read: nobody knows what it refers to.
    """
    with disk(root, RUNS):
        if not root.is_dir():
            return ()
        start, store = os.path.realpath(root), os.path.realpath(besides)
        if Path(start).is_relative_to(store):
            return ()
        found = _runs_below(start, store)
    return tuple(sorted(root / os.path.relpath(path, start) for path in found))


def _runs_below(start: str, store: str) -> list[str]:
    """Walk as `find_runs` does, on text, as there may be tens of thousands of folders; links are not followed."""
    found = []
    pending = [start]
    while pending:
        folder = pending.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name == RUN:
                        found.append(folder)
                    if entry.is_dir(follow_symlinks=False) and entry.path != store:
                        pending.append(entry.path)
        except PermissionError:
            if folder == start:
                raise
            found.append(folder)
    return found


def keys_of(folder: Path) -> tuple[str, ...]:
    """Give the keys that a run refers to; a damaged note is an error, as nobody knows what else it refers to."""
    try:
        note = read_run(folder)
        _prove(note, folder)  # a note of another run is whole, and would leave this one's steps to be deleted
    except CompressorError as error:
        raise StoreError(f"{error}; mend it, or remove {folder}: what it refers to is unknown") from None
    return (*(step.key for step in note.steps), *note.refers)


def results_of(folder: Path) -> tuple[str, list[tuple[str, Metrics | None]]]:
    """Give a run's order, and its phases' folders and metrics; of what is damaged or gone the metrics are None."""
    try:
        note = read_run(folder)
    except CompressorError:
        return "", [(RUN, None)]
    return note.order, [(step.folder, _metrics(folder / step.folder, step.key)) for step in note.steps]


def _metrics(folder: Path, key: str) -> Metrics | None:
    """Read what the record vouches for; weights are not hashed here, as there may be many."""
    try:
        metrics = proved_metrics(folder)
        return metrics if metrics.key == key and (folder / WEIGHTS).is_file() else None
    except CompressorError:
        return None


class Run:
    """A run directory while its steps finish."""

    def __init__(self, folder: Path, note: RunNote, sources: tuple[Source, ...], store: Store) -> None:
        self.folder, self.store, self.note = folder, store, note
        self.places = {source.key: f"{i:02}-{source.name}" for i, source in enumerate(sources)}
        self.rows: list[Row] = []
        self._refuse_another()

    def _refuse_another(self) -> None:
        if not (self.folder / RUN).exists():
            return
        try:
            note = read_run(self.folder)
        except CompressorError as error:
            raise StoreError(f"{error}; give another folder, such as hydra.run.dir=FOLDER") from None
        for step in note.steps:
            if self.places.get(step.key) != step.folder:
                raise StoreError(f"{self.folder}: holds another run; give another folder, such as hydra.run.dir=FOLDER")

    def begin(self) -> None:
        """Write the note of a run that has no phase yet; it refers to the steps that it will have, so they are kept."""
        self.refer(key for key in self.places if not key.startswith("given-"))

    def add(self, source: Source, record: Record, metrics: Metrics, stored: bool) -> None:
        """Take in a finished step; one that is no part of the order, such as a teacher, is left in the store."""
        if (place := self.places.get(source.key)) is None:
            return
        self.store.link(record.key, self.folder / place)
        if not self.rows and (start := before(metrics, "checkpoint")) is not None:
            self.rows.append(start)
        self.rows.append(row_of(metrics, place, stored=stored))
        step = StepNote(place, record.key, source.name, stored)
        rest = tuple(key for key in self.note.refers if key != record.key)
        self.note = replace(self.note, steps=(*self.note.steps, step), refers=rest)
        self._write()

    def refer(self, keys: Iterable[str]) -> None:
        """Note steps that the run needs in the store beside those it knows of, so that they are kept."""
        self.note = replace(self.note, refers=tuple(dict.fromkeys((*self.note.refers, *keys))))
        self._write()

    def _write(self) -> None:
        with self.store.referring(), disk(self.folder, RUNS):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(self.folder / RUN, checked(self.note))
