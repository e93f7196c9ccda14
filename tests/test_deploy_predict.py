"""Answers to image files: read one after another, named where they cannot be read, written as they come."""

import csv
import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import deployed
import numpy as np
import pytest
import samples
from PIL import Image
from terminal import Ended, call, process

from compressor.arch import TaskKind
from compressor.config import Engine, PredictConfig, PredictFormat
from compressor.deploy.answers import Answer
from compressor.deploy.export import export
from compressor.deploy.predict import find_images, open_model, predict
from compressor.errors import ConfigError, DataError
from compressor.progress import silent
from compressor.routing import route

QUIET = "runtime.progress=false"


@pytest.fixture(scope="module")
def place(tmp_path_factory, digits) -> Path:
    """A folder with a checkpoint, its packed export, 40 images and, apart, two files that are none."""
    place = tmp_path_factory.mktemp("place")
    deployed.folder_of(deployed.exiting(), place / "checkpoint")
    export(place / "checkpoint", deployed.PACKED, place / "packed", digits.test, samples.RUNTIME)
    (place / "images" / "more").mkdir(parents=True)
    for i in range(40):
        folder = place / "images" / ("more" if i % 4 == 0 else "")
        Image.fromarray(digits.test.images[i][0]).save(folder / f"{i:02}.png")
    (place / "damaged").mkdir()
    for i in range(3):
        Image.fromarray(digits.test.images[i][0]).save(place / "damaged" / f"{i}.png")
    (place / "damaged" / "cut.png").write_bytes((place / "damaged" / "0.png").read_bytes()[:40])
    (place / "damaged" / "empty.jpg").touch()
    return place


@pytest.fixture(autouse=True)
def _there(place, monkeypatch):
    monkeypatch.chdir(place)


def said(*words: str, model: str = "checkpoint") -> Ended:
    return call("predict", f"model={model}", QUIET, "runtime.threads=1", *words)


def rows(ended: Ended) -> list[dict]:
    return [json.loads(line) for line in ended.out.splitlines()]


class TestAnswers:
    @pytest.mark.parametrize("model", ["checkpoint", "packed"])
    def test_are_those_of_the_model_with_probability_and_exit(self, model, digits):
        found = {row["file"]: row for row in rows(said("input=images", model=model))}
        outputs, taken = route(deployed.exiting(), digits.test)
        assert len(found) == 40
        for i in range(40):
            row = found[f"images/{'more/' if i % 4 == 0 else ''}{i:02}.png"]
            p = np.exp(outputs[i].numpy() - outputs[i].numpy().max())
            assert row["class"] == str(int(outputs[i].argmax()))
            assert row["probability"] == pytest.approx(p.max() / p.sum(), abs=1e-3)
            assert row["exit"] == ["exit 1", "exit 2", "final"][int(taken[i])]
        assert len({row["exit"] for row in found.values()}) == 3

    def test_do_not_hang_on_the_batch(self):
        alone, together = rows(said("input=images", "predict.batch=1")), rows(said("input=images", "predict.batch=256"))
        for one, other in zip(alone, together, strict=True):
            assert {k: v for k, v in one.items() if k != "probability"} == {
                k: v for k, v in other.items() if k != "probability"
            }
            assert one["probability"] == pytest.approx(other["probability"], abs=1e-5)

    def test_of_larger_colour_images_are_of_them_made_small_and_grey(self, tmp_path):
        Image.open("images/01.png").convert("RGB").resize((32, 32), Image.Resampling.NEAREST).save(
            tmp_path / "large.bmp"
        )
        (large,) = rows(said(f"input={tmp_path / 'large.bmp'}"))
        with Image.open(tmp_path / "large.bmp") as image:
            image.convert("L").resize((8, 8), Image.Resampling.BILINEAR).save(tmp_path / "small.png")
        (small,) = rows(said(f"input={tmp_path / 'small.png'}"))
        assert large | {"file": None} == small | {"file": None}

    def test_come_from_the_numpy_reference_too(self):
        found = rows(said("input=images/0*.png", "predict.engine=numpy"))
        expected = rows(said("input=images/0*.png"))
        assert len(found) == len(expected) == 7
        assert sum(one["class"] == other["class"] for one, other in zip(found, expected, strict=True)) >= 6

    @pytest.mark.parametrize("kind", [TaskKind.MULTILABEL, TaskKind.REGRESSION])
    def test_of_other_tasks_are_labels_or_numbers_in_their_unit(self, kind, tmp_path):
        data, model = deployed.asked(kind)
        deployed.folder_of(model, tmp_path / "model")
        outputs, _ = route(model, data.test)
        found = rows(said("input=images", model=str(tmp_path / "model")))
        at = [int(Path(row["file"]).stem) for row in found]
        outputs = outputs.numpy()[at]
        if kind is TaskKind.REGRESSION:
            want = (outputs * 2.9 + 4.5)[:, 0]
            assert [row["values"]["digit"] for row in found] == pytest.approx(want.tolist(), abs=1e-3)
            return
        for row, out in zip(found, outputs, strict=True):
            assert row["labels"] == [name for name, o in zip(("large", "even", "eight"), out, strict=True) if o > 0]
            assert row["probabilities"]["even"] == pytest.approx(1 / (1 + np.exp(-out[1])), abs=1e-4)


