"""Answers that are kept: `predict` stopped at any time goes on when it is typed again, and ends in the same bytes."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import deployed
import planted
import pytest
import samples
from PIL import Image
from terminal import Ended, call

from compressor.deploy import predict as module
from compressor.deploy.export import export
from compressor.deploy.keeping import PART, keeping
from compressor.errors import ConfigError

QUIET = "runtime.progress=false"
MANY = 600


@pytest.fixture(scope="module")
def place(tmp_path_factory, digits) -> Path:
    """A folder with a packed model, another one, and many images."""
    place = tmp_path_factory.mktemp("place")
    for name, seed in (("packed", 0), ("other", 1)):
        model = samples.model(samples.arch(), seed)
        deployed.folder_of(model, place / f"checkpoint-{name}")
        export(place / f"checkpoint-{name}", deployed.PACKED, place / name, digits.test, samples.RUNTIME)
    (place / "images").mkdir()
    for i in range(MANY):
        path = place / "images" / f"{i:04}.png"
        if i < 60:
            Image.fromarray(digits.test.images[i][0]).save(path)
        else:
            path.hardlink_to(place / "images" / f"{i % 60:04}.png")
    (place / "images" / "0300-cut.png").write_bytes(b"cut")
    return place


@pytest.fixture(autouse=True)
def _there(place, monkeypatch):
    monkeypatch.chdir(place)


def words(output: Path, model: str = "packed") -> tuple[str, ...]:
    out = f"predict.output={output}"
    return ("predict", f"model={model}", "input=images", QUIET, "runtime.threads=1", "predict.batch=4", out)


def begun(output: Path, pieces: int) -> "subprocess.Popen[str]":
    """Start `predict` as a process, and wait until so many pieces are kept."""
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(deployed.__file__).parents[1])}
    command = [sys.executable, "-m", "compressor", *words(output)]
    child = subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True)
    part = output.with_name(output.name + PART)
    planted.until(lambda: child.poll() is not None or lines(part) > pieces)
    return child


def lines(part: Path) -> int:
    return part.read_bytes().count(b"\n") if part.exists() else 0


@pytest.fixture(scope="module")
def whole(place, tmp_path_factory) -> dict[str, bytes]:
    """What a command that nobody stops writes, by format."""
    folder = tmp_path_factory.mktemp("whole")
    before = Path.cwd()
    os.chdir(place)
    try:
        for form in ("csv", "jsonl", "txt"):
            assert call(*words(folder / f"a.{form}")).code == 1, "one file cannot be read"
    finally:
        os.chdir(before)
    return {form: (folder / f"a.{form}").read_bytes() for form in ("csv", "jsonl", "txt")}


@pytest.mark.parametrize(
    ("form", "pieces", "number"),
    [
        ("csv", 1, signal.SIGINT),
        ("jsonl", 30, signal.SIGTERM),
        ("txt", 60, signal.SIGKILL),
    ],
)
def test_predict_that_is_stopped_goes_on_and_ends_in_the_same_bytes(form, pieces, number, whole, tmp_path):
    output = tmp_path / f"answers.{form}"
    child = begun(output, pieces)
    child.send_signal(number)
    _, said = child.communicate(timeout=100)
    part = output.with_name(output.name + PART)
    kept = lines(part)
    assert not output.exists()
    assert pieces < kept < MANY // 4
    if number == signal.SIGKILL:
        assert child.returncode == -number
    else:
        assert child.returncode == 128 + number
        answers = 4 * (kept - 1) - said.count("0300-cut.png")
        line = f"the answers to {answers} of {MANY + 1} files are in {part}; the same command goes on from there"
        assert said.splitlines()[-1] == f"compressor: interrupted; {line}"
    ended = call(*words(output))
    assert (ended.code, output.read_bytes()) == (1, whole[form])
    assert "0300-cut.png (not an image): has no answer" in ended.err
    assert list(tmp_path.iterdir()) == [output]


def test_what_is_kept_is_not_computed_again(tmp_path, monkeypatch):
    output = stopped(tmp_path)
    answered = module.answered
    asked = []
    monkeypatch.setattr(module, "answered", lambda e, files, *more: asked.extend(files) or answered(e, files, *more))
    call(*words(output))
    assert 0 < len(asked) < MANY - 60


def stopped(folder: Path) -> Path:
    """Leave a part file of thirty pieces."""
    output, answered, asked = folder / "answers.csv", module.answered, []

    def until(*given):
        asked.append(given)
        if len(asked) > 30:
            raise KeyboardInterrupt
        return answered(*given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "answered", until)
        assert call(*words(output)).code == 130
    return output


def test_an_input_that_changed_meanwhile_is_answered_anew(place, tmp_path, whole):
    output = stopped(tmp_path)
    image, before = Path("images/0000.png"), Path("images/0000.png").read_bytes()
    image.unlink()
    image.write_bytes(Path("images/0001.png").read_bytes())
    try:
        call(*words(output))
        call(*words(tmp_path / "anew.csv"))
        assert output.read_bytes() == (tmp_path / "anew.csv").read_bytes() != whole["csv"]
    finally:
        image.write_bytes(before)


@pytest.mark.parametrize("damage", ["cut", "changed", "zeros"])
def test_rows_that_were_cut_or_changed_are_answered_anew(damage, tmp_path, whole):
    output = stopped(tmp_path)
    part = output.with_name(output.name + PART)
    content = part.read_bytes()
    third = content.index(b"\n", content.index(b"\n") + 1) + 40
    damaged = {
        "cut": content[:-7],
        "changed": content[:third] + b"#" + content[third + 1 :],
        "zeros": content + bytes(100),
    }
    part.write_bytes(damaged[damage])
    assert call(*words(output)).code == 1
    assert output.read_bytes() == whole["csv"]


def test_the_answers_of_another_model_are_left_alone(tmp_path):
    output = stopped(tmp_path)
    part = output.with_name(output.name + PART)
    before = part.read_bytes()
    for other in (words(output, "other"), (*words(output), "predict.batch=8")):
        ended = call(*other)
        assert (ended.code, ended.err.count("\n")) == (2, 1)
        assert "holds answers of another model or other settings" in ended.err
    assert part.read_bytes() == before


def test_two_never_share_a_part_file(tmp_path, whole):
    output = tmp_path / "answers.csv"
    child = begun(output, 1)
    child.send_signal(signal.SIGSTOP)
    ended = call(*words(output))
    child.send_signal(signal.SIGCONT)
    child.communicate(timeout=100)
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "another predict is writing it" in ended.err
    assert output.read_bytes() == whole["csv"]


def test_of_many_that_open_a_part_file_at_once_one_holds_it(tmp_path):
    begin, held, refused = threading.Barrier(8), [], []

    def take() -> None:
        begin.wait()
        for _ in range(20):
            try:
                with keeping(tmp_path / "a.csv", {}) as kept:
                    held.append(1)
                    kept.begin("")
                    assert sum(held) == 1
                    held.remove(1)
                    raise KeyError  # it breaks off
            except ConfigError as error:
                refused.append(str(error))
            except KeyError:
                pass

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all("another predict is writing it" in line for line in refused)
    assert list(tmp_path.iterdir()) == []


def test_a_pipe_or_a_file_of_somebody_else_in_place_of_the_part_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / f"a.csv{PART}")
    (tmp_path / f"b.csv{PART}").write_text("mine")
    for name, text in (("a", "is a pipe; a regular file is needed"), ("b", "or what is no answer; remove it")):
        ended = call(*words(tmp_path / f"{name}.csv"))
        assert (ended.code, ended.err.count("\n")) == (2, 1)
        assert text in ended.err
    assert (tmp_path / f"b.csv{PART}").read_text() == "mine"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_rows_on_stdout_are_whole_and_counted_when_it_is_stopped(number, tmp_path):
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(deployed.__file__).parents[1])}
    command = [sys.executable, "-m", "compressor", *words(tmp_path)[:-1]]
    said = tmp_path / "said"
    with said.open("w") as out:
        child = subprocess.Popen(command, env=environ, stdout=out, stderr=subprocess.PIPE, text=True)
        planted.until(lambda: child.poll() is not None or lines(said) >= 20)
        child.send_signal(number)
        _, last = child.communicate(timeout=100)
    assert child.returncode == 128 + number
    rows = [json.loads(line) for line in said.read_text().splitlines()]
    assert 20 <= len(rows) < MANY
    assert f"interrupted; the answers to {len(rows)} of {MANY + 1} files are printed" in last.splitlines()[-1]


def test_nothing_stays_where_nothing_was_answered(tmp_path, monkeypatch):
    def broken(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "answered", broken)
    ended: Ended = call(*words(tmp_path / "answers.csv"))
    assert ended.code == 130
    assert list(tmp_path.iterdir()) == []
