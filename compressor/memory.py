"""Too little memory, whichever library says so, as one line that says what to lower. No torch here."""

import errno
import re

from compressor.errors import ShortageError

SAYS = re.compile(
    r"can't allocate memory|cannot allocate memory|unable to allocate|failed to allocate|not enough memory"
    r"|out of memory|bad[_ ]alloc|failed to map segment|os error 12\b",
    re.IGNORECASE,
)
"""How torch, CUDA, numpy, onnxruntime, OpenVINO, safetensors and the loader say it, in errors of no type of its own."""
ASKED = re.compile(r"allocate (?:about )?(?:memory: you tried to allocate )?([\d.]+) ?([KMGT]iB|bytes)", re.IGNORECASE)
LOWER = {
    "predict": "predict.batch",
    "bench": "bench.batches, dataset.limit or runtime.workers",
    "evaluate": "dataset.limit or runtime.workers",
    "export": "dataset.limit or runtime.workers",
    "order": "fit.batch, dataset.limit, runtime.workers or study.workers",
    "search": "fit.batch, dataset.limit, runtime.workers or search.workers",
}
"""What takes memory, by command; a training in all others."""
TRAINING = "fit.batch, dataset.limit, runtime.workers or architecture.width"


def is_shortage(error: BaseException) -> bool:
    """Say whether an error means that there is too little memory."""
    if isinstance(error, MemoryError | ShortageError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM or bool(SAYS.search(str(error)))
    return isinstance(error, Exception) and bool(SAYS.search(str(error)))


def pass_on(error: BaseException) -> None:
    """Raise a shortage for what it is, before an error is called something else, such as a damaged file."""
    if is_shortage(error):
        raise error


def shortage(error: BaseException, command: str = "run") -> ShortageError:
    """Return the line for an error that `is_shortage`: how much was asked for, if it says so, and what to lower."""
    asked = ASKED.search(str(error))
    amount = f" ({asked[1]} {asked[2]} were asked for at once)" if asked else ""
    lower = LOWER.get(command, TRAINING)
    return ShortageError(f"out of memory{amount}; lower {lower}, or give it more; finished work is kept")
