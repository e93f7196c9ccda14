"""A study's steps as Ray tasks: here, on a cluster that loses a node, and when the driver goes."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import planted
import pytest
from planted import step, workplace

from compressor.config.execution import ExecutionConfig
from compressor.data.types import Data
from compressor.errors import ConfigError
from compressor.folders import read_record
from compressor.studies.board import Tally
from compressor.studies.execution import PlaceError, execute

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.slow

SMALL = 80 * 2**20
QUICK = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 4}
EPOCHS = 60


def config(address: str, cpus: float = 1, retries: int = 2) -> ExecutionConfig:
    return ExecutionConfig("ray", workers=1, address=address, cpus=cpus, retries=retries)


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let tasks import the tests' modules; leave no Ray behind."""
    here = Path(__file__).parent
    monkeypatch.setenv("PYTHONPATH", f"{here}{os.pathsep}{here.parent}")
    yield
    ray.shutdown()


def test_a_study_here_survives_dead_workers_and_failed_steps(digits: Data, tmp_path: Path) -> None:
    base = step("base", data=digits)
    killed, gone = step("killed", base, data=digits, act="kill"), step("gone", base, data=digits, act="exit", times=9)
    bad = step("bad", base, data=digits, act="fail")
    steps = [base, killed, gone, bad, step("both", killed, bad, data=digits), step("other", killed, data=digits)]
    watcher = planted.Watcher()
    outcomes = execute(steps, workplace(tmp_path), config("local", retries=1), watcher)
    states = [outcome.state.value for outcome in outcomes.values()]
    assert states == ["done", "done", "failed", "failed", "blocked", "done"]
    names = planted.starts(tmp_path / "log")
    assert [names.count(name) for name in ("base", "killed", "end-killed", "gone", "bad", "other")] == [
        1,
        2,
        1,
        2,
        1,
        1,
    ]
    assert "died in each of 2 tries" in (outcomes[gone.key].error or "")
    assert outcomes[bad.key].error == "a planted failure; plant none"
    assert not ray.is_initialized()
    assert max(tally.running for tally in watcher.tallies) >= 1
    assert watcher.tallies[-1].ended == 6
    again = execute([base, killed, steps[-1]], workplace(tmp_path), config("nowhere:1"))
    assert {outcome.state.value for outcome in again.values()} == {"stored"}, "what is stored needs no Ray"


