"""Make the golden model and the golden run anew: `python tests/golden/make.py`.

Only when a format changes on purpose: what is here was written by a released version, and must stay loadable.
"""

import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

GOLDEN = Path(__file__).parent
sys.path[:0] = [str(GOLDEN.parent), str(GOLDEN.parents[1])]

import samples  # noqa: E402 - the tests' folder is no package
import torch  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

from compressor.arch import ActBits, Arch, Bits, Block, BlockKind, Quantization, Stage, WeightBits  # noqa: E402
from compressor.commands import run_order  # noqa: E402
from compressor.model import save  # noqa: E402


def model_arch() -> Arch:
    """Give a network that uses every part of the format: shortcuts, exits, bits of layers, channels and tensors."""
    weights = (
        WeightBits("blocks.s0b0.conv1", "s0b0.0", (1, 2, 3, 4, 6, 8)),
        WeightBits("blocks.s1b0.conv2", "s1", (3,)),
    )
    rule = Quantization(Bits(4, 4), 8, weights, (ActBits("blocks.s1b0.act1", 3),))
    return replace(samples.compressed(), name="golden", quantization=rule)


def run_arch() -> Arch:
    """Give the smallest residual network that every phase still changes."""
    block = Block(BlockKind.BASIC, (3,))
    return samples.arch(name="golden", stages=(Stage((block, block), 3), Stage((replace(block, stride=2), block), 4)))


def make_model(folder: Path) -> None:
    """Write a model and what it answers."""
    folder.mkdir()
    model = samples.model(model_arch(), seed=11)
    model.net.thresholds.copy_(torch.tensor([0.25, torch.inf]))
    save(model, folder)
    images = samples.images(8, model.arch, seed=12)
    with torch.no_grad():
        answers = {f"head{i}": out for i, out in enumerate(model.net(images))}
    save_file({"images": images} | answers, folder.with_name("answers.safetensors"))


def make_run(folder: Path) -> None:
    """Write a run of all four phases, without its curves."""
    with tempfile.TemporaryDirectory() as store:
        run_order(samples.settings(Path(store), "DPQE", run_arch(), name="golden"), folder)
    for curves in folder.glob("*/tb"):
        shutil.rmtree(curves)


if __name__ == "__main__":
    for name in ("model", "run"):
        shutil.rmtree(GOLDEN / name, ignore_errors=True)
    make_model(GOLDEN / "model")
    make_run(GOLDEN / "run")
