"""Tensors by name out of a file of published weights, of which nothing is run."""

import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from compressor.errors import ModelError
from compressor.files import open_regular
from compressor.published.kinds import Kind, check_sums, kind_of, pickled_part
from compressor.published.pickled import ALONE, check_pickles
from compressor.published.unwrapping import unwrapped


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a network by name: of safetensors, or of a PyTorch file, perhaps a whole checkpoint.

    The file's content says which kind it is, whatever its name. Names come without what wrappers put before them.

    Raises:
        ModelError: the file is missing, cut, hostile, of another kind, or holds no network or two.
        FileError: it is no regular file, or larger than weights are.
    """
    path = Path(path)
    try:
        kind = kind_of(path)
        found = load_file(path) if kind is Kind.SAFETENSORS else _read_torch(path, kind)
    except FileNotFoundError:
        raise ModelError(f"{path}: there is no such file") from None
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or 'input or output failed'}") from None
    except SafetensorError:
        raise ModelError(f"{path}: is no whole safetensors file; it is cut, changed or of another program") from None
    try:
        return unwrapped(found)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None


def _read_torch(path: Path, kind: Kind) -> Any:
    try:
        if kind is Kind.ZIPPED:
            check_sums(path)
        check_pickles(pickled_part(path, kind), kind, path.stat().st_size)
        # Not by its path: torch would go by the suffix. Old files warn about their storage classes.
        with open_regular(path) as file, warnings.catch_warnings(action="ignore"):
            return torch.load(file, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None
    except pickle.UnpicklingError as error:
        wanted = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = (
            f"wants to load {wanted[1]}, which is no tensor" if wanted else "holds more than plain tensors, or is cut"
        )
        raise ModelError(f"{path}: {what}; {ALONE}") from None
    except Exception:  # noqa: BLE001 - bytes that are no PyTorch file can fail in any way
        raise ModelError(f"{path}: is no whole PyTorch file; it is cut, changed or of another program") from None
