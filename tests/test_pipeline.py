"""Steps and chains: a key is the whole cause, a result is made once, an interrupted step goes on."""

import itertools
import json
import logging
import random
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import fakes
import pytest
import yaml
from hypothesis import given as examples
from hypothesis import settings
from hypothesis import strategies as st

from compressor.errors import CompressorError, Interrupted, ModelError, StoreError, TrainingError
from compressor.folders import read_metrics, read_record
from compressor.phase import Phase
from compressor.pipeline import Given, Step, given, inputs_first, run

ORDERS = ["".join(letters) for letters in itertools.permutations("DPQE")]


@pytest.fixture(autouse=True)
def _fakes(monkeypatch):
    fakes.measured.clear()
    for name, module in fakes.modules().items():
        monkeypatch.setitem(sys.modules, name, module)


def finish(root: Path, step: Step, fingerprint: str = "data"):
    reported = []
    record = run(step, fakes.bench(root, fingerprint), lambda *line: reported.append(line))
    return record, reported


def chain(order: str, *arguments, **options) -> Step:
    step = fakes.chain(order, *arguments, **options)
    assert isinstance(step, Step)
    return step


def copied(record, root: Path, target: Path) -> Path:
    """Copy a finished step out of the store, as a user may."""
    fakes.bench(root).store.link(record.key, target)
    for path in target.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            path.unlink()
            path.write_bytes(content)
    return target


@dataclass(frozen=True)
class Config:
    number: float
    text: str
    flag: bool
    several: tuple[int, ...]
    maybe: int | None


configs = st.builds(
    Config,
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=4),
    st.booleans(),
    st.lists(st.integers(), max_size=3).map(tuple),
    st.none() | st.integers(),
)
causes = st.tuples(
    st.sampled_from(["prune", "quantize"]),
    st.integers(1, 3),
    configs,
    st.dictionaries(st.sampled_from(["model", "teacher"]), st.sampled_from(["prune-1", "prune-2"]), max_size=2),
    st.sampled_from(["digits", "cifar"]),
)


def step_of(cause) -> Step:
    name, version, config, inputs, data = cause
    phase = Phase(name, "X", version, Config, "nowhere:nothing")
    sources = tuple((role, Given(key, Path("anywhere"), "digest")) for role, key in inputs.items())
    return Step(phase, config, sources, data)


class TestKeys:
    @examples(causes, causes)
    @settings(max_examples=300, deadline=None)
    def test_keys_are_equal_exactly_when_the_whole_cause_is(self, one, other):
        same = json.dumps([*one[:2], vars(one[2]), one[3], one[4]], sort_keys=True) == json.dumps(
            [*other[:2], vars(other[2]), other[3], other[4]], sort_keys=True
        )
        assert (step_of(one).key == step_of(other).key) == same

    @examples(causes, st.integers(0, 4), st.data())
    @settings(max_examples=300, deadline=None)
    def test_a_change_of_any_one_part_changes_the_key(self, cause, part, draw):
        other = draw.draw(causes.map(lambda c: c[part]).filter(lambda value: value != cause[part]))
        assert step_of(cause).key != step_of((*cause[:part], other, *cause[part + 1 :])).key

    @examples(configs, st.sampled_from(["number", "text", "flag", "several", "maybe"]), st.data())
    @settings(max_examples=300, deadline=None)
    def test_a_change_of_any_one_setting_changes_the_key_and_those_after_it(self, config, field, draw):
        value = draw.draw(configs.map(lambda c: getattr(c, field)).filter(lambda v: v != getattr(config, field)))
        one, other = (step_of(("prune", 1, c, {}, "digits")) for c in (config, replace(config, **{field: value})))
        after = [chain("Q", start=Given(step.key, Path("anywhere"), "digest")) for step in (one, other)]
        assert one.key != other.key
        assert after[0].key != after[1].key

    def test_roles_are_part_of_the_cause(self):
        models = {name: Given(name, Path(name), name) for name in ("a", "b")}
        one = replace(chain("D"), inputs=(("model", models["a"]), ("teacher", models["b"])))
        other = replace(chain("D"), inputs=(("model", models["b"]), ("teacher", models["a"])))
        assert one.key != other.key

    def test_where_a_checkpoint_lies_is_no_part_of_the_cause(self):
        assert len({chain("Q", start=Given("prune-1", Path(place), "digest")).key for place in ("a", "b")}) == 1

    def test_an_order_of_five_thousand_letters_has_a_key(self):
        last = fakes.baseline()
        for _ in range(5000):
            last = Step(fakes.PHASES["P"], fakes.FakeConfig(), (("model", last),), "data")
            assert last.key
        assert len(inputs_first(last)) == 5001


