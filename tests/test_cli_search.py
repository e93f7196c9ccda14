"""`compressor search` on the real digits: what it finds, shows and keeps, how it goes on, and what it refuses."""

import json
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest
from terminal import TINY, Ended, call

from compressor import cli
from compressor.codec import decode
from compressor.errors import Interrupted
from compressor.folders import digest_of, read_metrics
from compressor.report.search_tables import TITLES
from compressor.search.candidates import Candidates
from compressor.search.types import Agent, Candidate
from compressor.store import Store
from compressor.studies.joint_results import Study

SCHEMA = json.loads((Path(cli.__file__).parent / "schemas" / "search.schema.json").read_text())
SIZE, EVALUATIONS, TUNE, FINALISTS, BATCHES = 0.25, 5, 1, 2, 2
SMALL = (
    *TINY,
    "name=found",
    f"search.budget.size={SIZE}",
    f"search.evaluations={EVALUATIONS}",
    "search.warmup=2",
    "search.images=50",
    "search.recalibrate=40",
    "search.joint.calibrate=40",
    "search.joint.recalibrate=40",
    f"search.tune={TUNE}",
    f"search.finalists={FINALISTS}",
    f"search.finalist_batches={BATCHES}",
)
AGENTS = tuple(agent for agent in Agent if agent.fixed in (None, 3))
WORDS = (*SMALL, "search.seeds=[0,1]", f"search.rivals=[{','.join(AGENTS[1:])}]")
ALONE = (*SMALL, "search.seeds=[0]", "search.rivals=[random]", "search.figures=false")


def study_of(ended: Ended) -> Path:
    """Return where the search.json is that a command named last, after it has said what it read."""
    assert ended.code == 0, ended.err
    assert " images (" in ended.out
    return Path(ended.out.splitlines()[-1].removeprefix("search: ")).absolute()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("place")


@pytest.fixture(scope="module")
def first(place: Path) -> Ended:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        return call("search", *WORDS)


@pytest.fixture(scope="module")
def folder(place: Path, first: Ended) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        return study_of(first).parent


@pytest.fixture(scope="module")
def study(folder: Path) -> Study:
    return decode(Study, json.loads((folder / "search.json").read_text()))


@pytest.fixture(scope="module")
def store(place: Path) -> Store:
    return Store(place / "outputs" / "store")


