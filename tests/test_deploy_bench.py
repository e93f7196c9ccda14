"""The benchmark: machine and engines, what the command writes, and what it refuses."""

import json
import runpy
import sys
from pathlib import Path
from types import ModuleType

import jsonschema
import numpy as np
import pytest
import samples
import torch
from terminal import TINY, Ended, call

import compressor
from compressor.deploy.bench_engines import ENGINES, choose
from compressor.deploy.bench_memory import measured, peak_of
from compressor.deploy.bench_stats import Cell
from compressor.deploy.machine import Machine, fast_flags
from compressor.errors import ConfigError, ModelError

SCHEMA = json.loads((Path(compressor.__file__).parent / "schemas" / "bench.schema.json").read_text())


class TestMachine:
    def test_flags_that_change_the_speed_of_arithmetic_are_kept(self) -> None:
        words = "fpu sse2 avx avx2 amx_int8 avx512_vnni avx_vnni bmi2 amx_bf16"
        assert fast_flags(words) == ("amx_bf16", "amx_int8", "avx2", "avx512_vnni", "avx_vnni")

    @pytest.mark.parametrize(("flags", "computes"), [(("avx2", "avx512_bf16"), True), (("avx2", "avx512f"), False)])
    def test_bf16_needs_a_processor_that_computes_it(self, flags: tuple[str, ...], computes: bool) -> None:
        assert Machine("", 1, flags, "", None, {}).bf16 is computes


