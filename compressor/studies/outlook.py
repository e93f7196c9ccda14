"""What a study would do: how many steps, how many the store has, how long the rest may take. Nothing runs, no torch."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from compressor.errors import CompressorError
from compressor.folders import RECORD, STORE, disk, read_record
from compressor.pipeline import Step
from compressor.store import Store
from compressor.studies.board import Durations


@dataclass(frozen=True)
class Share:
    """The steps of one phase. `seconds`: what those that are not stored may take in all; None: no record says."""

    phase: str
    steps: int
    stored: int
    seconds: float | None


def outlook(steps: Iterable[Step], store: Store) -> tuple[Share, ...]:
    """Count the steps of each phase, and estimate the time of those to run from records of like steps.

    Like steps are those of the study that are stored, or else any of the store on the same images.
    """
    steps = tuple(steps)
    stored = {step.key for step in steps if (store.folder(step.key) / RECORD).is_file()}
    durations = _durations(steps, stored, store)
    totals = Counter(step.name for step in steps)
    have = Counter(step.name for step in steps if step.key in stored)
    return tuple(_share(phase, total, have[phase], durations) for phase, total in totals.items())


def _share(phase: str, total: int, stored: int, durations: Durations) -> Share:
    expected = durations.expected(phase) if total > stored else 0.0
    return Share(phase, total, stored, None if expected is None else expected * (total - stored))


def _durations(steps: tuple[Step, ...], stored: set[str], store: Store) -> Durations:
    durations, data = Durations(), {step.data for step in steps}
    with disk(store.root, STORE):
        others = [path.name for path in store.root.iterdir() if path.name[0] != "."] if store.root.is_dir() else []
    for key in sorted(stored) or sorted(others):
        try:
            record = read_record(store.folder(key))
        except CompressorError:  # a damaged one is said when its turn comes
            continue
        if record.data in data:
            durations.add(record.phase, record.seconds)
    return durations
