"""Interrupted and killed steps: they go on in their drafts, and no half step is ever taken for a whole one."""

import json
import logging
import random
import signal
import subprocess
import sys
from pathlib import Path

import fakes
import pytest
import tampering
from fakes import chain, finish

from compressor.errors import Interrupted, TrainingError
from compressor.folders import read_metrics


@pytest.fixture(autouse=True)
def _fakes(monkeypatch):
    fakes.install(monkeypatch)


class TestInterrupts:
    def test_an_interrupted_step_goes_on_in_its_draft_and_ends_as_if_it_had_not_been(self, tmp_path):
        config = fakes.FakeConfig(stop_after=2, seconds=0.05)
        with pytest.raises(Interrupted):
            finish(tmp_path, chain("P", config))
        draft = tmp_path / "store" / f".draft-{chain('', config).key}"
        assert json.loads((draft / "fit.json").read_text()) == [1, 2]
        with pytest.raises(Interrupted):
            finish(tmp_path, chain("P", config))
        record, _ = finish(tmp_path, chain("P", config))
        whole, _ = finish(tmp_path / "whole", chain("P"))
        assert record.model == whole.model
        history = tmp_path / "store" / record.key / "history.jsonl"
        assert [json.loads(line)["epoch"] for line in history.read_text().splitlines()] == [0, 1, 2, 3]

    def test_seconds_add_up_over_interruptions(self, tmp_path):
        config = fakes.FakeConfig(stop_after=2)
        with pytest.raises(Interrupted):
            finish(tmp_path, chain("", config))
        note = tmp_path / "store" / f".draft-{chain('', config).key}" / "draft.json"
        assert 0 < json.loads(note.read_text())["seconds"] < 60
        tampering.edited(note, lambda noted: noted.update(seconds=1000.0))
        record, reported = finish(tmp_path, chain("", config))
        assert 1000 < record.seconds < 1060
        assert reported[0][2].seconds == record.seconds

    @pytest.mark.parametrize(("field", "warns"), [("torch", True), ("cpu", True), ("threads", True), ("python", False)])
    def test_going_on_elsewhere_is_said_in_one_line(self, tmp_path, caplog, field, warns):
        config = fakes.FakeConfig(stop_after=2)
        with pytest.raises(Interrupted):
            finish(tmp_path, chain("", config))
        note = tmp_path / "store" / f".draft-{chain('', config).key}" / "draft.json"
        tampering.edited(note, lambda noted: noted["environment"].update({field: "another"}))
        with caplog.at_level(logging.WARNING):
            finish(tmp_path, chain("", config))
        lines = [entry.getMessage() for entry in caplog.records]
        assert len(lines) == warns
        assert all("another environment" in line and "\n" not in line for line in lines)

    @pytest.mark.parametrize("harm", ["cut", "changed"])
    def test_a_damaged_note_of_a_draft_is_named_and_costs_its_seconds_only(self, tmp_path, caplog, harm):
        config = fakes.FakeConfig(stop_after=2)
        with pytest.raises(Interrupted):
            finish(tmp_path, chain("", config))
        note = tmp_path / "store" / f".draft-{chain('', config).key}" / "draft.json"
        note.write_text("{" if harm == "cut" else note.read_text().replace('"seconds": 0.', '"seconds": 990.'))
        assert finish(tmp_path, chain("", config))[0].seconds < 60
        (line,) = [entry.getMessage() for entry in caplog.records]
        assert line.startswith(f"{note}: ")
        assert line.endswith("its seconds are counted anew")

    def test_a_failed_step_leaves_finished_ones_as_they_are(self, tmp_path, monkeypatch):
        record, _ = finish(tmp_path, chain("P"))

        def fail(config, context, **models):
            raise TrainingError("the loss is nan")

        monkeypatch.setattr(sys.modules["fake_techniques"], "technique", fail)
        with pytest.raises(TrainingError):
            finish(tmp_path, chain("PQ"))
        assert finish(tmp_path, chain("P"))[0] == record


def killed(root: Path, order: str, place: int) -> int:
    """Run an order in a process that is killed at its place-th touch of a file; give its exit code."""
    command = [sys.executable, fakes.__file__, str(root), order, "0", str(place)]
    return subprocess.run(command, capture_output=True).returncode


class TestKills:
    def test_kill_9_at_any_touch_of_a_file_leaves_drafts_and_whole_steps_only(self, tmp_path):
        whole, _ = finish(tmp_path / "whole", chain("P"))
        codes = set()
        for place in random.Random(0).sample(range(1, 125), 12):
            root = tmp_path / str(place)
            codes.add(killed(root, "P", place))
            store = root / "store"
            for folder in [path for path in store.glob("[!.]*") if path.is_dir()]:
                assert fakes.bench(root).store.record(folder.name) is not None
            record, _ = finish(root, chain("P"))
            assert record.model == whole.model, place
            assert read_metrics(store / record.key).after == read_metrics(tmp_path / "whole/store" / record.key).after
            assert not list(store.glob(".draft-*"))
        assert -signal.SIGKILL in codes

    def test_a_draft_that_was_whole_when_it_was_killed_is_published_without_training(self, tmp_path):
        record, _ = finish(tmp_path, chain("P"))
        store = tmp_path / "store"
        (store / record.key).rename(store / f".draft-{record.key}")
        (store / f".draft-{record.key}" / "fit.json").write_text("[]")
        again, reported = finish(tmp_path, chain("P"))
        assert again == record
        assert [stored for *_, stored in reported] == [True, True]
        assert not (store / record.key / "fit.json").exists()

    def test_a_draft_that_only_looks_whole_is_not_published(self, tmp_path):
        record, _ = finish(tmp_path, chain("P"))
        store = tmp_path / "store"
        draft = (store / record.key).rename(store / f".draft-{record.key}")
        weights = draft / "weights.safetensors"
        weights.chmod(0o644)
        weights.write_bytes(b"cut")
        again, reported = finish(tmp_path, chain("P"))
        assert again.model == record.model
        assert [stored for *_, stored in reported] == [True, False]
