"""Mixtures in commands: exported, asked for answers to files, timed against their original, and loaded in Python."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import deployed
import jsonschema
import mixtures
import numpy as np
import pytest
import samples
import torch
from PIL import Image
from terminal import TINY, Ended, call
from test_deploy_bench import QUICK, SCHEMA

import compressor
from compressor.arch import Exits, Routing
from compressor.config import PredictFormat
from compressor.data import load_data
from compressor.deploy.answers import Answer, writer
from compressor.deploy.bench_engines import ENGINES
from compressor.deploy.bench_memory import measured, peak_of
from compressor.errors import ModelError
from compressor.folders import read_mixture
from compressor.mixture import Mixture, answer, assemble, run, save_mixture

QUIET = ("runtime.progress=false", "runtime.threads=1")


def settled(routing: Routing, digits) -> Mixture:
    """Give an untrained mixture whose experts' exits let some images leave."""
    found = mixtures.toy(routing, exits=True)
    for expert in found.experts:
        deployed.leaving(expert, digits.test)
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory, digits) -> Path:
    """A folder with two mixtures, the packed export of one, an original and 40 images."""
    place = tmp_path_factory.mktemp("place")
    for routing in (Routing.TOP1, Routing.TOPK):
        (place / routing).mkdir()
        save_mixture(settled(routing, digits), place / routing)
    deployed.folder_of(samples.model(samples.arch(depth=4)), place / "original")
    (place / "images").mkdir()
    for i in range(40):
        Image.fromarray(digits.test.images[i][0]).save(place / "images" / f"{i:02}.png")
    words = (*TINY, *QUIET, "checkpoint=top1", "export.format=packed", "hydra.run.dir=exported")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        ended = call("export", *words)
    assert ended.code == 0, ended.err
    (place / "said.txt").write_text(ended.out)
    return place


@pytest.fixture(autouse=True)
def _there(place, monkeypatch):
    monkeypatch.chdir(place)


def predict(model: str, *words: str) -> Ended:
    ended = call("predict", f"model={model}", "input=images", *QUIET, *words)
    assert ended.code == 0, ended.err
    return ended


class TestExport:
    def test_shows_how_many_images_other_experts_answered(self):
        lines = Path("said.txt").read_text().splitlines()
        assert any("experts" in line for line in lines[:4])
        assert "…" not in Path("said.txt").read_text()
        row = next(line.split() for line in lines if line.strip().startswith("torch"))
        assert row[2:5] == ["0", "0", "0"]
        assert lines[-1] == "export: exported/packed"

    def test_of_half_a_mixture_is_refused_in_one_line(self, tmp_path):
        (tmp_path / "mixture.json").write_bytes(Path("top1/mixture.json").read_bytes())
        ended = call("export", *TINY, *QUIET, f"checkpoint={tmp_path}", f"hydra.run.dir={tmp_path / 'run'}")
        assert (ended.code, ended.err.count("\n")) == (2, 1)
        assert f"checkpoint={tmp_path}/weights.safetensors" in ended.err


class TestPredict:
    @pytest.mark.parametrize("model", ["top1", "exported/packed"])
    def test_says_which_expert_answered_beside_class_and_exit(self, model, digits):
        found = [json.loads(line) for line in predict(model).out.splitlines()]
        want = answer(settled(Routing.TOP1, digits), digits.test)
        experts = want.weights.argmax(dim=1).tolist()[:40]
        assert [row["expert"] for row in found] == list(map(str, experts))
        assert [row["class"] for row in found] == list(map(str, want.outputs[:40].argmax(dim=1).tolist()))
        heads = [int(want.heads[i, expert]) for i, expert in enumerate(experts)]
        lasts = [1, 0, 1]
        exits = ["final" if head == lasts[e] else "exit 1" for head, e in zip(heads, experts, strict=True)]
        assert [row["exit"] for row in found] == exits
        assert list(found[0]) == ["file", "class", "probability", "exit", "expert"]
        assert len({row["expert"] for row in found}) > 1
        assert set(exits) == {"final", "exit 1"}

    def test_names_several_experts_the_weightiest_first(self, digits):
        table = list(csv.DictReader(io.StringIO(predict("topk", "predict.format=csv").out)))
        want = answer(settled(Routing.TOPK, digits), digits.test)
        for row, weights in zip(table, want.weights, strict=False):
            first, second = torch.argsort(-weights)[:2].tolist()
            assert row["expert"] == f"{first}+{second}"
            assert len(row["exit"].split("+")) == 2

    def test_has_columns_for_them_in_a_table(self):
        for model, width in (("top1", 1), ("topk", 2)):
            first, *rows = predict(model, "predict.format=table").out.splitlines()
            assert first.split() == ["file", "class", "probability", "exit", "expert"]
            start = first.index("expert")
            assert all(len(row[start:].split("+")) == width and row[start - 1] == " " for row in rows)

    def test_of_labels_has_the_expert_after_the_exit(self):
        labels, out = mixtures.TASKS["multilabel"], io.StringIO()
        for kind in PredictFormat.CSV, PredictFormat.TABLE:
            write = writer(kind, out, labels, ["a.png"], experts=2)
            write(Answer("a.png", (0.9, 0.2, 0.7), "final+exit 1", "1+0"))
        assert out.getvalue().splitlines() == [
            "file,odd,large,prime,exit,expert",
            "a.png,0.9,0.2,0.7,final+exit 1,1+0",
            "file   exit             expert  labels and probabilities",
            "a.png  final+exit 1     1+0     odd 0.900  prime 0.700",
        ]

    def test_of_a_checkpoint_needs_no_engine_for_files(self):
        ended = call("predict", "model=top1", "input=images", *QUIET, "predict.engine=openvino")
        assert (ended.code, ended.err.count("\n")) == (2, 1)
        assert "top1 is a checkpoint" in ended.err


