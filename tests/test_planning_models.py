"""Planning from saved models: checkpoints and teachers keep their steps' keys; those that do not fit are named."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from settings import CONFIG, DATA, NO_TEACHER, keys, model_folder, recorded, steps

from compressor import planning
from compressor.arch import Bits, Exits, Quantization, Task, TaskKind
from compressor.errors import CompressorError, ConfigError
from compressor.folders import RECORD, key_of
from compressor.phase import BY_NAME
from compressor.pipeline import Given
from compressor.planning import Plan, plan
from compressor.store import digest_of


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

    @pytest.mark.parametrize("name", ["prune", "quantize", "exit"])
    def test_a_teacher_of_recovery_is_an_input_only_where_there_is_one(self, name):
        settings = getattr(CONFIG, name)
        order = BY_NAME[name].letter
        alone = plan(replace(CONFIG, order=order), DATA)
        assert dict(alone.last.inputs).keys() == {"model"}
        helped = replace(CONFIG, **{name: replace(settings, recovery=replace(NO_TEACHER, teacher="baseline"))})
        planned = plan(replace(helped, order=f"D{order}"), DATA)
        assert dict(planned.last.inputs)["teacher"] is planned.steps[0]

    def test_a_folder_that_teaches_recovery_is_in_the_key_by_its_content(self, tmp_path):
        folder = model_folder(tmp_path / "teacher")
        recovery = replace(NO_TEACHER, teacher=str(folder))
        planned = plan(replace(CONFIG, order="P", prune=replace(CONFIG.prune, recovery=recovery)), DATA)
        assert planned.last.config.recovery.teacher == f"sha256:{digest_of(folder)}"
        assert dict(planned.last.inputs)["teacher"].key == f"given-{digest_of(folder)}"

    def test_distillation_without_a_teacher_is_refused(self):
        with pytest.raises(ConfigError, match=r"distill\.teacher=none: distillation needs a teacher"):
            plan(replace(CONFIG, distill=replace(CONFIG.distill, teacher="none")), DATA)

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

    def test_a_changed_checkpoint_is_refused_and_without_its_record_starts_a_chain_of_its_own(self, run):
        (run / "01-prune" / "weights.safetensors").write_bytes(b"others")
        with pytest.raises(ConfigError, match=r"checkpoint=.*01-prune: .* is not what record\.json says"):
            self.given(run / "01-prune", "D")
        (run / "01-prune" / "record.json").unlink()
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
        with pytest.raises(ConfigError, match=r"distill\.teacher=FOLDER") as caught:
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
            (replace(DATA, size=16), "reads images of 1 x 8 x 8, fake has images of 1 x 16 x 16"),
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

    def test_a_checkpoint_whose_classes_are_written_in_another_way_is_taken(self, tmp_path):
        composed, apart = (replace(DATA.task, names=("caf" + e, *"012345678")) for e in ("\xe9", "e\u0301"))
        model_folder(tmp_path / "model", task=composed)
        config = replace(CONFIG, checkpoint=str(tmp_path / "model"), order="Q")
        assert plan(config, replace(DATA, task=apart)).steps

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
