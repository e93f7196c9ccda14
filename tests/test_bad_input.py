"""What a user can get wrong ends in exit code 2 and one line that says what would be right; nothing is written."""

from pathlib import Path

import pytest
from terminal import TINY, call

WRONG = {
    "": {
        "frobnicate": "commands are run, baseline",
        "rnu order=P": "did you mean run?",
        "-sc install=tcsh": "bash, zsh, fish",
        "prune": "prune needs checkpoint=FOLDER",
        "evaluate": "evaluate needs checkpoint=FOLDER",
        "prune checkpoint=here order=PQ": "compressor run order=PQ",
        "prune checkpoint=nowhere": "no arch.json",
        "evaluate checkpoint=nowhere": "no arch.json",
        "quantize checkpoint=cut": "cut",
    },
    "run": {
        # words that are no settings
        "datset=digits": "did you mean dataset?",
        "prune.ratios=0.5": "did you mean prune.ratio?",
        "ratio=0.5": "did you mean prune.ratio?",
        "prune.ratio.x=1": "did you mean prune.ratio?",
        "hydra.foo=1": "--cfg hydra lists them",
        "prune": "write key=value",
        "prune.ratio=[1": "write key=value",
        "=5": "a group takes the name",
        "++own.key=1": "unknown key 'own'",
        "+prune.foo=1": "prune: unknown key 'foo'",
        "~prune.ratio": "prune: key 'ratio' is missing",
        # options
        "--frob": "unrecognized arguments: --frob",
        "--cfg": "expected one argument",
        "--resolve": "goes with --cfg",
        "-m --cfg job": "give one of them",
        "--experimental-rerun run.pickle": "would unpickle",
        "--config-dir nowhere": "nowhere' not found",
        # groups and presets
        "dataset=nope": "no such dataset",
        "dataset=digit": "did you mean digits?",
        "architecture=resnet21": "no such architecture",
        "+experiment=digit_dpqe": "did you mean digits_dpqe?",
        "experiment=digits_dpqe": "needs a plus",
        "+dataset=digits": "leave out the plus",
        "fit=null": "a group takes the name",
        "fit=inherit": "refers to itself",
        "order=${nope}": "'nope' not found",
        "prune.ratio=0.3,0.5": "need -m",
        # types
        "prune.ratio=": "expected float",
        "prune.ratio=half": "expected float",
        "prune=0.5": "expected a mapping",
        "exit.positions=0.5": "expected a list",
        "quantize.bits.weight=4.5": "expected int",
        "clean.delete=maybe": "expected bool",
        "order=null": "order: expected str",
        # values
        "name=../elsewhere": "it names a folder",
        "order=DPX": "its letters are D, P, Q, E",
        "seed=-1": "0 to 2147483647",
        "prune.ratio=1": "0 to 1, 1 excluded",
        "prune.ratio=nan": "finite",
        "prune.criterion=luck": "not one of l1",
        "prune.target={macs:0.5,params:0.5}": "not both",
        "prune.fit.lr=-1": "prune.fit.lr=-1.0: give",
        "quantize.bits.weight=9": "1 to 8",
        "quantize.bits.act=1": "2 to 8",
        "quantize.edge_bits=1": "2 to 8",
        "exit.positions=[1.2]": "between 0 and 1",
        "exit.positions=[]": "between 0 and 1",
        "exit.positions=[0.6,0.3]": "rising",
        "exit.drop=2": "0 to 1",
        "exit.criterion=luck": "not one of confidence",
        "distill.depth=0": "above 0",
        "distill.width=2": "at most 1",
        "distill.init=weights": "exactly when init=weights",
        "distill.student=resnet21": "resnet20",
        "distill.teacher=nowhere": "no arch.json",
        "fit.epochs=-1": "0 to 100000",
        "fit.batch=0": "1 to 65536",
        "fit.optimizer=lion": "not one of sgd, adamw",
        "dataset.limit=5": "at least 10",
        "dataset.val=2": "a fraction between 0 and 1",
        "dataset.image_size=2": "4 to 1024",
        "architecture.width=0": "above 0",
        "runtime.device=tpu": "auto, cpu or cuda",
        "runtime.save_seconds=0": "above 0",
        # files and folders
        "checkpoint=nowhere": "no arch.json",
        "checkpoint=cut": "cut",
        "checkpoint=cut order=": "empty order",
        "baseline.weights=nowhere.pth": "give a file of weights",
        "dataset=imagefolder": "root",
        "runs=file": "a file stands where a folder is needed",
        "store=file": "a file stands where a folder is needed",
        "hydra.run.dir=/proc/here": "/proc/here",
    },
}
CASES = [(f"{command} {words}".strip(), hint) for command, table in WRONG.items() for words, hint in table.items()]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty place to be in, with a file and a model that was cut."""
    (tmp_path / "file").write_text("not a folder")
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "arch.json").write_text('{"format": 1, "arch"')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_table_is_long_enough() -> None:
    assert len(CASES) >= 40


@pytest.mark.parametrize(("line", "hint"), CASES, ids=[line for line, _ in CASES])
def test_bad_input_is_one_line_and_exit_code_2(line: str, hint: str, folder: Path) -> None:
    name, *words = line.split()
    tiny = TINY if name == "run" else ()
    ended = call(name, *(word for word in tiny if not line.count(word.partition("=")[0] + "=")), *words)
    assert ended.code == 2, ended
    assert ended.err.count("\n") == 1, ended.err
    assert ended.err.startswith("compressor: ")
    assert hint in ended.err
    assert ended.out == ""
    left = {path.name for path in folder.rglob("*") if path.is_file() and ".hydra" not in path.parts}
    assert left <= {"file", "arch.json", "run.json"}


@pytest.mark.parametrize("words", ["prune.ratio=1", "order=DPX", "seed=x", "name=.."])
def test_a_bad_setting_makes_no_folder(words: str, folder: Path) -> None:
    assert call("run", words).code == 2
    assert {path.name for path in folder.iterdir()} == {"file", "cut"}
