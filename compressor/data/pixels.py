"""Pixels of every mode as 8 bits, by one rule a mode; what the rule does not cover is refused by name.

8-bit images are kept. Integers of 16 and 32 bits stand for 0 to 65535, floats for 0 to 1; both are scaled by that
range, and a pixel outside it is an error. Transparent parts lie on white.
"""

import numpy as np
from PIL import Image

from compressor.data.sources import RANGES, Converted
from compressor.errors import DataError

RANGE = 65535
"""The largest 16-bit value."""

DARK = 4096
"""Values below it keep at most 16 of 256 grey levels when they are scaled by the range of 16 bits."""


def to_8_bit(image: Image.Image, mode: str, *, wide: bool) -> tuple[Image.Image, Converted | None]:
    """Return the image in `mode` (L or RGB), and what it was converted from, None where it had 8 bits.

    `wide` says that the file has 16 bits a colour, of which Pillow keeps the upper 8.

    Raises:
        ValueError: a pixel is outside the range of its mode.
    """
    if image.mode.startswith("I"):
        values = np.asarray(image)
        low, high = _ends(values)
        if low < 0 or high > RANGE:
            raise ValueError(f"integer pixels of {low:.6g} to {high:.6g}; give 0 to {RANGE}, or 8 bits")
        return _grey(values >> 8, mode), _converted("16-bit", low, high)
    if image.mode == "F":
        values = np.asarray(image)
        low, high = _ends(values)
        if not (low >= 0 and high <= 1):
            raise ValueError(f"float pixels of {low:.6g} to {high:.6g}; give 0 to 1, or 8 bits")
        return _grey(np.rint(values * 255), mode), _converted("float", low * RANGE, high * RANGE)
    flat = _flat(image, mode)
    if not wide:
        return flat, None
    _, high = _ends(np.asarray(flat))
    return flat, Converted("16-bit", max(1, int(high * 257)))  # the lower 8 bits, which may differ, are unknown


def refuse_dark(brightest: dict[str, tuple[str, Converted]], counts: dict[str, int]) -> None:
    """Refuse a set whose 16-bit or float images are all nearly black: their values are of a smaller range.

    `brightest` has of each kind the brightest image and its name, `counts` how many there are.
    """
    for kind, (name, found) in brightest.items():
        if 0 < found.largest < DARK:
            raise DataError(
                f"the {counts[kind]} images of {kind} pixels would be nearly black: the brightest, {name}, ends at "
                f"{found.largest / RANGE:.2%} of {RANGES[kind]}; multiply their values, or save them with 8 bits"
            )


def _ends(values: np.ndarray) -> tuple[float, float]:
    return float(values.min()), float(values.max())


def _converted(kind: str, low: float, high: float) -> Converted:
    return Converted(kind, 0 if low == high else int(high))


def _grey(values: np.ndarray, mode: str) -> Image.Image:
    return Image.fromarray(values.astype(np.uint8)).convert(mode)


def _flat(image: Image.Image, mode: str) -> Image.Image:
    if image.mode == mode and "transparency" not in image.info:
        return image
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert(mode)
    return image.convert("RGB").convert(mode)
