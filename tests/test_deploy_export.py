"""Exports: files that agree with PyTorch on every test image, or no export at all."""

import json
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import deployed
import graphs
import numpy as np
import pytest
import samples
import torch
from terminal import TINY, call, process

from compressor.arch import Bits, BlockKind, Task, TaskKind
from compressor.checked import checked
from compressor.codec import digest_file
from compressor.config import Arithmetic, Container, Engine, ExportConfig, ExportFormat
from compressor.deploy import parity as agreement
from compressor.deploy.export import export
from compressor.deploy.note import EXPORT, ExportNote, read_note
from compressor.deploy.parity import (
    TOLERANCE,
    DisagreementError,
    allowed_of,
    compare,
    differing,
    engines_for,
    share_for,
)
from compressor.deploy.runtime import Predictions
from compressor.errors import CompressorError, ConfigError, ModelError, StoreError
from compressor.report.export import size_line

SMALLEST = ExportConfig(ExportFormat.ONNX, Container.SMALLEST)
CONFIGS = {"onnx": deployed.ONNX, "smallest": SMALLEST, "openvino": deployed.OPENVINO, "packed": deployed.PACKED}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A trained model with bits and exits."""
    return deployed.folder_of(deployed.exiting(), tmp_path_factory.mktemp("model") / "checkpoint")


def exported(config: ExportConfig, checkpoint: Path, folder: Path, digits) -> ExportNote:
    return export(checkpoint, config, folder, digits.test, samples.RUNTIME)


@pytest.mark.parametrize("name", CONFIGS)
class TestExport:
    def test_names_its_source_and_its_files_by_digest(self, name, checkpoint, digits, tmp_path):
        note = exported(CONFIGS[name], checkpoint, tmp_path / "made", digits)
        assert note.source.key == f"given-{note.source.model}"
        written = {path.name: path for path in (tmp_path / "made").iterdir() if path.name != EXPORT}
        assert note.files == {name: digest_file(path) for name, path in written.items()}
        assert note.file_bytes == sum(path.stat().st_size for path in written.values())
        assert [path.name for path in tmp_path.iterdir()] == ["made"]

    def test_that_differs_too_often_is_none_and_leaves_nothing(self, name, checkpoint, digits, tmp_path, monkeypatch):
        real = agreement.route

        def other(model, split):
            outputs, taken = real(model, split)
            outputs[:2] = -outputs[:2]
            return outputs, taken

        monkeypatch.setattr(agreement, "route", other)
        with pytest.raises(
            ModelError,
            match=r"of 120 answers of \w+ [\d.]+ differ from PyTorch's, at most 1 may;.*differing=0\.0\d+ lets",
        ):
            exported(CONFIGS[name], checkpoint, tmp_path / "made", digits)
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("answers", [1, 120, 360, 5000, 10_000])
def test_the_share_that_a_refusal_names_lets_so_many_differ(answers):
    for count in range(1, answers + 1):
        assert allowed_of(share := share_for(count, answers), answers) >= count
        assert share - 0.001 < count / answers


def arithmetic(config: ExportConfig, source: Path, folder: Path, digits) -> tuple[Arithmetic | None, list[str]]:
    """Export, and give the arithmetic with the digests of the stages."""
    note = exported(config, source, folder, digits)
    return note.arithmetic, [note.files[stage.file] for stage in note.stages]


class TestArithmetic:
    EXACT = replace(deployed.ONNX, arithmetic=Arithmetic.EXACT)
    FUSED = replace(deployed.ONNX, arithmetic=Arithmetic.FUSED)

    def test_auto_takes_the_fastest_that_agrees(self, checkpoint, digits, tmp_path):
        lenient = replace(deployed.ONNX, differing=0.2)
        made = arithmetic(lenient, checkpoint, tmp_path / "auto", digits)
        assert made == arithmetic(replace(self.FUSED, differing=0.2), checkpoint, tmp_path / "fused", digits)
        assert made[0] is Arithmetic.FUSED

    def test_auto_is_exact_where_the_fastest_disagrees(self, checkpoint, digits, tmp_path):
        with pytest.raises(DisagreementError, match="another arithmetic or format may agree"):
            exported(self.FUSED, checkpoint, tmp_path / "fused", digits)
        made = arithmetic(deployed.ONNX, checkpoint, tmp_path / "auto", digits)
        assert made == arithmetic(self.EXACT, checkpoint, tmp_path / "exact", digits)
        assert made[0] is Arithmetic.EXACT

    def test_says_which_layers_of_integers_it_computes_in_float(self, context, digits, tmp_path, monkeypatch):
        monkeypatch.setattr("compressor.deploy.export.needed_here", lambda: True)  # so that none saturates
        arch = samples.compressed(BlockKind.SEPARABLE, bits=Bits(8, 8))
        model = deployed.folder_of(graphs.model(arch, context), tmp_path / "model")
        note = exported(replace(self.EXACT, differing=1.0), model, tmp_path / "made", digits)
        assert note == read_note(tmp_path / "made")
        named = {stage.file: stage.in_float for stage in note.stages if stage.in_float}
        depthwise = {f"blocks.s{s}b{b}.conv1" for s in (0, 1) for b in (0, 1)}
        assert set().union(*named.values()) & depthwise
        assert set().union(*named.values()) <= depthwise
        assert size_line(note).splitlines()[1:] == [
            f"{file} computes in float32 what was trained in integers: {', '.join(layers)}"
            for file, layers in named.items()
        ]
        fused = exported(replace(self.FUSED, differing=1.0), model, tmp_path / "fused", digits)
        assert "in_float" not in (tmp_path / "fused" / EXPORT).read_text()
        assert len(size_line(fused).splitlines()) == 1

    def test_is_of_onnx_alone(self, checkpoint, digits, tmp_path):
        assert exported(deployed.PACKED, checkpoint, tmp_path / "made", digits).arithmetic is None
        with pytest.raises(ConfigError, match=r"export\.arithmetic=exact: give auto; .* not for packed"):
            replace(deployed.PACKED, arithmetic=Arithmetic.EXACT)


class TestFolder:
    def test_that_exists_is_left_alone(self, checkpoint, digits, tmp_path):
        (tmp_path / "made").mkdir()
        with pytest.raises(StoreError, match="is there already"):
            exported(deployed.PACKED, checkpoint, tmp_path / "made", digits)
        assert list((tmp_path / "made").iterdir()) == []

    def test_of_a_broken_attempt_is_made_anew(self, checkpoint, digits, tmp_path):
        (tmp_path / ".made.part").mkdir()
        (tmp_path / ".made.part" / "stage-7.onnx").write_bytes(b"left over")
        exported(deployed.PACKED, checkpoint, tmp_path / "made", digits)
        assert sorted(path.name for path in (tmp_path / "made").iterdir()) == [EXPORT, "model.packed"]

    def test_of_half_a_mixture_or_of_nothing_is_refused_by_name(self, digits, tmp_path):
        (tmp_path / "mixture.json").write_text("{}")
        for folder in (tmp_path, tmp_path / "nothing"):
            with pytest.raises(CompressorError, match=str(folder)):
                exported(deployed.PACKED, folder, tmp_path / "made", digits)


class TestDiffering:
    WANT = np.array([[2.0, 1.0, -1.0], [0.0, -0.5, 3.0]], np.float32)

    def test_is_another_class(self):
        got = self.WANT[:, [0, 2, 1]]
        assert differing(self.WANT, got, Task(TaskKind.MULTICLASS, 3)) == 1
        assert differing(self.WANT, self.WANT * 0.9, Task(TaskKind.MULTICLASS, 3)) == 0

    def test_is_a_label_decided_otherwise(self):
        assert differing(self.WANT, -self.WANT, Task(TaskKind.MULTILABEL, 3)) == 5

    @pytest.mark.parametrize(("by", "count"), [(0.9 * TOLERANCE, 0), (1.1 * TOLERANCE, 1), (np.nan, 1)])
    def test_is_a_number_beyond_the_tolerance(self, by, count):
        got = self.WANT.copy()
        got[1, 1] += by
        assert differing(self.WANT, got, Task(TaskKind.REGRESSION, 3)) == count

    def test_counts_moved_images_and_the_largest_gap_of_the_others(self, digits):
        exits = np.arange(120) % 3
        want = Predictions(np.zeros((120, 10), np.float32), exits)
        got = Predictions(want.outputs.copy(), exits.copy())
        got.outputs[0] += 7
        got.outputs[5] += 0.5
        got.exits[0] += 1
        found = compare(Engine.TORCH, want, got, digits.test, samples.TASK)
        assert (found.moved, found.largest, found.version) == (1, 0.5, torch.__version__.partition("+")[0])


def test_a_second_engine_that_cannot_read_the_files_is_named_with_its_reason(checkpoint, digits, tmp_path, monkeypatch):
    real = agreement.open_stage

    def choosy(engine, path, threads, precision):
        if engine is Engine.OPENVINO:
            raise ModelError(f"{path}: openvino cannot run it (no such type)")
        return real(engine, path, threads, precision)

    monkeypatch.setattr(agreement, "open_stage", choosy)
    first, second = exported(deployed.ONNX, checkpoint, tmp_path / "made", digits).parity.engines
    assert (first.refused, first.differing) == (None, 0)
    assert second.refused == "stage-0.onnx: openvino cannot run it (no such type)"
    assert (second.differing, second.moved, second.score) == (None, None, None)
    with pytest.raises(ModelError, match="no such type"):
        exported(deployed.OPENVINO, checkpoint, tmp_path / "other", digits)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("kind", [TaskKind.MULTILABEL, TaskKind.REGRESSION])
def test_other_tasks_agree_too(kind, name, tmp_path):
    data, model = deployed.asked(kind)
    folder = deployed.folder_of(model, tmp_path / "model")
    note = export(folder, CONFIGS[name], tmp_path / "made", data.test, samples.RUNTIME)
    answers = 120 * model.arch.task.outputs if kind is TaskKind.MULTILABEL else 120
    assert (note.parity.answers, note.parity.allowed) == (answers, 1)
    assert note.parity.score == ("mae" if kind is TaskKind.REGRESSION else "accuracy")
    assert note.parity.tolerance == (TOLERANCE if kind is TaskKind.REGRESSION else None)
    assert {found.engine for found in note.parity.engines} == {each.value for each in engines_for(note.format)}
    for found in note.parity.engines:
        assert found.differing in (0, 1)
        assert found.score == pytest.approx(note.parity.reference, abs=0.01)


class TestCommand:
    def words(self, checkpoint: Path, folder: Path, *more: str) -> tuple[str, ...]:
        return ("export", *TINY, f"checkpoint={checkpoint}", f"hydra.run.dir={folder}", "runtime.threads=1", *more)

    def test_makes_a_folder_of_its_format_and_shows_the_agreement(self, checkpoint, tmp_path):
        ended = call(*self.words(checkpoint, tmp_path / "run", "export.format=packed"))
        assert ended.code == 0, ended.err
        assert ended.out.splitlines()[-1] == f"export: {tmp_path / 'run' / 'packed'}"
        note = read_note(tmp_path / "run" / "packed")
        assert note.format is ExportFormat.PACKED
        row = next(line.split() for line in ended.out.splitlines() if line.strip().startswith("torch"))
        assert row[2:4] == ["0", "0"]
        assert row[-1] == "+0.00"
        assert "in files" in ended.out

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (("export.format=tflite",), "export.format: 'tflite' is not one of onnx, openvino, packed"),
            (("export.container=int4",), "export.container: 'int4' is not one of int8, smallest"),
            (("export.format=packed", "export.container=smallest"), "smallest is for onnx, not for packed"),
            (("checkpoint=nothing",), "checkpoint=nothing: no arch.json"),
            (("dataset=rotated_digits",), "reads images of 1 x 8 x 8"),
        ],
    )
    def test_bad_settings_are_one_line(self, words, said, checkpoint, tmp_path):
        ended = call(*self.words(checkpoint, tmp_path / "run", *words))
        assert (ended.code, ended.err.count("\n")) == (2, 1), ended.err
        assert said in ended.err

    def test_needs_a_checkpoint(self):
        ended = call("export", *TINY)
        assert (ended.code, ended.err.count("\n")) == (2, 1)
        assert "export needs checkpoint=FOLDER" in ended.err

    @pytest.mark.parametrize(("kind", "package"), [("onnx", "onnx"), ("openvino", "openvino")])
    def test_without_its_package_one_line_names_the_extra(self, kind, package, checkpoint, tmp_path):
        words = self.words(checkpoint, tmp_path / "run", f"export.format={kind}")
        script = (
            f"import sys; sys.modules[{package!r}] = None; from compressor.cli import main; sys.exit(main({words!r}))"
        )
        ended = process("-c", script, folder=tmp_path)
        line = f"compressor: export.format={kind} needs the package {package}: pip install 'compressor[{kind}]'\n"
        assert (ended.returncode, ended.stderr) == (2, line)

    def test_without_an_engine_that_reads_onnx_one_line_names_the_extra(self, checkpoint, tmp_path):
        words = self.words(checkpoint, tmp_path / "run", "export.format=onnx")
        script = "import sys; sys.modules['onnxruntime'] = sys.modules['openvino'] = None;"
        ended = process("-c", f"{script} from compressor.cli import main; sys.exit(main({words!r}))", folder=tmp_path)
        line = "compressor: export.format=onnx needs the package onnxruntime: pip install 'compressor[onnx]'\n"
        assert (ended.returncode, ended.stderr) == (2, line)

    def test_that_fails_leaves_no_export(self, checkpoint, tmp_path, monkeypatch):
        monkeypatch.setattr(agreement, "differing", lambda want, got, task: 5)
        ended = call(*self.words(checkpoint, tmp_path / "run", "export.format=packed"))
        assert (ended.code, ended.err.count("\n")) == (2, 1)
        assert "5 of " in ended.err
        assert not [path for path in (tmp_path / "run").iterdir() if "packed" in path.name]


def test_the_note_is_plain_json(checkpoint, digits, tmp_path):
    note = exported(deployed.PACKED, checkpoint, tmp_path / "made", digits)
    data = json.loads((tmp_path / "made" / EXPORT).read_text())
    assert data == checked(note)
    assert data["container"] is None
    assert replace(note, schema=2) == note


def test_packages_that_are_not_installed_but_on_the_path_have_a_version_too(checkpoint, digits, tmp_path, monkeypatch):
    def absent(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", absent)
    versions = exported(deployed.PACKED, checkpoint, tmp_path / "made", digits).versions
    assert versions == {"compressor": "unknown", "torch": torch.__version__, "numpy": np.__version__}


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_answers_that_are_not_finite_are_no_export_but_one_line(number, checkpoint, digits, tmp_path, monkeypatch):
    real = agreement.compare
    monkeypatch.setattr(agreement, "compare", lambda *args: replace(real(*args), largest=float(number)))
    with pytest.raises(ModelError, match=f"^{checkpoint}: an answer or a score is not finite; nothing was exported"):
        exported(deployed.PACKED, checkpoint, tmp_path / "made", digits)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_told_before_the_model_is_read(tmp_path, digits, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    with pytest.raises(ConfigError, match=r"compressor\[openvino\]"):
        exported(deployed.OPENVINO, tmp_path, tmp_path / "made", digits)
