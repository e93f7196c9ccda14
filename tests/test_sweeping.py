"""Sweeps whose jobs write anywhere, and paths that mean the folder where a command was typed."""

import json
from pathlib import Path

import pytest
from PIL import Image
from terminal import TINY, Ended, call, process

QUICK = (*TINY, "fit.epochs=0", "order=")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def sweep_of(ended: Ended) -> list[dict]:
    (where,) = (line for line in ended.out.splitlines() if line.startswith("sweep: "))
    return json.loads((Path(where.removeprefix("sweep: ")) / "sweep.json").read_text())["jobs"]


def photos(folder: Path) -> None:
    """Write 12 x 12 images of two classes: brighter at the left, brighter at the right."""
    for part, count in (("train", 6), ("test", 3)):
        for name, bright in (("left", range(6)), ("right", range(6, 12))):
            (folder / part / name).mkdir(parents=True)
            for i in range(count):
                image = Image.new("L", (12, 12), 20 * i)
                for x in bright:
                    image.paste(200 + i, (x, 0, x + 1, 12))
                image.save(folder / part / name / f"{i}.png")


class TestSweepsOverFolders:
    def test_all_jobs_are_in_the_table_wherever_they_wrote(self, place: Path) -> None:
        ended = call("run", "-m", *QUICK, "runs=r1,r2")
        assert ended.code == 0, ended.err
        jobs = sweep_of(ended)
        assert [Path(job["folder"]).relative_to(place).parts[0] for job in jobs] == ["r1", "r2"]
        assert all((Path(job["folder"]) / "run.json").is_file() for job in jobs)

    def test_the_exit_code_is_that_of_the_worst_job_wherever_it_wrote(self, place: Path) -> None:
        folder = place / "my" / "experiment"
        folder.mkdir(parents=True)
        (folder / "good.yaml").write_text("# @package _global_\nruns: e1\n")
        (folder / "bad.yaml").write_text("# @package _global_\nruns: e2\nbaseline: {weights: nowhere.pth}\n")
        ended = call("run", "-m", *QUICK, "--config-dir", "my", "+experiment=good,bad")
        assert ended.code == 2
        assert [job["outcome"]["code"] for job in sweep_of(ended)] == [0, 2]

    def test_a_sweep_folder_of_the_jobs_values_is_counted_too(self, place: Path) -> None:
        ended = call("run", "-m", *QUICK, "hydra.sweep.dir=sw/${name}", "name=n1,n2", "baseline.weights=nowhere.pth")
        assert ended.code == 2
        assert [job["outcome"]["code"] for job in sweep_of(ended)] == [2, 2]

    def test_jobs_of_an_earlier_sweep_in_the_same_folder_are_not_counted(self, place: Path) -> None:
        assert call("run", "-m", *QUICK, "hydra.sweep.dir=same", "seed=1,2,3", "baseline.weights=nowhere.pth").code == 2
        ended = call("run", "-m", *QUICK, "hydra.sweep.dir=same", "seed=1")
        assert (ended.code, len(sweep_of(ended))) == (0, 1)

    def test_the_table_tells_jobs_with_brackets_apart(self, place: Path) -> None:
        ended = call("search", "-m", "search.rivals=[nosuch],[alsonot]", "dataset.limit=60")
        assert ended.code == 2
        table = ended.out.rpartition("new/stored")[2]
        assert "search.rivals=[nosuch]" in table
        assert "search.rivals=[alsonot]" in table


class TestWhereItWasTyped:
    SETTINGS = (*TINY[:3], "runtime.progress=false", "dataset=imagefolder", "dataset.root=photos")
    SMALL = ("dataset.image_size=8", "fit.epochs=0", "order=", "hydra.job.chdir=true")

    @pytest.mark.parametrize("mode", [(), ("-m", "seed=0,1")], ids=["run", "sweep"])
    def test_relative_paths_mean_it_also_where_hydra_goes_elsewhere(self, mode: tuple[str, ...], place: Path) -> None:
        photos(place / "photos")
        ended = call("run", *mode, *self.SETTINGS, *self.SMALL, "runs=o")
        assert ended.code == 0, ended.err
        assert [path.relative_to(place) for path in place.rglob("store")] == [Path("o/store")]
        assert Path.cwd() == place

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "launcher", [("hydra/launcher=joblib",), ("hydra/launcher=submitit_local", "hydra.launcher.timeout_min=30")]
    )
    def test_they_mean_it_in_other_processes_too(self, launcher: tuple[str, ...], place: Path) -> None:
        photos(place / "photos")
        words = ("run", "-m", "seed=0,1", *launcher, *self.SETTINGS, *self.SMALL, "runs=o")
        ended = process("-m", "compressor", *words, folder=place)
        assert ended.returncode == 0, ended.stderr
        assert [path.relative_to(place) for path in place.rglob("store")] == [Path("o/store")]
