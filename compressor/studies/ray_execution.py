"""Steps as Ray tasks, here or on a cluster: each takes what it reads as references to the ends of other tasks."""

import math
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from compressor import interrupts
from compressor.config.execution import ExecutionConfig
from compressor.errors import CompressorError, ConfigError, Interrupted
from compressor.pipeline import Bench, Step
from compressor.store import Store
from compressor.studies import ray_session
from compressor.studies.board import USABLE, Board, Outcome, State, Watch, blocked_by, needs
from compressor.studies.execution import PlaceError, Workplace, attempt, await_folder
from compressor.studies.ray_session import Session

SUBMITTED = 1000
"""Tasks that Ray is given at once; the others follow as these end."""
PATIENCE = 60.0
"""Seconds until a folder that one machine has written must be seen by another."""
GRACE = 60.0
"""Seconds that running tasks get to stop at a safe point."""
TICK = 1.0
"""Seconds between two looks at the cluster, while nothing ends."""


def work(board: Board, workplace: Workplace, config: ExecutionConfig, watch: Watch) -> None:
    """Run the open steps of a board as tasks of the Ray at `config.address`."""
    cache = workplace.runtime.data_cache
    with (
        _connected(config, cache) as ray,
        interrupts.deferred() as arrived,
    ):  # Ray's own waits would hide what a signal raises
        _Tasks(ray, board, workplace, config).work(watch, arrived)


def connect(
    address: str | None = None,
    where: str = "hydra.launcher.ray.init.address",
    cache: str | None = None,
    **settings: Any,
) -> Session | None:
    """Start Ray here (`local` or None) or join the one at an address, unless it is there; Ctrl-C and SIGTERM stay ours.

    `where`: the setting that named the address; `cache`: where a Ray that starts here may have its files. The others
    are those of `ray.init`. Returns what was started here, or None.

    Raises:
        ConfigError: Ray is not installed, does not start, or does not answer.
    """
    ray, address = _ray(where), address or "local"
    if ray.is_initialized():
        return None
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    ray_session.quiet(brief=settings.get("log_to_driver", True), alone=address == "local")
    session = ray_session.begin(cache) if address == "local" else None
    here = session.settings if session else {}
    try:
        _call(address)
        with _own_signals():
            ray.init(address=address, **{"logging_level": "ERROR", **here, **settings})
    except Exception as error:  # noqa: BLE001 - Ray raises all kinds when it is not there, or not in time
        if session:
            session.end()
        reason = str(error).strip().partition("\n")[0]
        raise ConfigError(
            f"{where}={address}: Ray does not answer ({reason}); give local, or the address of a running cluster"
        ) from None
    return session


def _ray(where: str) -> Any:
    try:
        import ray
    except ImportError:
        raise ConfigError(f"{where}: Ray needs the package ray: pip install 'compressor[ray]'") from None
    return ray


@contextmanager
def _connected(config: ExecutionConfig, cache: str | None) -> Iterator[Any]:
    """Give Ray, connected; one that this process uses already stays."""
    ray = _ray("study.executor=ray")
    if ray.is_initialized():
        yield ray
        return
    session = connect(config.address, "study.address", cache, log_to_driver=False)
    try:
        yield ray
    finally:
        with _own_signals():
            ray.shutdown()
        if session:
            session.end()


def _call(address: str) -> None:
    """Knock where an address names a port: Ray itself tries for minutes. Raises OSError."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


@contextmanager
def _own_signals() -> Iterator[None]:
    """Take SIGINT and SIGTERM back from what claims them."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


