"""Exported files answer as PyTorch does, at every width of bits, with exits and without."""

from dataclasses import replace

import deployed
import pytest
import samples
from test_deploy_export import CONFIGS

from compressor.arch import Bits
from compressor.deploy.export import export
from compressor.deploy.note import read_note
from compressor.deploy.runtime import load_export
from compressor.routing import route

NETWORKS = {
    "8 bits": (samples.compressed(bits=Bits(8, 8)), 10),
    "4 bits": (samples.compressed(), 15),  # many tests share this one
    "2 bits": (samples.compressed(bits=Bits(2, 4)), 10),
    "no exits": (replace(samples.compressed(), exits=None), 30),
}
"""Archs, and for how many epochs each is trained."""


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("name", NETWORKS)
def test_an_export_says_how_well_each_engine_agrees_with_pytorch(name, kind, digits, tmp_path):
    model = deployed.learned(*NETWORKS[name])
    source = deployed.folder_of(model, tmp_path / "model")
    note = export(source, CONFIGS[kind], tmp_path / "made", digits.test, samples.RUNTIME)
    assert note == read_note(tmp_path / "made")
    assert (note.parity.images, note.parity.allowed, note.parity.score) == (120, 1, "accuracy")
    outputs, taken = route(model, digits.test)
    right = outputs.argmax(dim=1).numpy() == digits.test.targets
    assert note.parity.reference == pytest.approx(right.mean())
    assert right.mean() > 0.25
    assert len(set(taken.tolist())) == (1 if name == "no exits" else 3)
    compared = [found for found in note.parity.engines if found.refused is None]
    assert compared
    for found in compared:
        assert found.differing in (0, 1)
        answers = load_export(tmp_path / "made", found.engine, threads=1).predict(digits.test.images[:])
        same = outputs.numpy().argmax(1) == answers.outputs.argmax(1)
        assert found.differing == (~same).sum()
        assert found.moved == (answers.exits != taken.numpy()).sum()
