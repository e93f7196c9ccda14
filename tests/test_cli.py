"""The command line: help, settings, completion, and what is not imported for them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from terminal import call, process

from compressor.cli import COMMANDS
from compressor.codec import decode
from compressor.composing import configs
from compressor.config import RunConfig
from compressor.mending import settings

EXPERIMENTS = sorted(path.stem for path in (configs() / "experiment").glob("*.yaml"))
PRESETS = sorted(path.stem for path in (configs() / "compression").glob("*.yaml"))

NEEDED: dict[str, tuple[str, ...]] = dict.fromkeys(
    ("published_resnet56_dpqe", "published_resnet56_hybrid"), ("distill.weights=FILE",)
)
"""What an experiment asks its user for."""


def composed(command: str, *words: str) -> RunConfig:
    """Give the settings that a command would run with."""
    ended = call(command, *words, "--cfg", "job", "--resolve")
    assert ended.code == 0, ended.err
    return decode(RunConfig, yaml.safe_load(ended.out))


class TestHelp:
    def test_without_a_command_it_lists_all_and_imports_neither_torch_nor_hydra(self, tmp_path: Path) -> None:
        script = (
            "import sys; from compressor.cli import main; code = main(['--help']);"
            "print({'torch', 'hydra', 'numpy'} & set(sys.modules), code)"
        )
        shown = process("-c", script, folder=tmp_path).stdout
        assert all(re.search(rf"^  {name} ", shown, re.MULTILINE) for name in COMMANDS)
        assert shown.endswith("set() 0\n")

    def test_no_words_are_the_same_as_help(self) -> None:
        assert call() == call("--help") == call("-h")

    def test_of_every_command_imports_no_torch(self, tmp_path: Path) -> None:
        script = (
            "import sys; from compressor.cli import COMMANDS, main; codes = {main([n, '--help']) for n in COMMANDS};"
            "codes |= {main(['version']), main(['list']), main(['clean'])}; print('torch' in sys.modules, codes)"
        )
        ended = process("-c", script, folder=tmp_path)
        assert ended.stdout.endswith("False {0}\n"), ended.stderr
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("name", COMMANDS)
    def test_of_a_command_says_how_it_is_typed_and_lists_its_settings(self, name: str) -> None:
        shown = call(name, "--help").out
        assert shown.startswith(f"compressor {name}")
        assert "experiment: " in shown
        assert "prune:" in shown

    def test_works_as_a_module(self, tmp_path: Path) -> None:
        assert "usage: compressor" in process("-m", "compressor", folder=tmp_path).stdout


class TestSettings:
    @pytest.mark.parametrize("name", COMMANDS)
    def test_every_command_prints_what_it_would_run_with(self, name: str) -> None:
        config = composed(name)
        assert config.order == (COMMANDS[name].order if COMMANDS[name].order is not None else "DPQE")

    @pytest.mark.parametrize("name", EXPERIMENTS)
    def test_every_experiment_is_whole_and_names_its_runs(self, name: str) -> None:
        command = {"order": "order", "hybrid": "moe", "ajpq": "search"}.get(name.rpartition("_")[2], "run")
        config = composed(command, f"+experiment={name}", *NEEDED.get(name, ()))
        assert (config.name, config.order) == (name, "DPQE")

    @pytest.mark.parametrize("name", PRESETS)
    def test_the_order_on_the_command_line_wins_over_every_preset(self, name: str) -> None:
        assert composed("run", f"compression={name}", "order=PEP").order == "PEP"

    def test_a_phase_command_keeps_its_order_under_an_experiment(self) -> None:
        assert composed("prune", "+experiment=digits_dpqe").order == "P"

    def test_phases_train_as_fit_says_until_a_leaf_is_set(self) -> None:
        config = composed("run", "fit.batch=48", "prune.fit.epochs=3")
        assert (config.prune.fit.batch, config.prune.fit.epochs) == (48, 3)
        assert config.quantize.fit.epochs == config.fit.epochs != 3

    def test_one_seed_reaches_every_phase(self) -> None:
        config = composed("run", "seed=11")
        assert {config.fit.seed, config.baseline.fit.seed, config.prune.fit.seed, config.exit.fit.seed} == {11}

    def test_options_may_stand_anywhere(self) -> None:
        assert "order: PQ" in call("run", "seed=1", "--cfg", "job", "order=PQ").out

    def test_a_folder_of_ones_own_adds_experiments(self, tmp_path: Path) -> None:
        (tmp_path / "experiment").mkdir()
        text = "# @package _global_\ndefaults:\n  - override /compression: pq\n  - _self_\nname: mine\n"
        (tmp_path / "experiment" / "mine.yaml").write_text(text)
        config = composed("run", "--config-dir", str(tmp_path), "+experiment=mine")
        assert (config.name, config.order) == ("mine", "PQ")

    def test_info_says_where_settings_come_from(self) -> None:
        assert "experiment/digits_dpqe" in call("run", "+experiment=digits_dpqe", "--info", "defaults").out

    def test_hydras_own_settings_hold(self) -> None:
        assert "chdir: false" in call("run", "--cfg", "hydra").out

    @pytest.mark.parametrize(
        "group", ["fit", "phase", "compression", "experiment", "dataset", "architecture", "search", "."]
    )
    def test_every_setting_has_a_comment(self, group: str) -> None:
        for path in sorted((configs() / group).glob("*.yaml")):
            above, described = "", set()
            for line in path.read_text().partition("\nhydra:")[0].splitlines():
                if match := re.match(r"^[ -]*(\w+): *[^ #].*$", line):
                    told = " #" in line or above.lstrip().startswith("#") or match[1] in described
                    assert told, f"{path}: {line}"
                    described.add(match[1])
                above = line

    def test_all_of_them_are_known_by_name(self) -> None:
        assert {"order", "prune.ratio", "prune.target.macs", "exit.fit.lr", "runtime.device"} <= set(settings())


class TestCompletion:
    @staticmethod
    def choices(line: str, monkeypatch: pytest.MonkeyPatch, shell: str = "bash", rest: str = "") -> list[str]:
        monkeypatch.setenv("COMP_LINE", line + rest)
        monkeypatch.setenv("COMP_POINT", str(len(line)))
        ended = call("-sc", f"query={shell}")
        assert (ended.code, ended.err) == (0, "")
        return ended.out.split()

    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            ("compressor ", list(COMMANDS)),
            ("compressor e", ["exit", "evaluate", "export"]),
            ("compressor run prune.r", ["prune.ratio=", "prune.recalibrate=", "prune.recovery.", "prune.round_to="]),
            ("compressor run fit=s", ["fit=small", "fit=smoke"]),
            ("compressor run +experiment=digits_d", ["+experiment=digits_dpqe"]),
            ("compressor prune -m quantize.bits.", ["quantize.bits.act=", "quantize.bits.weight="]),
            ("compressor run --fr", []),
            ("compressor frobnicate prune.r", []),
        ],
    )
    def test_offers_commands_first_and_then_settings(
        self, line: str, expected: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert self.choices(line, monkeypatch) == expected

    def test_ends_at_the_cursor(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.choices("compressor run fit=s", monkeypatch, rest="moke order=P") == ["fit=small", "fit=smoke"]

    def test_knows_a_folder_of_ones_own(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "fit").mkdir()
        (tmp_path / "fit" / "zippy.yaml").write_text("epochs: 1\n")
        assert self.choices(f"compressor run --config-dir {tmp_path} fit=zi", monkeypatch) == ["fit=zippy"]

    @pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
    def test_is_installed_and_removed_by_what_it_prints(self, shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
        assert "compressor" in call("-sc", f"install={shell}").out
        assert call("-sc", f"uninstall={shell}").code == 0
        assert self.choices("compressor ver", monkeypatch, shell) == ["version"]

    def test_imports_no_torch(self, tmp_path: Path) -> None:
        line = "compressor run prune.r"
        script = (
            "import sys; from compressor.cli import main; main(['-sc', 'query=bash']); print('torch' in sys.modules)"
        )
        ended = process("-c", script, folder=tmp_path, COMP_LINE=line, COMP_POINT=str(len(line)))
        assert ended.stdout.endswith("False\n"), ended.stderr


class TestPython:
    def test_importing_the_package_imports_no_torch(self, tmp_path: Path) -> None:
        script = "import sys, compressor; print('torch' in sys.modules, callable(compressor.load))"
        assert process("-c", script, folder=tmp_path).stdout == "False True\n"

    def test_version_is_told_without_torch(self) -> None:
        shown = call("version").out
        assert shown.splitlines()[-1] == f"python {sys.version.split()[0]}"
        assert re.search(r"^torch \d", shown, re.MULTILINE)


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as closed:
        script = "import sys; from compressor.cli import main; sys.exit(main(['run', '--help']))"
        ended = subprocess.run([sys.executable, "-c", script], stdout=closed, stderr=subprocess.PIPE, check=False)
    assert (ended.returncode, ended.stderr) == (0, b"")
