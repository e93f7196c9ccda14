"""Commands that work: runs, phases of saved models, evaluation, sweeps, lists and cleaning, on the real digits."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import pytest
import torch
from terminal import TINY, Ended, call, process

import compressor
from compressor import cli
from compressor.codec import decode, encode
from compressor.folders import read_metrics
from compressor.report.text import compact, ratio
from compressor.runs import read_run

SCHEMA = json.loads((Path(cli.__file__).parent / "schemas" / "metrics.schema.json").read_text())


def run_folder(ended: Ended) -> Path:
    """Give the run directory that a command named last."""
    assert ended.code == 0, ended.err
    return Path(ended.out.splitlines()[-1].removeprefix("run: "))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where DPQE has run once."""
    return tmp_path_factory.mktemp("place")


@pytest.fixture(scope="module")
def first(place: Path) -> Ended:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        return call("run", *TINY, "name=first")


@pytest.fixture(autouse=True)
def _there(place: Path, first: Ended, monkeypatch: pytest.MonkeyPatch) -> None:
    assert first.code == 0, first.err
    monkeypatch.chdir(place)


class TestRun:
    def test_ends_with_a_table_and_the_run_directory(self, first: Ended) -> None:
        for word in ("val accuracy %", "test accuracy %", "params", "MACs", "BitOps", "bitops_", "size_", "bytes"):
            assert word in first.out
        rows = [line.split()[0] for line in first.out.splitlines() if re.match(r"^ ?\d\d-", line)]
        assert rows == ["00-baseline", "01-distill", "02-prune", "03-quantize", "04-exit"]
        assert max(map(len, first.out.splitlines())) <= 120

    def test_leaves_a_whole_folder_for_each_phase(self, first: Ended) -> None:
        folder = run_folder(first)
        note = read_run(folder)
        assert [step.phase for step in note.steps] == ["baseline", "distill", "prune", "quantize", "exit"]
        for step in note.steps:
            names = {path.name for path in (folder / step.folder).iterdir()}
            assert {"arch.json", "weights.safetensors", "metrics.json", "history.jsonl", "record.json"} <= names

    def test_metrics_follow_the_published_schema(self, first: Ended) -> None:
        jsonschema.Draft202012Validator.check_schema(SCHEMA)
        for step in read_run(run_folder(first)).steps:
            data = json.loads((run_folder(first) / step.folder / "metrics.json").read_text())
            jsonschema.validate(data, SCHEMA)

    def test_a_second_one_reuses_every_phase(self, first: Ended) -> None:
        again = call("run", *TINY, "name=first")
        assert run_folder(again) != run_folder(first)
        assert all(step.stored for step in read_run(run_folder(again)).steps)
        assert "was there already" in again.out

    def test_another_order_shares_what_is_equal(self) -> None:
        steps = read_run(run_folder(call("run", *TINY, "order=dp"))).steps
        assert [(step.folder, step.stored) for step in steps] == [
            ("00-baseline", True), ("01-distill", True), ("02-prune", True),
        ]  # fmt: skip

    def test_a_folder_that_holds_another_run_is_left_alone(self, first: Ended) -> None:
        ended = call("run", *TINY, "order=QP", f"hydra.run.dir={run_folder(first)}")
        assert (ended.code, ended.err.count("\n")) == (2, 1)
        assert "holds another run" in ended.err
        assert read_run(run_folder(first)).order == "DPQE"

    def test_needs_no_store_to_load(self, first: Ended, tmp_path: Path) -> None:
        net = compressor.load(run_folder(first) / "04-exit")
        assert not net.training
        assert net.arch.exits is not None
        outputs = net(torch.zeros(2, 1, 8, 8, dtype=torch.uint8))
        assert [tuple(out.shape) for out in outputs] == [(2, 10)] * 3


class TestPhaseCommands:
    def test_a_phase_on_a_checkpoint_is_the_step_of_the_order(self, first: Ended) -> None:
        step = run_folder(first) / "02-prune"
        folder = run_folder(call("quantize", *TINY, f"checkpoint={step}"))
        assert read_run(folder).steps[0].key == read_run(run_folder(first)).steps[3].key
        assert read_run(folder).steps[0].stored

    def test_the_table_begins_with_the_checkpoint(self, first: Ended) -> None:
        ended = call("prune", *TINY, f"checkpoint={run_folder(first) / '03-quantize'}", "prune.ratio=0.2")
        assert re.search(r"^ checkpoint ", ended.out, re.MULTILINE)
        assert [step.folder for step in read_run(run_folder(ended)).steps] == ["01-prune"]

    def test_baseline_runs_no_phase(self) -> None:
        assert [step.phase for step in read_run(run_folder(call("baseline", *TINY))).steps] == ["baseline"]


