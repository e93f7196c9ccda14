"""Make convolutional networks small and fast by chaining techniques in any order. Importing this imports no torch."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compressor.network import Network


def load(folder: str | Path) -> "Network":
    """Give the network of a model folder, such as outputs/<run>/04-exit, ready to answer.

    It is a torch.nn.Module in evaluation mode that reads images, uint8 (N, C, H, W) or float in 0..1, and normalises
    them itself; it returns a tuple of outputs, one a head, the final one last. `net.arch` says what it is.

    Raises:
        compressor.errors.CompressorError: the folder holds no model, or files that are cut or not what its record says.
    """
    from compressor.folders import model_of
    from compressor.model import load as load_model

    model = load_model(Path(folder))
    model_of(Path(folder))
    return model.net.eval()


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("compressor")
    raise AttributeError(f"module 'compressor' has no attribute {name!r}")