class TestSharing:
    def test_the_24_orders_of_dpqe_are_65_steps_and_a_second_call_runs_none(self, tmp_path):
        for order in ORDERS:
            finish(tmp_path, chain(order))
        assert len(fakes.ran(tmp_path)) == len(set(fakes.ran(tmp_path))) == 65
        for order in ORDERS:
            _, reported = finish(tmp_path, chain(order))
            assert [stored for *_, stored in reported] == [True] * 5
        assert len(fakes.ran(tmp_path)) == 65

    def test_every_step_is_reported_once_and_inputs_come_first(self, tmp_path):
        last = chain("DDP")
        _, reported = finish(tmp_path, last)
        assert [source.name for source, *_ in reported] == ["baseline", "distill", "distill", "prune"]
        assert [source.key for source, *_ in reported] == [source.key for source in inputs_first(last)]
        assert all(record.key == source.key == metrics.key for source, record, metrics, _ in reported)

    def test_quantizing_a_saved_checkpoint_is_the_same_step_as_in_a_chain(self, tmp_path):
        record, _ = finish(tmp_path, chain("DP"))
        folder = copied(record, tmp_path, tmp_path / "run" / "02-prune")
        alone = chain("Q", start=given(folder))
        assert alone.key == chain("DPQ").key
        finish(tmp_path, alone)
        assert [stored for *_, stored in finish(tmp_path, chain("DPQ"))[1]] == [True] * 4

    def test_a_checkpoint_of_the_store_is_used_after_the_store_is_gone(self, tmp_path):
        folder = copied(finish(tmp_path, chain("P"))[0], tmp_path, tmp_path / "run" / "01-prune")
        shutil.rmtree(tmp_path / "store")
        _, reported = finish(tmp_path, chain("Q", start=given(folder)))
        assert [(source.name, stored) for source, _, _, stored in reported] == [("quantize", False)]


