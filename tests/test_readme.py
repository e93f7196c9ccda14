"""Every command of the README works as printed; here with small networks and few images added to it."""

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from terminal import call

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
COMMANDS = [line for kind, text in BLOCKS if not kind for line in text.splitlines() if line.startswith("compressor ")]
PHASES = ("baseline", "distill", "prune", "quantize", "exit")
SMALL = [
    "architecture.width=0.25",
    "dataset.limit=60",
    "runtime.progress=false",
    "fit.warmup=0",
    *(f"{p}.fit.epochs=1" for p in PHASES),
]

QUICK = {
    "order": ["study.letters=PQ", "study.reference=PQ", "study.repeats=[]", "study.seeds=[0]"],
    "search": [
        *("search.seeds=[0]", "search.rivals=[stepwise]", "search.evaluations=3", "search.warmup=1"),
        *("search.workers=1", "search.joint.fit.epochs=2"),
    ],
    "moe": [
        *("moe.seeds=[0]", "moe.budget.macs=0.9", "moe.busiest=1", "moe.joint.fit.epochs=1"),
    ],
    "bench": ["bench.engines=[torch]", "bench.batches=[1]", "bench.repeats=3", "bench.seconds=0", "bench.memory=false"],
}
"""What makes a command short enough for a test."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photographs and one finished run."""
    folder = tmp_path_factory.mktemp("readme")
    source = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            (folder / "photos" / split / name).mkdir(parents=True)
            for i in range(12):
                pixels = source.integers(0, 256, (20, 24, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / "photos" / split / name / f"{i}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert call("run", "+experiment=digits_dpqe", *SMALL).code == 0
    return folder


@pytest.fixture
def run(place: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of the finished run; the test stands where the user would."""
    monkeypatch.chdir(place)
    return min(path.name for path in (place / "outputs" / "digits_dpqe").iterdir())


def test_the_readme_shows_every_task() -> None:
    assert {command.split()[1] for command in COMMANDS} >= {
        "run",
        "order",
        "search",
        "moe",
        "quantize",
        "export",
        "predict",
        "bench",
        "list",
        "evaluate",
    }


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_readme_works_as_printed(command: str, run: str) -> None:
    words = shlex.split(command.replace("RUN", run))[1:]
    small = [word for word in SMALL if not (words[0] in ("quantize", "evaluate") and word.startswith("dataset.limit"))]
    ended = call(*words, *([] if words[0] == "list" else small), *QUICK.get(words[0], []))
    assert ended.code == 0, ended.err
    assert ended.out.strip()


def test_the_python_of_the_readme_works_as_printed(run: str) -> None:
    (text,) = [text for kind, text in BLOCKS if kind == "python"]
    names: dict[str, Any] = {}
    exec(text.replace("RUN", run), names)
    net = names["net"]
    assert not net.training
    assert net.arch.task.outputs == 10
    assert len(net(names["images"])) == len(net.cuts)
    assert names["answers"].shape == (16,)
    assert torch.equal(net(names["images"] / 255)[-1].argmax(dim=1), names["answers"])
