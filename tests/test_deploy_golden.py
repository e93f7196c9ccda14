"""Exports that were written once stay loadable, and answer as they did (tests/golden/make_exports.py wrote them)."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from compressor.config import Engine
from compressor.deploy.note import read_note
from compressor.deploy.runtime import load_export

EXPORTS = Path(__file__).parent / "golden" / "exports"
ENGINES = [
    ("packed", Engine.TORCH),
    ("packed", Engine.NUMPY),
    ("onnx", Engine.ONNXRUNTIME),
    ("onnx", Engine.OPENVINO),
]


@pytest.mark.parametrize(("name", "engine"), ENGINES)
def test_an_export_loads_and_gives_the_answers_it_gave(name, engine):
    kept = load_file(EXPORTS / f"{name}.safetensors")
    found = load_export(EXPORTS / name, engine, threads=1).predict(kept["images"])
    assert found.exits.tolist() == kept["exits"].tolist()
    np.testing.assert_allclose(
        found.outputs, kept["outputs"], atol=0.02
    )  # a number at a rounding edge may go either way


@pytest.mark.parametrize("name", ["packed", "onnx"])
def test_an_export_says_what_it_said_of_itself(name):
    note = read_note(EXPORTS / name)
    assert (note.format, note.schema) == (name, 1)
    assert note.parity.engines[0].differing == 0
    assert note.exits is not None
    assert note.input.size == 8
