"""What a foreign folder of configs, or a word, may make Hydra run: what is known, and nothing else."""

import pickle
from pathlib import Path

import pytest
from terminal import TINY, Ended, call, process

from compressor.foreign import TARGETS

QUICK = (*TINY, "fit.epochs=0", "order=")


class Planted:
    """What a pickle of it does when it is read."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.marker,))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a pickle, and a module, that leave the file `ran` when they are read."""
    marker = tmp_path / "ran"
    (tmp_path / "evil.pickle").write_bytes(pickle.dumps(Planted(marker)))
    package = tmp_path / "modules" / "planted_module"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(f"open({str(marker)!r}, 'w')\ndef make(*_, **__): pass\n")
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.chdir(tmp_path)
    return tmp_path


CALLBACKS = {
    "torch.load": "{_target_: torch.load, f: evil.pickle, weights_only: false}",
    "numpy.load": "{_target_: numpy.load, file: evil.pickle, allow_pickle: true}",
    "joblib.load": "{_target_: joblib.load, filename: evil.pickle}",
    "distutils.spawn": "{_target_: distutils.spawn.spawn, cmd: [touch, ran]}",
    "a module": "{_target_: planted_module.make}",
    "a nested one": "{_target_: compressor.composing.Callbacks, inside: {_target_: planted_module.make}}",
    "a nested one in a list": "{_target_: compressor.composing.Callbacks, inside: [{_target_: planted_module.make}]}",
    "a reference": "{_target_: '${name}'}",
    "a reference to a mapping": "'${hidden}'",
    "a mapping made of text": "'${oc.create:\"{_target_: planted_module.make}\"}'",
    "a reference that changes": "'${oc.select:hydra.job.num,none}'",
}
SECTIONS = {
    **{f"callback {name}": f"callbacks: {{x: {text}}}" for name, text in CALLBACKS.items()},
    "launcher": "launcher: {_target_: planted_module.make}",
    "sweeper": "sweeper: {_target_: planted_module.make}",
    "handler": "job_logging: {handlers: {console: {class: planted_module.make}}}",
    "factory": "job_logging: {handlers: {console: {(): planted_module.make}}}",
    "formatter": "job_logging: {formatters: {simple: {(): planted_module.make}}}",
    "filter": "hydra_logging: {filters: {x: {(): planted_module.make}}}",
    "stream": "job_logging: {handlers: {console: {stream: 'ext://planted_module.make'}}}",
    "attribute": "job_logging: {handlers: {console: {'.': {a: 1}}}}",
    "log file": "job_logging: {handlers: {file: {class: logging.FileHandler, filename: ran}}}",
    "environment": "job: {env_set: {LD_PRELOAD: evil.so}}",
    "path of modules": "job: {env_set: {PYTHONPATH: modules}}",
}


def write(place: Path, section: str, name: str = "x") -> None:
    folder = place / "their" / "experiment"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.yaml").write_text(f"# @package _global_\nhydra:\n  {section}\n")


def refused(ended: Ended, place: Path) -> None:
    assert (ended.code, ended.err.count("\n")) == (2, 1), ended.err
    assert ended.err.startswith("compressor: hydra.")
    assert not (place / "ran").exists()
    assert not (place / "outputs").exists()


@pytest.mark.parametrize("section", SECTIONS.values(), ids=SECTIONS)
def test_a_foreign_folder_runs_nothing(section: str, place: Path) -> None:
    write(place, section)
    refused(call("run", *QUICK, "--config-dir", "their", "+experiment=x"), place)


@pytest.mark.parametrize("mode", ["--cfg=job", "--cfg=hydra", "--help", "--info=config", "-m"])
@pytest.mark.parametrize("name", ["callback torch.load", "factory"])
def test_it_runs_nothing_in_any_mode_of_hydra(name: str, mode: str, place: Path) -> None:
    write(place, SECTIONS[name])
    refused(call("run", mode, *QUICK, "--config-dir", "their", "+experiment=x"), place)


@pytest.mark.parametrize("name", ["callback torch.load", "factory", "environment"])
def test_one_job_of_a_sweep_that_would_run_something_refuses_the_sweep(name: str, place: Path) -> None:
    write(place, SECTIONS[name])
    write(place, "verbose: false", "good")
    ended = call("run", "-m", *QUICK, "--config-dir", "their", "+experiment=good,x")
    assert (ended.code, ended.err.count("\n")) == (2, 1), ended.err
    assert not (place / "ran").exists()


def test_a_primary_config_of_somebody_else_runs_nothing(place: Path) -> None:
    (place / "their").mkdir()
    (place / "their" / "mine.yaml").write_text(f"defaults: [run, _self_]\nhydra:\n  {SECTIONS['factory']}\n")
    refused(call("run", *QUICK, "--config-dir", "their", "--config-name", "mine"), place)


