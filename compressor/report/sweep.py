"""What a sweep's jobs came to: each notes its end in the sweep's folder, so that one table can be made of all.

A job's own folder may be anywhere, as its values may be part of the folder's name.
"""

from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from compressor.checked import checked, read_checked
from compressor.codec import decode
from compressor.folders import RUNS, disk, proved_metrics, write_json
from compressor.records import Metrics
from compressor.report.tables import empty
from compressor.report.text import console, headline, ratio, score_of
from compressor.runs import RUN, RunNote, read_run

JOBS, SWEEP = "jobs", "sweep.json"
SCHEMA = 1
"""The version of a job's note."""


@dataclass(frozen=True)
class Outcome:
    """How one job ended. `code`: 0, 2 (bad input) or 1 (a defect); `seconds`: of this job, waiting included."""

    number: int
    folder: str
    overrides: tuple[str, ...]
    code: int
    error: str | None
    seconds: float


@dataclass(frozen=True)
class Job:
    """A job's outcome, and its run and last metrics where it got that far."""

    outcome: Outcome
    folder: str
    run: RunNote | None
    metrics: Metrics | None

    @property
    def new(self) -> int:
        """How many steps it ran itself."""
        return sum(not step.stored for step in self.run.steps) if self.run else 0


def clear(sweep: Path) -> None:
    """Forget the jobs of a sweep that wrote into the same folder before."""
    with disk(sweep, RUNS):
        for note in (sweep / JOBS).glob("*.json"):
            note.unlink()


def note_outcome(sweep: Path, outcome: Outcome) -> None:
    """Write how a job ended into the sweep's folder."""
    with disk(sweep, RUNS):
        (sweep / JOBS).mkdir(parents=True, exist_ok=True)
        write_json(sweep / JOBS / f"{outcome.number}.json", checked(outcome, SCHEMA))


def report_sweep(folder: Path) -> int:
    """Show the sweep of a folder in one table, write it as sweep.json, and return the exit code for all its jobs."""
    jobs = [_job(path) for path in (folder / JOBS).glob("*.json")]
    jobs.sort(key=lambda job: job.outcome.number)
    if any(job.run or job.outcome.code for job in jobs):
        shown = console()
        shown.print(_table(jobs))
        with disk(folder, RUNS):
            write_json(folder / SWEEP, {"schema": 1, "jobs": jobs})
        shown.print(f"sweep: {folder}", soft_wrap=True)
    codes = {job.outcome.code for job in jobs}
    return 1 if 1 in codes else max(codes, default=0)


def _job(path: Path) -> Job:
    said = read_checked(path, "job", SCHEMA)
    said.pop("schema", None)
    outcome = decode(Outcome, said, str(path))
    folder = Path(outcome.folder)
    run = read_run(folder) if (folder / RUN).exists() else None
    metrics = proved_metrics(folder / run.steps[-1].folder) if run and run.steps else None
    return Job(outcome, outcome.folder, run, metrics)


def _table(jobs: list[Job]) -> Table:
    kinds = {headline(job.metrics.after.test.quality) for job in jobs if job.metrics}
    score = kinds.pop() if len(kinds) == 1 else "score"
    names = ["job", "overrides", "order", f"val {score}", f"test {score}", "bitops_\nratio", "size_\nratio", "seconds"]
    table = empty("", [*names, "new/stored"], left=3)
    common = set.intersection(*(set(job.outcome.overrides) for job in jobs)) if len(jobs) > 1 else set()
    for job in jobs:
        told = "\n".join(word for word in job.outcome.overrides if word not in common)
        table.add_row(*map(str, [job.outcome.number, told, *_results(job)]))
    return table


def _results(job: Job) -> list[str]:
    if job.outcome.code or job.run is None or job.metrics is None:
        return ["", "failed" if job.outcome.code else "", "", "", "", f"{job.outcome.seconds:.1f}", ""]
    after = job.metrics.after
    scores = [score_of(split.quality).partition("\n")[0] for split in (after.val, after.test)]
    ratios = [ratio(job.metrics.bitops_ratio), ratio(job.metrics.size_ratio)]
    counts = f"{job.new}/{len(job.run.steps) - job.new}"
    return [job.run.order or "-", *scores, *ratios, f"{job.outcome.seconds:.1f}", counts]
