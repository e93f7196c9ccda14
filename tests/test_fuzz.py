"""`scripts/fuzz` at work: a dozen changed files, none of which a command takes for granted or breaks down over."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "fuzz"
KINDS = ("record.json", "packed file", "CSV")


def fuzzed(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    chosen = [word for kind in KINDS for word in ("--only", kind)]
    command = [sys.executable, str(SCRIPT), *chosen, "--folder", str(folder / "work"), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=500)


def test_a_dozen_changed_files_are_refused_or_change_nothing(tmp_path: Path) -> None:
    ended = fuzzed(tmp_path, "--tries", "12", "--seed", "1", "--seconds", "300")
    assert (ended.returncode, ended.stderr.count("Traceback")) == (0, 0), ended.stdout + ended.stderr
    last = ended.stdout.splitlines()[-1].split()
    assert last[:2] == ["all", "12"]
    assert last[-6:] == ["0"] * 6


BLIND = """
import runpy, sys
from compressor import folders
folders.verify_file = folders._verify_model = lambda *given: None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.slow
def test_a_program_that_checks_no_digest_is_found_out(tmp_path: Path) -> None:
    words = ["--only", "metrics.json", "--only", "weights.safetensors", "--tries", "16"]
    report = ["--folder", str(tmp_path / "work"), "--report", str(tmp_path / "report")]
    command = [sys.executable, "-c", BLIND, str(SCRIPT), *words, *report]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=500)
    assert ended.returncode == 1, ended.stdout + ended.stderr
    found = [json.loads(line) for line in (tmp_path / "report").read_text().splitlines()]
    assert any("silent acceptance" in fault["faults"] for fault in found)
