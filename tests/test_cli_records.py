"""What commands write down and show of runs, whatever the images: schemas, counts, lists, damage."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import jsonschema
import layouts
import pytest
from terminal import TINY, Ended, call

import compressor
from compressor import cli
from compressor.errors import StoreError
from compressor.folders import read_metrics
from compressor.records import Measurement
from compressor.report.tables import scores_table
from compressor.report.text import console
from compressor.runs import read_run

SCHEMA = json.loads((Path(cli.__file__).parent / "schemas" / "metrics.schema.json").read_text())
RUNS = {
    "turned": ("dataset=rotated_digits", "order=P"),
    "blood": ("dataset=medmnist", "dataset.flag=bloodmnist", "dataset.root=blood", "order="),
    "photos": ("dataset=imagefolder", "dataset.root=photos", "dataset.skip_unreadable=true", "order="),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run on each kind of images: a regression, a medical set, and one's own, two unreadable."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "blood").mkdir()
    layouts.medical(folder / "blood" / "bloodmnist.npz", size=28, colour=True, labels=8, count=48)
    photos = layouts.folder(folder / "photos")
    (photos / "train" / "cat" / "003.png").write_bytes(b"no image")
    (photos / "test" / "dog" / "004.png").write_bytes(b"")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, words in RUNS.items():
            ended = here("run", f"name={name}", f"hydra.run.dir=outputs/{name}", *words)
            assert ended.code == 0, ended.err
            (folder / f"{name}.out").write_text(ended.out)
    return folder


@pytest.fixture(autouse=True)
def _there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


def here(*words: str) -> Ended:
    return call(words[0], *TINY, "runtime.data_cache=cache", *words[1:])


@pytest.mark.parametrize(("name", "score"), [("turned", "r2"), ("blood", "auc"), ("photos", "accuracy")])
def test_metrics_of_every_kind_of_task_follow_the_published_schema(name: str, score: str) -> None:
    for step in read_run(Path("outputs", name)).steps:
        data = json.loads(Path("outputs", name, step.folder, "metrics.json").read_text())
        jsonschema.validate(data, SCHEMA)
        assert score in data["after"]["test"]["quality"]["scores"]


class TestSkippedImages:
    said = (
        "imagefolder: 58 images (35 train, 4 val, 19 test) of 2 classes; left out: 2 that cannot be read"
        " (test/dog/004.png (empty), train/cat/003.png (not an image))"
    )

    def test_a_run_says_and_notes_how_many(self) -> None:
        assert self.said in Path("photos.out").read_text().splitlines()
        assert "cannot be read" not in Path("turned.out").read_text()
        assert [read_run(Path("outputs", name)).skipped for name in ("photos", "turned")] == [2, 0]

    def test_an_evaluation_says_and_notes_how_many(self) -> None:
        ended = here("evaluate", "checkpoint=outputs/photos/00-baseline", *RUNS["photos"][:-1])
        assert ended.code == 0, ended.err
        assert self.said in ended.out.splitlines()
        assert json.loads(Path(ended.out.split()[-1]).read_text())["skipped"] == 2


class TestDamage:
    @pytest.fixture
    def copy(self, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """The runs, copied so that they may be damaged."""
        shutil.copytree(place / "outputs", tmp_path / "outputs", copy_function=shutil.copyfile)
        monkeypatch.chdir(tmp_path)
        return tmp_path / "outputs"

    def rows(self) -> list[list[str]]:
        ended = call("list")
        assert (ended.code, ended.err) == (0, "")
        return [line.split() for line in ended.out.splitlines()]

    @pytest.mark.parametrize("name", ["metrics.json", "record.json", "weights.safetensors"])
    def test_list_shows_a_phase_that_lost_a_file_as_damaged_and_goes_on(self, copy: Path, name: str) -> None:
        (copy / "turned" / "01-prune" / name).unlink()
        rows = self.rows()
        assert ["01-prune", "damaged"] in rows
        assert sum("00-baseline" in row for row in rows) == 3

    def test_list_shows_a_removed_phase_and_changed_metrics_as_damaged(self, copy: Path) -> None:
        shutil.rmtree(copy / "blood" / "00-baseline")
        path = copy / "turned" / "01-prune" / "metrics.json"
        path.write_text(path.read_text().replace("seconds", "minutes"))
        rows = self.rows()
        assert ["outputs/blood", "00-baseline", "damaged"] in rows
        assert ["01-prune", "damaged"] in rows

    def test_list_shows_a_run_with_a_damaged_note_and_clean_says_which_to_mend(self, copy: Path) -> None:
        (copy / "blood" / "run.json").write_text("{")
        rows = self.rows()
        assert ["outputs/blood", "run.json", "damaged"] in rows
        assert sum("00-baseline" in row for row in rows) == 2
        kept = sorted((copy / "store").iterdir())
        ended = call("clean", "clean.delete=true")
        assert (ended.code, ended.err.count("\n")) == (2, 1)
        assert "outputs/blood/run.json: is not valid JSON" in ended.err
        assert "mend it, or remove outputs/blood: " in ended.err
        assert sorted((copy / "store").iterdir()) == kept


def test_a_model_that_its_record_does_not_vouch_for_is_not_loaded_until_the_record_is_removed(tmp_path: Path) -> None:
    shutil.copytree("outputs/turned/00-baseline", tmp_path / "model", copy_function=shutil.copyfile)
    shutil.copyfile("outputs/turned/01-prune/record.json", tmp_path / "model" / "record.json")
    with pytest.raises(StoreError, match=r"is not what record\.json says"):
        compressor.load(tmp_path / "model")
    (tmp_path / "model" / "record.json").unlink()
    assert not compressor.load(tmp_path / "model").training


def test_home_is_the_same_in_every_setting(tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copytree(place / "photos", tmp_path / "photos")
    words = ("dataset=imagefolder", "dataset.root=~/photos", "dataset.skip_unreadable=true", "order=", "runs=~/runs")
    ended = here("run", *words, "runtime.data_cache=~/cache")
    assert ended.code == 0, ended.err
    assert {path.name for path in tmp_path.iterdir()} == {"photos", "runs", "cache"}
    folder = Path(ended.out.split()[-1])
    assert folder.is_relative_to(tmp_path / "runs")
    checkpoint = f"checkpoint=~/{folder.relative_to(tmp_path)}/00-baseline"
    assert here("evaluate", checkpoint, *words).code == 0
    assert "00-baseline" in call("list", "runs=~/runs").out
    assert not Path("~").exists()


def test_a_score_that_one_split_lacks_is_an_empty_cell(place: Path) -> None:
    measured = read_metrics(place / "outputs" / "blood" / "00-baseline").after
    for split in ("val", "test"):
        lines = table(measured, without=split)
        assert len(next(line for line in lines if line.startswith("auc")).split()) == 3
    assert len(next(line for line in table(measured, "") if line.startswith("auc")).split()) == 5


def table(measured: Measurement, without: str) -> list[str]:
    if without:
        quality = getattr(measured, without).quality
        scores = {name: score for name, score in quality.scores.items() if name != "auc"}
        changed = replace(getattr(measured, without), quality=replace(quality, scores=scores))
        measured = replace(measured, **{without: changed})
    shown = console()
    with shown.capture() as said:
        shown.print(scores_table(measured))
    return [line.strip() for line in said.get().splitlines()]
