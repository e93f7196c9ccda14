"""The built wheel: what it carries, and that it works from an empty folder."""

import subprocess
import sys
from email.parser import HeaderParser
from email.policy import default
from pathlib import Path
from zipfile import ZipFile

import pytest
from terminal import process

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this working tree, built without network."""
    folder = tmp_path_factory.mktemp("dist")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", str(folder), str(ROOT)], check=True)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_carries_its_licence_and_says_that_it_is_typed(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        names = archive.namelist()
        (licence,) = [name for name in names if name.endswith(".dist-info/licenses/LICENSE")]
        (metadata,) = [name for name in names if name.endswith(".dist-info/METADATA")]
        assert archive.read(licence) == (ROOT / "LICENSE").read_bytes()
        about = HeaderParser(policy=default).parsestr(archive.read(metadata).decode())
    assert "compressor/py.typed" in names
    assert about["License-Expression"] == "Apache-2.0"
    assert about["License-File"] == "LICENSE"
    assert "compressor contributors" in (about["Author"] or about["Author-email"])


@pytest.mark.slow
def test_the_wheel_works_in_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    installed = tmp_path / "site"
    empty = tmp_path / "empty"
    empty.mkdir()
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    subprocess.run([*pip, "--target", str(installed), str(wheel)], check=True)
    assert (installed / "compressor" / "schemas" / "metrics.schema.json").is_file()

    words = ("run", "fit=smoke", "architecture.width=0.25", "dataset.limit=100", "order=PQ")
    ended = process("-m", "compressor", *words, folder=empty, PYTHONPATH=str(installed))
    assert ended.returncode == 0, ended.stderr
    where = process("-c", "import compressor; print(compressor.__file__)", folder=empty, PYTHONPATH=str(installed))
    assert where.stdout.startswith(str(installed))
    (run,) = (empty / "outputs" / "digits").iterdir()
    assert (run / "02-quantize" / "weights.safetensors").is_file()
    info = process("-m", "compressor", "run", "--info", "searchpath", folder=empty, PYTHONPATH=str(installed))
    assert f"file://{installed / 'compressor' / 'configs'}" in info.stdout
