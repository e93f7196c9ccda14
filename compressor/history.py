"""How a training went: `history.jsonl`, a line an epoch, and the same as TensorBoard curves."""

import shutil
from pathlib import Path
from typing import Any

from compressor.checked import append_line, read_lines
from compressor.errors import CompressorError, StoreError

FILE, CURVES = "history.jsonl", "tb"


def append(folder: Path, line: dict[str, Any]) -> None:
    """Add one epoch's numbers."""
    append_line(folder / FILE, line)


def read(folder: Path) -> list[dict[str, Any]]:
    """Return the epochs' numbers; a line cut by a kill is left out.

    Raises:
        StoreError: a line was changed after it was written.
    """
    try:
        return read_lines(folder / FILE)[0]
    except CompressorError as error:
        raise StoreError(f"{error}; remove {folder} and the step starts afresh") from None


def truncate(folder: Path, epochs: int) -> None:
    """Keep the first `epochs` epochs, as a resumed training writes the later ones again.

    Raises:
        StoreError: a line was changed, or an epoch is not there.
    """
    path, draft = folder / FILE, folder / f"{FILE}.new"
    lines = read(folder)[:epochs]
    if [line.get("epoch") for line in lines] != list(range(1, epochs + 1)):
        raise StoreError(f"{path}: has not the epochs 1 to {epochs}; remove {folder} and the step starts afresh")
    if not path.exists():
        return
    draft.unlink(missing_ok=True)
    draft.touch()
    for line in lines:
        append_line(draft, line)
    if draft.read_bytes() != path.read_bytes():
        draft.replace(path)
    draft.unlink(missing_ok=True)


def write_curves(folder: Path) -> None:
    """Write the finished history as TensorBoard files into `tb/`; nothing where no epoch was trained."""
    lines = read(folder)
    if not lines:
        return
    from torch.utils.tensorboard import SummaryWriter

    shutil.rmtree(folder / CURVES, ignore_errors=True)
    with SummaryWriter(str(folder / CURVES)) as writer:
        for line in lines:
            for name in ("loss", "lr", "val"):
                writer.add_scalar(name, line[name], line["epoch"])