class TestInput:
    def test_is_a_file_a_folder_or_a_pattern(self):
        assert find_images("images/01.png") == ["images/01.png"]
        assert len(find_images("images")) == 40
        assert find_images("images/0[1-3].png") == ["images/01.png", "images/02.png", "images/03.png"]
        assert len(find_images("images/**/*.png")) == 40
        assert find_images(str(Path("images/more").resolve() / "*8.png")) == [
            str(Path("images/more").resolve() / f"{name}.png") for name in ("08", "28")
        ]

    @pytest.mark.parametrize("name", ["nothing", "images/*.tif", "checkpoint"])
    def test_without_images_is_one_line(self, name):
        with pytest.raises(DataError, match=f"input={name.replace('*', '.')}: no image is there"):
            find_images(name)
        ended = said(f"input={name}")
        assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)

    def test_what_is_left_out_of_a_folder_is_said_on_stderr(self, tmp_path):
        for name in ("a.png", "b.HEIC", "c.heic", "notes.txt"):
            (tmp_path / name).write_bytes(Path("images/01.png").read_bytes())
        ended = said(f"input={tmp_path}")
        assert (ended.code, len(rows(ended))) == (0, 1)
        assert ended.err == f"compressor: {tmp_path}: left out: 3 files of other endings (.heic 2, .txt)\n"
        (tmp_path / "a.png").unlink()
        assert "no image is there (left out: 3 files of other endings" in said(f"input={tmp_path}").err

    def test_how_many_pixels_were_converted_is_said_on_stderr(self, tmp_path):
        with Image.open("images/01.png") as image:
            values = np.asarray(image)
        Image.fromarray(values.astype(np.uint16) * 257).save(tmp_path / "a.png")
        Image.fromarray((values / 255).astype(np.float32)).save(tmp_path / "b.tif")
        ended = said(f"input={tmp_path}")
        assert ended.err.endswith("converted to 8 bits: 1 of 16-bit pixels (0 to 65535), 1 of float pixels (0 to 1)\n")
        plain = rows(said("input=images/01.png"))[0]
        assert [row["probability"] for row in rows(ended)] == pytest.approx([plain["probability"]] * 2)


class TestUnreadable:
    def test_files_are_named_the_rest_go_on_and_the_code_is_1(self):
        ended = said("input=damaged")
        assert [row["file"] for row in rows(ended)] == ["damaged/0.png", "damaged/1.png", "damaged/2.png"]
        assert ended.code == 1
        lines = ended.err.splitlines()
        assert lines[0].startswith("compressor: damaged/cut.png (")
        assert lines[1] == "compressor: damaged/empty.jpg (empty): has no answer"
        assert lines[2] == "compressor: 2 of 5 files cannot be read; they are named above, the rest is answered"
        assert len(lines) == 3

    def test_files_alone_are_no_answers(self):
        ended = said("input=damaged/empty.jpg", "predict.format=csv")
        assert (ended.code, ended.out) == (1, "file,class,probability,exit\n")

    def test_files_are_left_out_of_a_whole_output_file(self, tmp_path):
        ended = said("input=damaged", f"predict.output={tmp_path / 'answers.csv'}")
        assert ended.code == 1
        assert len((tmp_path / "answers.csv").read_text().splitlines()) == 4


