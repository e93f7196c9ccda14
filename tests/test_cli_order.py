"""`compressor order`: a study of the real digits, small enough for a test, and all that can go wrong with one."""

import json
import re
import shutil
from pathlib import Path

import jsonschema
import pytest
from terminal import TINY, Ended, call

from compressor import cli
from compressor.runs import read_run

SCHEMA = json.loads((Path(cli.__file__).parent / "schemas" / "study.schema.json").read_text())
SMALL = [word for word in TINY if not word.startswith("order=")]
STUDY = [
    *SMALL,
    "name=small",
    "study.letters=PQ",
    "study.seeds=[0,1,2]",
    "study.reference=PQ",
    "study.repeats=[PQ,PPQ]",
]


def study_of(ended: Ended) -> dict:
    """Read the study.json that a command named last."""
    return json.loads(Path(ended.out.splitlines()[-1].removeprefix("study: ")).read_text())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("place")


@pytest.fixture(scope="module")
def first(place: Path) -> Ended:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        return call("order", *STUDY, "hydra.run.dir=outputs/first")


@pytest.fixture(autouse=True)
def _there(place: Path, first: Ended, monkeypatch: pytest.MonkeyPatch) -> None:
    assert first.code == 0, first.err
    monkeypatch.chdir(place)


class TestStudy:
    def test_says_what_it_reads(self, first: Ended) -> None:
        assert " images (" in first.out

    def test_says_what_came_of_the_pair_and_where_the_study_is(self, first: Ended) -> None:
        assert "PQ" in first.out
        assert "QP" in first.out
        assert re.search(r"orders? ", first.out)
        assert first.out.splitlines()[-1] == "study: outputs/first/study.json"
        assert max(map(len, first.out.splitlines())) <= 120

    def test_its_file_follows_the_published_schema(self, first: Ended) -> None:
        jsonschema.Draft202012Validator.check_schema(SCHEMA)
        jsonschema.validate(study_of(first), SCHEMA)

    def test_every_key_of_every_claim_is_a_finished_step_of_the_store(self, first: Ended) -> None:
        text = Path("outputs/first/study.json").read_text()
        keys = set(re.findall(r'"((?:baseline|distill|prune|quantize|exit)-[0-9a-f]{16})"', text))
        study = study_of(first)
        assert {key for verdict in study["verdicts"] for key in verdict["keys"]} <= keys
        assert len(keys) == study["steps"]
        for key in keys:
            assert (Path("outputs/store") / key / "record.json").is_file()

    def test_a_verdict_rests_on_all_its_chains(self, first: Ended) -> None:
        (verdict,) = study_of(first)["verdicts"]
        assert len(verdict["keys"]) == len(set(verdict["keys"])) == 2 * 4 * 3
        assert verdict["indicative"] is True
        assert verdict["val"]["seeds"] == [0, 1, 2]

    def test_a_second_one_runs_nothing_and_decides_the_same(self, first: Ended) -> None:
        again = call("order", *STUDY, "hydra.run.dir=outputs/again")
        assert again.code == 0, again.err
        assert study_of(again) == study_of(first)
        assert not list(Path("outputs/store").glob(".draft*"))

    def test_cleaning_knows_that_its_steps_are_used(self) -> None:
        assert call("clean").out.startswith("0 folders")

    def test_its_run_note_names_its_steps(self, first: Ended) -> None:
        assert len(read_run(Path("outputs/first")).refers) == study_of(first)["steps"]

    def test_a_list_of_runs_shows_it(self) -> None:
        listed = call("list")
        assert listed.code == 0
        assert "outputs/first" in listed.out

    def test_a_chain_of_it_is_what_run_gives(self) -> None:
        grid = ["prune.ratio=0.4", "quantize.bits.weight=3", "quantize.bits.act=4"]
        ran = call("run", *SMALL, "order=PQ", "seed=1", *grid, "name=chain")
        assert ran.code == 0, ran.err
        folder = Path(ran.out.splitlines()[-1].removeprefix("run: "))
        assert all(step.stored for step in read_run(folder).steps)


class TestPlan:
    def test_says_what_there_is_to_do_and_runs_nothing(self) -> None:
        before = sorted(Path("outputs").rglob("*"))
        planned = call("order", *STUDY, "study.plan=true", "study.seeds=[0,1,2,7]", "hydra.run.dir=outputs/first")
        assert planned.code == 0, planned.err
        rows = {line.split()[0]: line.split()[1:4] for line in planned.out.splitlines() if line.strip()}
        total, stored, to_run = map(int, rows["all"])
        assert total == stored + to_run
        assert (stored, to_run) == (3 * to_run, to_run)
        assert sorted(Path("outputs").rglob("*")) == before


class TestFailures:
    def test_a_failed_step_leaves_what_can_be_decided_and_exit_code_1(self) -> None:
        bad = "study.grid.P=[{target:{macs:0.1},round_to:256},{ratio:0.7}]"
        ended = call("order", *STUDY, bad, "hydra.run.dir=outputs/failing")
        assert ended.code == 1
        (line,) = [line for line in ended.err.splitlines() if line.startswith("compressor: ")]
        assert "have no result" in line
        assert "Traceback" not in ended.err
        study = json.loads(Path("outputs/failing/study.json").read_text())
        jsonschema.validate(study, SCHEMA)
        assert {failure["state"] for failure in study["failures"]} == {"failed", "blocked"}
        (verdict,) = study["verdicts"]
        assert len(verdict["keys"]) == 2 * 2 * 3

    def test_a_damaged_step_is_named(self, place: Path) -> None:
        shutil.copytree(place, copy := place.parent / "copy")
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(copy)
            victim = sorted(Path("outputs/store").glob("quantize-*"))[0] / "weights.safetensors"
            victim.chmod(0o644)
            victim.write_bytes(victim.read_bytes()[:-1])
            ended = call("order", *STUDY, "hydra.run.dir=outputs/damaged")
        assert ended.code == 1
        assert str(victim.parent.name) in ended.err

    @pytest.mark.parametrize(
        ("word", "message"),
        [
            ("study.letters=PP", "each letter once"),
            ("study.letters=P", "two letters or more"),
            ("study.letters=PX", "study.grid.X"),
            ("study.seeds=[]", "at least one seed"),
            ("study.grid.P=[]", "study.grid.P"),
            ("study.grid.P=[{ratio:2},{ratio:0.5}]", "study.grid.P[0]"),
            ("study.grid.P=[{rato:0.2},{ratio:0.5}]", "unknown key 'rato'"),
            ("study.setting=5", "study.setting=5"),
            ("study.executor=cloud", "local or ray"),
            ("study.workers=0", "study.workers=0"),
        ],
    )
    def test_what_cannot_be_studied_is_one_line_and_exit_code_2(self, word: str, message: str) -> None:
        before = sorted(Path("outputs").rglob("*"))
        ended = call("order", *STUDY, word)
        assert (ended.code, ended.out) == (2, "")
        (line,) = ended.err.splitlines()
        assert message in line
        assert sorted(Path("outputs").rglob("*")) == before
