"""Pixels that have not 8 bits: scaled by the range of their type, or refused by name; never clipped in silence."""

from pathlib import Path

import layouts
import numpy as np
import pytest
from layouts import load
from PIL import Image, ImageOps
from sklearn.datasets import load_digits

from compressor.data.images import decode
from compressor.data.summary import summary
from compressor.errors import DataError

DIGITS = load_digits(return_X_y=True)[0].reshape(-1, 8, 8) / 16
"""Scans, 0 to 1."""

WIDE = {
    "float": lambda x: x.astype(np.float32),
    "uint16": lambda x: np.rint(x * 65535).astype(np.uint16),
    "int32": lambda x: np.rint(x * 65535).astype(np.int32),
}


def folder(root: Path, convert, ending: str = "tif") -> Path:
    """Write 40 digits to train on, 20 to test on, of two classes."""
    for i, digit in enumerate(DIGITS[:60]):
        place = root / ("train" if i < 40 else "test") / f"class {i % 2}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(convert(digit)).save(place / f"{i:02}.{ending}")
    return root


def read(root: Path, **options):
    return load(root.parent / "cache", "imagefolder", root=root, image_size=8, channels=1, **options)


@pytest.mark.parametrize("kind", WIDE)
def test_images_of_every_type_are_those_of_8_bits(kind: str, tmp_path: Path) -> None:
    wide = read(folder(tmp_path / kind, WIDE[kind]))
    plain = read(folder(tmp_path / "plain", lambda x: np.rint(x * 255).astype(np.uint8)))
    assert np.abs(wide.train.images[:].astype(int) - plain.train.images[:]).max() <= 1
    assert wide.train.images[:].max() == 255


@pytest.mark.parametrize("kind", WIDE)
def test_how_many_were_converted_is_said_also_when_nothing_is_decoded(kind: str, tmp_path: Path) -> None:
    root = folder(tmp_path / "set", WIDE[kind])
    (root / "test" / "class 0" / "8-bit.png").write_bytes(b"")
    Image.new("L", (8, 8)).save(root / "test" / "class 0" / "8-bit.png")
    said = "converted to 8 bits: 60 of float pixels (0 to 1)"
    wanted = said if kind == "float" else "converted to 8 bits: 60 of 16-bit pixels (0 to 65535)"
    assert [summary(read(root)).partition("; nothing left out; ")[2] for _ in range(2)] == [wanted, wanted]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.array([[0, 255]], np.float32), r"float pixels of 0 to 255; give 0 to 1, or 8 bits"),
        (np.array([[400.5, 60400]], np.float32), r"float pixels of 400\.5 to 60400"),
        (np.array([[-0.5, 0.5]], np.float32), r"float pixels of -0\.5 to 0\.5"),
        (np.array([[np.nan, 0.5]], np.float32), r"float pixels of nan to nan"),
        (np.array([[-1, 9]], np.int32), r"integer pixels of -1 to 9; give 0 to 65535, or 8 bits"),
        (np.array([[0, 70000]], np.int32), r"integer pixels of 0 to 70000"),
    ],
)
def test_a_pixel_outside_the_range_of_its_type_is_refused_by_name(values, reason: str, tmp_path: Path) -> None:
    root = layouts.folder(tmp_path / "set")
    Image.fromarray(values).save(root / "train" / "cat" / "wide.tif")
    with pytest.raises(DataError, match=rf"1 of 61 images cannot be read: train/cat/wide\.tif \({reason}"):
        read(root)


@pytest.mark.parametrize("largest", [255, 4095])
@pytest.mark.parametrize("kind", ["uint16", "int32"])
def test_a_set_that_uses_a_small_part_of_its_range_is_refused_and_not_made_black(
    kind: str, largest: int, tmp_path: Path
) -> None:
    root = folder(tmp_path / "set", lambda x: np.rint(x * largest).astype(kind))
    with pytest.raises(
        DataError, match=r"the 60 images of 16-bit pixels would be nearly black: .*, ends at .*%"
    ) as caught:
        read(root)
    assert ".tif" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_colour_image_of_16_bits_that_holds_8_is_refused_and_not_made_black(tmp_path: Path) -> None:
    root = layouts.folder(tmp_path / "set")

    (root / "train" / "cat" / "wide.png").write_bytes(
        layouts.png16((np.arange(192).reshape(8, 8, 3)).astype(np.uint16))
    )
    with pytest.raises(DataError, match=r"the 1 images of 16-bit pixels would be nearly black"):
        read(root)
    (root / "train" / "cat" / "wide.png").write_bytes(
        layouts.png16((np.arange(192).reshape(8, 8, 3) * 340).astype(np.uint16))
    )
    assert "converted to 8 bits: 1 of 16-bit pixels" in summary(read(root))


def test_a_dark_image_in_a_set_of_the_whole_range_is_kept(tmp_path: Path) -> None:
    root = folder(tmp_path / "set", WIDE["uint16"])
    Image.fromarray(np.array([[0, 900]], np.uint16)).save(root / "train" / "class 0" / "night.tif")
    assert len(read(root).train) == 37


@pytest.mark.parametrize("ending", ["png", "webp", "jpg"])
def test_rubbish_in_exif_does_not_cost_the_image(ending: str, tmp_path: Path) -> None:
    values = layouts.pixels(8, 8, 3)
    path = tmp_path / f"a.{ending}"
    Image.fromarray(values).save(path, exif=b"Exif\0\0rubbish!", lossless=True)  # WebP heeds it
    found = decode(str(path), 8, 3)
    if ending != "jpg":
        assert np.array_equal(found, values.transpose(2, 0, 1))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_as_pillow_turns_it(orientation: int, tmp_path: Path) -> None:

    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.png"
    Image.fromarray(layouts.pixels(8, 8, 3)).save(path, exif=exif)
    with Image.open(path) as image:
        wanted = np.asarray(ImageOps.exif_transpose(image))
    assert np.array_equal(decode(str(path), 8, 3), wanted.transpose(2, 0, 1))
