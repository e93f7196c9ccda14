"""A mixture on disk: one JSON file of all its networks and its rule, and one file of tensors; nothing is unpickled."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from compressor.arch import Arch, MixtureArch
from compressor.codec import encode
from compressor.files import write_shared
from compressor.folders import FORMAT, MIXTURE, WEIGHTS, digest_of, read_mixture
from compressor.mixture.types import Mixture, assemble
from compressor.model import Model, fresh, read_state
from compressor.network import Network


def save_mixture(mixture: Mixture, folder: Path) -> str:
    """Write `mixture.json` and `weights.safetensors`, and return their digest; what is shared is written once."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in mixture.net.state_dict().items()}
    write_shared(folder / WEIGHTS, lambda path: save_file(tensors, path))
    text = json.dumps({"format": FORMAT, "mixture": encode(mixture.arch)}, indent=1) + "\n"
    (folder / MIXTURE).write_text(text, encoding="utf-8")
    return digest_of(folder)


def load_mixture(folder: Path) -> Mixture:
    """Read a mixture; nothing in the files is run, and nothing is built before names and shapes agree.

    Raises:
        ModelError: a file is missing, cut, changed, foreign, or does not fit the other.
    """
    arch = read_mixture(folder)
    with torch.device("meta"):
        expected = _assembled(arch, meta=True).net.state_dict()
    state = read_state(folder / WEIGHTS, expected, MIXTURE)
    mixture = _assembled(arch, meta=False)
    mixture.net.load_state_dict(state)
    return mixture


def _assembled(arch: MixtureArch, *, meta: bool) -> Mixture:
    def model(each: Arch) -> Model:
        return Model(each, Network(each)) if meta else fresh(each, seed=0)

    router = arch.router and model(arch.router)
    return assemble(arch.rule, router, tuple(map(model, arch.experts)))