class TestEngines:
    def test_one_asked_for_by_name_that_is_missing_is_an_error_that_names_the_extra(self, monkeypatch) -> None:
        monkeypatch.setitem(sys.modules, "openvino", None)
        with pytest.raises(ConfigError, match=r"openvino needs the package openvino: pip install 'compressor\[openvi"):
            choose(["torch", "openvino"])

    def test_auto_leaves_out_what_is_missing_and_says_so(self, monkeypatch) -> None:
        for package in ("openvino", "onnxruntime"):
            monkeypatch.setitem(sys.modules, package, None)
        engines, skipped = choose(["auto"])
        assert engines == ("torch",)
        assert [line.split()[0] for line in skipped] == ["onnxruntime", "openvino"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished DPQE run, `outputs/made`."""
    folder = tmp_path_factory.mktemp("place")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        ended = call("run", *TINY, "hydra.run.dir=outputs/made")
        assert ended.code == 0, ended.err
    return folder


@pytest.fixture(autouse=True)
def _there(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "place" in request.fixturenames:
        monkeypatch.chdir(request.getfixturevalue("place"))


QUICK = ("bench.batches=[1,20]", "bench.repeats=3", "bench.seconds=0", "bench.warmup=1", "bench.threads=1")
QUICK += ("bench.visit=2", "bench.memory=false", "bench.bf16=false", "bench.engines=[torch]")


def bench(*words: str) -> Ended:
    return call("bench", *TINY, *QUICK, *words)


def result_of(ended: Ended) -> dict:
    """Return the bench.json that a command names last, after it has said what it read."""
    assert ended.code == 0, ended.err
    assert " images (" in ended.out
    result = json.loads(Path(ended.out.splitlines()[-1].removeprefix("benchmark: ")).read_text())
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(result, SCHEMA)
    return result


@pytest.mark.usefixtures("place")
class TestCommand:
    def test_compares_a_compressed_network_with_the_one_its_chain_began_with(self) -> None:
        ended = bench("checkpoint=outputs/made/04-exit")
        result = result_of(ended)
        keys = [
            json.loads(Path("outputs/made", name, "record.json").read_text())["key"]
            for name in ("00-baseline", "04-exit")
        ]
        assert [result["networks"][name] for name in ("original", "compressed")] == keys
        cells = [(each["batch"], each["network"], each["calls"]) for each in result["timings"]]
        assert cells == [(1, "original", 6), (1, "compressed", 6), (20, "original", 3), (20, "compressed", 3)]
        assert [each["batch"] for each in result["ratios"]] == [1, 20]
        assert [len(each["shares"]) for each in result["timings"]] == [1, 3, 1, 3]
        assert "images that left at each head" in ended.out
        assert max(map(len, ended.out.splitlines()[1:])) <= 118

    def test_a_network_that_is_its_own_original_is_timed_alone(self) -> None:
        ended = bench("checkpoint=outputs/made/00-baseline")
        assert "timed alone" in ended.out
        result = result_of(ended)
        assert list(result["networks"]) == ["original"]
        assert result["ratios"] == []

    def test_the_original_may_be_given(self) -> None:
        result = result_of(bench("checkpoint=outputs/made/03-quantize", "bench.original=outputs/made/02-prune"))
        assert result["networks"]["original"].startswith("prune-")

    @pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
    def test_times_exported_files_whose_images_leave_where_they_do_in_torch(self, engine: str) -> None:
        for package in ENGINES[engine].packages:
            pytest.importorskip(package)
        ended = bench("checkpoint=outputs/made/04-exit", f"bench.engines=[torch,{engine}]", "bench.visit=60")
        result = result_of(ended)
        assert {each["engine"] for each in result["ratios"]} == {"torch", engine}
        sizes = {(each["network"], each["engine"]): each["file"] for each in result["footprints"]}
        assert sizes["compressed", engine] < sizes["original", engine]
        for name in ("original", "compressed"):
            shares = {e["engine"]: e["shares"] for e in result["timings"] if (e["network"], e["batch"]) == (name, 20)}
            assert shares[engine] == pytest.approx(shares["torch"], abs=0.05)

    def test_draws_a_chart(self) -> None:
        ended = bench("checkpoint=outputs/made/01-distill", "hydra.run.dir=outputs/drawn")
        assert ended.code == 0, ended.err
        assert Path("outputs/drawn/bench.png").read_bytes().startswith(b"\x89PNG")
        svg = Path("outputs/drawn/bench.svg").read_text()
        for word in ("original", "compressed", "torch fp32", "batch 20", "images a second"):
            assert word in svg

    def test_without_matplotlib_says_what_brings_the_chart(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
        ended = bench("checkpoint=outputs/made/01-distill")
        result_of(ended)
        assert "no chart: it needs the package matplotlib: pip install 'compressor[figures]'" in ended.out

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            ((), "bench needs checkpoint=FOLDER"),
            (("checkpoint=nowhere",), "checkpoint=nowhere: "),
            (("checkpoint=outputs/made/04-exit", "bench.original=nowhere"), "bench.original=nowhere: "),
            (
                ("checkpoint=outputs/made/04-exit", "bench.engines=[tensorrt]"),
                "bench.engines=['tensorrt']: give [auto]",
            ),
            (("checkpoint=outputs/made/04-exit", "bench.batches=[]"), "bench.batches=[]: give at least one size"),
            (("checkpoint=outputs/made/04-exit", "bench.repeats=1"), "bench.repeats=1: give 3 to 100000"),
        ],
    )
    def test_refuses_in_one_line_what_it_cannot_use(self, words: tuple[str, ...], said: str) -> None:
        ended = bench(*words)
        assert (ended.code, ended.err.count("\n")) == (2, 1)
        assert said in ended.err

    def test_an_original_that_is_gone_is_asked_for(self, tmp_path: Path) -> None:
        alone = tmp_path / "alone" / "04-exit"
        alone.mkdir(parents=True)
        for path in Path("outputs/made/04-exit").iterdir():
            if path.is_file():
                (alone / path.name).write_bytes(path.read_bytes())
        ended = bench(f"checkpoint={alone}", f"store={tmp_path}/store")
        assert (ended.code, ended.err.count("\n")) == (2, 1)
        assert "give bench.original=FOLDER, a model's folder" in ended.err

    def test_an_engine_that_is_missing_is_refused_before_anything_is_timed(self, monkeypatch) -> None:
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
        ended = bench("checkpoint=outputs/made/04-exit", "bench.engines=[onnxruntime]")
        assert (ended.code, ended.err.count("\n")) == (2, 1)
        assert "pip install 'compressor[onnx]'" in ended.err


@pytest.mark.skipif(not measured(), reason="only Linux tells a process's own peak")
class TestMemory:
    def test_the_peak_holds_what_a_large_batch_needs(self, place: Path) -> None:
        images = np.zeros((20_000, 1, 8, 8), np.uint8)
        found = peak_of(place / "outputs/made/00-baseline", "torch", "fp32", 1, images)
        assert 4 * images.size * 4 < found.growth < found.peak

    def test_a_network_that_cannot_be_read_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="peak memory on torch cannot be measured"):
            peak_of(tmp_path, "torch", "fp32", 1, np.zeros((1, 1, 8, 8), np.uint8))


def test_the_script_that_times_rivals_names_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(SystemExit, match=r"bench_rivals needs the package nncf: pip install"):
        runpy.run_path(str(Path(__file__).parents[1] / "scripts" / "bench_rivals"))


def test_the_script_that_times_rivals_counts_what_each_arithmetic_answers_otherwise(monkeypatch) -> None:
    for package in ("openvino", "onnxruntime"):
        pytest.importorskip(package)
    monkeypatch.setitem(sys.modules, "nncf", ModuleType("nncf"))
    script = runpy.run_path(str(Path(__file__).parents[1] / "scripts" / "bench_rivals"))
    model, images = samples.model(samples.arch()), samples.images(70).numpy()
    own = model.net(torch.from_numpy(images))[-1].argmax(dim=1).numpy()
    found = {Cell(script[name], "onnxruntime", "fp32"): own.copy() for name in ("OURS", "FUSED")}
    found[Cell(script["FUSED"], "onnxruntime", "fp32")][:3] += 1
    counts = {"images": 70, "compressor": 0, "compressor, fused arithmetic": 3}
    assert script["unlike_torch"](found, model, images) == counts
