"""The state of a training under way on disk: one file of tensors, replaced whole, so that a kill leaves old or new."""

import json
import os
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from compressor import history

if TYPE_CHECKING:
    from compressor.training import Fitting

FILE = "fit.safetensors"


def save(fitting: "Fitting") -> None:
    """Write the network, its running average, the optimizer and the place; the file appears at once or not at all."""
    tensors = {f"net.{name}": t for name, t in fitting.model.net.state_dict().items()}
    tensors |= {f"average.{name}": t for name, t in (fitting.average or {}).items()}
    tensors |= _optimizer_tensors(fitting.optimizer)
    path = fitting.context.scratch / FILE
    draft = path.with_suffix(".new")
    kept = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    save_file(kept, draft, metadata={"place": json.dumps(asdict(fitting.place))})
    with draft.open("rb") as file:
        os.fsync(file.fileno())
    draft.replace(path)


def restore(fitting: "Fitting") -> None:
    """Go back to the saved state if there is one that fits; a damaged one is named, and training starts afresh."""
    path = fitting.context.scratch / FILE
    if path.exists():
        try:
            tensors, where = _read(path)
            _load(fitting, tensors)
        except (SafetensorError, KeyError, ValueError, RuntimeError, OSError) as error:
            warnings.warn(f"{path}: cannot be resumed ({error}); the step starts afresh", stacklevel=2)
        else:
            for name, value in where.items():
                setattr(fitting.place, name, value)
    history.truncate(fitting.context.scratch, fitting.place.epoch)


def remove(scratch: Path) -> None:
    """Delete the state of a training that has ended."""
    (scratch / FILE).unlink(missing_ok=True)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, float]]:
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        return tensors, json.loads(file.metadata()["place"])


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    return {
        f"optimizer.{i}.{name}": value
        for i, p in enumerate(parameters)
        for name, value in optimizer.state.get(p, {}).items()
        if isinstance(value, Tensor)
    }


def _load(fitting: "Fitting", tensors: dict[str, Tensor]) -> None:
    net = fitting.model.net.state_dict()
    parts = {name: tensors[f"net.{name}"] for name in net}
    averages = {name: tensors[f"average.{name}"] for name in fitting.average or {}}
    if any(parts[name].shape != net[name].shape for name in net):
        raise ValueError("its tensors have other shapes")
    with torch.no_grad():
        for name, tensor in net.items():
            tensor.copy_(parts[name])
        for name, tensor in (fitting.average or {}).items():
            tensor.copy_(averages[name])
    parameters = [p for group in fitting.optimizer.param_groups for p in group["params"]]
    for key, value in tensors.items():
        kind, _, rest = key.partition(".")
        if kind == "optimizer":
            index, _, name = rest.partition(".")
            parameter = parameters[int(index)]
            state = value.to(parameter.device) if value.ndim else value
            fitting.optimizer.state[parameter][name] = state.contiguous(memory_format=_layout(parameter))


def _layout(parameter: Tensor) -> torch.memory_format:
    last = parameter.ndim == 4 and parameter.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format
