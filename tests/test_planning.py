"""Planning: settings become steps whose keys are known before anything runs, without torch."""

import itertools
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import fakes
import pytest
from hypothesis import given as examples
from hypothesis import settings
from hypothesis import strategies as st

from compressor import planning
from compressor.arch import Bits, Criterion, Exits, Quantization, Task, TaskKind
from compressor.codec import encode
from compressor.config import (
    ArchitectureConfig,
    AugmentConfig,
    BaselineSettings,
    DatasetConfig,
    DistillConfig,
    ExitConfig,
    FitConfig,
    Importance,
    Init,
    Optimizer,
    Precision,
    PruneConfig,
    PruneTarget,
    QuantizeConfig,
    RunConfig,
    Schedule,
    Scope,
    Train,
)
from compressor.data.types import Data
from compressor.errors import CompressorError, ConfigError
from compressor.families import architecture
from compressor.folders import FORMAT, RECORD, key_of
from compressor.phase import BY_NAME
from compressor.pipeline import Given, Step
from compressor.planning import Plan, plan
from compressor.records import SCHEMA, InputRecord, Original, Record
from compressor.store import digest_of

FIT = FitConfig(
    epochs=2,
    batch=32,
    optimizer=Optimizer.SGD,
    lr=0.1,
    momentum=0.9,
    weight_decay=5e-4,
    schedule=Schedule.COSINE,
    warmup=1.0,
    label_smoothing=0.0,
    ema=0.0,
    precision=Precision.AUTO,
    channels_last=False,
    compile=False,
    seed=0,
)
CONFIG = RunConfig(
    name="test",
    order="DPQE",
    checkpoint=None,
    seed=0,
    store="store",
    runs="runs",
    cost_table=False,
    dataset=DatasetConfig(
        "fake", None, None, None, None, None, None, "auto", 0, skip_unreadable=False, augment=AugmentConfig(0, False, 0)
    ),
    architecture=ArchitectureConfig("resnet20", 0.25, "auto", None, None, None),
    fit=FIT,
    baseline=BaselineSettings(None, {}, FIT),
    distill=DistillConfig(0.5, 1.0, None, Init.FRESH, None, "baseline", 4.0, 0.5, 0.0, FIT),
    prune=PruneConfig(0.5, PruneTarget(None, None), Importance.L1, Scope.LAYER, 1, 0, FIT),
    quantize=QuantizeConfig(Bits(4, 4), 8, 100, FIT),
    exit=ExitConfig((0.5,), Criterion.CONFIDENCE, 0.01, 0, Train.JOINT, FIT),
    runtime=fakes.RUNTIME,
)
DATA = fakes.data()


def keys(config: RunConfig, data: Data = DATA) -> list[str]:
    return [source.key for source in plan(config, data).steps]


def steps(planned: Plan) -> list[Step]:
    return [source for source in planned.steps if isinstance(source, Step)]


def model_folder(folder: Path, data: Data = DATA, **changes) -> Path:
    """Write a model's folder with an arch and some bytes for weights."""
    folder.mkdir(parents=True)
    arch = architecture(CONFIG.architecture, data.channels, data.size, data.mean, data.std, data.task)
    arch = replace(arch, **changes)
    (folder / "arch.json").write_text(json.dumps({"format": FORMAT, "arch": encode(arch)}))
    (folder / "weights.safetensors").write_bytes(folder.name.encode())
    return folder


def recorded(folder: Path, step: Step, original: str | None = None) -> Path:
    """Write the record of a step beside a model."""
    record = Record(
        schema=SCHEMA,
        key=step.key,
        phase=step.phase.name,
        version=step.phase.version,
        config=encode(step.config),
        inputs={role: InputRecord(source.key, "digest") for role, source in step.inputs},
        data=step.data,
        model=digest_of(folder),
        original=Original(original or step.key, 1.0, 1),
        seconds=1.0,
        created="2026-01-01T00:00:00+00:00",
        environment={},
    )
    (folder / RECORD).write_text(json.dumps(encode(record)))
    return folder