class TestGiven:
    def test_a_folder_with_other_weights_than_its_record_is_a_model_of_its_own(self, tmp_path):
        folder = copied(finish(tmp_path, chain("P"))[0], tmp_path, tmp_path / "mine")
        weights = folder / "weights.safetensors"
        weights.write_bytes(weights.read_bytes()[::-1])
        source = given(folder)
        assert source.key == f"given-{source.model}"
        assert (source.name, source.record) == ("given", None)

    def test_a_mere_model_folder_is_keyed_by_content_and_is_its_own_original(self, tmp_path, monkeypatch):
        self.count_bits(monkeypatch)
        folder = tmp_path / "mine"
        folder.mkdir()
        digest = fakes.save(fakes.FakeModel({"size": 1, "quantization": None}, b"ABCD"), folder)
        _, reported = finish(tmp_path, chain("Q", start=given(folder)))
        ((_, record, metrics, _),) = reported
        assert record.inputs["model"].key == record.original.key == f"given-{digest}"
        assert metrics.before is not None
        assert metrics.before.cost.checkpoint_bytes == sum(path.stat().st_size for path in folder.iterdir())
        assert record.original.bitops == metrics.before.test.macs * 1024

    def count_bits(self, monkeypatch):
        @dataclass(frozen=True)
        class Arch:
            quantization: str | None

        arch = Arch("4 bits")
        load = sys.modules["compressor.model"].load
        monkeypatch.setattr(
            sys.modules["compressor.model"], "load", lambda folder: fakes.FakeModel(arch, load(folder).weights)
        )
        monkeypatch.setattr(sys.modules["compressor.model"], "fresh", lambda arch, seed: arch, raising=False)
        cost = type(sys)("compressor.cost")
        cost.__dict__["size_bits"] = lambda arch: 320 if arch.quantization is None else 40
        monkeypatch.setitem(sys.modules, "compressor.cost", cost)

    def test_the_original_of_a_quantized_model_without_a_record_counts_it_in_full_precision(
        self, tmp_path, monkeypatch
    ):
        self.count_bits(monkeypatch)
        folder = tmp_path / "mine"
        folder.mkdir()
        fakes.save(fakes.FakeModel({"quantization": "4 bits"}, b"ABCD"), folder)
        record, _ = finish(tmp_path, chain("P", start=given(folder)))
        assert record.original.size_bits == 320

    def test_a_mixture_is_refused_by_name(self, tmp_path):
        (tmp_path / "mixture.json").write_text("{}")
        with pytest.raises(ModelError, match="is a mixture of models"):
            given(tmp_path)

    @pytest.mark.parametrize("name", ["record.json", "arch.json"])
    def test_a_cut_json_file_of_a_checkpoint_is_refused_by_name(self, tmp_path, name):
        folder = copied(finish(tmp_path, chain("P"))[0], tmp_path, tmp_path / "mine")
        (folder / name).write_text((folder / name).read_text()[:-3])
        with pytest.raises(CompressorError, match=name):
            given(folder)

    def test_a_folder_without_a_model_is_refused_with_what_would_be_right(self, tmp_path):
        with pytest.raises(ModelError, match="give the folder of a phase"):
            given(tmp_path)

    def test_changed_metrics_of_a_checkpoint_are_refused_by_name(self, tmp_path):
        folder = copied(finish(tmp_path, chain("P"))[0], tmp_path, tmp_path / "mine")
        path = folder / "metrics.json"
        path.write_text(path.read_text().replace("0.5", "0.9"))
        with pytest.raises(StoreError, match=r"metrics\.json"):
            finish(tmp_path, chain("QE", start=given(folder)))

    def test_a_checkpoint_that_changes_after_planning_is_refused(self, tmp_path):
        folder = copied(finish(tmp_path, chain("P"))[0], tmp_path, tmp_path / "mine")
        step = chain("Q", start=given(folder))
        (folder / "weights.safetensors").write_bytes(b"others")
        with pytest.raises(StoreError, match="changed while"):
            finish(tmp_path, step)


