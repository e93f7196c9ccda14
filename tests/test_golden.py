"""A model and a run that were written once stay loadable, and answer as they did (tests/golden/make.py wrote them)."""

from pathlib import Path

import pytest
import samples
import torch
from safetensors.torch import load_file

import compressor
from compressor.codec import decode, encode, read_json
from compressor.cost import paths, size_bits
from compressor.folders import read_metrics, read_record, verify
from compressor.measure import measure
from compressor.model import load
from compressor.pipeline import given
from compressor.records import SCHEMA, Metrics
from compressor.runs import read_run

GOLDEN = Path(__file__).parent / "golden"
PHASES = ("00-baseline", "01-distill", "02-prune", "03-quantize", "04-exit")


def test_the_model_loads_and_gives_the_answers_it_gave(unpickled):
    kept = load_file(GOLDEN / "answers.safetensors")
    net = compressor.load(GOLDEN / "model")
    with torch.no_grad():
        answers = net(kept.pop("images"))
    assert len(answers) == len(kept) == 3
    for i, out in enumerate(answers):
        torch.testing.assert_close(out, kept[f"head{i}"], rtol=1e-4, atol=1e-4)
    assert unpickled == []


def test_the_model_says_what_it_said_of_itself():
    net = compressor.load(GOLDEN / "model")
    assert net.arch.name == "golden"
    assert net.arch.quantization is not None
    assert net.arch.quantization.weights[0].bits == (1, 2, 3, 4, 6, 8)
    assert net.thresholds.tolist() == [0.25, torch.inf]
    assert net.cuts == (1, 2, 4)


def test_the_run_names_its_order_and_phases():
    note = read_run(GOLDEN / "run")
    assert (note.name, note.order) == ("golden", "DPQE")
    assert tuple(step.folder for step in note.steps) == PHASES


@pytest.mark.parametrize("phase", PHASES)
class TestRun:
    def test_its_files_are_what_its_record_says(self, phase):
        folder = GOLDEN / "run" / phase
        record = read_record(folder)
        verify(folder, record)
        assert (record.schema, record.key) == (SCHEMA, read_metrics(folder).key)
        assert given(folder).key == record.key
        assert folder.name.endswith(record.phase)

    def test_its_metrics_are_those_of_the_model_today(self, phase, digits):
        folder = GOLDEN / "run" / phase
        model, metrics = load(folder), read_metrics(folder)
        cost = metrics.after.cost
        assert (cost.macs, cost.bitops) == (paths(model)[-1].macs, paths(model)[-1].bitops)
        assert cost.size_bits == size_bits(model)
        measured = measure(model, digits, samples.RUNTIME)
        for now, then in ((measured.val, metrics.after.val), (measured.test, metrics.after.test)):
            assert now.quality.scores["accuracy"].value == pytest.approx(
                then.quality.scores["accuracy"].value, abs=0.02
            )
            assert now.quality.loss == pytest.approx(then.quality.loss, rel=0.02)
            assert now.bitops == pytest.approx(then.bitops, rel=0.02)

    def test_its_metrics_read_and_write_the_same(self, phase):
        data = read_json(GOLDEN / "run" / phase / "metrics.json")
        assert encode(decode(Metrics, data)) == data

    def test_it_can_be_gone_on_from(self, phase, digits, tmp_path):
        folder = GOLDEN / "run" / phase
        config = samples.settings(tmp_path, "Q", samples.STANDARD, checkpoint=str(folder))
        _, record, metrics, ran = samples.finish(config, digits)
        assert record.inputs["model"].key == read_record(folder).key
        assert record.original == read_record(folder).original
        assert metrics.bitops_ratio > 1
        assert len(ran) == 1


def test_all_of_it_is_small():
    assert sum(path.stat().st_size for path in GOLDEN.rglob("*") if path.is_file()) < 130_000
