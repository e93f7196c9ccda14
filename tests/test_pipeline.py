"""Chains: a result is made once, refers to its original, and a given checkpoint stands for its step."""

import errno
import itertools
import os
import re
import shutil
import sys
from dataclasses import dataclass, replace

import fakes
import pytest
import torch
import yaml
from fakes import chain, copied, finish

from compressor.compute import on_threads
from compressor.errors import CompressorError, ModelError, StoreError, TrainingError
from compressor.folders import read_record
from compressor.pipeline import given, inputs_first

ORDERS = ["".join(letters) for letters in itertools.permutations("DPQE")]


@pytest.fixture(autouse=True)
def _fakes(monkeypatch):
    fakes.install(monkeypatch)


class TestSharing:
    def test_the_24_orders_of_dpqe_are_65_steps_and_a_second_call_runs_none(self, tmp_path):
        for order in ORDERS:
            finish(tmp_path, chain(order))
        assert len(fakes.ran(tmp_path)) == len(set(fakes.ran(tmp_path))) == 65
        for order in ORDERS:
            _, reported = finish(tmp_path, chain(order))
            assert [stored for *_, stored in reported] == [True] * 5
        assert len(fakes.ran(tmp_path)) == 65

    def test_every_step_is_reported_once_and_inputs_come_first(self, tmp_path):
        last = chain("DDP")
        _, reported = finish(tmp_path, last)
        assert [source.name for source, *_ in reported] == ["baseline", "distill", "distill", "prune"]
        assert [source.key for source, *_ in reported] == [source.key for source in inputs_first(last)]
        assert all(record.key == source.key == metrics.key for source, record, metrics, _ in reported)

    def test_quantizing_a_saved_checkpoint_is_the_same_step_as_in_a_chain(self, tmp_path):
        record, _ = finish(tmp_path, chain("DP"))
        folder = copied(record, tmp_path, tmp_path / "run" / "02-prune")
        alone = chain("Q", start=given(folder))
        assert alone.key == chain("DPQ").key
        finish(tmp_path, alone)
        assert [stored for *_, stored in finish(tmp_path, chain("DPQ"))[1]] == [True] * 4

    def test_a_checkpoint_of_the_store_is_used_after_the_store_is_gone(self, tmp_path):
        folder = copied(finish(tmp_path, chain("P"))[0], tmp_path, tmp_path / "run" / "01-prune")
        shutil.rmtree(tmp_path / "store")
        _, reported = finish(tmp_path, chain("Q", start=given(folder)))
        assert [(source.name, stored) for source, _, _, stored in reported] == [("quantize", False)]


