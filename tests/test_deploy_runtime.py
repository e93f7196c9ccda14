"""Exported models at work: exits are taken as PyTorch takes them, and nothing but numpy and the engine is imported."""

import json
from dataclasses import replace
from pathlib import Path

import deployed
import numpy as np
import pytest
import samples
import tampering
import torch
from terminal import process

from compressor.arch import Criterion, Exits, Task, TaskKind
from compressor.config import Engine, ExportFormat
from compressor.data.types import Split
from compressor.deploy import runtime
from compressor.deploy.engines import EXTRAS, READERS, package
from compressor.deploy.export import export
from compressor.deploy.note import EXPORT, ExitsNote, InputNote, read_note
from compressor.deploy.rebuilt import exits_of, open_model
from compressor.deploy.runtime import Exported, load_export
from compressor.errors import ConfigError, ModelError
from compressor.routing import certainty, route

KINDS = [(kind, criterion) for kind in TaskKind for criterion in Criterion]
INPUT = InputNote(1, 8, "bilinear")


@pytest.mark.parametrize(("kind", "criterion"), KINDS)
class TestCertainty:
    def heads(self, seed: int) -> list[torch.Tensor]:
        heads = [4 * samples.normal(300, 5, seed=seed + i) for i in range(3)]
        heads[1][:40] = heads[0][:40]  # so that some agree
        heads[0][40:44] = torch.tensor([200.0, -200.0, 0, 0, 0])
        return heads

    def test_is_the_one_that_thresholds_were_chosen_on(self, kind, criterion):
        task = Task(kind, 5)
        rule = Exits((0.5,), criterion)
        heads = self.heads(3)
        for count in (1, 2, 3):
            want = certainty(heads[:count], rule, task).numpy()
            found = runtime.certainty([head.numpy() for head in heads[:count]], criterion, task)
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, want, rtol=0, atol=5e-7)


class TestExits:
    @pytest.mark.parametrize("criterion", Criterion)
    @pytest.mark.parametrize("batch", [1, 7, 120])
    def test_every_image_leaves_where_pytorch_lets_it(self, criterion, batch, context):
        model = deployed.exiting(criterion)
        test = context.data.test
        outputs, taken = route(model, test)
        exported = open_model(model, Engine.TORCH, 0)
        parts = [exported.predict(test.images[i : i + batch]) for i in range(0, len(test), batch)]
        assert np.concatenate([part.exits for part in parts]).tolist() == taken.tolist()
        np.testing.assert_allclose(np.concatenate([part.outputs for part in parts]), outputs.numpy(), atol=1e-5)
        assert len(set(taken.tolist())) > 1

    @pytest.mark.parametrize("batch", [1, 5, 120])
    def test_a_stage_runs_only_the_images_still_inside(self, batch, context):
        model = deployed.exiting()
        exported, ran = open_model(model, Engine.TORCH, 0), [0, 0, 0]

        def counted(i, stage):
            def run(values):
                assert len(values) > 0
                ran[i] += len(values)
                return stage(values)

            return run

        exported = replace(exported, stages=tuple(counted(i, stage) for i, stage in enumerate(exported.stages)))
        images = context.data.test.images
        taken = np.concatenate([exported.predict(images[i : i + batch]).exits for i in range(0, len(images), batch)])
        assert ran == [len(taken), int((taken > 0).sum()), int((taken > 1).sum())]
        assert ran[0] > ran[1] > ran[2] > 0

    def test_no_images_are_no_answers(self, context):
        found = open_model(samples.model(samples.compressed()), Engine.TORCH, 0).predict(
            np.empty((0, 1, 8, 8), np.uint8)
        )
        assert (found.outputs.shape, found.exits.shape) == ((0, 10), (0,))

    def test_nobody_leaves_where_the_threshold_is_null(self):
        stages = [
            lambda x: (np.full((len(x), 2), 9, np.float32), x),
            lambda x: (np.ones((len(x), 2), np.float32), None),
        ]
        task = Task(TaskKind.MULTICLASS, 2)
        inside = Exported(INPUT, task, ExitsNote(Criterion.CONFIDENCE, (None,)), tuple(stages))
        assert inside.predict(np.zeros((3, 1, 8, 8), np.uint8)).exits.tolist() == [1, 1, 1]
        leaving = replace(inside, exits=ExitsNote(Criterion.CONFIDENCE, (0.5,)))
        assert leaving.predict(np.zeros((3, 1, 8, 8), np.uint8)).exits.tolist() == [0, 0, 0]

    def test_infinite_thresholds_are_written_as_null(self):
        model = samples.model(samples.compressed())
        assert exits_of(model) == ExitsNote(Criterion.CONFIDENCE, (None, None))
        model.net.thresholds[0] = 0.5
        assert exits_of(model) == ExitsNote(Criterion.CONFIDENCE, (0.5, None))

    def test_the_numpy_reference_answers_as_pytorch_does(self, context):
        model = deployed.exiting(Criterion.ENTROPY)
        images = context.data.test.images[:20]
        outputs, taken = route(model, Split(images, context.data.test.targets[:20]))
        found = open_model(model, Engine.NUMPY, 0).predict(images)
        assert (found.outputs.argmax(1) == outputs.numpy().argmax(1)).sum() >= 19
        assert (found.exits == taken.numpy()).sum() >= 19


