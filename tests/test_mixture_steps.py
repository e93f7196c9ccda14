"""A mixture as a step of the store, on every kind of task: it is worth more than chance, and goes on where it was."""

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import mixtures
import pytest
import samples
import torch

from compressor import history
from compressor.arch import FLOAT, Routing, Unit
from compressor.codec import decode, encode
from compressor.config.moe import BudgetConfig
from compressor.cost import paths
from compressor.data.types import Data
from compressor.errors import Interrupted
from compressor.folders import read_metrics, read_record
from compressor.mixture import Mixture, answer, load_mixture, measure, oracle, settle, survey
from compressor.model import fresh
from compressor.pipeline import Bench, run
from compressor.progress import silent
from compressor.quality import per_image
from compressor.records import Metrics
from compressor.store import Store
from compressor.studies.moe_rivals import SPOTS, Arena, sweep
from compressor.training import Context


def learned(data: Data, folder: Path, routing: Routing, *, exits: bool = False) -> Mixture:
    """Train a mixture from the start, longer, and choose on val."""
    config = replace(mixtures.FIT, epochs=12, batch=30)
    settings = replace(
        mixtures.CONFIG, routing=routing, router=replace(mixtures.ROUTER, fit=config),
        joint=replace(mixtures.CONFIG.joint, fit=config),
    )  # fmt: skip
    roles = {role: fresh(model.arch, 3) for role, model in mixtures.networks(data.task, exits=exits).items()}
    floats = {role: fresh(replace(model.arch, quantization=None), 3) for role, model in roles.items()}
    mixture = mixtures.made(Context(data, folder, samples.RUNTIME), settings, **floats)
    settle(mixture, data, samples.RUNTIME)
    return mixture


@pytest.mark.parametrize(
    ("name", "routing"),
    [
        *((name, Routing.TOP1) for name in mixtures.TASKS),
        ("multiclass", Routing.CASCADE),
        ("multilabel", Routing.CASCADE),
    ],
)
def test_the_oracle_is_at_least_the_mixture_which_is_at_least_random(name, routing, digits, tmp_path):
    task = mixtures.TASKS[name]
    data = mixtures.asking(digits, task)
    mixture = learned(data, tmp_path, routing, exits=task is samples.TASK)
    targets = torch.from_numpy(data.test.targets)
    seen, given = survey(mixture, data.test), answer(mixture, data.test)

    def score(outputs: torch.Tensor) -> float:
        return float(per_image(outputs, targets, task).double().mean())

    best = oracle(seen, mixture.rule, targets, task)
    from compressor.mixture.choice import weighted

    each = [score(outputs) for outputs in seen.outputs]
    reached = score(given.outputs)
    assert score(weighted(mixture, seen, best).outputs) >= max(reached, *each) - 1e-9
    assert reached >= sum(each) / len(each)
    measured = measure(mixture, data, samples.RUNTIME)
    assert len(measured.test.heads) == 3
    assert measured.test.quality.n == len(data.test)
    part = measured.mixture
    assert part is not None
    assert part.test.oracle == pytest.approx(score(weighted(mixture, seen, best).outputs))
    assert len(part.test.by_class) == (0 if task.kind == "regression" else task.outputs)


def test_a_router_that_sends_all_to_one_expert_is_found_out(digits):
    mixture = mixtures.toy()

    def collapsed() -> int | None:
        part = measure(mixture, digits, samples.RUNTIME).mixture
        assert part is not None
        return part.collapsed

    assert collapsed() is None
    for expert in range(3):
        mixture.follow(replace(mixture.rule, prices=tuple(0.0 if i == expert else 1e4 for i in range(3))))
        assert collapsed() == expert
    for model in mixture.experts:  # equal answers: nobody would help
        model.net.head.score.weight.data.zero_()
        model.net.head.score.bias.data.copy_(torch.arange(10.0))
    assert collapsed() is None


@pytest.mark.parametrize("k", [2, 3])
def test_an_expert_that_is_asked_second_by_all_has_not_swallowed_the_others(digits, k):
    mixture = mixtures.toy()
    mixture.follow(replace(mixture.rule, routing=Routing.TOPK, k=k, prices=(0.0, 0.0, 0.0)))
    weights = answer(mixture, digits.val).weights
    asked, first = (weights > 0).double().mean(dim=0), torch.bincount(weights.argmax(dim=1), minlength=3)
    assert asked.max() > first.max() / len(weights)
    part = measure(mixture, digits, samples.RUNTIME).mixture
    assert part is not None
    assert part.collapsed is None


