"""Planning: settings become steps whose keys are known before anything runs, without torch."""

import itertools
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import fakes
import pytest
from hypothesis import given as examples
from hypothesis import settings
from hypothesis import strategies as st
from settings import CONFIG, DATA, FIT, keys, model_folder, steps

from compressor.config import (
    BaselineSettings,
    Init,
    Precision,
)
from compressor.errors import ConfigError
from compressor.planning import plan


class TestChains:
    def test_the_24_orders_of_dpqe_share_65_keys(self):
        orders = ("".join(letters) for letters in itertools.permutations("DPQE"))
        assert len({key for order in orders for key in keys(replace(CONFIG, order=order))}) == 65

    def test_an_order_becomes_the_baseline_and_one_step_a_letter(self):
        planned = plan(replace(CONFIG, order="dPq"), DATA)
        assert [source.name for source in planned.steps] == ["baseline", "distill", "prune", "quantize"]
        for before, step in itertools.pairwise(planned.steps):
            assert dict(step.inputs)["model"] is before
        assert planned.last is planned.steps[-1]

    def test_the_empty_order_is_the_baseline(self):
        (only,) = plan(replace(CONFIG, order=""), DATA).steps
        assert only.name == "baseline"

    def test_a_letter_that_is_none_is_refused_with_those_there_are(self):
        with pytest.raises(ConfigError, match="its letters are D, P, Q, E"):
            plan(replace(CONFIG, order="DX"), DATA)

    def test_the_same_letter_twice_is_two_steps(self):
        assert len(set(keys(replace(CONFIG, order="PPP")))) == 4

    def test_planning_imports_no_torch(self, tmp_path):
        folder = model_folder(tmp_path / "model")
        script = (
            "import sys; sys.path.insert(0, sys.argv[1]); import settings as t; from dataclasses import replace\n"
            "t.plan(t.CONFIG, t.DATA); t.plan(replace(t.CONFIG, checkpoint=sys.argv[2]), t.DATA)\n"
            "sys.exit('torch' in sys.modules)"
        )
        command = [sys.executable, "-c", script, str(Path(__file__).parent), str(folder)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


class TestKeys:
    @pytest.mark.parametrize("place", range(5))
    def test_a_phases_setting_changes_keys_from_that_phase_on(self, place):
        name = ("baseline", "distill", "prune", "quantize", "exit")[place]
        settings = getattr(CONFIG, name)
        changed = replace(CONFIG, **{name: replace(settings, fit=replace(settings.fit, epochs=5))})
        same = [a == b for a, b in zip(keys(CONFIG), keys(changed), strict=True)]
        assert same == [True] * place + [False] * (5 - place)

    def test_settings_of_a_phase_that_the_order_lacks_change_nothing(self):
        changed = replace(
            CONFIG, order="PQ", exit=replace(CONFIG.exit, drop=0.5), distill=replace(CONFIG.distill, hint=1)
        )
        assert keys(changed) == keys(replace(CONFIG, order="PQ"))

    @examples(
        st.builds(
            replace,
            st.just(CONFIG),
            name=st.sampled_from(["one", "other"]),
            store=st.sampled_from(["store", "elsewhere"]),
            runs=st.sampled_from(["runs", "elsewhere"]),
            cost_table=st.booleans(),
            runtime=st.builds(
                replace,
                st.just(CONFIG.runtime),
                device=st.sampled_from(["auto", "cpu", "cuda"]),
                threads=st.integers(0, 8),
                workers=st.integers(0, 8),
                save_seconds=st.floats(1, 99),
                progress=st.booleans(),
            ),
        )
    )
    @settings(max_examples=50, deadline=None)
    def test_names_places_and_the_runtime_are_in_no_key(self, config):
        assert keys(config) == keys(CONFIG)

    def test_the_data_are_in_every_key(self):
        assert not set(keys(CONFIG)) & set(keys(CONFIG, fakes.data("other")))

    @pytest.mark.parametrize(
        ("vendor", "flags", "size", "precision"),
        [
            ("GenuineIntel", "amx_bf16", 32, "bf16"),
            ("GenuineIntel", "amx_bf16", 16, "bf16"),
            ("GenuineIntel", "amx_bf16", 8, "fp32"),
            ("GenuineIntel", "avx512_bf16", 32, "fp32"),
            ("AuthenticAMD", "avx512_bf16", 32, "bf16"),
            ("AuthenticAMD", "avx512_bf16", 8, "fp32"),
            ("AuthenticAMD", "avx2", 32, "fp32"),
        ],
    )
    def test_auto_precision_is_resolved_before_keying(self, monkeypatch, vendor, flags, size, precision):
        text = f"vendor_id : {vendor}\nflags : fpu {flags} sse\n"
        monkeypatch.setattr(Path, "read_text", lambda *_, **__: text)
        for step in steps(plan(CONFIG, replace(DATA, size=size))):
            assert step.config.fit.precision == precision

    def test_a_stated_precision_stays(self):
        config = replace(CONFIG, prune=replace(CONFIG.prune, fit=replace(FIT, precision=Precision.BF16)))
        assert steps(plan(config, DATA))[2].config.fit.precision is Precision.BF16


class TestFiles:
    def test_a_path_of_weights_becomes_the_digest_of_its_content(self, tmp_path):
        found = []
        for name in ("one", "two"):
            (tmp_path / name).write_bytes(b"\x02" + bytes(7) + b"{}")  # safetensors of nothing
            planned = plan(replace(CONFIG, baseline=BaselineSettings(str(tmp_path / name), {}, FIT)), DATA)
            (digest,) = planned.files
            assert steps(planned)[0].config.weights == digest
            assert planned.files == {digest: tmp_path / name}
            found.append(planned.last.key)
        assert found[0] == found[1]
        (tmp_path / "two").write_bytes(b"\x03" + bytes(7) + b"{} ")
        changed = plan(replace(CONFIG, baseline=BaselineSettings(str(tmp_path / "two"), {}, FIT)), DATA)
        assert changed.last.key != found[0]

    def test_what_holds_no_weights_is_named_before_anything_runs(self, tmp_path):
        (tmp_path / "w.pth").write_bytes(b"version https://git-lfs.github.com/spec/v1")
        settings = replace(CONFIG.distill, init=Init.WEIGHTS, weights=str(tmp_path / "w.pth"))
        with pytest.raises(ConfigError, match=r"distill.weights=.*w\.pth: is a pointer of Git LFS"):
            plan(replace(CONFIG, distill=settings), DATA)

    @pytest.mark.parametrize("phase", ["baseline", "distill"])
    def test_weights_that_are_missing_are_named_before_anything_runs(self, tmp_path, phase):
        settings = replace(CONFIG.distill, init=Init.WEIGHTS, weights=str(tmp_path / "none"))
        baseline = BaselineSettings(str(tmp_path / "none") if phase == "baseline" else None, {}, FIT)
        config = replace(CONFIG, baseline=baseline, distill=settings if phase == "distill" else CONFIG.distill)
        with pytest.raises(ConfigError, match=f"{phase}.weights={tmp_path / 'none'}: No such file"):
            plan(config, DATA)

    def test_a_student_that_is_none_is_refused_before_anything_runs(self):
        with pytest.raises(ConfigError, match=r"distill\.student=resnet21: give null or one of resnet20"):
            plan(replace(CONFIG, distill=replace(CONFIG.distill, student="resnet21")), DATA)