class _Tasks:
    """The tasks of one study."""

    def __init__(self, ray: Any, board: Board, workplace: Workplace, config: ExecutionConfig) -> None:
        place = workplace.anywhere(threads=max(1, int(config.cpus)))
        self.ray, self.board, self.config = ray, board, config
        self.store, self.place = Store(place.store), place
        self.task = ray.remote(num_cpus=config.cpus, max_retries=config.retries)(perform)
        self.waiting = board.open[::-1]
        self.refs: dict[str, Any] = {}
        largest = max(node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"])
        if config.cpus > largest:
            raise ConfigError(f"study.cpus={config.cpus:g}: no node of Ray has so many; the largest has {largest:g}")

    def work(self, watch: Watch, arrived: Callable[[], int | None]) -> None:
        """Submit the steps and take in their ends, until there are no more or a signal has arrived."""
        try:
            while not self.board.finished and arrived() is None:
                self._submit()
                watch(self.board.tally(self._running()))
                for key in self._ready():
                    self._settle(key)
                self._refuse_without_nodes()
            watch(self.board.tally(0))
        finally:
            self._cancel()

    def _submit(self) -> None:
        while self.waiting and len(self.refs) < SUBMITTED:
            step = self.waiting.pop()
            if self.board.outcome(step.key) is None:  # it may be blocked by now
                reads = [self.board.outcome(key) or self.refs[key] for key in needs(step)]
                self.refs[step.key] = self.task.options(name=step.key).remote(step, self.place, *reads)

    def _running(self) -> int:
        """Count the steps that run, by the processors in use."""
        whole = self.ray.cluster_resources().get("CPU", 0.0)
        self.board.lanes = math.floor(whole / self.config.cpus)
        used = whole - self.ray.available_resources().get("CPU", 0.0)
        return max(0, min(len(self.refs), round(used / self.config.cpus)))

    def _refuse_without_nodes(self) -> None:
        """End a study that no node is left for; Ray would wait for one for ever."""
        if not self.board.finished and not any(node["Alive"] for node in self.ray.nodes()):
            self.refs.clear()  # nobody is left to cancel them
            raise PlaceError(
                "study.executor=ray: the last node of Ray is gone, killed or out of memory; finished steps are kept, "
                "type the command again"
            )

    def _ready(self) -> list[str]:
        """Give the keys of ended tasks, inputs first."""
        refs = list(self.refs.values())
        self.ray.wait(refs, num_returns=1, timeout=TICK)
        ended = set(self.ray.wait(refs, num_returns=len(refs), timeout=0)[0])
        return [key for key, ref in self.refs.items() if ref in ended]

    def _settle(self, key: str) -> None:
        if not all(self.board.outcome(read) for read in needs(self.board.steps[key])):
            return  # with its inputs, in the next round
        ref = self.refs.pop(key)
        if self.board.outcome(key):
            return
        try:
            said = self.ray.get(ref)
        except self.ray.exceptions.RayError as error:
            said = Outcome(key, State.FAILED, 0.0, f"{key}: {self._reason(error)}")
        if isinstance(said, CompressorError):
            raise said
        if said.state in USABLE:
            await_folder(self.store, key, PATIENCE)
        self.board.settle(said)

    def _reason(self, error: Exception) -> str:
        lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        if isinstance(error, self.ray.exceptions.RayTaskError):
            return lines[-1]
        return f"its worker or node died in each of {self.config.retries + 1} tries ({lines[0]})"

    def _cancel(self) -> None:
        """Stop what runs at a safe point, and forget what waits."""
        refs = list(self.refs.values())
        for ref in reversed(refs):
            self.ray.cancel(ref)
        if refs:
            self.ray.wait(refs, num_returns=len(refs), timeout=GRACE)


_benches: dict[str, Bench] = {}


def perform(step: Step, place: Workplace, *inputs: Outcome) -> Outcome | CompressorError:
    """Be a task: run a step whose inputs have ended. What ends the whole study is given back, not raised."""
    if bad := next((outcome for outcome in inputs if outcome.state not in USABLE), None):
        return blocked_by(step, bad.key)
    try:
        with _own_signals():
            interrupts.install()  # Ray cancels a task by SIGINT
            return attempt(step, _bench(place), PATIENCE)
    except CompressorError as error:
        return error
    except Interrupted as interrupt:  # a cancelled task does not come back, one whose machine stops does
        sys.exit(128 + interrupt.signal)


def _bench(place: Workplace) -> Bench:
    """Load the data once a process."""
    if (name := repr(place)) not in _benches:
        _benches.clear()
        _benches[name] = place.bench()
    return _benches[name]
