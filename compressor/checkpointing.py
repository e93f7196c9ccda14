"""The state of a training under way on disk: one file of tensors, replaced whole, so that a kill leaves old or new."""

import json
import logging
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from compressor import history
from compressor.codec import decode, digest
from compressor.errors import FileError
from compressor.files import open_regular, write_shared
from compressor.memory import pass_on

if TYPE_CHECKING:
    from compressor.training import Fitting

FILE = "fit.safetensors"

log = logging.getLogger(__name__)


def save(fitting: "Fitting") -> None:
    """Write the network, its running average, the optimizer and the place; the file appears at once or not at all."""
    tensors = {f"net.{name}": t for name, t in fitting.model.net.state_dict().items()}
    tensors |= {f"average.{name}": t for name, t in (fitting.average or {}).items()}
    tensors |= _optimizer_tensors(fitting.optimizer)
    path = fitting.context.scratch / FILE
    draft = path.with_suffix(".new")
    kept = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    place = json.dumps(asdict(fitting.place))
    metadata = {"place": place, "digest": _digest(kept, place)}
    write_shared(draft, lambda new: save_file(kept, new, metadata=metadata))
    with draft.open("rb") as file:
        os.fsync(file.fileno())
    draft.replace(path)


def restore(fitting: "Fitting") -> None:
    """Go back to the saved state if there is one that fits; a damaged one is named, and training starts afresh."""
    path = fitting.context.scratch / FILE
    if path.exists():
        try:
            tensors, place = _read(path)
            where = decode(type(fitting.place), json.loads(place))
            _check(fitting, tensors)
        except (SafetensorError, ValueError, OSError, FileError) as error:
            pass_on(error)  # what was trained so far is whole
            log.warning("%s: cannot be resumed (%s); the step starts afresh", path, error)
        else:
            _load(fitting, tensors)
            fitting.place = where
    history.truncate(fitting.context.scratch, fitting.place.epoch)


def remove(scratch: Path) -> None:
    """Delete the state of a training that has ended."""
    (scratch / FILE).unlink(missing_ok=True)


def _read(path: Path) -> tuple[dict[str, Tensor], str]:
    open_regular(path).close()  # a pipe would be waited for
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        metadata = file.metadata() or {}
    place = metadata.get("place", "")
    if metadata.get("digest") != _digest(tensors, place):
        raise ValueError("it was changed")
    return tensors, place


def _digest(tensors: dict[str, Tensor], place: str) -> str:
    named = (part for name in sorted(tensors) for part in (name.encode(), tensors[name].numpy().tobytes()))
    return digest(place.encode(), *named)


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"optimizer.{i}.{name}": value
        for i, p in enumerate(_parameters(optimizer))
        for name, value in optimizer.state.get(p, {}).items()
        if isinstance(value, Tensor)
    }


def _check(fitting: "Fitting", tensors: dict[str, Tensor]) -> None:
    """Refuse the state of another network or optimizer, before any of it is used."""
    net, average = fitting.model.net.state_dict(), fitting.average or {}
    shapes = {f"net.{name}": t.shape for name, t in net.items()}
    shapes |= {f"average.{name}": t.shape for name, t in average.items()}
    rest = {name: t for name, t in tensors.items() if name not in shapes}
    parameters = _parameters(fitting.optimizer)
    fits = all(name in tensors and tensors[name].shape == shape for name, shape in shapes.items())
    for name, tensor in rest.items():
        kind, index, _ = name.split(".", 2)
        fits &= kind == "optimizer" and int(index) < len(parameters)
        fits = fits and tensor.shape in ((), parameters[int(index)].shape)
    if not fits:
        raise ValueError("it is of another network or optimizer")


def _load(fitting: "Fitting", tensors: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, tensor in fitting.model.net.state_dict().items():
            tensor.copy_(tensors[f"net.{name}"])
        for name, tensor in (fitting.average or {}).items():
            tensor.copy_(tensors[f"average.{name}"])
    parameters = _parameters(fitting.optimizer)
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".", 2)
            parameter = parameters[int(index)]
            if value.ndim:
                value = value.to(parameter.device).contiguous(memory_format=_layout(parameter))
            fitting.optimizer.state[parameter][name] = value


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def _layout(parameter: Tensor) -> torch.memory_format:
    last = parameter.ndim == 4 and parameter.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format
