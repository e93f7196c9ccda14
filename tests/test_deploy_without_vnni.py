"""OpenVINO's kernels for processors without VNNI, which others can be made to run, answer right what is written."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from compressor.deploy.machine import machine

pytest.importorskip("onnx")
pytest.importorskip("openvino")


@pytest.fixture(scope="module", params=["AVX2", "AVX512_CORE"])
def found(request) -> dict:
    """Count wrong numbers of each graph, in a process that oneDNN takes for an older one."""
    if "sse4_2" not in machine().flags:
        pytest.skip("x86 alone has such kernels")
    script = Path(__file__).parent / "capped.py"
    env = os.environ | {"ONEDNN_MAX_CPU_ISA": request.param}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=env, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_large_weights_are_answered_right_in_halves_and_only_so(found):
    assert found["plain"] > 1000
    assert found["halved"] == 0
    assert found["seven"] == 0


def test_means_of_few_channels_are_rounded_alike_however_many_images_come_at_once(found):
    assert found["heads"]
    assert {name: count for name, count in found["heads"].items() if count} == {}
