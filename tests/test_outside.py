"""What is written outside the run directory, the store and the cache of the user: nothing."""

import os
from pathlib import Path

import pytest
from terminal import process

SCRIPTS = {
    "openvino": "import compressor.deploy, openvino; from openvino import opset13",
    "onnxruntime": "import compressor.deploy, onnxruntime; onnxruntime.get_available_providers()",
    "matplotlib": "import compressor.report.search_figures\n"
    "from compressor.report.drawing import figure, write; from pathlib import Path\n"
    "with figure(1, 1) as drawn: write(drawn, Path('.'), 'x')",
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_libraries_write_into_the_cache_or_nowhere(name: str, tmp_path: Path) -> None:
    pytest.importorskip(name)
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    kept = {key: os.environ.pop(key) for key in ("MPLCONFIGDIR", "ORT_DISABLE_TELEMETRY") if key in os.environ}
    try:
        ended = process("-c", SCRIPTS[name], folder=work, HOME=str(home), XDG_CACHE_HOME=str(home / "cache"))
    finally:
        os.environ.update(kept)
    assert ended.returncode == 0, ended.stderr
    written = [path.relative_to(home).parts[:2] for path in home.rglob("*") if path.is_file()]
    assert set(written) <= {("cache", "compressor")}
