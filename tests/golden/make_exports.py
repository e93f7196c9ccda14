"""Make the golden exports anew: `python tests/golden/make_exports.py`, with the extra onnx.

Only when a format changes on purpose: what is here was written by a released version, and must stay loadable.
"""

import shutil
import sys
from pathlib import Path

GOLDEN = Path(__file__).parent
sys.path[:0] = [str(GOLDEN.parent), str(GOLDEN.parents[1])]

import numpy as np  # noqa: E402 - the tests' folder is no package
import samples  # noqa: E402
from safetensors.numpy import load_file, save_file  # noqa: E402

from compressor.config import Container, ExportConfig, ExportFormat  # noqa: E402
from compressor.data import load_data  # noqa: E402
from compressor.data.types import Split  # noqa: E402
from compressor.deploy.export import export  # noqa: E402
from compressor.model import load  # noqa: E402
from compressor.routing import route  # noqa: E402

SOURCES = {"packed": "model", "onnx": "run/04-exit"}


def main() -> None:
    """Export each format's model, and keep what PyTorch answers beside it."""
    test = load_data(samples.DATASET, samples.RUNTIME).test
    images = load_file(GOLDEN / "answers.safetensors")["images"]
    for name, source in SOURCES.items():
        folder = GOLDEN / "exports" / name
        shutil.rmtree(folder, ignore_errors=True)
        config = ExportConfig(ExportFormat(name), Container.SMALLEST if name == "onnx" else Container.INT8)
        export(GOLDEN / source, config, folder, test, samples.RUNTIME)
        outputs, exits = route(load(GOLDEN / source), Split(images, np.zeros(len(images))))
        answers = {"images": images, "outputs": outputs.numpy(), "exits": exits.numpy()}
        save_file(answers, GOLDEN / "exports" / f"{name}.safetensors")


if __name__ == "__main__":
    main()