class TestCommand:
    def test_shows_every_agent_and_whether_joint_beats_the_step_wise_way(self, first: Ended) -> None:
        assert first.code == 0, first.err
        for words in (*(TITLES[agent] for agent in AGENTS), "baseline", "2 seeds", f"size {SIZE} of the baseline's"):
            assert words in first.out
        assert "joint beats step-wise" in first.out or "joint does NOT beat step-wise" in first.out or (
            "joint equals step-wise" in first.out
        )  # fmt: skip

    def test_leaves_the_networks_the_candidates_and_the_figures(self, folder: Path) -> None:
        names = {path.name for path in folder.iterdir()}
        assert {"00-baseline", "01-joint", "02-baseline", "03-joint", "run.json", "search.json"} <= names
        assert {f"{name}.{kind}" for name in ("front", "policy") for kind in ("png", "svg")} <= names
        assert {"candidates.jsonl"} <= names

    def test_search_json_is_as_its_schema_says(self, folder: Path) -> None:
        jsonschema.validate(json.loads((folder / "search.json").read_text()), SCHEMA)

    def test_each_agent_has_a_result_within_the_budget_and_its_evaluations(self, study: Study) -> None:
        assert [t.agent for t in study.trials] == 2 * [Agent.JOINT, *study.settings.rivals] == 2 * list(AGENTS)
        whole = {baseline.seed: baseline.cost.size_bits for baseline in study.baselines}
        for trial in study.trials:
            assert trial.cost.size_bits <= SIZE * whole[trial.seed], trial.agent
            assert 1 <= trial.evaluations <= EVALUATIONS
            assert len(trial.tries) == trial.evaluations

    def test_a_fixed_rival_has_its_number_of_bits_or_none_in_every_group(self, study: Study) -> None:
        found = [t for t in study.trials if t.agent is Agent.FIXED_3]
        assert len(found) == 2
        bits = {each for trial in found for layer in trial.layers[1:-1] for each in layer.bits}
        assert {3} <= bits <= {0, 3}

    def test_the_bill_of_the_best_candidate_is_what_its_trained_network_costs(self, study: Study) -> None:
        for trial in study.trials:
            bills = [(each.bill.size, each.bill.bitops, each.bill.macs) for each in trial.tries]
            assert (trial.cost.size_bits, trial.cost.bitops, trial.cost.macs) in bills, trial.agent

    def test_the_numbers_are_those_of_the_records(self, study: Study, store: Store) -> None:
        assert study.keys
        for key in study.keys:
            assert store.record(key) is not None
        for trial in study.trials:
            after = read_metrics(store.folder(trial.keys[-1])).after
            assert (trial.val, trial.test, trial.cost) == (after.val.quality, after.test.quality, after.cost)

    def test_every_candidate_is_kept_with_who_found_it(self, folder: Path, study: Study) -> None:
        lines = [json.loads(line) for line in (folder / "candidates.jsonl").read_text().splitlines()]
        found = {(line["agent"], line["seed"], line["key"]) for line in lines}
        assert len(found) == len(lines)
        assert {line["batches"] for line in lines} == {0, TUNE, BATCHES}  # what places lose alone is measured untrained
        assert sum(line["batches"] < BATCHES for line in lines) == sum(trial.evaluations for trial in study.trials)

    def test_the_finalists_of_every_agent_are_kept_too_and_the_winner_is_the_one_that_is_most_alike(
        self, folder: Path, study: Study
    ) -> None:
        lines = [json.loads(line) for line in (folder / "candidates.jsonl").read_text().splitlines()]
        for trial in study.trials:
            ours = [line for line in lines if (line["agent"], line["seed"]) == (trial.agent, trial.seed)]
            finalists = [line for line in ours if line["batches"] == BATCHES]
            assert len(finalists) in (0, FINALISTS), trial.agent
            if finalists:
                best = max(finalists, key=lambda line: line["likeness"])
                before = [x for x in ours if x["batches"] < BATCHES and x["policy"] == best["policy"]]
                assert (trial.proxy, trial.cost.size_bits) in [(x["quality"], x["bill"]["size"]) for x in before]
        assert sum(line["batches"] == BATCHES for line in lines) > len(study.trials)

    def test_optunas_study_is_kept_beside_its_candidates(self, study: Study, store: Store) -> None:
        (trial,) = (t for t in study.trials if (t.agent, t.seed) == (Agent.NSGA2, 0))
        assert (store.folder(trial.search) / "trials.db").read_bytes().startswith(b"SQLite format 3")

    def test_a_layers_groups_are_as_many_channels_as_its_network_keeps_or_masks(self, study: Study) -> None:
        for trial in study.trials:
            for layer in trial.layers:
                assert 0 < sum(layer.groups) <= layer.channels
                assert len(layer.groups) == len(layer.bits)

    def test_a_second_call_finds_everything_and_gives_the_same(
        self, study: Study, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(place)
        again = study_of(call("search", *WORDS))
        assert decode(Study, json.loads(again.read_text())) == study
        assert call("clean").out.startswith("0 folders")

    def test_the_network_is_listed_and_evaluated_like_any_other(
        self, folder: Path, study: Study, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(place)
        assert "01-joint" in call("list").out
        assert call("evaluate", *TINY, f"checkpoint={folder / '01-joint'}").code == 0
        said = json.loads(sorted((place / "outputs").rglob("evaluate.json"))[-1].read_text())
        assert said["measured"]["cost"]["size_bits"] == study.trials[0].cost.size_bits


class TestGoingOn:
    def interrupted(self, monkeypatch: pytest.MonkeyPatch, after: int) -> Ended:
        """Stop a search by a signal when so many candidates are noted and the next one is evaluated."""
        add, count = Candidates.add, 0

        def stopping(log: Candidates, candidate: Candidate) -> None:
            nonlocal count
            count += 1
            if count > after:
                raise Interrupted(15)
            add(log, candidate)

        with monkeypatch.context() as patch:
            patch.setattr(Candidates, "add", stopping)
            return call("search", *ALONE)

    def counted(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
        add, count = Candidates.add, 0

        def counting(log: Candidates, candidate: Candidate) -> None:
            nonlocal count
            count += 1
            add(log, candidate)

        monkeypatch.setattr(Candidates, "add", counting)
        return lambda: count

    @pytest.mark.parametrize("after", [1, 3, EVALUATIONS + 1, EVALUATIONS + FINALISTS + 2])
    def test_an_interrupted_search_ends_as_one_that_was_not(
        self, after: int, study: Study, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        ended = self.interrupted(monkeypatch, after)
        assert ended.code == 128 + 15
        assert "the same command goes on from there" in ended.err
        count = self.counted(monkeypatch)
        again = decode(Study, json.loads(study_of(call("search", *ALONE)).read_text()))
        whole = [t for t in study.trials if t.seed == 0 and t.agent in (Agent.JOINT, Agent.RANDOM)]
        for ours, theirs in zip(again.trials, whole, strict=True):
            assert (ours.tries, ours.keys, ours.layers) == (theirs.tries, theirs.keys, theirs.layers)
            folders = (s.folder(theirs.keys[-1]) for s in (Store(tmp_path / "outputs" / "store"), store))
            assert len({digest_of(each) for each in folders}) == 1
        assert count() == sum(trial.evaluations + FINALISTS for trial in again.trials) - after

    def test_a_line_that_a_kill_cut_is_evaluated_again(
        self, study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        self.interrupted(monkeypatch, 3)
        (log,) = (tmp_path / "outputs" / "store").glob(".draft-search-*/candidates.jsonl")
        log.write_bytes(log.read_bytes()[:-20])
        again = decode(Study, json.loads(study_of(call("search", *ALONE)).read_text()))
        assert again.trials[0].tries == study.trials[0].tries


WRONG = {
    "search.budget.size=0.001": "search.budget.size=0.001: the smallest feasible value is 0.",
    "search.budget.macs=0.000001": "the smallest feasible value is",
    "search.budget.latency_ms=0.000001": "search.budget.latency_ms=1e-06: the smallest feasible value is",
    "search.budget.size=null": "at least one of size, bitops, macs, latency_ms",
    "search.budget.size=2": "a share above 0, at most 1",
    "search.budget.latency_ms=-1": "a number above 0",
    "search.agent=random": "joint or flat; the others are search.rivals",
    "search.agent=lucky": "not one of joint",
    "search.rivals=[joint]": "agents other than search.agent=joint",
    "search.rivals=[random,random]": "each rival once",
    "search.rivals=[lucky]": "not one of joint",
    "search.rivals=[fixed_9]": "fixed_7, fixed_8",
    "search.algorithm=ppo": "not one of ddpg, td3, sac",
    "search.mode=wild": "not one of fixed, mixed",
    "search.bits=9": "1 to 8",
    "search.act_bits=1": "2 to 8",
    "search.groups=0": "1 to 64",
    "search.min_keep=0": "above 0",
    "search.evaluations=0": "1 to 1000000",
    "search.finalists=-1": "0 (off) to 1000",
    "search.finalist_batches=0": "1 to 100000",
    "search.images=-1": "0 (all of val)",
    "search.seeds=[]": "at least one seed",
    "search.seeds=[1,1]": "each seed once",
    "search.seeds=[-1]": "0 to 2147483647",
    "search.noise=2": "0 to 1",
    "search.workers=0": "1 (this process) to 256",
    "search.joint.recovery.teacher=input": "none or baseline",
    "search.joint.fit.epochs=-1": "0 to 100000",
    "search=nope": "no such search",
    "search.budgets.size=1": "did you mean search.budget.size?",
    "checkpoint=nowhere": "no arch.json",
}


@pytest.mark.parametrize(("line", "hint"), WRONG.items(), ids=WRONG)
def test_bad_input_is_one_line_and_exit_code_2(
    line: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = call("search", *(word for word in SMALL if word.partition("=")[0] != line.partition("=")[0]), line)
    assert (ended.code, ended.err.count("\n"), ended.out) == (2, 1, ""), ended
    assert ended.err.startswith("compressor: ")
    assert hint in ended.err