ANSWER = """
import numpy as np
from pathlib import Path
from compressor.deploy.runtime import load_export
images = np.load("images.npy")
found = [load_export(Path("export"), engine={engine!r}, threads=1).predict(images[i : i + n]).exits
         for n in (1, 40) for i in range(0, 40, n)]
print(np.concatenate(found).tolist())
"""
SIGNALLED = """
import os, signal, sys
from compressor import interrupts
interrupts.install()
try:
    os.kill(os.getpid(), signal.SIGTERM)
except KeyboardInterrupt:
    sys.stderr.write("handled")
"""


def exported_folder(config, context, folder: Path) -> Path:
    source = deployed.folder_of(deployed.exiting(), folder / "model")
    export(source, config, folder / "export", context.data.test, samples.RUNTIME)
    return folder / "export"


ENGINES = [
    (deployed.ONNX, Engine.ONNXRUNTIME),
    (deployed.ONNX, Engine.OPENVINO),
    (deployed.OPENVINO, Engine.OPENVINO),
]


@pytest.mark.parametrize(("config", "engine"), ENGINES, ids=lambda each: getattr(each, "format", str(each)))
class TestAlone:
    def test_it_runs_with_numpy_and_its_engine_and_neither_torch_nor_hydra(self, config, engine, context, tmp_path):
        folder = exported_folder(config, context, tmp_path)
        images = context.data.test.images[:40]
        np.save(tmp_path / "images.npy", images)
        ended = process("-c", deployed.ALONE + ANSWER.format(engine=str(engine)), folder=tmp_path)
        assert ended.returncode == 0, ended.stderr
        exits = load_export(folder, engine=engine, threads=1).predict(images).exits.tolist()
        assert json.loads(ended.stdout) == [*exits, *exits]
        assert len(set(exits)) > 1

    def test_rounded_features_go_from_stage_to_stage_as_the_bytes_of_their_integers(
        self, config, engine, context, tmp_path
    ):
        images = context.data.test.images[:40]
        ready = load_export(exported_folder(config, context, tmp_path), engine=engine, threads=1)
        reference = open_model(deployed.exiting(), Engine.NUMPY, 0)
        assert isinstance(ready, Exported)
        _, found = ready.stages[0](images)
        _, want = reference.stages[0](images)
        assert found is not None
        assert want is not None
        assert (found.dtype, want.dtype) == (np.uint8, np.uint8)
        assert (found == want).mean() > 0.999
        assert len(np.unique(want)) > 8

    def test_a_signal_between_answers_can_still_be_handled(self, config, engine, context, tmp_path):
        exported_folder(config, context, tmp_path)
        np.save(tmp_path / "images.npy", context.data.test.images[:40])
        ended = process("-c", ANSWER.format(engine=str(engine)) + SIGNALLED, folder=tmp_path)
        assert (ended.returncode, ended.stderr) == (0, "handled")

    def test_without_its_package_one_line_names_the_extra(self, config, engine, context, tmp_path):
        exported_folder(config, context, tmp_path)
        np.save(tmp_path / "images.npy", context.data.test.images[:40])
        script = deployed.BLOCKED.format(absent=[str(engine)]) + ANSWER.format(engine=str(engine))
        ended = process("-c", script, folder=tmp_path)
        line = ended.stderr.splitlines()[-1]
        assert line.endswith(f"engine {engine} needs the package {engine}: pip install 'compressor[{EXTRAS[engine]}]'")


@pytest.fixture
def packed(context, tmp_path) -> Path:
    return exported_folder(deployed.PACKED, context, tmp_path)