class TestChains:
    def test_the_24_orders_of_dpqe_share_65_keys(self):
        orders = ("".join(letters) for letters in itertools.permutations("DPQE"))
        assert len({key for order in orders for key in keys(replace(CONFIG, order=order))}) == 65

    def test_an_order_becomes_the_baseline_and_one_step_a_letter(self):
        planned = plan(replace(CONFIG, order="dPq"), DATA)
        assert [source.name for source in planned.steps] == ["baseline", "distill", "prune", "quantize"]
        for before, step in itertools.pairwise(planned.steps):
            assert dict(step.inputs)["model"] is before
        assert planned.last is planned.steps[-1]

    def test_the_empty_order_is_the_baseline(self):
        (only,) = plan(replace(CONFIG, order=""), DATA).steps
        assert only.name == "baseline"

    def test_a_letter_that_is_none_is_refused_with_those_there_are(self):
        with pytest.raises(ConfigError, match="its letters are D, P, Q, E"):
            plan(replace(CONFIG, order="DX"), DATA)

    def test_the_same_letter_twice_is_two_steps(self):
        assert len(set(keys(replace(CONFIG, order="PPP")))) == 4

    def test_planning_imports_no_torch(self, tmp_path):
        folder = model_folder(tmp_path / "model")
        script = (
            "import sys; sys.path.insert(0, sys.argv[1]); import test_planning as t; from dataclasses import replace\n"
            "t.plan(t.CONFIG, t.DATA); t.plan(replace(t.CONFIG, checkpoint=sys.argv[2]), t.DATA)\n"
            "sys.exit('torch' in sys.modules)"
        )
        command = [sys.executable, "-c", script, str(Path(__file__).parent), str(folder)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


class TestKeys:
    @pytest.mark.parametrize("place", range(5))
    def test_a_phases_setting_changes_keys_from_that_phase_on(self, place):
        name = ("baseline", "distill", "prune", "quantize", "exit")[place]
        settings = getattr(CONFIG, name)
        changed = replace(CONFIG, **{name: replace(settings, fit=replace(settings.fit, epochs=5))})
        same = [a == b for a, b in zip(keys(CONFIG), keys(changed), strict=True)]
        assert same == [True] * place + [False] * (5 - place)

    def test_settings_of_a_phase_that_the_order_lacks_change_nothing(self):
        changed = replace(
            CONFIG, order="PQ", exit=replace(CONFIG.exit, drop=0.5), distill=replace(CONFIG.distill, hint=1)
        )
        assert keys(changed) == keys(replace(CONFIG, order="PQ"))

    @examples(
        st.builds(
            replace,
            st.just(CONFIG),
            name=st.text(max_size=5),
            store=st.sampled_from(["store", "elsewhere"]),
            runs=st.sampled_from(["runs", "elsewhere"]),
            cost_table=st.booleans(),
            runtime=st.builds(
                replace,
                st.just(CONFIG.runtime),
                device=st.sampled_from(["auto", "cpu", "cuda"]),
                threads=st.integers(0, 8),
                workers=st.integers(0, 8),
                save_seconds=st.floats(1, 99),
                progress=st.booleans(),
            ),
        )
    )
    @settings(max_examples=50, deadline=None)
    def test_names_places_and_the_runtime_are_in_no_key(self, config):
        assert keys(config) == keys(CONFIG)

    def test_the_data_are_in_every_key(self):
        assert not set(keys(CONFIG)) & set(keys(CONFIG, fakes.data("other")))

    @pytest.mark.parametrize(
        ("flags", "size", "precision"),
        [("amx_bf16", 32, "bf16"), ("avx512_bf16", 16, "bf16"), ("avx512_bf16", 8, "fp32"), ("avx2", 32, "fp32")],
    )
    def test_auto_precision_is_resolved_before_keying(self, monkeypatch, flags, size, precision):
        monkeypatch.setattr(Path, "read_text", lambda *_, **__: f"flags : fpu {flags} sse\n")
        for step in steps(plan(CONFIG, replace(DATA, size=size))):
            assert step.config.fit.precision == precision

    def test_a_stated_precision_stays(self):
        config = replace(CONFIG, prune=replace(CONFIG.prune, fit=replace(FIT, precision=Precision.BF16)))
        assert steps(plan(config, DATA))[2].config.fit.precision is Precision.BF16


class TestFiles:
    def test_a_path_of_weights_becomes_the_digest_of_its_content(self, tmp_path):
        found = []
        for name in ("one", "two"):
            (tmp_path / name).write_bytes(b"weights")
            planned = plan(replace(CONFIG, baseline=BaselineSettings(str(tmp_path / name), {}, FIT)), DATA)
            (digest,) = planned.files
            assert steps(planned)[0].config.weights == digest
            assert planned.files == {digest: tmp_path / name}
            found.append(planned.last.key)
        assert found[0] == found[1]
        (tmp_path / "two").write_bytes(b"others")
        changed = plan(replace(CONFIG, baseline=BaselineSettings(str(tmp_path / "two"), {}, FIT)), DATA)
        assert changed.last.key != found[0]

    @pytest.mark.parametrize("phase", ["baseline", "distill"])
    def test_weights_that_are_missing_are_named_before_anything_runs(self, tmp_path, phase):
        settings = replace(CONFIG.distill, init=Init.WEIGHTS, weights=str(tmp_path / "none"))
        baseline = BaselineSettings(str(tmp_path / "none") if phase == "baseline" else None, {}, FIT)
        config = replace(CONFIG, baseline=baseline, distill=settings if phase == "distill" else CONFIG.distill)
        with pytest.raises(ConfigError, match=f"{phase}.weights={tmp_path / 'none'}: No such file"):
            plan(config, DATA)

    def test_a_student_that_is_none_is_refused_before_anything_runs(self):
        with pytest.raises(ConfigError, match=r"distill\.student=resnet21: give null or one of resnet20"):
            plan(replace(CONFIG, distill=replace(CONFIG.distill, student="resnet21")), DATA)


class TestTeachers:
    def teachers(self, planned: Plan) -> list[str]:
        return [dict(step.inputs)["teacher"].key for step in steps(planned) if step.name == "distill"]

    def test_the_default_teacher_is_the_chains_baseline_wherever_d_stands(self):
        planned = plan(replace(CONFIG, order="PDQD"), DATA)
        assert self.teachers(planned) == [planned.steps[0].key] * 2

    def test_the_input_teaches_on_demand(self):
        planned = plan(replace(CONFIG, order="PD", distill=replace(CONFIG.distill, teacher="input")), DATA)
        assert self.teachers(planned) == [planned.steps[1].key]

    def test_a_folder_teaches_and_its_path_is_in_no_key(self, tmp_path):
        found = []
        for place in ("one", "two"):
            folder = model_folder(tmp_path / place / "teacher")
            planned = plan(replace(CONFIG, order="D", distill=replace(CONFIG.distill, teacher=str(folder))), DATA)
            assert self.teachers(planned) == [f"given-{digest_of(folder)}"]
            assert planned.files == {f"sha256:{digest_of(folder)}": folder}
            found.append(planned.last.key)
        assert found[0] == found[1]

    def test_a_teacher_that_is_no_folder_is_refused_with_the_setting(self, tmp_path):
        config = replace(CONFIG, distill=replace(CONFIG.distill, teacher=str(tmp_path)))
        with pytest.raises(ConfigError, match=f"distill.teacher={tmp_path}: no arch.json"):
            plan(config, DATA)


class TestCheckpoints:
    @pytest.fixture
    def run(self, tmp_path):
        """A run directory with a baseline and the network pruned from it."""
        planned = steps(plan(replace(CONFIG, order="P"), DATA))
        for i, step in enumerate(planned):
            recorded(model_folder(tmp_path / "run" / f"{i:02}-{step.name}"), step, planned[0].key)
        return tmp_path / "run"

    def given(self, folder: Path, order: str = "Q", **changes) -> Plan:
        return plan(replace(CONFIG, checkpoint=str(folder), order=order, **changes), DATA)

    def test_a_step_on_a_checkpoint_has_the_key_it_has_in_the_chain(self, run):
        assert self.given(run / "01-prune").last.key == keys(replace(CONFIG, order="PQ"))[-1]

    def test_a_changed_checkpoint_starts_a_chain_of_its_own(self, run):
        (run / "01-prune" / "weights.safetensors").write_bytes(b"others")
        planned = self.given(run / "01-prune", "D")
        assert planned.steps[0].name == "given"
        assert dict(planned.last.inputs)["teacher"] is planned.steps[0]

    def test_its_baseline_teaches_from_the_folder_beside_it(self, run):
        planned = self.given(run / "01-prune", "D")
        assert planned.last.key == keys(replace(CONFIG, order="PD"))[-1]
        teacher = dict(planned.last.inputs)["teacher"]
        assert isinstance(teacher, Given)
        assert teacher.folder == run / "00-baseline"

    def test_its_baseline_teaches_from_the_store(self, run, tmp_path, monkeypatch):
        key = keys(CONFIG)[0]
        (run / "00-baseline").rename(tmp_path / key)
        monkeypatch.setattr(planning.Store, "record", lambda store, wanted: wanted == key or None)
        planned = self.given(run / "01-prune", "D", store=str(tmp_path))
        assert planned.last.key == keys(replace(CONFIG, order="PD"))[-1]

    def test_a_baseline_that_is_nowhere_is_one_line_that_says_what_to_give(self, run):
        (run / "00-baseline" / "arch.json").unlink()
        with pytest.raises(ConfigError, match="give distill.teacher=FOLDER") as caught:
            self.given(run / "01-prune", "D")
        assert "\n" not in str(caught.value)
        assert self.given(run / "01-prune", "Q")
        assert self.given(run / "01-prune", "D", distill=replace(CONFIG.distill, teacher="input"))

    def test_a_baseline_as_checkpoint_is_the_chain_itself(self, run):
        assert self.given(run / "00-baseline", "DP").last.key == keys(replace(CONFIG, order="DP"))[-1]

    def test_a_quantized_checkpoint_with_exits_is_taken_like_any_other(self, tmp_path):
        changes = {"quantization": Quantization(Bits(4, 4), 8), "exits": Exits((0.5,))}
        assert self.given(model_folder(tmp_path / "model", **changes)).steps[0].name == "given"

    def test_an_empty_order_on_a_checkpoint_is_refused(self, run):
        with pytest.raises(ConfigError, match="an empty order"):
            self.given(run / "01-prune", "")

    @pytest.mark.parametrize(
        ("data", "said"),
        [
            (
                replace(DATA, channels=3, mean=(0.5,) * 3, std=(0.5,) * 3),
                "images of 1 x 8 x 8, fake has images of 3 x 8 x 8",
            ),
            (replace(DATA, size=16), "images of 1 x 8 x 8, fake has images of 1 x 16 x 16"),
            (
                replace(DATA, task=Task(TaskKind.MULTICLASS, 9)),
                "multiclass with 10 outputs, fake asks multiclass with 9",
            ),
            (replace(DATA, task=Task(TaskKind.REGRESSION, 10)), "multiclass with 10 outputs, fake asks regression"),
            (replace(DATA, task=Task(TaskKind.MULTICLASS, 10, tuple("9876543210"))), "has class '0' for fake's '9'"),
        ],
    )
    def test_a_checkpoint_for_other_images_or_classes_is_refused(self, run, data, said):
        config = replace(CONFIG, checkpoint=str(run / "01-prune"), order="Q")
        with pytest.raises(ConfigError, match=said) as caught:
            plan(config, data)
        assert str(caught.value).startswith(f"checkpoint={run / '01-prune'}: ")

    def test_a_mixture_is_refused_by_name(self, tmp_path):
        (tmp_path / "mixture.json").write_text("{}")
        with pytest.raises(CompressorError, match="is a mixture of models"):
            self.given(tmp_path)

    @pytest.mark.parametrize("name", ["arch.json", "record.json"])
    @pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": 9, "arch": {}}', '{"schema": 9}'])
    def test_a_damaged_checkpoint_is_refused_in_one_line(self, run, name, text):
        (run / "01-prune" / name).write_text(text)
        with pytest.raises(CompressorError) as caught:
            self.given(run / "01-prune")
        assert str(run / "01-prune") in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_every_phase_is_planned(self):
        assert {source.name for source in plan(CONFIG, DATA).steps} == set(BY_NAME)

    def test_the_key_of_a_record_is_recomputed_from_its_words(self, run):
        record = json.loads((run / "01-prune" / RECORD).read_text())
        inputs = {role: source["key"] for role, source in record["inputs"].items()}
        assert record["key"] == key_of("prune", record["version"], record["config"], inputs, record["data"])
