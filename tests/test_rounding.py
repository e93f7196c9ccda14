"""Rounding activations in bf16, and as torch.compile sees it, has the gradients it has in fp32."""

from collections.abc import Callable
from dataclasses import replace
from typing import cast

import pytest
import samples
import torch
from torch import Tensor

from compressor.arch import Bits
from compressor.data import load_data
from compressor.layers import Act
from compressor.losses import task_loss
from compressor.model import fresh
from compressor.phases.quantize import quantize
from compressor.quantization import RoundActivation, act_range, round_traced
from compressor.training import Context, fit


def seen(context: Context, bits: int) -> list[tuple[Act, Tensor, Tensor]]:
    """Give the rounding activations of a trained network, what each reads of the digits, and the gradient there."""
    start = fit(fresh(samples.STANDARD, 0), replace(samples.FIT, epochs=3, lr=0.1), samples.afresh(context, "start"))
    config = replace(samples.QUANTIZE, bits=Bits(bits, bits), fit=replace(samples.FIT, epochs=0))
    model, read, given = quantize(config, context, start), {}, {}

    def note(act: torch.nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> None:
        out.retain_grad()
        read[act], given[act] = inputs[0], out

    for module in model.net.modules():
        if isinstance(module, Act) and hasattr(module, "scale"):
            module.register_forward_hook(note)
    images, targets = context.data.train.images[:], context.data.train.targets
    outputs = model.net.train()(torch.from_numpy(images))
    task_loss(context.data.task, 0.0)(outputs, torch.from_numpy(images), torch.from_numpy(targets)).backward()
    return [(act, x.detach(), given[act].grad.detach()) for act, x in read.items()]


def gradients(round_: Callable, act: Act, x: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    x, scale = x.clone().requires_grad_(), act.scale.detach().clone().requires_grad_()
    round_(x, scale, act.low, act.high, 1.0).backward(grad)
    assert x.grad is not None
    assert scale.grad is not None
    return x.grad, scale.grad


@pytest.mark.parametrize("bits", [2, 4])
def test_the_gradient_of_a_step_in_bf16_is_within_a_few_percent_of_that_in_fp32(bits, context):
    every = load_data(replace(samples.DATASET, limit=None), samples.RUNTIME)  # of few images the sums nearly cancel
    acts = seen(replace(context, data=every), bits)
    assert len(acts) == 11
    whole = torch.stack([gradients(RoundActivation.apply, *each)[1] for each in acts])
    half = [(act, x.bfloat16(), grad.bfloat16()) for act, x, grad in acts]
    rough = torch.stack([gradients(RoundActivation.apply, *each)[1] for each in half])
    assert (rough - whole).norm() < 0.03 * whole.norm()
    held = torch.stack([gradients(RoundActivation.apply, act, x.float(), grad.float())[1] for act, x, grad in half])
    assert (rough - held).norm() < 1e-4 * held.norm()  # beyond what bf16 holds nothing is lost


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("signed", [False, True])
def test_what_a_compiler_can_trace_rounds_alike_and_has_the_same_gradients(bits, signed):
    x, (low, high) = samples.normal(2, 3, 8, 8), act_range(bits, signed)
    scale, pull = torch.tensor(1.0 / high), samples.normal(2, 3, 8, 8, seed=1)
    results, ways = [], (RoundActivation.apply, round_traced)
    for round_ in cast(tuple[Callable[..., Tensor], ...], ways):
        leaves = [tensor.clone().requires_grad_() for tensor in (x, scale)]
        out = round_(*leaves, low, high, 0.37)
        (out * pull).sum().backward()
        results.append((out.detach(), *(leaf.grad for leaf in leaves)))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
