"""Devices, threads and arithmetic: how tensors are computed, never what."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from compressor.config import FitConfig, Precision, RuntimeConfig
from compressor.errors import ConfigError

TINY_MACS = 5_000_000
"""A network of fewer multiply-accumulates an image trains fastest on one thread."""


def device_of(runtime: RuntimeConfig) -> torch.device:
    """Give the device to compute on; `auto` is CUDA where there is one."""
    if runtime.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("runtime.device=cuda: this machine or this torch has no CUDA; give auto or cpu")
    return torch.device("cuda" if runtime.device != "cpu" and torch.cuda.is_available() else "cpu")


@contextmanager
def threads(runtime: RuntimeConfig, macs: Callable[[], int]) -> Iterator[int]:
    """Compute with as many threads as suit a network, then go back.

    `macs` gives its multiply-accumulates an image, and is asked only where the number of threads is not given.
    """
    count = runtime.threads or (1 if macs() < TINY_MACS else os.cpu_count() or 1)
    with on_threads(count):
        yield count


@contextmanager
def on_threads(count: int) -> Iterator[None]:
    """Compute with `count` threads, 0 for as many as now, then go back."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def autocast(config: FitConfig, device: torch.device) -> torch.autocast:
    """Give the arithmetic of training; `auto` must have been resolved."""
    assert config.precision is not Precision.AUTO, "auto is resolved while planning"
    return torch.autocast(device.type, torch.bfloat16, enabled=config.precision is Precision.BF16)


def lay_out(net: nn.Module, config: FitConfig, device: torch.device) -> nn.Module:
    """Move a network to its device and memory layout, in place."""
    net.to(device)
    return net.to(memory_format=torch.channels_last) if config.channels_last else net  # pyright: ignore


def place(net: nn.Module, config: FitConfig, device: torch.device) -> nn.Module:
    """Move a network to its device and memory layout, in place, and give what to call in training."""
    lay_out(net, config, device)
    return torch.compile(net) if config.compile else net  # pyright: ignore[reportReturnType]