class TestGiven:
    @pytest.mark.parametrize("name", ["arch.json", "weights.safetensors"])
    def test_a_folder_with_another_model_than_its_record_is_refused_until_the_record_is_removed(self, tmp_path, name):
        folder = copied(finish(tmp_path, chain("P"))[0], tmp_path, tmp_path / "mine")
        path = folder / name
        path.write_bytes(path.read_bytes().replace(b"1", b"2") if name == "arch.json" else path.read_bytes()[::-1])
        said = f"{folder}: arch.json or weights.safetensors is not what record.json says; it was cut or changed; "
        with pytest.raises(StoreError, match=re.escape(f"{said}remove record.json to use it as a model of its own")):
            given(folder)
        (folder / "record.json").unlink()
        source = given(folder)
        assert source.key == f"given-{source.model}"
        assert (source.name, source.record) == ("given", None)

    def test_a_mere_model_folder_is_keyed_by_content_and_is_its_own_original(self, tmp_path, monkeypatch):
        self.count_bits(monkeypatch)
        folder = tmp_path / "mine"
        folder.mkdir()
        digest = fakes.save(fakes.FakeModel({"size": 1, "quantization": None}, b"ABCD"), folder)
        _, reported = finish(tmp_path, chain("Q", start=given(folder)))
        ((_, record, metrics, _),) = reported
        assert record.inputs["model"].key == record.original.key == f"given-{digest}"
        assert metrics.before is not None
        assert metrics.before.cost.checkpoint_bytes == sum(path.stat().st_size for path in folder.iterdir())
        assert record.original.bitops == metrics.before.test.macs * 1024

    def count_bits(self, monkeypatch):
        @dataclass(frozen=True)
        class Arch:
            quantization: str | None

        arch = Arch("4 bits")
        load = sys.modules["compressor.model"].load
        monkeypatch.setattr(
            sys.modules["compressor.model"], "load", lambda folder: fakes.FakeModel(arch, load(folder).weights)
        )
        monkeypatch.setattr(sys.modules["compressor.model"], "fresh", lambda arch, seed: arch, raising=False)
        cost = type(sys)("compressor.cost")
        cost.__dict__["size_bits"] = lambda arch: 320 if arch.quantization is None else 40
        monkeypatch.setitem(sys.modules, "compressor.cost", cost)

    def test_the_original_of_a_quantized_model_without_a_record_counts_it_in_full_precision(
        self, tmp_path, monkeypatch
    ):
        self.count_bits(monkeypatch)
        folder = tmp_path / "mine"
        folder.mkdir()
        fakes.save(fakes.FakeModel({"quantization": "4 bits"}, b"ABCD"), folder)
        record, _ = finish(tmp_path, chain("P", start=given(folder)))
        assert record.original.size_bits == 320

    def test_a_mixture_is_refused_by_name(self, tmp_path):
        (tmp_path / "mixture.json").write_text("{}")
        with pytest.raises(ModelError, match="is a mixture of models"):
            given(tmp_path)

    @pytest.mark.parametrize("name", ["record.json", "arch.json"])
    def test_a_cut_json_file_of_a_checkpoint_is_refused_by_name(self, tmp_path, name):
        folder = copied(finish(tmp_path, chain("P"))[0], tmp_path, tmp_path / "mine")
        (folder / name).write_text((folder / name).read_text()[:-3])
        with pytest.raises(CompressorError, match=name):
            given(folder)

    def test_a_folder_without_a_model_is_refused_with_what_would_be_right(self, tmp_path):
        with pytest.raises(ModelError, match="give the folder of a phase"):
            given(tmp_path)

    def test_a_folder_whose_name_is_too_long_is_refused_in_one_line(self, tmp_path):
        with pytest.raises(StoreError, match="File name too long"):
            given(tmp_path / ("x" * 300))

    def test_a_folder_that_may_not_be_read_is_refused_by_name(self, tmp_path, monkeypatch):
        folder = copied(finish(tmp_path, chain("P"))[0], tmp_path, tmp_path / "mine")

        def refuse(path, *_args, **_options):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))

        monkeypatch.setattr(os, "stat", refuse)
        with pytest.raises(StoreError, match="Permission denied") as caught:
            given(folder)
        assert str(caught.value).startswith(f"{folder}/")

    def test_changed_metrics_of_a_checkpoint_are_refused_by_name(self, tmp_path):
        folder = copied(finish(tmp_path, chain("P"))[0], tmp_path, tmp_path / "mine")
        path = folder / "metrics.json"
        path.write_text(path.read_text().replace("0.5", "0.9"))
        with pytest.raises(StoreError, match=r"metrics\.json"):
            finish(tmp_path, chain("QE", start=given(folder)))

    def test_a_checkpoint_that_changes_after_planning_is_refused(self, tmp_path):
        folder = copied(finish(tmp_path, chain("P"))[0], tmp_path, tmp_path / "mine")
        step = chain("Q", start=given(folder))
        (folder / "weights.safetensors").write_bytes(b"others")
        with pytest.raises(StoreError, match="changed while"):
            finish(tmp_path, step)


