"""A state dict out of what a training saved around it, and names without what wrappers put before them."""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from compressor.errors import ModelError
from compressor.published.pickled import ALONE

WRAPPERS = ("_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""Parts that torch's wrappers put into names, wherever they wrap: torch.compile, DataParallel, checkpointing."""
OWNERS = ("model", "net", "network", "ema", "ema_model", "model_ema")
"""Parts that trainers put before all names, as they keep the network under such an attribute."""
HOLDERS = (
    *(
        "state_dict",
        "model_state_dict",
        "model_state",
        "model",
        "net",
        "network",
        "net_state_dict",
        "weights",
        "params",
    ),
    *("ema", "ema_state_dict", "state_dict_ema", "model_ema", "ema_model", "model_ema_state_dict", "params_ema"),
)
"""Entries of a checkpoint that may hold the network, or hold what holds it."""
DEEPEST = 6
LONGEST = 300
"""Characters that a tensor's name may have."""
COUNTERS = ("n_averaged",)
"""What averaging a model leaves beside its tensors."""


Network = tuple[tuple[str, ...], Mapping[Any, Any]]
"""What may be a state dict, after the keys that lead to it."""


def unwrapped(found: Any) -> dict[str, Tensor]:
    """Return the tensors of a network by name, out of what a file holds.

    Known holders are opened, in any nesting; without one, the only mapping of names to tensors is taken. Two networks
    in one file, such as a model and its average, are refused: which one is meant cannot be told.

    Raises:
        ModelError: there is none, or more than one, or what is no tensor lies among its tensors.
    """
    networks = _networks(found, (), set())
    if not networks:
        raise ModelError(f"holds no tensors by name; {ALONE}")
    if len(networks) > 1:
        first, last = (".".join(keys) for keys, _ in (networks[0], networks[-1]))
        key = "".join(f"[{key!r}]" for key in networks[-1][0])
        one = f"torch.save(torch.load(FILE, weights_only=True){key}, 'weights.pth')"
        raise ModelError(f"holds two networks, {first!r} and {last!r}; save the one you mean, such as {one}")
    return without_prefixes(_checked(networks[0][1]))


def _networks(found: Any, where: tuple[str, ...], seen: set[int]) -> list[Network]:
    """Return the candidates; a mapping that is there twice counts once, as does one of the very same tensors."""
    if not isinstance(found, Mapping) or not found or len(where) > DEEPEST or id(found) in seen:
        return []
    seen.add(id(found))
    held = {key: item for key, item in found.items() if isinstance(key, str) and isinstance(item, Mapping)}
    names = [key for key in held if key in HOLDERS]
    if not names and not _named_tensors(found):
        names = [key for key, item in held.items() if _named_tensors(item)]
    networks: list[Network] = []
    for name in names:
        for keys, network in _networks(held[name], (*where, name[:LONGEST]), seen):
            if not any(_same(network, other) for _, other in networks):
                networks.append((keys, network))
    if not networks and (_named_tensors(found) or not where):
        return [(where, found)]
    return networks


def _named_tensors(value: Mapping[Any, Any]) -> bool:
    return any(isinstance(key, str) and isinstance(item, Tensor) for key, item in value.items())


def _same(one: Mapping[Any, Any], other: Mapping[Any, Any]) -> bool:
    """Tell whether two state dicts hold the same memory under the same names."""
    if one.keys() != other.keys():
        return False
    pairs = [(one[name], other[name]) for name in one]
    return all(isinstance(a, Tensor) and isinstance(b, Tensor) and _place(a) == _place(b) for a, b in pairs)


def _place(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype


def _checked(found: Mapping[Any, Any]) -> dict[str, Tensor]:
    for name, tensor in found.items():
        if not isinstance(name, str) or len(name) > LONGEST:
            raise ModelError(f"names a tensor by a {type(name).__name__} of {len(str(name))} characters; {ALONE}")
        if not isinstance(tensor, Tensor):
            raise ModelError(f"{name!r} is a {type(tensor).__name__}, no tensor; {ALONE}")
        if tensor.layout is not torch.strided or tensor.device.type != "cpu" or tensor.is_quantized or tensor.is_nested:
            raise ModelError(f"tensor {name!r} is not dense; save the float network's state_dict()")
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise ModelError(f"tensor {name!r} repeats its numbers; save tensors of their own memory")
    return {name: tensor.detach() for name, tensor in found.items()}


def without_prefixes(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors under names without what wrappers and trainers put into them, never so that two merge."""
    kept = {name: tensor for name, tensor in tensors.items() if name not in COUNTERS}
    names = _distinct({name: _unwrapped_name(name) for name in kept})
    while names and (owner := _owner(names.values())):
        names = {name: short.removeprefix(owner) for name, short in names.items()}
    return {names[name]: tensor for name, tensor in kept.items()}


def _unwrapped_name(name: str) -> str:
    *parts, last = name.split(".")
    return ".".join([*(part for part in parts if part not in WRAPPERS), last])


def _distinct(names: dict[str, str]) -> dict[str, str]:
    return names if len(set(names.values())) == len(names) else {name: name for name in names}


def _owner(names: Collection[str]) -> str:
    """Return what a trainer put before every name, or nothing."""
    return next((f"{owner}." for owner in OWNERS if all(name.startswith(f"{owner}.") for name in names)), "")


def as_unwrapped(name: str, tensors: Mapping[str, Tensor]) -> str:
    """Return a name that a user read in the file as it is called after `without_prefixes`, or as it is."""
    short = _unwrapped_name(name)
    while not _holds(tensors, short):
        owner, _, rest = short.partition(".")
        if owner not in OWNERS or not rest:
            return name
        short = rest
    return short


def _holds(tensors: Mapping[str, Tensor], name: str) -> bool:
    return any(each == name or each.startswith(f"{name}.") for each in tensors)