class TestBench:
    @pytest.mark.parametrize("engine", ["torch", "openvino", "onnxruntime"])
    def test_times_a_mixture_and_says_which_expert_answered_how_much(self, engine, digits):
        test = load_data(replace(samples.DATASET, limit=60), samples.RUNTIME).test
        for package in ENGINES[engine].packages:
            pytest.importorskip(package)
        settings = ("bench.visit=60", "bench.batches=[20]", f"bench.engines=[{engine}]", "dataset.limit=60")
        ended = call("bench", *TINY, *QUICK, "checkpoint=top1", "bench.original=original", *settings)
        assert ended.code == 0, ended.err
        result = json.loads(Path(ended.out.splitlines()[-1].removeprefix("benchmark: ")).read_text())
        jsonschema.validate(result, SCHEMA)
        assert result["experts"] == {"compressed": [2, 1, 2]}
        shares = {each["network"]: each["shares"] for each in result["timings"]}
        want = answer(settled(Routing.TOP1, digits), test).heads.numpy()
        counts = [(want[:, e] == head).sum() for e, head in ((0, 0), (0, 1), (1, 0), (2, 0), (2, 1))]
        assert shares["original"] == [1.0]
        assert shares["compressed"] == pytest.approx([count / 60 for count in counts], abs=0.04)
        assert [each["batch"] for each in result["ratios"]] == [20]
        files = {each["network"]: each["file"] for each in result["footprints"]}
        if engine == "torch":
            assert files["compressed"] == sum(path.stat().st_size for path in Path("top1").iterdir())
        assert "compressed: expert 0 " in ended.out

    @pytest.mark.parametrize("form", ["network", "mixture"])
    def test_positions_after_one_block_are_one_head(self, form, tmp_path):
        merged = samples.arch(exits=Exits((0.45, 0.5), width=4))  # of four blocks: both after the second
        if form == "network":
            deployed.folder_of(samples.model(merged), tmp_path / "model")
        else:
            toy = mixtures.toy(exits=True)
            (tmp_path / "model").mkdir()
            experts = (samples.model(merged), *toy.experts[1:])
            save_mixture(assemble(replace(toy.rule, routing=Routing.SOFT), toy.router, experts), tmp_path / "model")
        settings = ("bench.batches=[5]", "bench.original=original", "runtime.threads=1")
        ended = call("bench", *TINY, *QUICK, f"checkpoint={tmp_path / 'model'}", *settings)
        assert ended.code == 0, ended.err
        result = json.loads(Path(ended.out.splitlines()[-1].removeprefix("benchmark: ")).read_text())
        (shares,) = (each["shares"] for each in result["timings"] if each["network"] == "compressed")
        line = next(line for line in ended.out.splitlines() if line.startswith("images that left at each head"))
        if form == "network":
            assert shares == [0, 1]
            assert line.endswith("compressed: 0.0, 100.0")
            return
        assert result["experts"] == {"compressed": [2, 1, 2]}
        assert shares == pytest.approx([0, 1 / 3, 1 / 3, 0, 1 / 3])
        assert line.endswith("compressed: expert 0 0.0, 33.3 | expert 1 33.3 | expert 2 0.0, 33.3")

    @pytest.mark.skipif(not measured(), reason="only Linux tells a process's own peak")
    def test_its_peak_memory_is_measured_as_a_networks_is(self):
        found = peak_of(Path("top1"), "torch", "fp32", 1, np.zeros((10_000, 1, 8, 8), np.uint8))
        assert 10_000 * 8 * 8 * 4 * 6 < found.growth < found.peak

    def test_a_network_has_no_word_of_experts(self):
        ended = call("bench", *TINY, *QUICK, "checkpoint=original", "bench.batches=[5]")
        assert ended.code == 0, ended.err
        result = json.loads(Path(ended.out.splitlines()[-1].removeprefix("benchmark: ")).read_text())
        assert "experts" not in result


class TestLoad:
    def test_gives_the_mixture_that_the_folder_holds(self, digits):
        mixture = compressor.load_mixture("top1")
        assert mixture.arch == read_mixture(Path("top1"))
        found = run(mixture, torch.from_numpy(digits.test.images[:30]))
        assert torch.equal(
            found.outputs, run(settled(Routing.TOP1, digits), torch.from_numpy(digits.test.images[:30])).outputs
        )
        assert not mixture.net.training

    def test_of_one_network_names_what_loads_a_mixture(self):
        with pytest.raises(ModelError, match=r"top1: is a mixture of models, which compressor\.load_mixture gives$"):
            compressor.load("top1")