class TestRecords:
    def test_ratios_refer_to_the_baseline_however_long_the_chain(self, tmp_path):
        _, reported = finish(tmp_path, chain("DPQE"))
        first = reported[0][2]
        for source, record, metrics, _ in reported:
            assert record.original == metrics.original == first.original
            assert metrics.original.key == reported[0][0].key
            assert metrics.bitops_ratio == first.after.test.bitops / metrics.after.test.bitops
            assert metrics.size_ratio == first.after.cost.size_bits / metrics.after.cost.size_bits
            assert record.phase == source.name
        assert (first.bitops_ratio, first.size_ratio) == (1, 1)

    def test_nothing_is_measured_twice_on_the_same_data(self, tmp_path):
        _, reported = finish(tmp_path, chain("DPQ"))
        assert len(fakes.measured) == 4
        for earlier, later in itertools.pairwise(reported):
            assert later[2].before == earlier[2].after
        assert reported[0][2].before is None

    def test_a_checkpoint_from_other_data_is_measured_on_these(self, tmp_path):
        folder = copied(finish(tmp_path, chain("P"))[0], tmp_path, tmp_path / "mine")
        fakes.measured.clear()
        step = replace(chain("Q", start=given(folder)), data="other")
        record, _ = finish(tmp_path, step, "other")
        assert len(fakes.measured) == 2
        assert record.original == read_record(folder).original

    def test_a_record_says_what_when_and_where(self, tmp_path):
        record, _ = finish(tmp_path, chain("D"))
        folder = tmp_path / "store" / record.key
        assert set(record.inputs) == {"model", "teacher"}
        assert set(record.environment) == {"python", "torch", "compressor", "machine", "cpu", "threads", "device"}
        assert record.created.endswith("+00:00")
        assert yaml.safe_load((folder / "config.yaml").read_text()) == record.config
        assert (folder / "history.jsonl").read_text().count("\n") == 4

    def test_a_step_that_trains_nothing_has_an_empty_history(self, tmp_path, monkeypatch):
        untrained = fakes.FakeModel({"size": 1}, b"ABCD")
        monkeypatch.setattr(sys.modules["fake_techniques"], "technique", lambda config, context, **models: untrained)
        record, _ = finish(tmp_path, chain(""))
        assert (tmp_path / "store" / record.key / "history.jsonl").read_text() == ""

    def test_a_measurement_that_is_not_finite_is_one_line_and_finishes_nothing(self, tmp_path, monkeypatch):
        def measure(*arguments):
            measured = fakes.measure(*arguments)
            return replace(measured, val=replace(measured.val, macs=float("nan")))

        monkeypatch.setattr(sys.modules["compressor.measure"], "measure", measure)
        with pytest.raises(TrainingError, match="not finite"):
            finish(tmp_path, chain(""))
        assert not (tmp_path / "store" / chain("").key).exists()


class TestThreads:
    def test_a_step_does_all_it_does_with_as_many_threads_as_are_given(self, tmp_path, monkeypatch):
        seen = []

        def measure(*arguments):
            seen.append(torch.get_num_threads())
            return fakes.measure(*arguments)

        monkeypatch.setattr(sys.modules["compressor.measure"], "measure", measure)
        with on_threads(2):
            finish(tmp_path, chain(""))
            assert torch.get_num_threads() == 2
        assert seen == [fakes.RUNTIME.threads] == [1]


class TestStaleResults:
    def test_a_result_of_other_inputs_is_refused_with_the_folder_to_remove(self, tmp_path):
        record, _ = finish(tmp_path, chain("P"))
        first = tmp_path / "store" / chain("").key
        shutil.rmtree(first)
        (tmp_path / "log").unlink()
        technique = sys.modules["fake_techniques"].technique
        sys.modules["fake_techniques"].__dict__["technique"] = lambda config, context, **models: replace(
            technique(config, context, **models), weights=b"other weights"
        )
        with pytest.raises(StoreError) as caught:
            finish(tmp_path, chain("P"))
        assert f"remove {tmp_path / 'store' / record.key} " in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_a_lost_input_is_made_again_and_what_came_after_is_used(self, tmp_path):
        finish(tmp_path, chain("P"))
        shutil.rmtree(tmp_path / "store" / chain("").key)
        assert [stored for *_, stored in finish(tmp_path, chain("P"))[1]] == [False, True]