class TestFolder:
    def test_a_packed_one_is_answered_by_torch_and_by_numpy(self, packed, context):
        images = context.data.test.images[:20]
        answers = [load_export(packed, engine).predict(images) for engine in READERS[ExportFormat.PACKED]]
        np.testing.assert_allclose(answers[0].outputs, answers[1].outputs, atol=1e-3)

    def test_its_name_may_be_text(self, packed, context):
        images = context.data.test.images[:20]
        want = load_export(packed).predict(images).outputs
        assert np.array_equal(load_export(str(packed)).predict(images).outputs, want)

    @pytest.mark.parametrize("engine", ["auto", "numpy"])
    @pytest.mark.parametrize("absent", ["torch", "safetensors"])
    def test_a_packed_one_names_the_package_that_it_needs_with_every_engine(self, packed, absent, engine, tmp_path):
        np.save(tmp_path / "images.npy", np.zeros((40, 1, 8, 8), np.uint8))
        script = deployed.BLOCKED.format(absent=[absent]) + ANSWER.format(engine=engine)
        line = process("-c", script, folder=tmp_path).stderr.splitlines()[-1]
        assert line == (
            f"compressor.errors.ConfigError: export: packed files need the package {absent}, with every engine: "
            f"pip install {absent}; files of export.format=onnx or openvino do not"
        )

    @pytest.mark.parametrize("engine", READERS[ExportFormat.PACKED])
    def test_a_packed_one_is_not_computed_in_another_precision_than_asked_for(self, packed, engine):
        with pytest.raises(ConfigError, match=f"precision bf16: {engine} computes in fp32"):
            load_export(packed, engine, precision="bf16")

    def test_an_engine_that_does_not_read_its_format_is_refused(self, packed):
        with pytest.raises(ConfigError, match="onnxruntime: does not run packed files; give torch or numpy"):
            load_export(packed, Engine.ONNXRUNTIME)

    def test_that_is_none_is_refused_by_name(self, tmp_path):
        with pytest.raises(ModelError, match=r"no export\.json; give a folder that"):
            load_export(tmp_path)

    @pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 2}', '{"schema": 1}', '{"schema": 1, "more": 1}'])
    def test_with_a_note_of_something_else_is_refused_by_name(self, packed, text):
        (packed / EXPORT).write_text(text)
        with pytest.raises(ModelError) as caught:
            load_export(packed)
        assert str(caught.value).startswith(f"{packed / EXPORT}: ")
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("harm", ["cut", "changed", "removed"])
    def test_with_a_damaged_file_is_refused_by_name(self, packed, harm):
        path = packed / "model.packed"
        data = path.read_bytes()
        path.unlink()
        if harm != "removed":
            path.write_bytes(data[:-1] if harm == "cut" else data[:-1] + b"?")
        with pytest.raises(ModelError, match=r"model\.packed: .*export the model again"):
            load_export(packed)

    @pytest.mark.parametrize("name", ["../model.packed", "/etc/passwd", "stage-0.exe"])
    def test_a_note_that_names_other_files_is_refused(self, packed, name):
        tampering.edited(packed / EXPORT, lambda note: note.update(files={name: "0" * 16}))
        with pytest.raises(ModelError, match=r"an export's files are like stage-0\.onnx"):
            load_export(packed)

    @pytest.mark.parametrize(
        ("part", "change", "said"),
        [
            ("input", {"channels": 0}, "input is 0 x 8 x 8; images have 1 or 3 channels of 1 to 4096"),
            ("input", {"channels": 2}, "input is 2 x 8 x 8"),
            ("input", {"size": 0}, "input is 1 x 0 x 0"),
            ("input", {"size": 4097}, "input is 1 x 4097 x 4097"),
            ("task", {"outputs": 0}, "task.outputs is 0; a network has 1 to 65536"),
            ("task", {"outputs": 10**12}, "task.outputs is 1000000000000"),
            ("task", {"names": ["one"]}, "task.names has 1 entries; give 10, one an output, or none"),
            ("task", {"mean": [0.0] * 11}, "task.mean has 11 entries"),
            ("task", {"scale": [1.0]}, "task.scale has 1 entries"),
        ],
    )
    def test_a_note_of_no_possible_network_is_refused_by_name(self, packed, part, change, said):
        tampering.edited(packed / EXPORT, lambda note: note[part].update(change))
        with pytest.raises(ModelError) as caught:
            load_export(packed)
        assert str(caught.value).startswith(f"{packed / EXPORT}: {said}")
        assert str(caught.value).endswith("; export the model again")

    def test_a_note_without_names_is_whole(self, packed):
        tampering.edited(packed / EXPORT, lambda note: note["task"].update(names=[]))
        assert read_note(packed).task.names == ()

    def test_says_what_it_is(self, packed, context):
        note = read_note(packed)
        assert note.format is ExportFormat.PACKED
        assert note.input == InputNote(1, 8, "bilinear")
        assert note.task == samples.TASK
        assert note.file_bytes == sum(p.stat().st_size for p in packed.iterdir() if p.name != EXPORT)
        assert note.exits is not None
        assert len(note.exits.thresholds) == 2


def test_every_engine_of_an_extra_is_a_package():
    for engine in EXTRAS:
        assert package(engine).__name__ == engine
