"""Run the steps of a study: what is stored is found first, without torch; the rest runs here, on workers, or on Ray."""

import socket
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path

from compressor.config import DatasetConfig, RuntimeConfig
from compressor.config.execution import ExecutionConfig
from compressor.data import load_data
from compressor.errors import CompressorError, StoreError
from compressor.folders import RECORD, STORE, disk
from compressor.memory import is_shortage, shortage
from compressor.pipeline import Bench, Given, Step, run
from compressor.progress import Progress, silent
from compressor.records import InputRecord, Record
from compressor.store import Store
from compressor.studies.board import USABLE, Board, Durations, Outcome, State, Tally, Watch, needs

__all__ = [
    "USABLE",
    "Board",
    "Durations",
    "Outcome",
    "PlaceError",
    "State",
    "Tally",
    "Watch",
    "Workplace",
    "attempt",
    "execute",
    "look_up",
]


class PlaceError(CompressorError):
    """A process can run no step where it is: the store is gone, or the images are others. It ends a study."""


@dataclass(frozen=True)
class Workplace:
    """What a process needs to run steps; it loads the data once. `files`: the file of each digest in a config."""

    store: Path
    dataset: DatasetConfig
    runtime: RuntimeConfig
    files: Mapping[str, Path] = field(default_factory=dict)

    def bench(self, progress: Progress = silent) -> Bench:
        """Load the data, and give where steps run."""
        data = load_data(self.dataset, self.runtime)
        return Bench(Store(self.store), data, self.runtime, self.files, progress)

    def anywhere(self, threads: int) -> "Workplace":
        """Give the same for a process with another working directory, that computes with so many threads."""
        dataset, runtime = self.dataset, self.runtime
        return replace(
            self,
            store=self.store.absolute(),
            dataset=replace(dataset, root=_absolute(dataset.root), csv=_absolute(dataset.csv)),
            runtime=replace(runtime, threads=runtime.threads or threads, data_cache=_absolute(runtime.data_cache)),
            files={name: path.absolute() for name, path in self.files.items()},
        )


def _absolute(path: str | None) -> str | None:
    return path and str(Path(path).absolute())


Executor = Callable[[Board, Workplace, ExecutionConfig, Watch], None]


def execute(
    steps: Sequence[Step], workplace: Workplace, config: ExecutionConfig, watch: Watch = lambda tally: None
) -> dict[str, Outcome]:
    """Run the steps that the store does not have, and say how each step ended, in the order of the list.

    Steps are listed inputs before readers, each key once. One that fails stops only those that read it.

    Raises:
        CompressorError: nothing can run: the store or the data is gone, or Ray cannot be reached.
        Interrupted: a signal arrived; running steps were stopped at a safe point, and go on with the next call.
    """
    board = Board(steps)
    look_up(board, Store(workplace.store), watch)
    if not board.finished:
        with disk(workplace.store, STORE):
            workplace.store.mkdir(parents=True, exist_ok=True)
        work: Executor = import_module(f"compressor.studies.{config.executor}_execution").work
        work(board, workplace, config, watch)
    return board.outcomes


def look_up(board: Board, store: Store, watch: Watch = lambda tally: None) -> None:
    """Settle the steps that the store has, with all they were made from; a damaged one fails with its line."""
    records: dict[str, Record] = {}
    for key, step in board.steps.items():
        if board.outcome(key) or not all(read in records for read in needs(step)):
            continue
        try:
            record = store.record(key)
        except StoreError as error:
            board.settle(Outcome(key, State.FAILED, 0.0, str(error)))
            continue
        if record is not None and record.inputs == _inputs(step, records):
            records[key] = record
            board.settle(Outcome(key, State.STORED, record.seconds))
        watch(board.tally())


def _inputs(step: Step, records: Mapping[str, Record]) -> dict[str, InputRecord]:
    models = (
        (role, read, read.model if isinstance(read, Given) else records[read.key].model) for role, read in step.inputs
    )
    return {role: InputRecord(read.key, model) for role, read, model in models}


def attempt(step: Step, bench: Bench, patience: float = 0.0) -> Outcome:
    """Run one step whose inputs have results; whatever goes wrong in it is its outcome.

    `patience`: seconds until a folder that another machine has written must be seen here.

    Raises:
        PlaceError: no step can run here.
        Interrupted: a signal arrived; the step's draft stays.
    """
    began, was_there = time.monotonic(), {}
    try:
        check_place(step, bench, patience)
        record = run(step, bench, lambda source, record, metrics, stored: was_there.update({source.key: stored}))
    except PlaceError:
        raise
    except CompressorError as error:
        check_place(step, bench, 0.0)
        return Outcome(step.key, State.FAILED, time.monotonic() - began, str(error))
    except Exception as bug:  # noqa: BLE001 - the other steps go on
        if is_shortage(bug):
            return Outcome(step.key, State.FAILED, time.monotonic() - began, f"{step.key}: {shortage(bug, 'order')}")
        traceback.print_exc()
        return Outcome(step.key, State.FAILED, time.monotonic() - began, f"{step.key}: {type(bug).__name__}: {bug}")
    return Outcome(step.key, State.STORED if was_there[step.key] else State.DONE, record.seconds)


def check_place(step: Step, bench: Bench, patience: float) -> None:
    """Refuse to run a step without the store, its inputs and the images that it was planned with.

    Raises:
        PlaceError: one of them is not there, or is another.
    """
    if bench.data.fingerprint != step.data:
        raise PlaceError(
            f"{bench.data.name}: the images on {socket.gethostname()} are not those that the study was planned with; "
            "give every machine the same files and dataset settings"
        )
    for key in needs(step):
        await_folder(bench.store, key, patience)
    if not bench.store.root.is_dir():
        raise _gone(bench.store.root)


def await_folder(store: Store, key: str, patience: float) -> None:
    """Wait until a finished step is seen here: listing a folder makes a network file system look again.

    Raises:
        PlaceError: it is not seen in time.
    """
    until = time.monotonic() + patience
    while not (store.folder(key) / RECORD).is_file():
        if time.monotonic() >= until or not store.root.is_dir():
            raise _gone(store.folder(key) if store.root.is_dir() else store.root)
        time.sleep(0.1)
        with disk(store.root, STORE):
            list(store.root.iterdir())


def _gone(folder: Path) -> PlaceError:
    return PlaceError(
        f"{folder}: was there and is not seen on {socket.gethostname()}; a study needs one store that stays, and that "
        "all its machines share: bring it back and type the command again, what is finished there is kept"
    )
