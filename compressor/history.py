"""How a training went: `history.jsonl`, a line an epoch, and the same as TensorBoard curves."""

import json
import shutil
from pathlib import Path
from typing import Any

FILE, CURVES = "history.jsonl", "tb"


def append(folder: Path, line: dict[str, Any]) -> None:
    """Add one epoch's numbers."""
    with (folder / FILE).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def read(folder: Path) -> list[dict[str, Any]]:
    """Give the epochs' numbers; a line cut by a kill is left out."""
    path = folder / FILE
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(text))
        except ValueError:
            break
    return lines


def truncate(folder: Path, epochs: int) -> None:
    """Keep the first `epochs` epochs, as a resumed training writes the later ones again."""
    path, draft = folder / FILE, folder / f"{FILE}.new"
    kept = "".join(json.dumps(line) + "\n" for line in read(folder)[:epochs])
    if path.exists() and path.read_text(encoding="utf-8") != kept:
        draft.write_text(kept, encoding="utf-8")
        draft.replace(path)


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