def test_a_node_killed_in_the_middle_costs_its_step_only(digits: Data, tmp_path: Path) -> None:
    from ray.cluster_utils import Cluster

    base = step("base", data=digits)
    sides = [step(name, base, data=digits, seconds=8.0) for name in ("left", "right")]
    steps = [base, *sides, step("both", *sides, data=digits)]
    head = {"num_cpus": 1, "object_store_memory": SMALL, "include_dashboard": False, "_system_config": QUICK}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        nodes = [cluster.add_node(num_cpus=1, object_store_memory=SMALL)]

        def watch(tally: Tally) -> None:
            if nodes and {"left", "right"} <= set(planted.starts(tmp_path / "log")):
                cluster.remove_node(nodes.pop(), allow_graceful=False)

        outcomes = execute(steps, workplace(tmp_path), config(str(cluster.address)), watch)
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert not nodes
    assert [outcome.state.value for outcome in outcomes.values()] == ["done"] * 4
    names = planted.starts(tmp_path / "log")
    assert sorted(names.count(name) for name in ("left", "right")) == [1, 2], "one of them was on the dead node"
    assert [names.count(name) for name in ("base", "end-left", "end-right", "both")] == [1, 1, 1, 1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_study_whose_driver_ends_goes_on_when_it_is_typed_again(number: int, digits: Data, tmp_path: Path) -> None:
    training = planted.training(digits, EPOCHS)
    draft, words = tmp_path / "store" / f".draft-{training.key}", ("ray", "1", "local", str(EPOCHS))

    def epochs() -> int:
        history = draft / "history.jsonl"
        return len(history.read_text().splitlines()) if history.exists() else 0

    child = planted.driver(tmp_path, *words)
    planted.until(lambda: epochs() >= 2 or child.poll() is not None)
    os.killpg(child.pid, number) if number == signal.SIGINT else child.send_signal(number)
    _, said = child.communicate(timeout=200)
    if number == signal.SIGKILL:
        assert child.returncode == -number
        planted.until(lambda: not planted.family(tmp_path), seconds=20)
    else:
        assert (child.returncode, said) == (128 + number, "")
        assert (draft / "fit.safetensors").exists(), "it was stopped at a safe point"
        assert 2 <= epochs() < EPOCHS
    again = planted.driver(tmp_path, *words)
    again.communicate(timeout=500)
    assert again.returncode == 0
    history = (tmp_path / "store" / training.key / "history.jsonl").read_text()
    assert len(history.splitlines()) == EPOCHS
    assert read_record(tmp_path / "store" / training.key).key == training.key


def test_a_lost_raylet_is_told_in_three_lines_at_most(digits: Data, tmp_path: Path) -> None:
    training = planted.training(digits, 3000)
    history = tmp_path / "store" / f".draft-{training.key}" / "history.jsonl"
    child = planted.driver(tmp_path, "ray", "1", "local", "3000")
    planted.until(lambda: history.exists() or child.poll() is not None)
    (raylet,) = (number for number, words in planted.family(tmp_path).items() if "raylet/raylet " in words)
    os.kill(raylet, signal.SIGKILL)
    _, said = child.communicate(timeout=200)
    assert child.returncode in (1, 2)
    assert len(said.splitlines()) <= 3, said
    planted.until(lambda: not planted.family(tmp_path), seconds=20)
    assert history.exists(), "the draft stays"


CONNECTED = """
import os, sys
from pathlib import Path
from compressor.studies.ray_execution import connect
session = connect(cache=sys.argv[1], log_to_driver=False)
import ray
print(ray.get_runtime_context().gcs_address, session.folder)
print([node["NodeManagerAddress"] for node in ray.nodes()], os.environ["RAY_AUTH_MODE"])
sys.stdout.flush()
sys.stdin.read()
ray.shutdown()
session.end()
print(session.folder.exists(), "RAY_AUTH_MODE" in os.environ)
"""
STRANGER = "import ray, sys; ray.init(sys.argv[1], logging_level='ERROR', log_to_driver=False); print('joined')"


def test_a_ray_that_starts_here_is_on_loopback_with_a_token_and_a_folder_in_the_cache(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CONNECTED, str(tmp_path / "c")]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environ["PLANTED"] = str(tmp_path)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environ, **pipes) as child:
        assert child.stdout is not None
        address, folder = child.stdout.readline().split()
        assert child.stdout.readline() == "['127.0.0.1'] token\n"
        assert Path(folder).parent in (tmp_path / "c", Path(tempfile.gettempdir()))
        assert set(_listening(planted.family(tmp_path))) == {"127.0.0.1"}
        environ |= {"RAY_AUTH_MODE": "disabled", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # it joins on loopback
        stranger = [sys.executable, "-c", STRANGER, address]
        ended = subprocess.run(stranger, env=environ, capture_output=True, text=True, check=False, timeout=200)
        assert (ended.returncode != 0, "joined" in ended.stdout) == (True, False)
        rest, _ = child.communicate("", timeout=100)
    assert rest == "False False\n"
    planted.until(lambda: not planted.family(tmp_path), seconds=20)


def _listening(numbers: Iterable[int]) -> list[str]:
    """Give the address that each listening socket of processes is bound to."""
    sockets = set()
    for number in numbers:
        for link in Path(f"/proc/{number}/fd").glob("*"):
            with suppress(OSError):
                sockets.add(str(link.readlink()))
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and f"socket:[{words[9]}]" in sockets:
                last = bytes.fromhex(words[1].partition(":")[0][-8:])
                found.append(".".join(str(byte) for byte in reversed(last)))
    return found


class TestRefusals:
    def test_an_address_where_nothing_answers_is_one_line(self, digits: Data, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"study.address=127.0.0.1:1: Ray does not answer") as caught:
            execute([step("base", data=digits)], workplace(tmp_path), config("127.0.0.1:1"))
        assert "\n" not in str(caught.value)

    def test_more_processors_than_a_node_has_are_refused_and_a_gone_store_is_one_line(
        self, digits: Data, tmp_path: Path
    ) -> None:
        ray.init("local", num_cpus=1, include_dashboard=False, object_store_memory=SMALL, log_to_driver=False)
        base = step("base", data=digits)
        with pytest.raises(ConfigError, match=r"study.cpus=2: no node of Ray has so many; the largest has 1"):
            execute([base], workplace(tmp_path), config("auto", cpus=2))
        with pytest.raises(PlaceError, match="bring it back"):
            execute([step("gone", data=digits, act="vanish")], workplace(tmp_path), config("auto"))
        assert ray.is_initialized(), "a Ray that was there stays"
