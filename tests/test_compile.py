"""A compiled training computes what an uncompiled one does."""

from dataclasses import replace

import pytest
import samples
import torch

from compressor.calibration import calibrate
from compressor.layers import Axis, PadShortcut
from compressor.model import Model, fresh
from compressor.phases.quantize import is_scale
from compressor.training import Context, fit


def trained(context: Context, *, compiled: bool) -> Model:
    model = fresh(samples.compressed(), 0)
    calibrate(model, context, images=80, seed=0)
    return fit(model, replace(samples.FIT, epochs=2, compile=compiled), context)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_rounded_network_with_exits_trains_compiled_to_nearly_the_same_weights(context):
    torch.compiler.reset()
    began = fresh(samples.compressed(), 0).net.state_dict()
    plain = trained(samples.afresh(context, "plain"), compiled=False)
    fast = trained(context, compiled=True).net.state_dict()
    moved, apart = 0.0, 0.0
    for name, want in plain.net.state_dict().items():
        if name.endswith("weight"):
            assert not torch.equal(fast[name], began[name]), name
            moved += (want - began[name]).square().sum().item()
            apart += (want - fast[name]).square().sum().item()
    assert apart < 0.01 * moved
    scales = [tensor for name, tensor in fast.items() if is_scale(name)]
    assert scales
    assert all((scale > 0).all() for scale in scales)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_shortcut_that_pads_32_channels_computes_the_same_compiled():
    torch.compiler.reset()
    shortcut, x = PadShortcut(Axis("in", 32), Axis("out", 64), 2), torch.randn(2, 32, 8, 8)
    assert torch.equal(torch.compile(shortcut)(x), shortcut(x))
