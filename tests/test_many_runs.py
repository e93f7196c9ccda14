"""Thousands of runs are listed and cleaned in seconds, by the pace of this machine, and damage is still shown."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from many import multiply
from terminal import TINY, call

from compressor import runs

RUNS = 400
"""Five steps each. What 2,000 runs take is five times as long."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of many runs and their store."""
    place = tmp_path_factory.mktemp("many")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        ended = call("run", *TINY, "order=DPQE", "fit.epochs=0", "hydra.run.dir=one/run", "store=one/store", "runs=one")
        assert ended.code == 0, ended.err
        multiply(place / "one" / "run", place / "outputs", place / "outputs" / "store", RUNS)
    return place


def unit(place: Path) -> float:
    """Give the seconds that reading, parsing and writing again the JSON of a step takes here, at best of three."""
    paths = [path for path in (place / "one" / "run").rglob("*.json") if path.parent.name == "04-exit"]

    def work() -> None:
        for _ in range(100):
            for path in paths:
                json.dumps(json.loads(path.read_text()), indent=1)

    return min(_seconds(work) for _ in range(3)) / 100


def _seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


@pytest.mark.slow
@pytest.mark.timeout(1800)
class TestPace:
    @pytest.fixture(autouse=True)
    def _there(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(place)

    def test_a_list_takes_no_longer_than_to_read_each_step_a_few_times(self, place: Path) -> None:
        taken = _seconds(lambda: call("list"))
        assert taken / (5 * RUNS) < 4 * unit(place), f"{taken:.1f} s"

    def test_cleaning_takes_no_longer_than_to_read_each_step_a_few_times(self, place: Path) -> None:
        taken = _seconds(lambda: call("clean"))
        assert taken / (5 * RUNS) < 3 * unit(place), f"{taken:.1f} s"

    def test_deleting_takes_no_longer_than_to_read_each_step_a_few_times(self, place: Path) -> None:
        multiply(place / "one" / "run", place / "spent", place / "spent" / "store", RUNS)
        taken = _seconds(lambda: call("clean", "runs=none", "store=spent/store", "clean.delete=true"))
        assert taken / (5 * RUNS) < 8 * unit(place), f"{taken:.1f} s"
        assert not any((place / "spent" / "store").glob("[a-z]*-*"))

    def test_each_damaged_step_is_shown_as_such(self, place: Path) -> None:
        for number in (7, 311):
            path = place / "outputs" / f"{number:05}" / "02-prune" / "metrics.json"
            text = path.read_text()
            path.unlink()  # it is a link to the store's
            path.write_text(text.replace('"macs": 1', '"macs": 2', 1).replace('"macs": 3', '"macs": 4', 1))
        lines = call("list").out.splitlines()
        assert sum("damaged" in line for line in lines) == 2
        assert sum("03-quantize" in line for line in lines) == RUNS


def test_a_folder_that_cannot_be_looked_into_keeps_all_steps_from_being_cleaned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "outputs" / "private").mkdir(parents=True)
    (tmp_path / "outputs" / "store" / "prune-0123456789abcdef").mkdir(parents=True)
    scan = runs.os.scandir

    def refuse(path: str) -> object:
        if path.endswith("private"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runs.os, "scandir", refuse)
    assert "damaged" in call("list").out
    ended = call("clean", "clean.delete=true")
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "what it refers to is unknown" in ended.err
    assert (tmp_path / "outputs" / "store" / "prune-0123456789abcdef").is_dir()
