"""The built wheel works from an empty folder: it carries the configs, the schema and the command."""

import subprocess
import sys
from pathlib import Path

import pytest
from terminal import process

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_wheel_works_in_an_empty_folder(tmp_path: Path) -> None:
    built, installed, empty = (tmp_path / name for name in ("dist", "site", "empty"))
    empty.mkdir()
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        str(built),
        str(ROOT),
    ]
    subprocess.run(build, check=True)
    (wheel,) = built.glob("*.whl")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(installed), str(wheel)]
    subprocess.run(install, check=True)
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
