"""Batched augmentation on uint8 images: shift, mirror and cut-out, without a loop over the images."""

import torch
from torch import Tensor

from compressor.config import AugmentConfig


def augment(images: Tensor, config: AugmentConfig, fill: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Shift each image by up to `crop` pixels, mirror half of them if `flip`, blank a square of side `cutout`.

    Images are uint8 (N, C, H, W) in and out; `fill` (0..255 a channel) is what shows where there is no image.
    """
    blank = torch.tensor(fill, dtype=torch.uint8).view(1, -1, 1, 1)
    if config.crop:
        images = _shift(images, config.crop, blank, generator)
    if config.flip:
        mirrored = _draw(images, 0, 1, generator).view(-1, 1, 1, 1)
        images = _swap(images, images.flip(3), mirrored)
    if config.cutout:
        images = _swap(images, blank, _square(images, config.cutout, generator))
    return images


def _swap(images: Tensor, others: Tensor, chosen: Tensor) -> Tensor:
    """Take `others` where `chosen` is 1 and `images` where it is 0; ten times as fast on bytes as torch.where."""
    return images ^ ((images ^ others) & chosen.to(torch.uint8).neg())


def _shift(images: Tensor, padding: int, blank: Tensor, generator: torch.Generator) -> Tensor:
    """Take a window of the image's own size at a random place of the padded image."""
    n, _, height, width = images.shape
    padded = blank.repeat(n, 1, height + 2 * padding, width + 2 * padding)
    padded[:, :, padding : padding + height, padding : padding + width] = images
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    top, left = (_draw(images, 0, 2 * padding, generator) for _ in range(2))
    return windows[torch.arange(n), :, top, left]


def _square(images: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Mark, (N, 1, H, W), squares whose middles lie anywhere in the image; what is beyond the edge is lost."""
    _, _, height, width = images.shape
    top = (_draw(images, 0, height - 1, generator) - side // 2).view(-1, 1, 1, 1)
    left = (_draw(images, 0, width - 1, generator) - side // 2).view(-1, 1, 1, 1)
    y, x = torch.arange(height).view(-1, 1), torch.arange(width)
    return (y >= top) & (y < top + side) & (x >= left) & (x < left + side)


def _draw(images: Tensor, low: int, high: int, generator: torch.Generator) -> Tensor:
    return torch.randint(low, high + 1, (len(images),), generator=generator)
