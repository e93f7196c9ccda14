"""`compressor moe` on the real digits: what it makes, shows and keeps, and that every number has its keys."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from samples import DATASET, RUNTIME
from terminal import TINY, Ended, call

from compressor.arch import Unit
from compressor.codec import decode
from compressor.data import load_data
from compressor.data.types import Data
from compressor.folders import read_metrics
from compressor.mixture import decide, load_mixture, mix
from compressor.model import load
from compressor.quality import quality
from compressor.report.moe_figures import draw
from compressor.routing import all_outputs
from compressor.store import Store
from compressor.studies import moe_rivals as rivals
from compressor.studies.moe_results import (
    AS_CHEAP,
    AS_LARGE,
    BASELINE,
    EQUAL_COST,
    MIXTURE,
    ORACLE,
    Contender,
    Study,
    named,
)

EXPERTS = "[{order:DQ,distill:{width:0.5}},{order:DQ,distill:{width:1.0},seed:1}]"
WORDS = (*TINY, "name=mixed", "moe.seeds=[0,1]", f"moe.experts={EXPERTS}", "moe.budget.macs=0.6")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("place")


@pytest.fixture(scope="module")
def first(place: Path) -> Ended:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        return call("moe", *WORDS)


@pytest.fixture(autouse=True)
def _there(place: Path, first: Ended, monkeypatch: pytest.MonkeyPatch) -> None:
    assert first.code == 0, first.err
    monkeypatch.chdir(place)


@pytest.fixture(scope="module")
def study(place: Path, first: Ended) -> Study:
    assert " images (" in first.out
    path = place / first.out.splitlines()[-1].removeprefix("mixtures: ")
    return decode(Study, json.loads(path.read_text()))


@pytest.fixture(scope="module")
def folder(place: Path, first: Ended) -> Path:
    return (place / first.out.splitlines()[-1].removeprefix("mixtures: ")).parent


@pytest.fixture(scope="module")
def store(place: Path) -> Store:
    return Store(place / "outputs" / "store")


@pytest.fixture(scope="module")
def data(place: Path) -> Data:
    return load_data(replace(DATASET, limit=100), RUNTIME)


@pytest.fixture(scope="module")
def arena(study: Study, store: Store, data: Data) -> rivals.Arena:
    key = study.trials[0].key
    return rivals.Arena(load_mixture(store.folder(key)), key, data, RUNTIME)


def get(study: Study, name: str, seed: int = 0) -> Contender:
    found = named(study.trials[seed], name)
    assert found is not None
    return found


def trained(store: Store, key: str) -> int:
    """Count the epochs of a chain's phases, its baseline's left out."""
    record = store.record(key)
    assert record is not None
    before = record.inputs.get("model")
    return record.config["fit"]["epochs"] + trained(store, before.key) if before else 0


class TestCommand:
    def test_shows_the_mixture_its_rivals_and_a_verdict(self, first: Ended) -> None:
        rows = ("mixture", "baseline", "best single expert", "single network of its size", "uniform ensemble")
        for words in (*rows, "random router", "oracle router", "equal active cost", "router: ", "2 seeds"):
            assert words in first.out
        assert max(map(len, first.out.splitlines()[:-4])) <= 120

    def test_leaves_the_mixtures_as_folders_and_the_figures(self, folder: Path) -> None:
        names = {path.name for path in folder.iterdir()}
        assert {"00-baseline", "01-moe", "02-baseline", "03-moe", "run.json", "moe.json"} <= names
        assert {f"{name}.{kind}" for name in ("budget", "classes") for kind in ("png", "svg")} <= names
        assert (folder / "01-moe" / "mixture.json").is_file()

    def test_a_class_name_is_no_formula_in_a_figure(self, study: Study, tmp_path: Path) -> None:
        names = ("$x_{$", "a\u202eb", *study.classes[2:])
        _, _, _, svg = draw(replace(study, classes=names), tmp_path)
        assert "a\\u202eb" in svg.read_text()

    def test_every_number_has_the_keys_of_stored_steps(self, study: Study, store: Store) -> None:
        assert study.keys
        for key in study.keys:
            assert store.record(key) is not None

    def test_the_numbers_are_those_of_the_records(self, study: Study, store: Store) -> None:
        for trial in study.trials:
            for name in (MIXTURE, BASELINE, "single network of its size"):
                found = named(trial, name)
                assert found is not None
                after = read_metrics(store.folder(found.keys[0])).after
                assert (found.val.quality, found.test.quality) == (after.val.quality, after.test.quality)
                assert (found.test.macs, found.test.bitops) == (after.test.macs, after.test.bitops)
                assert (found.params, found.size_bits) == (after.cost.params, after.cost.size_bits)

    def test_a_second_call_finds_everything_and_gives_the_same(self, study: Study, first: Ended, place: Path) -> None:
        again = call("moe", *WORDS)
        assert again.code == 0, again.err
        path = place / again.out.splitlines()[-1].removeprefix("mixtures: ")
        assert decode(Study, json.loads(path.read_text())) == study

    def test_what_it_needs_is_not_cleaned_away(self) -> None:
        assert call("clean").out.startswith("0 folders")

    def test_the_mixture_is_listed_and_evaluated_like_any_model(self, folder: Path, study: Study) -> None:
        assert "01-moe" in call("list").out
        assert call("evaluate", *TINY, f"checkpoint={folder / '01-moe'}").code == 0
        found = sorted((folder.parents[1] / "evaluations").rglob("evaluate.json"))[-1]
        scores = json.loads(found.read_text())["measured"]["test"]["quality"]["scores"]
        assert scores["accuracy"]["value"] == get(study, MIXTURE).test.quality.scores["accuracy"].value


class TestRivals:
    def test_the_single_network_is_the_widest_that_is_no_larger(self, study: Study, store: Store) -> None:
        found = get(study, "single network of its size")
        record = store.record(found.keys[0])
        assert record is not None
        assert found.size_bits <= get(study, MIXTURE).size_bits
        distill = store.record(record.inputs["model"].key)
        assert distill is not None
        width = distill.config["width"]
        assert width == 1.0 or found.size_bits > 0.7 * get(study, MIXTURE).size_bits

    def test_the_single_network_as_cheap_trains_as_long_as_an_expert_does(self, study: Study, store: Store) -> None:
        for trial in study.trials:
            ours, rival = named(trial, MIXTURE), trial.candidates[-1]
            assert ours is not None
            assert rival.name == AS_CHEAP
            assert rival.val.bitops <= ours.val.bitops
            mixture = store.record(trial.key)
            assert mixture is not None
            longest = max(trained(store, key) for key in trial.experts)
            assert trained(store, rival.keys[0]) == longest + mixture.config["joint"]["fit"]["epochs"]

    def test_the_oracle_is_at_least_as_good_as_the_mixture_and_every_expert_in_it(self, study: Study) -> None:
        for seed, trial in enumerate(study.trials):
            best = get(study, ORACLE, seed).test.quality.scores["accuracy"].value
            inside = [c for c in trial.candidates if c.name.endswith("from the mixture")]
            for found in (get(study, MIXTURE, seed), *inside):
                assert best >= found.test.quality.scores["accuracy"].value

    def test_the_random_router_spends_what_the_mixture_does(self, study: Study) -> None:
        for seed in range(2):
            ours, random = get(study, MIXTURE, seed), get(study, "random router", seed)
            assert random.test.bitops == pytest.approx(ours.test.bitops)
            assert random.shares == pytest.approx(ours.shares)

    def test_the_ensemble_is_the_mean_of_what_the_recipes_experts_say(
        self, study: Study, store: Store, data: Data
    ) -> None:
        found = get(study, "uniform ensemble")
        models = [load(store.folder(key)) for key in found.keys]
        chances = torch.stack([torch.softmax(all_outputs(model, data.test)[-1], 1) for model in models]).mean(0)
        right = (chances.argmax(1) == torch.from_numpy(data.test.targets)).float().mean().item()
        assert found.test.quality.scores["accuracy"].value == pytest.approx(right)
        costs = [read_metrics(store.folder(key)).after for key in found.keys]
        assert found.test.bitops == sum(after.test.bitops for after in costs)
        assert found.size_bits == sum(after.cost.size_bits for after in costs)

    def test_an_expert_of_the_mixture_alone_is_what_it_answers_without_the_routers_cost(
        self, arena: rivals.Arena, study: Study, data: Data
    ) -> None:
        alone = [c for c in study.trials[0].candidates if c.name.endswith("from the mixture")]
        for expert, found in enumerate(alone):
            outputs = all_outputs(arena.mixture.experts[expert], data.test)[-1]
            targets = torch.from_numpy(data.test.targets)
            assert found.test.quality == quality(outputs, targets, data.task, medmnist=False)
            assert found.test.bitops == arena.costs.experts[expert].bitops

    def test_the_best_single_expert_as_cheap_costs_no_more_than_the_mixture(self, study: Study) -> None:
        for trial in study.trials:
            ours, rival = named(trial, MIXTURE), named(trial, EQUAL_COST)
            assert ours is not None
            assert rival is None or rival.val.bitops <= 1.02 * ours.val.bitops

    def test_no_single_network_as_cheap_is_better_on_val_than_the_one_the_mixture_is_compared_with(self, study: Study):
        for trial in study.trials:
            ours, rival, large = (named(trial, name) for name in (MIXTURE, EQUAL_COST, AS_LARGE))
            assert ours is not None
            assert large is not None
            cheap = [c for c in (*trial.candidates, large) if c.val.bitops <= 1.02 * ours.val.bitops]
            scores = [c.val.quality.scores["accuracy"].value for c in cheap]
            assert (rival.val.quality.scores["accuracy"].value if rival else None) == max(scores, default=None)


class TestSweep:
    def test_every_spot_keeps_its_budget_on_val(self, study: Study) -> None:
        for trial in study.trials:
            assert len(trial.sweep) == rivals.SPOTS
            assert all(spot.val_bitops <= spot.limit * (1 + 1e-9) for spot in trial.sweep)

    def test_begins_at_the_cheapest_expert_and_spends_more_as_it_may(self, study: Study, arena: rivals.Arena) -> None:
        costs = [spot.val_bitops for spot in study.trials[0].sweep]
        least = arena.costs.least(arena.mixture.rule, Unit.BITOPS)
        assert costs[0] == pytest.approx(least, rel=1e-5)
        assert costs == sorted(costs)

    def test_the_mixtures_own_rule_is_what_its_weights_say(self, arena: rivals.Arena, study: Study, data: Data) -> None:
        weights = decide(arena.test.survey.scores, arena.mixture.rule)
        answers = mix(arena.test.survey.outputs, weights, data.task)
        right = (answers.argmax(1) == arena.test.targets).float().mean().item()
        assert get(study, MIXTURE).test.quality.scores["accuracy"].value == pytest.approx(right)
