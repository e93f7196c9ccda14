"""Make convolutional networks small and fast by chaining techniques in any order. Importing this imports no torch."""

TYPE_CHECKING = False  # typing's own takes time to import, in which a signal would be a traceback

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from compressor.mixture import Mixture
    from compressor.network import Network


def load(folder: "str | Path") -> "Network":
    """Return the network of a model folder, such as outputs/<run>/04-exit, ready to answer.

    It is a torch.nn.Module in evaluation mode that reads images, uint8 (N, C, H, W) or float in 0..1, and normalises
    them itself; it returns a tuple of outputs, one a head, the final one last. `net.arch` says what it is. Images of
    another type, shape or range are a CompressorError, unless it trains or is compiled.

    Raises:
        compressor.errors.CompressorError: the folder holds no model but a mixture (`load_mixture`) or nothing, or files
            that are cut or not what its record says.
    """
    from pathlib import Path

    from compressor.errors import ModelError
    from compressor.folders import MIXTURE, form_of, model_of
    from compressor.model import guarded
    from compressor.model import load as load_model

    if form_of(Path(folder)) == MIXTURE:
        raise ModelError(f"{folder}: is a mixture of models, which compressor.load_mixture gives")
    model = load_model(Path(folder))
    model_of(Path(folder))
    return guarded(model.net.eval())


def load_mixture(folder: "str | Path") -> "Mixture":
    """Give the mixture of a folder, such as outputs/<run>/01-moe: router, if any, experts, and who answers.

    `compressor.mixture.run(mixture, images)` answers images, uint8 (N, C, H, W): it computes the experts that are asked
    only, and says who answered.

    Raises:
        compressor.errors.CompressorError: as for `load`.
    """
    from pathlib import Path

    from compressor.folders import model_of
    from compressor.mixture import load_mixture as read

    mixture = read(Path(folder))
    model_of(Path(folder))
    return mixture


def __getattr__(name: str) -> "Any":
    if name == "__version__":
        from importlib.metadata import version

        return version("compressor")
    raise AttributeError(f"module 'compressor' has no attribute {name!r}")