class TestEvaluate:
    def test_measures_what_the_record_says(self, first: Ended) -> None:
        step = run_folder(first) / "04-exit"
        ended = call("evaluate", *TINY, f"checkpoint={step}", "cost_table=true")
        assert "path taken" in ended.out
        assert "stem.conv" in ended.out
        result = json.loads(Path(ended.out.splitlines()[-1].removeprefix("evaluation: ")).read_text())
        assert result["measured"] == encode(read_metrics(step).after)
        assert sum(layer["macs"] for layer in result["layers"]) == result["measured"]["cost"]["macs"]

    def test_other_images_are_refused(self, first: Ended) -> None:
        step = run_folder(first) / "04-exit"
        ended = call("evaluate", *TINY, f"checkpoint={step}", "dataset=rotated_digits")
        assert (ended.code, ended.err.count("\n")) == (2, 1)


class TestSweep:
    def test_ends_with_one_table_and_goes_on_after_a_bad_job(self) -> None:
        ended = call("run", "-m", *TINY, "name=sweep", "prune.ratio=0.2,1.5,0.3", "order=P")
        assert ended.code == 2
        assert ended.err == "compressor: prune.ratio=1.5: give 0 to 1, 1 excluded\n"
        folder = Path(ended.out.splitlines()[-1].removeprefix("sweep: "))
        jobs = json.loads((folder / "sweep.json").read_text())["jobs"]
        assert [job["outcome"]["code"] for job in jobs] == [0, 2, 0]
        assert [[step["stored"] for step in job["run"]["steps"]] for job in jobs if job["run"]] == [[True, False]] * 2
        table = ended.out.rpartition("new/stored")[2]
        assert [word for word in ("prune.ratio=0.2", "failed", "prune.ratio=0.3") if word not in table] == []

    def test_a_defect_ends_it_with_1(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(*_: object) -> None:
            raise RuntimeError("a defect")

        monkeypatch.setattr("compressor.commands.load_data", broken)
        ended = call("run", "-m", *TINY, "seed=1,2")
        assert ended.code == 1
        assert ended.err.count("RuntimeError: a defect") == 2

    @pytest.mark.slow
    def test_two_processes_share_steps(self, place: Path) -> None:
        words = ["run", "-m", *TINY, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "seed=5", "order=P,PQ,1"]
        ended = process("-m", "compressor", *words, folder=place)
        assert ended.returncode == 2, ended.stderr
        jobs = json.loads((place / ended.stdout.splitlines()[-1].removeprefix("sweep: ") / "sweep.json").read_text())
        steps = [step for job in jobs["jobs"] if job["run"] for step in job["run"]["steps"]]
        assert sum(not step["stored"] for step in steps) == len({step["key"] for step in steps}) == 3


class TestListAndClean:
    def test_list_shows_runs_and_phases(self, first: Ended) -> None:
        shown = call("list").out
        assert str(run_folder(first)) in shown
        assert "04-exit" in shown

    def test_clean_deletes_what_no_run_refers_to_and_only_when_told_to(self, place: Path, first: Ended) -> None:
        folder = run_folder(call("run", *TINY, "name=gone", "order=Q"))
        key = read_run(folder).steps[1].key
        for path in sorted(folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        assert key in call("clean").out
        assert (place / "outputs" / "store" / key).exists()
        assert "deleted 1 folders" in call("clean", "clean.delete=true").out
        assert not (place / "outputs" / "store" / key).exists()
        assert all((place / "outputs" / "store" / s.key).exists() for s in read_run(run_folder(first)).steps)
        assert call("clean").out.startswith("0 folders")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_says_so_and_leaves_what_the_same_command_goes_on_from(number: int, place: Path) -> None:
    store = place / f"store-{number}"
    words = ["-m", "compressor", "run", "fit=smoke", "baseline.fit.epochs=400", "order=", f"store={store}"]
    child = subprocess.Popen([sys.executable, *words], cwd=place, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not any(path.stat().st_size for path in store.glob(".draft-*/history.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.1)
    child.send_signal(number)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 128 + number
    assert said.splitlines()[-1].endswith("interrupted; what is done is saved, and the same command goes on from there")
    (draft,) = store.glob(".draft-*")
    assert (draft / "fit.safetensors").exists()


class TestText:
    @pytest.mark.parametrize(
        ("number", "text"),
        [
            (0, "0"),
            (7, "7"),
            (999, "999"),
            (1000, "1.0 k"),
            (40551424, "40.6 M"),
            (999_999, "1.0 M"),
            (2.5e15, "2500 T"),
        ],
    )
    def test_numbers_are_compact(self, number: float, text: str) -> None:
        assert compact(number) == text

    def test_ratios_have_three_figures(self) -> None:
        assert [ratio(number) for number in (1, 12.34, 256.4)] == ["1.00 x", "12.3 x", "256 x"]


def test_the_schema_names_what_metrics_hold(first: Ended) -> None:
    metrics = read_metrics(run_folder(first) / "04-exit")
    assert set(SCHEMA["required"]) == set(encode(metrics))
    assert decode(type(metrics), encode(metrics)) == metrics
