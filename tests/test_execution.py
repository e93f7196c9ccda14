"""The graph of a study's steps, and running it in this process."""

import shutil
import time
from itertools import permutations
from pathlib import Path

import fakes
import planted
import pytest
import samples
from terminal import process

from compressor.config.execution import ExecutionConfig
from compressor.data.types import Data
from compressor.errors import CompressorError, Interrupted
from compressor.pipeline import Step, given, inputs_first
from compressor.studies import execution
from compressor.studies.board import Board, Durations, Outcome, State, Tally
from compressor.studies.execution import PlaceError, Workplace, execute

ALONE = ExecutionConfig("local", workers=1, address="local", cpus=1, retries=0)


def diamond() -> dict[str, Step]:
    """Give B, D and P after it, Q that reads both, and E after D."""
    base = fakes.baseline()
    left, right = fakes.chain("D", start=base), fakes.chain("P", start=base)
    both = Step(fakes.PHASES["D"], fakes.FakeConfig(), (("model", left), ("teacher", right)), "data")
    return {"base": base, "left": left, "right": right, "both": both, "after": fakes.chain("E", start=left)}


def done(step: Step, seconds: float = 1.0) -> Outcome:
    return Outcome(step.key, State.DONE, seconds)


def failed(step: Step) -> Outcome:
    return Outcome(step.key, State.FAILED, 1.0, "why")


class TestBoard:
    def test_a_step_is_ready_when_all_that_it_reads_has_a_result(self):
        steps = diamond()
        board = Board(list(steps.values()))
        assert board.take() is steps["base"]
        assert board.take() is None
        board.settle(done(steps["base"]))
        assert board.take() is steps["left"]
        assert board.take() is steps["right"]
        board.settle(done(steps["right"]))
        assert board.take() is None
        board.settle(done(steps["left"]))
        assert [board.take(), board.take(), board.take()] == [steps["both"], steps["after"], None]

    def test_a_failed_step_blocks_its_readers_and_theirs_and_nothing_else(self):
        steps = diamond()
        board = Board(list(steps.values()))
        board.settle(done(steps["base"]))
        board.settle(failed(steps["right"]))
        assert board.outcomes[steps["both"].key].state is State.BLOCKED
        assert steps["right"].key in (board.outcomes[steps["both"].key].error or "")
        assert [board.take(), board.take()] == [steps["left"], None]
        board.settle(failed(steps["left"]))
        assert board.finished
        assert board.tally() == Tally(5, stored=0, done=1, failed=2, blocked=2, running=0, seconds_left=0.0)

    def test_a_step_given_back_is_ready_again_in_its_place(self):
        steps = diamond()
        board = Board(list(steps.values()))
        board.settle(done(steps["base"]))
        first, second = board.take(), board.take()
        assert first is not None
        board.give_back(first)
        assert board.tally().running == 1
        assert (board.take(), second) == (first, steps["right"])

    def test_readers_before_what_they_read_are_refused(self):
        with pytest.raises(AssertionError, match="inputs come first"):
            Board(list(diamond().values())[::-1])

    def test_the_time_left_is_that_of_like_steps_shared_among_the_lanes(self):
        steps = [fakes.baseline(fakes.FakeConfig(amount=i)) for i in range(3)]
        steps += [fakes.chain("P", start=step) for step in steps]
        board = Board(steps, lanes=2)
        assert board.tally().seconds_left is None
        board.settle(done(steps[0], seconds=10.0))
        assert board.tally().seconds_left == (2 * 10.0 + 3 * 10.0) / 2
        board.settle(done(steps[3], seconds=2.0))
        assert board.tally().seconds_left == (2 * 10.0 + 2 * 2.0) / 2
        for step in (steps[1], steps[2], steps[4]):
            board.settle(done(step, seconds=10.0))
        assert board.tally().seconds_left == 6.0, "one step is left, which one lane takes"

    def test_what_a_running_step_has_behind_it_is_not_left(self, monkeypatch):
        steps = [fakes.baseline(fakes.FakeConfig(amount=i)) for i in range(2)]
        board, now = Board(steps), [100.0]
        monkeypatch.setattr("compressor.studies.board.time.monotonic", lambda: now[0])
        board.settle(done(steps[0], seconds=10.0))
        board.take()
        now[0] += 4.0
        assert board.tally().seconds_left == 6.0
        now[0] += 400.0
        assert board.tally().seconds_left == 0.0

    def test_durations_of_an_unknown_phase_are_those_of_any(self):
        durations = Durations()
        assert durations.expected("prune") is None
        durations.add("prune", 2.0)
        durations.add("exit", 4.0)
        assert [durations.expected(phase) for phase in ("prune", "quantize")] == [2.0, 3.0]

    def test_ten_thousand_steps_are_kept_in_well_under_a_second(self):
        base = fakes.baseline()
        steps = [base, *(fakes.chain("P", fakes.FakeConfig(amount=i), base) for i in range(2, 10_001))]
        assert all(step.key for step in steps)
        began, board = time.process_time(), Board(steps)
        while (step := board.take()) is not None:
            board.settle(done(step))
            board.tally()
        assert board.finished
        assert time.process_time() - began < 1.0


