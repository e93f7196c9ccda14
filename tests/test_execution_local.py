"""A study's steps on workers: each step once, whatever dies; signals stop them at a safe point."""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import planted
import pytest
import samples
from planted import step, workplace

from compressor.config.execution import ExecutionConfig
from compressor.data.types import Data
from compressor.pipeline import Step
from compressor.store import Store
from compressor.studies.execution import PlaceError, await_folder, execute

TWO = ExecutionConfig("local", workers=2, address="local", cpus=1, retries=1)
EPOCHS = 60


def alive(pid: int) -> bool:
    """Say whether a process runs; one that ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def epochs(root: Path, training: Step) -> int:
    """Count the epochs in a running training's draft."""
    history = root / "store" / f".draft-{training.key}" / "history.jsonl"
    return len(history.read_text().splitlines()) if history.exists() else 0


def test_workers_run_each_step_once_after_what_it_reads(digits: Data, tmp_path: Path) -> None:
    base = step("base", data=digits)
    sides = [step(name, base, data=digits, seconds=1.0) for name in ("left", "right")]
    steps = [base, *sides, step("both", *sides, data=digits)]
    watcher = planted.Watcher()
    place = workplace(tmp_path, replace(samples.RUNTIME, threads=0))
    outcomes = execute(steps, place, TWO, watcher)
    assert [outcome.state.value for outcome in outcomes.values()] == ["done"] * 4
    names = planted.starts(tmp_path / "log")
    assert names[:2] == ["base", "end-base"]
    assert set(names[2:6]) == {"left", "right", "end-left", "end-right"}
    assert names[6:] == ["both", "end-both"]
    assert max(tally.running for tally in watcher.tallies) == 2
    pids = planted.pids(tmp_path / "log")
    assert os.getpid() not in pids.values()
    assert len(set(pids.values())) == 2, "they live long"
    assert not any(map(alive, pids.values())), "and no longer than the study"
    threads = {line.split()[2] for line in (tmp_path / "log").read_text().splitlines()}
    assert threads == {str(max(1, (os.cpu_count() or 1) // 2))}


@pytest.mark.slow
def test_a_worker_that_dies_costs_its_step_only_and_that_is_run_again(digits: Data, tmp_path: Path) -> None:
    base = step("base", data=digits)
    killed, gone = step("killed", base, data=digits, act="kill"), step("gone", base, data=digits, act="exit", times=9)
    steps = [base, killed, gone, step("reader", gone, data=digits), step("other", killed, data=digits)]
    outcomes = execute(steps, workplace(tmp_path), TWO)
    assert [outcome.state.value for outcome in outcomes.values()] == ["done", "done", "failed", "blocked", "done"]
    names = planted.starts(tmp_path / "log")
    assert [names.count(name) for name in ("base", "killed", "end-killed", "gone", "other")] == [1, 2, 1, 2, 1]
    assert outcomes[gone.key].error == f"{gone.key}: its worker ended 2 times, last (exit code 3)"


@pytest.mark.slow
def test_what_ends_a_study_in_a_worker_ends_it_in_one_line(digits: Data, tmp_path: Path) -> None:
    base = step("base", data=digits)
    steps = [base, *(step(f"x{i}", base, data=digits, act="vanish" if i == 1 else "", seconds=1.0) for i in range(4))]
    with pytest.raises(PlaceError, match="bring it back") as caught:
        execute(steps, workplace(tmp_path), TWO)
    assert "\n" not in str(caught.value)
    assert not any(map(alive, planted.pids(tmp_path / "log").values()))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_workers_at_a_safe_point_and_the_study_goes_on(
    number: int, digits: Data, tmp_path: Path
) -> None:
    training = planted.training(digits, EPOCHS)
    child = planted.driver(tmp_path, "local", "2", "local", str(EPOCHS))
    planted.until(lambda: epochs(tmp_path, training) >= 2 or child.poll() is not None)
    if number == signal.SIGINT:
        os.killpg(child.pid, number)  # as a terminal does
    else:
        child.send_signal(number)
    _, said = child.communicate(timeout=200)
    assert (child.returncode, said) == (128 + number, "")
    assert (tmp_path / "store" / f".draft-{training.key}" / "fit.safetensors").exists()
    assert 2 <= epochs(tmp_path, training) < EPOCHS
    outcomes = execute([training], workplace(tmp_path), replace(TWO, workers=1))
    assert outcomes[training.key].error is None
    history = (tmp_path / "store" / training.key / "history.jsonl").read_text()
    assert len(history.splitlines()) == EPOCHS, "no epoch was run twice"


@pytest.mark.slow
def test_workers_end_with_a_killed_driver_and_leave_the_draft_to_the_next_one(digits: Data, tmp_path: Path) -> None:
    training = planted.training(digits, EPOCHS)
    child = planted.driver(tmp_path, "local", "2", "local", str(EPOCHS))
    planted.until(lambda: epochs(tmp_path, training) >= 2 or child.poll() is not None)
    child.kill()
    child.communicate(timeout=200)
    with Store(tmp_path / "store").lock(training.key):  # once the orphan has let it go
        assert 2 <= epochs(tmp_path, training) < EPOCHS, "the orphan stopped at a safe point"
        assert (tmp_path / "store" / f".draft-{training.key}" / "fit.safetensors").exists()
    assert execute([training], workplace(tmp_path), replace(TWO, workers=1))[training.key].error is None


def test_the_lock_of_a_dead_process_is_free(tmp_path: Path) -> None:
    code = f"""
import os, signal
from pathlib import Path
from compressor.store import Store
with Store(Path("{tmp_path}")).lock("prune-0123456789abcdef"):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    assert subprocess.run([sys.executable, "-c", code], env=environ, check=False).returncode == -signal.SIGKILL
    assert (tmp_path / ".locks" / "prune-0123456789abcdef.lock").exists()
    began = time.monotonic()
    with Store(tmp_path).lock("prune-0123456789abcdef"):
        assert time.monotonic() - began < 5


def test_a_step_that_another_machine_has_just_finished_is_waited_for(tmp_path: Path) -> None:
    store, key = Store(tmp_path), "prune-0123456789abcdef"

    def appear() -> None:
        store.folder(key).mkdir()
        (store.folder(key) / "record.json").touch()

    with pytest.raises(PlaceError, match="is not seen on"):
        await_folder(store, key, patience=0.2)
    other = threading.Timer(0.5, appear)
    other.start()
    await_folder(store, key, patience=30)
    other.join()