def test_a_sweep_starts_at_what_the_expert_costs_that_a_threshold_asks_first(digits):
    mixture = mixtures.toy(Routing.THRESHOLD, order=(0, 1, 2))
    arena = Arena(mixture, "key", digits, samples.RUNTIME)
    each = arena.costs.each(arena.val.survey.heads, Unit.BITOPS).mean(dim=0).tolist()
    assert each[0] > each[1], "as where early exits make the second one cheaper"
    spots = sweep(arena)
    assert len(spots) == SPOTS
    assert all(spot.val_bitops <= spot.limit for spot in spots)
    assert spots[0].limit == pytest.approx(arena.costs.always(Unit.BITOPS) + each[0], rel=1e-5)


class TestStore:
    @pytest.fixture
    def bench(self, digits, tmp_path) -> Bench:
        return Bench(Store(tmp_path / "store"), digits, samples.RUNTIME, {}, silent)

    @pytest.fixture
    def config(self):
        return replace(mixtures.CONFIG, budget=BudgetConfig(None, 0.2))

    def test_it_is_a_step_like_any_other(self, bench, config, digits, tmp_path):
        told: list[bool] = []
        step = mixtures.step(tmp_path / "given", digits, config)

        def hear(source, record, metrics, stored) -> None:
            told.append(stored)

        record = run(step, bench, hear)
        folder = bench.store.folder(step.key)
        assert run(mixtures.step(tmp_path / "given", digits, config), bench, hear) == record
        assert told == [False, True]
        names = {path.name for path in folder.iterdir()}
        assert names == {"mixture.json", "weights.safetensors", "metrics.json", "record.json", "history.jsonl",
                         "config.yaml", "tb"}  # fmt: skip
        assert step.key.startswith("moe-")
        assert set(record.inputs) == {"original", "expert0", "expert1", "expert2"}
        assert record.original.key == record.inputs["original"].key

    @pytest.mark.parametrize("routing", [Routing.TOP1, Routing.CASCADE])
    def test_its_metrics_follow_the_published_schema_and_its_budget_holds_on_val(
        self, routing, bench, config, digits, tmp_path
    ):
        step = mixtures.step(tmp_path / "given", digits, replace(config, routing=routing))
        run(step, bench, lambda *_: None)
        folder = bench.store.folder(step.key)
        data = json.loads((folder / "metrics.json").read_text())
        schema = Path(history.__file__).parent / "schemas" / "metrics.schema.json"
        jsonschema.validate(data, json.loads(schema.read_text()))
        metrics = read_metrics(folder)
        assert encode(decode(Metrics, data)) == data
        assert metrics.before is None
        original = paths(mixtures.networks()["original"])[-1].macs * FLOAT * FLOAT
        assert metrics.original.bitops == original
        assert metrics.after.val.bitops <= 0.2 * original
        assert metrics.bitops_ratio == pytest.approx(original / metrics.after.test.bitops)
        files = [folder / name for name in ("mixture.json", "weights.safetensors")]
        assert metrics.after.cost.checkpoint_bytes == sum(path.stat().st_size for path in files)
        again = measure(load_mixture(folder), digits, samples.RUNTIME)
        assert again.test == metrics.after.test

    def test_interrupted_in_the_store_it_goes_on_and_ends_alike(self, bench, digits, tmp_path, signals):
        step = mixtures.step(tmp_path / "given", digits)
        with pytest.raises(Interrupted):
            run(step, replace(bench, progress=mixtures.stopping("joint", 4, mixtures.terminate)), lambda *_: None)
        signals()
        assert not bench.store.folder(step.key).exists()
        record = run(step, bench, lambda *_: None)
        other = replace(bench, store=Store(tmp_path / "other"))
        assert run(step, other, lambda *_: None).model == record.model

    def test_a_changed_file_of_a_mixture_is_found(self, bench, digits, tmp_path):
        step = mixtures.step(tmp_path / "given", digits)
        run(step, bench, lambda *_: None)
        path = bench.store.folder(step.key) / "mixture.json"
        path.chmod(0o644)
        path.write_text(path.read_text().replace('"threshold": 0.5', '"threshold": 0.4'))
        with pytest.raises(Exception, match=r"mixture\.json or weights\.safetensors is not what record\.json says"):
            bench.store.record(step.key)
        assert read_record(path.parent).key == step.key