@pytest.fixture
def place(monkeypatch, tmp_path) -> Workplace:
    """A place for steps of the fakes, which take milliseconds."""
    fakes.install(monkeypatch)
    monkeypatch.setattr(execution, "load_data", lambda dataset, runtime: fakes.data())
    return Workplace(tmp_path / "store", samples.DATASET, fakes.RUNTIME, {"log": tmp_path / "log"})


class TestHere:
    def test_steps_run_once_each_inputs_first_and_then_never_again(self, place, tmp_path):
        steps = diamond()
        outcomes = execute(list(steps.values()), place, ALONE)
        assert list(outcomes) == [step.key for step in steps.values()]
        assert {outcome.state for outcome in outcomes.values()} == {State.DONE}
        assert fakes.ran(tmp_path) == [steps[name].key for name in ("base", "left", "right", "both", "after")]
        again = execute(list(steps.values()), place, ALONE)
        assert {outcome.state for outcome in again.values()} == {State.STORED}
        assert len(fakes.ran(tmp_path)) == 5
        assert [o.seconds for o in again.values()] == [o.seconds for o in outcomes.values()], "the records' seconds"

    def test_orders_share_the_steps_they_begin_with(self, place, tmp_path):
        chains = [inputs_first(fakes.chain("".join(order))) for order in permutations("DPQ")]
        steps = {source.key: source for chain in chains for source in chain if isinstance(source, Step)}
        assert len(execute(list(steps.values()), place, ALONE)) == 1 + 3 + 6 + 6
        assert len(fakes.ran(tmp_path)) == 1 + 3 + 6 + 6

    def test_what_went_wrong_in_a_step_is_its_outcome_and_the_others_go_on(self, place, monkeypatch, capsys):
        steps, technique = diamond(), fakes.technique

        def broken(config, context, **models):
            if steps["right"].key in context.scratch.name:
                raise RuntimeError("a defect")
            return technique(config, context, **models)

        monkeypatch.setattr("fake_techniques.technique", broken)
        outcomes = execute(list(steps.values()), place, ALONE)
        assert [outcome.state.value for outcome in outcomes.values()] == ["done", "done", "failed", "blocked", "done"]
        assert outcomes[steps["right"].key].error == f"{steps['right'].key}: RuntimeError: a defect"
        assert "Traceback" in capsys.readouterr().err, "a defect is for a bug report"
        monkeypatch.undo()
        fakes.install(monkeypatch)
        monkeypatch.setattr(execution, "load_data", lambda dataset, runtime: fakes.data())
        again = execute(list(steps.values()), place, ALONE)
        assert [outcome.state.value for outcome in again.values()] == ["stored", "stored", "done", "done", "stored"]

    def test_a_damaged_step_fails_with_the_line_that_says_what_to_remove(self, place):
        steps = list(diamond().values())
        execute(steps, place, ALONE)
        damaged = place.store / steps[1].key / "weights.safetensors"
        damaged.chmod(0o644)
        damaged.write_bytes(b"other")
        outcomes = execute(steps, place, ALONE)
        assert [outcome.state.value for outcome in outcomes.values()] == [
            "stored", "failed", "stored", "blocked", "blocked",
        ]  # fmt: skip
        assert f"remove {place.store / steps[1].key} " in (outcomes[steps[1].key].error or "")

    def test_a_reader_of_a_removed_step_is_checked_against_the_new_one(self, place, tmp_path):
        steps = list(diamond().values())
        execute(steps, place, ALONE)
        shutil.rmtree(place.store / steps[0].key)
        outcomes = execute(steps, place, ALONE)
        assert [outcome.state.value for outcome in outcomes.values()] == ["done", *["stored"] * 4]
        assert len(fakes.ran(tmp_path)) == 6

    def test_given_models_are_inputs_too(self, place, tmp_path):
        record, _ = fakes.finish(tmp_path / "other", fakes.chain(""))
        source = given(fakes.copied(record, tmp_path / "other", tmp_path / "given"))
        step = fakes.chain("P", start=source)
        assert execute([step], place, ALONE)[step.key].state is State.DONE
        assert execute([step], place, ALONE)[step.key].state is State.STORED

    def test_a_signal_ends_it_and_the_next_call_goes_on_in_the_draft(self, place, tmp_path):
        steps = [fakes.baseline(), fakes.chain("P", fakes.FakeConfig(stop_after=2), fakes.baseline())]
        with pytest.raises(Interrupted) as caught:
            execute(steps, place, ALONE)
        assert caught.value.signal == 15
        assert (place.store / f".draft-{steps[1].key}" / "fit.json").exists()
        outcomes = execute(steps, place, ALONE)
        assert [outcome.state.value for outcome in outcomes.values()] == ["stored", "done"]
        history = (place.store / steps[1].key / "history.jsonl").read_text().splitlines()
        assert len(history) == 4, "no epoch was run twice"

    def test_other_images_than_planned_are_refused_in_one_line(self, place, monkeypatch):
        monkeypatch.setattr(execution, "load_data", lambda dataset, runtime: fakes.data("others"))
        with pytest.raises(PlaceError, match="not those that the study was planned with") as caught:
            execute([fakes.baseline()], place, ALONE)
        assert "\n" not in str(caught.value)

    def test_a_store_that_is_a_file_is_one_line(self, place):
        place.store.write_text("a letter")
        with pytest.raises(CompressorError, match="a file stands where a folder is needed"):
            execute([fakes.baseline()], place, ALONE)

    def test_a_store_that_vanishes_between_steps_is_one_line_and_is_not_made_anew(self, place):
        steps = list(diamond().values())

        def watch(tally: Tally) -> None:
            if tally.done == 2:
                place.store.rename(place.store.with_name("elsewhere"))

        with pytest.raises(PlaceError, match="bring it back") as caught:
            execute(steps, place, ALONE, watch)
        assert str(place.store) in str(caught.value)
        assert "\n" not in str(caught.value)
        assert not place.store.exists()
        place.store.with_name("elsewhere").rename(place.store)
        states = [outcome.state.value for outcome in execute(steps, place, ALONE).values()]
        assert states == ["stored", "stored", "done", "done", "done"]

    def test_a_store_that_vanishes_in_a_step_is_one_line(self, digits: Data, tmp_path):
        steps = [base := planted.step("b", data=digits), planted.step("x", base, data=digits, act="vanish")]
        with pytest.raises(PlaceError, match="bring it back"):
            execute(steps, planted.workplace(tmp_path), ALONE)

    def test_each_step_costs_a_few_milliseconds_beyond_the_pipeline_s_own_work(self, place, monkeypatch):
        inside, pipeline = [], execution.run

        def timed(*words):
            began = time.monotonic()
            try:
                return pipeline(*words)
            finally:
                inside.append(time.monotonic() - began)

        monkeypatch.setattr(execution, "run", timed)
        base = fakes.baseline()
        began, steps = time.monotonic(), [base, *(fakes.chain("P", fakes.FakeConfig(i), base) for i in range(2, 22))]
        execute(steps, place, ALONE)
        each = (time.monotonic() - began - sum(inside)) / len(steps)
        assert len(inside) == len(steps)
        assert each < 0.01, f"{1000 * each:.1f} ms"

    def test_it_hears_of_every_change(self, place):
        watcher = planted.Watcher()
        execute(list(diamond().values()), place, ALONE, watcher)
        counts = [(tally.ended, tally.running) for tally in watcher.tallies]
        assert {(0, 0), (0, 1), (1, 1), (2, 1), (3, 1), (4, 1), (5, 0)} <= set(counts)
        assert watcher.tallies[-1].seconds_left == 0.0


