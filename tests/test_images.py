"""Images of another type, shape or range than a network reads are refused wherever somebody hands them over."""

import mixtures
import numpy as np
import pytest
import samples
import torch

import compressor
from compressor import mixture
from compressor.config.deploy import Engine
from compressor.deploy.rebuilt import open_mixture, open_model
from compressor.errors import CompressorError
from compressor.model import load

UNFIT = {
    "floats of 0 to 255": (lambda x: x.float(), "images are floats of 0 to"),
    "normalised floats": (lambda x: x / 127.5 - 1, "images are floats of -1 to 1; give uint8"),
    "nan": (lambda x: x / torch.nan, "images are floats of nan"),
    "int64": (lambda x: x.long(), "images are int64; give uint8 (N, 1, H, W), or floats of 0 to 1"),
    "int8": (lambda x: x.to(torch.int8), "images are int8"),
    "bool": (lambda x: x > 0, "images are bool"),
    "three channels": (
        lambda x: x.expand(-1, 3, -1, -1),
        "images have the shape [6, 3, 8, 8]; give uint8 (N, 1, H, W)",
    ),
    "channels last": (lambda x: x.permute(0, 2, 3, 1), "images have the shape [6, 8, 8, 1]"),
    "one image": (lambda x: x[0], "images have the shape [1, 8, 8]"),
    "numpy": (lambda x: x.numpy(), "images are a ndarray; give a tensor"),
}


@pytest.fixture
def images(digits) -> torch.Tensor:
    """Six real images."""
    return torch.from_numpy(np.array(digits.test.images[:6]))


@pytest.mark.parametrize("what", UNFIT)
def test_a_loaded_network_refuses_what_it_would_answer_wrongly(what, images, tmp_path) -> None:
    samples.saved(tmp_path)
    change, message = UNFIT[what]
    with pytest.raises(CompressorError) as caught:
        compressor.load(str(tmp_path))(change(images))
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_integers_and_floats_of_0_to_1_are_answered_alike(images, tmp_path) -> None:
    net = compressor.load(samples.saved(tmp_path))
    with torch.no_grad():
        want = net(images)[-1]
        for floats in (images / 255, (images / 255).double()):
            torch.testing.assert_close(net(floats)[-1], want, atol=1e-4, rtol=1e-4)
        assert net(images[:0].float())[-1].shape == (0, 10)


def test_networks_that_train_or_are_exported_or_used_inside_look_at_no_range(images, tmp_path) -> None:
    net = compressor.load(samples.saved(tmp_path))
    torch.export.export(net, (images / 255,))
    net.train()(images.float())
    assert not load(tmp_path).net._forward_pre_hooks


def test_exports_read_integers_of_their_size_alone(images) -> None:
    model = samples.model(samples.compressed())
    for engine in (Engine.TORCH, Engine.NUMPY):
        exported = open_model(model, engine, 1)
        assert exported.predict(images.numpy()).outputs.shape == (6, 10)
        for unfit in (images.numpy() / np.float32(255), images.numpy().astype(np.int64), images.numpy()[:, :, 1:]):
            with pytest.raises(CompressorError, match=r"give uint8 \(N, 1, 8, 8\), pixels of 0 to 255"):
                exported.predict(unfit)
    with pytest.raises(CompressorError, match="images are a Tensor; give an array of NumPy"):
        open_model(model, Engine.TORCH, 1).predict(images)  # pyright: ignore


def test_mixtures_refuse_the_same(images) -> None:
    mixed = mixtures.toy()
    with pytest.raises(CompressorError, match="images are floats of 0 to"):
        mixture.run(mixed, images.float())
    with pytest.raises(CompressorError, match="images are float32"):
        open_mixture(mixed, Engine.TORCH, 1).predict(images.float().numpy())
