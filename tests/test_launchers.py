"""Sweeps by Hydra's launchers: the same tables, errors and exit codes as in one process, and one store for all jobs."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import planted
import pytest
from terminal import TINY, process

SMALL_RAY = tuple(
    f"+hydra.launcher.ray.init.{setting}"
    for setting in ("num_cpus=2", "include_dashboard=false", "object_store_memory=83886080")
)
LAUNCHERS = {
    "joblib": ("hydra_plugins.hydra_joblib_launcher", ("hydra.launcher.n_jobs=2",)),
    "submitit_local": ("hydra_plugins.hydra_submitit_launcher", ("hydra.launcher.timeout_min=30",)),
    "ray": ("hydra_plugins.hydra_ray_launcher", SMALL_RAY),
}


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_sweep_ends_with_one_table_and_the_code_of_its_worst_job(launcher: str, tmp_path: Path) -> None:
    module, settings = LAUNCHERS[launcher]
    pytest.importorskip(module)
    words = ("run", "-m", *TINY, f"hydra/launcher={launcher}", *settings, "order=P", "prune.ratio=0.2,1.5,0.3")
    ended = process("-m", "compressor", *words, folder=tmp_path)
    assert ended.returncode == 2, ended.stderr
    (where,) = (line for line in ended.stdout.splitlines() if line.startswith("sweep: "))  # Ray's jobs may speak later
    folder = tmp_path / where.removeprefix("sweep: ")
    jobs = json.loads((folder / "sweep.json").read_text())["jobs"]
    assert [job["outcome"]["code"] for job in jobs] == [0, 2, 0]
    assert jobs[1]["outcome"]["error"] == "prune.ratio=1.5: give 0 to 1, 1 excluded"
    table = ended.stdout.rpartition("new/stored")[2]
    assert [word for word in ("prune.ratio=0.2", "failed", "prune.ratio=0.3") if word not in table] == []
    steps = [step for job in jobs if job["run"] for step in job["run"]["steps"]]
    assert sorted(step["phase"] for step in steps if not step["stored"]) == ["baseline", "prune", "prune"], "run once"
    assert "Traceback" not in ended.stderr


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("launcher", ["submitit_local", "ray"])
def test_a_signal_ends_a_sweep_in_one_line_and_leaves_the_drafts(launcher: str, number: int, tmp_path: Path) -> None:
    module, settings = LAUNCHERS[launcher]
    pytest.importorskip(module)
    words = ("run", "-m", *TINY, f"hydra/launcher={launcher}", *settings, "order=", "baseline.fit.epochs=300", "seed=1")
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    said = tmp_path / "said"
    with said.open("w") as stderr:
        command = [sys.executable, "-m", "compressor", *words]
        child = subprocess.Popen(command, cwd=tmp_path, env=environ, stdout=stderr, stderr=stderr)
        histories = (tmp_path / "outputs" / "store").glob
        planted.until(lambda: any(histories(".draft-*/history.jsonl")) or child.poll() is not None)
        child.send_signal(number)
        assert child.wait(timeout=200) == 128 + number, said.read_text()
    assert "interrupted; what is done is saved" in said.read_text().splitlines()[-1]
    assert any(histories(".draft-*/draft.json")) or any(histories("baseline-*"))