def test_stored_steps_are_found_without_torch(digits: Data, tmp_path: Path) -> None:
    steps = [base := planted.step("b", data=digits), planted.step("x", base, data=digits)]
    execute(steps, planted.workplace(tmp_path), ALONE)
    code = f"""
import sys
from types import ModuleType
from compressor.config.execution import ExecutionConfig
from compressor.studies.board import Board
from compressor.studies.execution import look_up
from compressor.folders import read_record
from compressor.phase import Phase
from compressor.pipeline import Step
from compressor.store import Store
from dataclasses import dataclass
from pathlib import Path

@dataclass(frozen=True)
class Planted:
    name: str
    act: str = ""
    times: int = 1
    seconds: float = 0.0

base = Step(Phase("planted", "X", 1, Planted, "", ()), Planted("b"), (), "{digits.fingerprint}")
step = Step(Phase("planted", "X", 1, Planted, "", ()), Planted("x"), (("model", base),), "{digits.fingerprint}")
board = Board([base, step])
look_up(board, Store(Path("{tmp_path}/store")))
print([outcome.state.value for outcome in board.outcomes.values()], "torch" in sys.modules)
"""
    ended = process("-c", code, folder=tmp_path)
    assert ended.stdout.strip() == "['stored', 'stored'] False", ended.stderr
