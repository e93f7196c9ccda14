"""What a user can get wrong ends in exit code 2 and one line that says what would be right; nothing is written."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import layouts
import pytest
import torch
from safetensors.torch import load_file, save_file
from terminal import TINY, call

from compressor.folders import WEIGHTS
from compressor.store import Store

WRONG = {
    "": {
        "frobnicate": "commands are run, order",
        "rnu order=P": "did you mean run?",
        "-sc install=tcsh": "bash, zsh, fish",
        "prune": "prune needs checkpoint=FOLDER",
        "evaluate": "evaluate needs checkpoint=FOLDER",
        "prune checkpoint=here order=PQ": "compressor run order=PQ",
        "prune checkpoint=nowhere": "no arch.json",
        "evaluate checkpoint=nowhere": "no arch.json",
        "quantize checkpoint=cut": "cut",
        f"evaluate checkpoint={'x' * 300}": "File name too long",
        "evaluate checkpoint=~/nowhere": f"{Path.home()}/nowhere: no arch.json",
        "predict model=cut input=file predict.output=.": "predict.output=.: names no file; give one",
        "predict model=cut input=file predict.output=/": "predict.output=/: names no file",
        "predict model=cut input=file predict.output=": "predict.output=: names no file",
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
        "distill.blocks=[1,0,1]": "1 or more",
        "distill.blocks=[1,3]": "3 stages",
        "distill.blocks=[1]": "3 stages",
        "distill.init=weights": "exactly when init=weights",
        "distill.student=resnet21": "resnet20",
        "distill.teacher=nowhere": "no arch.json",
        "fit.epochs=-1": "0 to 100000",
        "fit.batch=1": "2 to 65536",
        "fit.optimizer=lion": "not one of sgd, adamw",
        "dataset.limit=5": "at least 10",
        "dataset.seed=-1": "0 to 4294967295",
        "dataset.seed=4294967296": "0 to 4294967295",
        "dataset.val=2": "a fraction between 0 and 1",
        "dataset.image_size=2": "4 to 1024",
        "architecture.width=0": "above 0",
        "runtime.device=tpu": "auto, cpu or cuda",
        "runtime.save_seconds=0": "above 0",
        # files and folders
        "checkpoint=nowhere": "no arch.json",
        "checkpoint=cut": "cut",
        "checkpoint=cut order=": "empty order",
        f"checkpoint={'x' * 300}": "File name too long",
        f"distill.teacher={'x' * 300}": "File name too long",
        f"baseline.weights={'x' * 300}": "File name too long",
        "checkpoint=~/nowhere": f"{Path.home()}/nowhere: no arch.json",
        "baseline.weights=~/nowhere.pth": f"{Path.home()}/nowhere.pth",
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


class Hostile:
    """Unpickles by making a file."""

    def __reduce__(self) -> tuple:
        return os.system, ("touch ran",)


def change(how: Callable[[bytes], bytes]) -> Callable[..., None]:
    def spoil(place: Path, _: object) -> None:
        (place / "model" / WEIGHTS).write_bytes(how((place / "model" / WEIGHTS).read_bytes()))

    return spoil


def foreign(place: Path, _: object, *, record: bool = True) -> None:
    """Put the weights of a wider network into the model."""
    state = {name: torch.cat([tensor, tensor]) if tensor.ndim else tensor for name, tensor in tensors(place).items()}
    save_file(state, place / "model" / WEIGHTS)
    if not record:
        (place / "model" / "record.json").unlink()


def exploding(place: Path, _: object) -> None:
    """Give the model weights that are finite and answers that are not."""
    state = {
        name: 1e30 * tensor if tensor.ndim > 1 and "map" not in name else tensor
        for name, tensor in tensors(place).items()
    }
    save_file(state, place / "model" / WEIGHTS)
    (place / "model" / "record.json").unlink()


def tensors(place: Path) -> dict[str, torch.Tensor]:
    return load_file(place / "model" / WEIGHTS)


def hostile(place: Path, _: object) -> None:
    torch.save({"stem.conv.weight": Hostile()}, place / "hostile.pth")


def unreadable(place: Path, _: object) -> None:
    images = layouts.folder(place / "photos")
    (images / "train" / "cat" / "003.png").write_bytes(b"no image")
    (images / "test" / "dog" / "004.png").write_bytes(b"")


def refusing(function: str, number: int) -> Callable[..., None]:
    """Let the system refuse, from now on, to make or rename anything in the store."""

    def spoil(place: Path, patch: pytest.MonkeyPatch) -> None:
        real = getattr(os, function)

        def refuse(path: os.PathLike[str], *args: object, **options: object) -> object:
            if "store" in Path(path).parts:
                raise OSError(number, os.strerror(number), str(path))
            return real(path, *args, **options)

        patch.setattr(os, function, refuse)

    return spoil


def no_number(_: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr("compressor.training.task_loss", lambda *_: lambda outputs, *_: outputs[-1].sum() * float("nan"))


RECORDED = "arch.json or weights.safetensors is not what record.json says; it was cut or changed; remove record.json"
DIVERGING = "prune.fit.lr=100 prune.fit.epochs=3 prune.fit.batch=4"
FAULTS: dict[str, tuple[Callable[..., None], str, str]] = {
    "flipped weights": (change(lambda b: b[:-9] + bytes([b[-9] ^ 1]) + b[-8:]), "quantize checkpoint=model", RECORDED),
    "cut weights": (change(lambda b: b[: len(b) // 2]), "quantize checkpoint=model", RECORDED),
    "foreign weights": (foreign, "evaluate checkpoint=model", RECORDED),
    "a foreign teacher": (foreign, "run order=D distill.teacher=model", f"distill.teacher=model: {RECORDED}"),
    "foreign weights alone": (
        lambda *a: foreign(*a, record=False),
        "evaluate checkpoint=model",
        "model/arch.json says",
    ),
    "weights without answers": (exploding, "evaluate checkpoint=model", "model: a measured number is not finite"),
    "weights that run code": (hostile, "run baseline.weights=hostile.pth", "wants to load posix.system"),
    "unreadable images": (unreadable, "run dataset=imagefolder dataset.root=photos", "2 of 60 images cannot be read"),
    "a read-only store": (refusing("mkdir", errno.EROFS), "run order=P", "cannot be read or written"),
    "a full disk": (refusing("mkdir", errno.ENOSPC), "run order=P", "the disk is full"),
    "a disk full at the end": (refusing("rename", errno.ENOSPC), "run order=P", "the disk is full"),
    "a loss that is no number, sgd": (no_number, "run order=P", "the loss is nan at epoch 1, batch 1"),
    "a loss that is no number, adamw": (no_number, "run order=P prune.fit.optimizer=adamw", "try a lower fit.lr"),
    "a loss that grows": (lambda *_: None, f"run order=P dataset=rotated_digits {DIVERGING}", "try a lower fit.lr"),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place with a baseline of digits in its store."""
    place = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert call("baseline", *TINY).code == 0
    return place


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_files_is_one_line_and_finished_steps_stay(
    fault: str, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil, line, hint = FAULTS[fault]
    shutil.copytree(finished / "outputs", tmp_path / "outputs")
    store = Store(tmp_path / "outputs" / "store")
    (step,) = store.root.glob("baseline-*")
    shutil.copytree(step, tmp_path / "model", copy_function=shutil.copyfile)
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        spoil(tmp_path, patch)
        name, *words = line.split()
        ended = call(name, *TINY, *words)
    assert (ended.code, ended.err.count("\n"), ended.err.startswith("compressor: ")) == (2, 1, True), ended
    assert hint in ended.err
    assert not (tmp_path / "ran").exists()
    assert all(store.record(path.name) for path in store.root.glob("[a-z]*-*"))
    assert not list(store.root.glob("prune-*"))
