"""Augmentation: what it may change, and that a generator decides it."""

import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from compressor.config import AugmentConfig
from compressor.data.augment import augment

CONFIGS = st.builds(AugmentConfig, st.integers(0, 5), st.booleans(), st.integers(0, 6))
FILL = (7, 8, 9)


def batch(n: int = 6, height: int = 9, width: int = 11) -> Tensor:
    """Images whose every pixel has another value than the fill, and whose rows and columns can be told."""
    values = torch.arange(height).view(-1, 1) * width + torch.arange(width) + 20
    return values.to(torch.uint8).expand(n, 3, height, width).contiguous()


def run(images: Tensor, config: AugmentConfig, seed: int = 0) -> Tensor:
    return augment(images, config, FILL, torch.Generator().manual_seed(seed))


@given(CONFIGS, st.integers(0, 1000))
def test_the_same_generator_gives_the_same_images_and_the_input_stays(config, seed):
    images = batch()
    kept = images.clone()
    found = run(images, config, seed)
    assert torch.equal(found, run(images, config, seed))
    assert torch.equal(images, kept)
    assert found.shape == images.shape
    assert found.dtype == torch.uint8


@given(CONFIGS, st.integers(0, 1000))
def test_every_pixel_is_the_fill_or_a_pixel_of_the_same_image_and_channel(config, seed):
    images = torch.randint(20, 256, (5, 3, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    found = run(images, config, seed)
    for i in range(5):
        for c in range(3):
            assert set(found[i, c].flatten().tolist()) <= {*images[i, c].flatten().tolist(), FILL[c]}


@given(st.integers(1, 5), st.booleans(), st.integers(0, 1000))
def test_a_crop_is_a_window_of_the_padded_image_or_of_its_mirror(padding, flip, seed):
    images = batch()
    padded = torch.tensor(FILL, dtype=torch.uint8).view(1, 3, 1, 1).repeat(6, 1, 9 + 2 * padding, 11 + 2 * padding)
    padded[:, :, padding:-padding, padding:-padding] = images
    windows = padded[0].unfold(1, 9, 1).unfold(2, 11, 1).permute(1, 2, 0, 3, 4).reshape(-1, 3, 9, 11)
    allowed = torch.cat([windows, windows.flip(3)]) if flip else windows
    for image in run(images, AugmentConfig(padding, flip, 0), seed):
        assert (allowed == image).flatten(1).all(1).any()


@given(st.integers(0, 1000))
def test_a_flip_mirrors_an_image_or_leaves_it(seed):
    images = batch(40)
    mirrored = [torch.equal(image, images[0].flip(2)) for image in run(images, AugmentConfig(0, True, 0), seed)]
    kept = [torch.equal(image, images[0]) for image in run(images, AugmentConfig(0, True, 0), seed)]
    assert all(a != b for a, b in zip(mirrored, kept, strict=True))
    assert 5 < sum(mirrored) < 35


@given(st.integers(1, 8), st.integers(0, 1000))
def test_a_cutout_blanks_one_rectangle_of_at_most_its_side(side, seed):
    images = batch()
    for image in run(images, AugmentConfig(0, False, side), seed):
        blank = image[0] == FILL[0]
        rows, columns = blank.any(1).sum().item(), blank.any(0).sum().item()
        assert 1 <= rows <= side
        assert 1 <= columns <= side
        assert blank.sum().item() == rows * columns


def test_every_shift_occurs():
    images = batch(400)
    found = run(images, AugmentConfig(2, False, 0))
    assert len({image.numpy().tobytes() for image in found}) == 25


@pytest.mark.parametrize("cutout", [0, 8])
def test_a_batch_takes_under_two_milliseconds(cutout):
    images = torch.randint(0, 256, (128, 3, 32, 32), dtype=torch.uint8)
    config, generator, taken = AugmentConfig(4, True, cutout), torch.Generator().manual_seed(0), []
    for _ in range(60):
        start = time.perf_counter()
        augment(images, config, FILL, generator)
        taken.append(time.perf_counter() - start)
    assert min(taken) < 0.002
