"""What a resumed chain writes is, byte for byte, what an uninterrupted one writes."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from terminal import TINY, call

from compressor import training
from compressor.errors import TrainingError
from compressor.folders import HISTORY, METRICS, RECORD

SETTINGS = (*TINY, "order=PQE", "fit.epochs=2")
TIMES = ("seconds", "created", "environment")
"""What differs between two uninterrupted chains too; the digests of the files that say it are left out as well."""


def steps(place: Path) -> dict[str, dict[str, str]]:
    """Give the text of each step's files, without what tells times."""
    found = {}
    for folder in (place / "outputs/store").glob("[a-z]*-*"):
        record = json.loads((folder / RECORD).read_text())
        metrics = json.loads((folder / METRICS).read_text())
        history = [json.loads(line) for line in (folder / HISTORY).read_text().splitlines()]
        parts = {RECORD: _without(record, "files", "check"), METRICS: _without(metrics)}
        found[folder.name] = {name: json.dumps(part) for name, part in parts.items()}
        found[folder.name][HISTORY] = "\n".join(json.dumps(_without(line, "check")) for line in history)
    return found


def _without(content: dict, *names: str) -> dict:
    return {name: item for name, item in content.items() if name not in (*TIMES, *names)}


def test_an_interrupted_chain_writes_the_bytes_of_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("whole", "stopped"):
        (tmp_path / place).mkdir()
    monkeypatch.chdir(tmp_path / "whole")
    assert call("run", *SETTINGS).code == 0
    monkeypatch.chdir(tmp_path / "stopped")
    with monkeypatch.context() as patch:
        patch.setattr(training, "_finish_epoch", _stopping(training._finish_epoch))
        assert [call("run", *SETTINGS).code for _ in range(4)] == [2] * 4, "each step stops once"
    assert call("run", *SETTINGS).code == 0
    assert steps(tmp_path / "stopped") == steps(tmp_path / "whole")


def _stopping(finish: Callable[[training.Fitting], None]) -> Callable[[training.Fitting], None]:
    """Stop every training after its first epoch, which is saved."""

    def stop(fitting: training.Fitting) -> None:
        finish(fitting)
        if fitting.place.epoch == 1:
            training.checkpointing.save(fitting)
            raise TrainingError("stopped")

    return stop