class TestOutput:
    def test_is_a_file_of_its_suffix(self, tmp_path):
        for name in ("a.csv", "b.jsonl", "c.txt"):
            assert said("input=images", f"predict.output={tmp_path / 'new' / name}").code == 0
        table = list(csv.DictReader(io.StringIO((tmp_path / "new" / "a.csv").read_text())))
        lines = [json.loads(line) for line in (tmp_path / "new" / "b.jsonl").read_text().splitlines()]
        assert [row["class"] for row in table] == [row["class"] for row in lines]
        assert list(table[0]) == ["file", "class", "probability", "exit"]
        assert (tmp_path / "new" / "c.txt").read_text().splitlines()[0].split() == [
            "file",
            "class",
            "probability",
            "exit",
        ]
        assert len(list((tmp_path / "new").iterdir())) == 3

    def test_that_is_there_is_left_alone(self, tmp_path):
        (tmp_path / "kept.csv").write_text("mine")
        ended = said("input=images", f"predict.output={tmp_path / 'kept.csv'}")
        assert (ended.code, ended.err.count("\n")) == (2, 1)
        assert "is there already" in ended.err
        assert (tmp_path / "kept.csv").read_text() == "mine"

    def test_is_not_there_when_the_work_broke_off(self, tmp_path, monkeypatch):
        import compressor.deploy.predict as module

        def broken(*_):
            yield [Answer("a", (0.1,) * 10, "final")] * 2, ()
            raise KeyboardInterrupt

        monkeypatch.setattr(module, "answered", broken)
        config = PredictConfig(PredictFormat.JSON, str(tmp_path / "answers.jsonl"), Engine.AUTO, 64)
        with pytest.raises(KeyboardInterrupt):
            predict("checkpoint", "images", config, 1, silent)
        assert list(tmp_path.iterdir()) == []

    def test_in_a_terminal_is_a_table_without_a_bar(self, place):
        main, other = pty.openpty()
        words = [sys.executable, "-m", "compressor", "predict", "model=packed", "input=images/0*.png"]
        environ = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(deployed.__file__).parents[1])}
        child = subprocess.run(words, stdout=other, stderr=other, env=environ, cwd=place, check=False, timeout=300)
        os.close(other)
        shown = os.read(main, 65536).decode().replace("\r", "")
        os.close(main)
        assert child.returncode == 0, shown
        lines = shown.splitlines()
        assert lines[0].split() == ["file", "class", "probability", "exit"]
        assert [line.split()[0] for line in lines[1:]] == find_images("images/0*.png")

    def test_ends_quietly_when_its_reader_has_seen_enough(self, place):
        reading, writing = os.pipe()
        os.close(reading)
        words = [sys.executable, "-m", "compressor", "predict", "model=packed", "input=images", QUIET]
        environ = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(deployed.__file__).parents[1])}
        with os.fdopen(writing, "w") as closed:
            ended = subprocess.run(words, stdout=closed, stderr=subprocess.PIPE, env=environ, cwd=place, check=False)
        assert (ended.returncode, ended.stderr) == (0, b"")


def test_a_file_whose_name_is_not_ascii_is_answered_under_that_name(tmp_path):
    for name in ("a\u3000b.png", os.fsdecode(b"c\xff.png")):
        (tmp_path / name).write_bytes(Path("images/01.png").read_bytes())
    assert {Path(row["file"]).name for row in rows(said(f"input={tmp_path}"))} == {"a\u3000b.png", "c?.png"}


class TestBadInput:
    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (("predict", "input=images"), "predict needs model=FOLDER"),
            (("predict", "model=checkpoint"), "and input=FILE, FOLDER or PATTERN"),
            (("predict", "model=nothing", "input=images"), "model=nothing: holds no export.json and no arch.json"),
            (("predict", "model=images", "input=images"), "model=images: holds no export.json and no arch.json"),
            (("predict", "model=packed", "input=images", "predict.engine=openvino"), "does not run packed files"),
            (("predict", "model=checkpoint", "input=images", "predict.engine=openvino"), "is a checkpoint"),
            (("predict", "model=packed", "input=images", "predict.format=xml"), "'xml' is not one of auto, table"),
            (("predict", "model=packed", "input=images", "predict.batch=0"), "predict.batch=0: give 1 to 256"),
            (("predict", "model=packed", "input=a,b"), "several values need -m"),
            (
                ("predict", "model=packed", "input=images", "predict.output=."),
                "predict.output=.: names no file; give one",
            ),
            (
                ("predict", "model=packed", "input=images", "predict.output=/"),
                "predict.output=/: names no file; give one",
            ),
            (
                ("predict", "model=packed", "input=images", "predict.output="),
                "predict.output=: names no file; give one",
            ),
        ],
    )
    def test_is_one_line(self, words, message):
        ended = call(*words, QUIET)
        assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1), ended.err
        assert message in ended.err

    def test_a_mixture_without_a_network_is_refused_by_name(self, tmp_path):
        (tmp_path / "mixture.json").write_text("{}")
        ended = said("input=images", model=str(tmp_path))
        assert (ended.code, ended.err.count("\n")) == (2, 1)
        assert str(tmp_path) in ended.err

    def test_a_file_is_no_model(self):
        with pytest.raises(ConfigError, match=r"model=images/01\.png"):
            open_model(Path("images/01.png"), Engine.AUTO, 1)


MANY = """
import resource, sys
from pathlib import Path
from compressor.config import Engine
from compressor.deploy.predict import answered, open_model
exported, sizes = open_model(Path("packed"), Engine.AUTO, 1), []
files = ["images/%02d.png" % (i if i % 4 else i + 1) for i in range(40)] * int(sys.argv[1])
for answers, _ in answered(exported, files, 64):
    sizes.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
print(sizes[1], sizes[-1])
"""


@pytest.mark.slow
def test_ten_thousand_files_take_no_more_memory_than_a_few_hundred(place):
    ended = process("-c", MANY, "250", folder=place)
    first, last = map(int, ended.stdout.split())
    assert last - first < 8 * 1024, "kilobytes"
