"""A regression set: how far, in degrees, was a handwritten digit turned?"""

import numpy as np

from compressor.arch import Task, TaskKind
from compressor.config import DatasetConfig
from compressor.data.digits import scans
from compressor.data.sources import DECODER, Reading, Source, whole

LARGEST = 60.0
"""Degrees; positive angles turn counter-clockwise."""


def find(config: DatasetConfig) -> Source:
    """Nothing has to be found; `dataset.seed` draws the angles, `dataset.image_size` (16) is the side in pixels."""
    size = config.image_size or 16
    return Source(["rotated_digits", DECODER, size, config.seed], lambda _workers: _read(size, config.seed))


def _read(size: int, seed: int) -> Reading:
    images, _ = scans()
    angles = np.random.RandomState([seed & 0xFFFFFFFF, 3]).uniform(-LARGEST, LARGEST, (len(images), 1))
    turned = np.stack([turn(image[0], size, angle) for image, (angle,) in zip(images, angles, strict=True)])
    task = Task(TaskKind.REGRESSION, 1, ("angle",))
    return whole(task, {"all": (turned[:, None], angles.astype(np.float32))})


def turn(image: np.ndarray, size: int, angle: float) -> np.ndarray:
    """Enlarge an 8 x 8 image to three quarters of `size`, so that no corner leaves the frame, and turn it."""
    from PIL import Image

    side = max(1, size * 3 // 4)
    enlarged = Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC)
    frame = Image.new("L", (size, size))
    frame.paste(enlarged, ((size - side) // 2, (size - side) // 2))
    return np.asarray(frame.rotate(angle, Image.Resampling.BICUBIC))
