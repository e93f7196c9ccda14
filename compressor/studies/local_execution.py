"""Steps on this machine: in this process, or on long-lived workers, each of which imports torch and loads data once."""

import logging
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import connection, get_context, parent_process
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from compressor import interrupts
from compressor.config.execution import ExecutionConfig
from compressor.errors import CompressorError, Interrupted
from compressor.pipeline import Step
from compressor.progress import Advance
from compressor.studies.board import Board, Outcome, State, Watch
from compressor.studies.execution import Workplace, attempt

GRACE = 60.0
"""Seconds that a worker gets to stop at a safe point; its last save is left to the step if it takes longer."""
TICK = 1.0
"""Seconds between two looks at the time left, while nothing ends."""

log = logging.getLogger(__name__)


def work(board: Board, workplace: Workplace, config: ExecutionConfig, watch: Watch) -> None:
    """Run the open steps of a board in this process, or on `config.workers` of them."""
    board.lanes = config.workers
    if config.workers == 1:
        _work_here(board, workplace, watch)
    else:
        _Crew(board, workplace, config).work(watch)


def _work_here(board: Board, workplace: Workplace, watch: Watch) -> None:
    @contextmanager
    def ticking(title: str, total: int) -> Iterator[Advance]:
        yield lambda units, remark: watch(board.tally())

    bench = workplace.bench(ticking)
    while (step := board.take()) is not None:
        watch(board.tally())
        board.settle(attempt(step, bench))
    watch(board.tally())


@dataclass
class _Worker:
    process: SpawnProcess
    line: Connection
    step: Step | None = None


class _Crew:
    """Workers of one study. A step whose worker dies is run again, `config.retries` times."""

    def __init__(self, board: Board, workplace: Workplace, config: ExecutionConfig) -> None:
        cores = os.cpu_count() or 1
        self.board, self.config = board, config
        self.place = workplace.anywhere(threads=max(1, cores // config.workers))
        self.workers: list[_Worker] = []
        self.losses: Counter[str] = Counter()

    def work(self, watch: Watch) -> None:
        """Keep every worker busy until all steps have ended; whatever ends this stops the workers."""
        try:
            while not self.board.finished:
                with interrupts.deferred():
                    self._hand_out()
                watch(self.board.tally())
                spoken = self._wait()
                with interrupts.deferred():
                    for worker in spoken:
                        self._hear(worker)
            watch(self.board.tally())
        finally:
            self._dismiss()

    def _hand_out(self) -> None:
        for worker in [worker for worker in self.workers if worker.step is None and not worker.process.is_alive()]:
            self._forget(worker)
        idle = [worker for worker in self.workers if worker.step is None]
        while (idle or len(self.workers) < self.config.workers) and (step := self.board.take()) is not None:
            worker = idle.pop() if idle else self._hire()
            worker.step = step
            with suppress(OSError):  # it has just died, which is heard next
                worker.line.send(step)

    def _hire(self) -> _Worker:
        """Start a worker that does not hear the terminal's Ctrl-C: this process tells it to stop."""
        context = get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=serve, args=(theirs, self.place), name=f"worker-{len(self.workers) + 1}")
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # which it inherits
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        self.workers.append(_Worker(process, ours))
        return self.workers[-1]

    def _wait(self) -> list[_Worker]:
        busy = [worker for worker in self.workers if worker.step]
        spoken = connection.wait([thing for w in busy for thing in (w.line, w.process.sentinel)], TICK)
        return [worker for worker in busy if worker.line in spoken or worker.process.sentinel in spoken]

    def _hear(self, worker: _Worker) -> None:
        """Take in what a worker says, or that it died."""
        try:
            said = worker.line.recv() if worker.line.poll() else None
        except (EOFError, OSError):
            said = None
        if isinstance(said, CompressorError):
            raise said
        if said is None:
            self._mourn(worker)
            return
        worker.step = None
        self.board.settle(said)

    def _mourn(self, worker: _Worker) -> None:
        step = worker.step
        assert step is not None, "a worker without a step says nothing"
        self._forget(worker)
        self.losses[step.key] += 1
        cause = _cause(worker.process.exitcode)
        if self.losses[step.key] <= self.config.retries:
            log.warning("%s: its worker ended (%s); it is run again", step.key, cause)
            self.board.give_back(step)
            return
        times = f"{self.losses[step.key]} times, last " if self.config.retries else ""
        self.board.settle(Outcome(step.key, State.FAILED, 0.0, f"{step.key}: its worker ended {times}({cause})"))

    def _forget(self, worker: _Worker) -> None:
        self.workers.remove(worker)
        worker.line.close()
        worker.process.join(GRACE)

    def _dismiss(self) -> None:
        """Let idle workers go and stop the others at a safe point."""
        for worker in self.workers:
            worker.line.close()
            if worker.step:
                worker.process.terminate()
        for worker in self.workers:
            worker.process.join(GRACE)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()


def _cause(code: int | None) -> str:
    if code == -signal.SIGKILL:
        return "killed, or out of memory"
    return f"signal {-code}" if code and code < 0 else f"exit code {code}"


def serve(line: Connection, workplace: Workplace) -> None:
    """Be a worker: run the steps that come over the line until it closes, or the process at its other end is gone."""
    interrupts.install()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ.setdefault("OMP_NUM_THREADS", str(workplace.runtime.threads))
    try:
        with suppress(EOFError, BrokenPipeError):  # nobody asks or listens any more
            _answer(line, workplace)
    except Interrupted as interrupt:
        sys.exit(128 + interrupt.signal)


def _answer(line: Connection, workplace: Workplace) -> None:
    try:
        bench = workplace.bench()
        while True:
            line.send(attempt(line.recv(), bench))
    except CompressorError as error:
        line.send(error)


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None, "a worker has a parent"
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