class TestRecords:
    def test_ratios_refer_to_the_baseline_however_long_the_chain(self, tmp_path):
        _, reported = finish(tmp_path, chain("DPQE"))
        first = reported[0][2]
        for source, record, metrics, _ in reported:
            assert record.original == metrics.original == first.original
            assert metrics.original.key == reported[0][0].key
            assert metrics.bitops_ratio == first.after.test.bitops / metrics.after.test.bitops
            assert metrics.size_ratio == first.after.cost.size_bits / metrics.after.cost.size_bits
            assert record.phase == source.name
        assert (first.bitops_ratio, first.size_ratio) == (1, 1)

    def test_nothing_is_measured_twice_on_the_same_data(self, tmp_path):
        _, reported = finish(tmp_path, chain("DPQ"))
        assert len(fakes.measured) == 4
        for earlier, later in itertools.pairwise(reported):
            assert later[2].before == earlier[2].after
        assert reported[0][2].before is None

    def test_a_checkpoint_from_other_data_is_measured_on_these(self, tmp_path):
        folder = copied(finish(tmp_path, chain("P"))[0], tmp_path, tmp_path / "mine")
        fakes.measured.clear()
        step = replace(chain("Q", start=given(folder)), data="other")
        record, _ = finish(tmp_path, step, "other")
        assert len(fakes.measured) == 2
        assert record.original == read_record(folder).original

    def test_a_record_says_what_when_and_where(self, tmp_path):
        record, _ = finish(tmp_path, chain("D"))
        folder = tmp_path / "store" / record.key
        assert set(record.inputs) == {"model", "teacher"}
        assert set(record.environment) == {"python", "torch", "compressor", "machine", "cpu", "threads", "device"}
        assert record.created.endswith("+00:00")
        assert yaml.safe_load((folder / "config.yaml").read_text()) == record.config
        assert (folder / "history.jsonl").read_text().count("\n") == 4

    def test_a_step_that_trains_nothing_has_an_empty_history(self, tmp_path, monkeypatch):
        untrained = fakes.FakeModel({"size": 1}, b"ABCD")
        monkeypatch.setattr(sys.modules["fake_techniques"], "technique", lambda config, context, **models: untrained)
        record, _ = finish(tmp_path, chain(""))
        assert (tmp_path / "store" / record.key / "history.jsonl").read_text() == ""

    def test_a_measurement_that_is_not_finite_is_one_line_and_finishes_nothing(self, tmp_path, monkeypatch):
        def measure(*arguments):
            measured = fakes.measure(*arguments)
            return replace(measured, val=replace(measured.val, macs=float("nan")))

        monkeypatch.setattr(sys.modules["compressor.measure"], "measure", measure)
        with pytest.raises(TrainingError, match="not finite"):
            finish(tmp_path, chain(""))
        assert not (tmp_path / "store" / chain("").key).exists()


class TestStaleResults:
    def test_a_result_of_other_inputs_is_refused_with_the_folder_to_remove(self, tmp_path):
        record, _ = finish(tmp_path, chain("P"))
        first = tmp_path / "store" / chain("").key
        shutil.rmtree(first)
        (tmp_path / "log").unlink()
        technique = sys.modules["fake_techniques"].technique
        sys.modules["fake_techniques"].__dict__["technique"] = lambda config, context, **models: replace(
            technique(config, context, **models), weights=b"other weights"
        )
        with pytest.raises(StoreError) as caught:
            finish(tmp_path, chain("P"))
        assert f"remove {tmp_path / 'store' / record.key} " in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_a_lost_input_is_made_again_and_what_came_after_is_used(self, tmp_path):
        finish(tmp_path, chain("P"))
        shutil.rmtree(tmp_path / "store" / chain("").key)
        assert [stored for *_, stored in finish(tmp_path, chain("P"))[1]] == [False, True]


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
        noted = json.loads(note.read_text())
        assert 0 < noted["seconds"] < 60
        note.write_text(json.dumps(noted | {"seconds": 1000.0}))
        record, reported = finish(tmp_path, chain("", config))
        assert 1000 < record.seconds < 1060
        assert reported[0][2].seconds == record.seconds

    @pytest.mark.parametrize(("field", "warns"), [("torch", True), ("cpu", True), ("threads", True), ("python", False)])
    def test_going_on_elsewhere_is_said_in_one_line(self, tmp_path, caplog, field, warns):
        config = fakes.FakeConfig(stop_after=2)
        with pytest.raises(Interrupted):
            finish(tmp_path, chain("", config))
        note = tmp_path / "store" / f".draft-{chain('', config).key}" / "draft.json"
        noted = json.loads(note.read_text())
        noted["environment"][field] = "another"
        note.write_text(json.dumps(noted))
        with caplog.at_level(logging.WARNING):
            finish(tmp_path, chain("", config))
        lines = [entry.getMessage() for entry in caplog.records]
        assert len(lines) == warns
        assert all("another environment" in line and "\n" not in line for line in lines)

    def test_a_damaged_note_of_a_draft_costs_its_seconds_only(self, tmp_path):
        config = fakes.FakeConfig(stop_after=2)
        with pytest.raises(Interrupted):
            finish(tmp_path, chain("", config))
        (tmp_path / "store" / f".draft-{chain('', config).key}" / "draft.json").write_text("{")
        assert finish(tmp_path, chain("", config))[0].seconds < 60

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