@pytest.mark.parametrize(
    "words",
    [
        ("--config-path=pkg://planted_module",),
        ("hydra.searchpath=[pkg://planted_module]",),
        ("--config-dir=their", "--config-name=mine"),
    ],
)
def test_no_package_is_imported_to_look_for_configs(words: tuple[str, ...], place: Path) -> None:
    (place / "their").mkdir()
    text = "defaults: [run, _self_]\nhydra: {searchpath: ['pkg://planted_module']}\n"
    (place / "their" / "mine.yaml").write_text(text)
    ended = call("run", *QUICK, *words)
    assert (ended.code, ended.err.count("\n")) == (2, 1), ended.err
    assert "not from packages" in ended.err
    assert not (place / "ran").exists()


@pytest.mark.parametrize(
    "word",
    [
        "+hydra.callbacks.x._target_=planted_module.make",
        "hydra/launcher=ray +hydra.launcher.ray.init.runtime_env.worker_process_setup_hook=planted_module.make",
        "hydra.sweeper._target_=planted_module.make",
        "hydra.job_logging.handlers.console.class=planted_module.make",
    ],
)
def test_words_run_nothing_either(word: str, place: Path) -> None:
    refused(call("run", *QUICK, *word.split()), place)
    refused(call("run", "--hydra-help", *word.split()), place)


def test_the_error_names_the_setting_what_it_would_run_and_what_it_may_be(place: Path) -> None:
    write(place, SECTIONS["callback joblib.load"])
    said = call("run", "--config-dir", "their", "+experiment=x").err
    assert "hydra.callbacks.x._target_: settings may not have Hydra run 'joblib.load'" in said
    assert TARGETS["callbacks"][0] in said


@pytest.mark.parametrize("launcher", ["basic", "joblib", "submitit_local", "submitit_slurm", "ray"])
def test_the_launchers_that_are_known_may_be_chosen(launcher: str, place: Path) -> None:
    ended = call("run", f"hydra/launcher={launcher}", "--cfg", "hydra")
    assert ended.code == 0, ended.err


@pytest.mark.parametrize("log", ["default", "none", "disabled", "stdout"])
def test_the_logs_of_hydra_itself_may_be_chosen(log: str, place: Path) -> None:
    ended = call("run", f"hydra/job_logging={log}", "--cfg", "hydra")
    assert ended.code == 0, ended.err


def test_a_plain_folder_of_configs_works(place: Path) -> None:
    write(place, "job: {env_set: {OMP_NUM_THREADS: '1'}}")
    ended = call("run", *QUICK, "--config-dir", "their", "+experiment=x")
    assert ended.code == 0, ended.err


class TestWorkingFolder:
    NAMES = ("torch", "numpy", "json", "hydra", "rich", "pathlib", "typing", "pickle", "socket", "struct")

    def planted(self, place: Path) -> None:
        for name in self.NAMES:
            (place / f"{name}.py").write_text(f"open({str(place / 'ran')!r}, 'a').write({name!r})\n")
        plugin = place / "hydra_plugins" / "evil"
        plugin.mkdir(parents=True)
        (plugin / "__init__.py").write_text(f"open({str(place / 'ran')!r}, 'a').write('plugin')\n")

    def test_nothing_of_it_is_imported_by_the_module(self, place: Path) -> None:
        self.planted(place)
        ended = process("-m", "compressor", "run", *QUICK, folder=place)
        assert ended.returncode == 0, ended.stderr
        assert not (place / "ran").exists()

    @pytest.mark.timeout(200)
    def test_nothing_of_it_is_imported_by_the_processes_that_a_command_starts(self, place: Path) -> None:
        self.planted(place)
        parts = (f"study.parts.{name}=false" for name in ("singles", "insertion", "permutations", "repetition"))
        words = (
            "study.letters=PQ",
            "study.seeds=[0,1]",
            "study.repeats=[]",
            "study.reference=PQ",
            "study.cross=false",
            "study.figures=false",
            *parts,
        )
        few = (*TINY, "fit.epochs=0", "dataset.limit=60")
        ended = process("-m", "compressor", "order", *words, *few, "study.workers=2", "runs=o", folder=place)
        assert len(list((place / "o" / "store").glob("*-*"))) > 2, ended.stderr
        assert not (place / "ran").exists()


def test_nothing_loads_a_file_of_stable_baselines3() -> None:
    """Its zip files hold pickles, which run what they say."""
    package = Path(__file__).parents[1] / "compressor"
    using = [path for path in package.rglob("*.py") if "stable_baselines3" in path.read_text()]
    assert using, "it is used"
    for path in using:
        assert ".load(" not in path.read_text(), path
        assert "load_from_zip_file" not in path.read_text(), path
