"""Which images, and how they are augmented."""

from dataclasses import dataclass

from compressor.config.ranges import need


@dataclass(frozen=True)
class AugmentConfig:
    """Batched augmentation of training images, on uint8 tensors. Values: configs/dataset/."""

    crop: int
    flip: bool
    cutout: int

    def __post_init__(self) -> None:
        need(0 <= self.crop <= 64, "dataset.augment.crop", self.crop, "0 to 64 pixels of padding")
        need(0 <= self.cutout <= 256, "dataset.augment.cutout", self.cutout, "0 to 256 pixels, the side of the square")


@dataclass(frozen=True)
class DatasetConfig:
    """Which images, how they are split and augmented. Values: configs/dataset/.

    `val` is `auto` (the set's own split, or 0.1 of train; digits 60/20/20), a fraction of train such as `0.2`, or
    `test_half` (val is a fixed half of test, and test the other half).
    """

    name: str
    root: str | None
    flag: str | None
    csv: str | None
    image_size: int | None
    channels: int | None
    limit: int | None
    val: str
    seed: int
    skip_unreadable: bool
    augment: AugmentConfig

    def __post_init__(self) -> None:
        need(
            self.image_size is None or 4 <= self.image_size <= 1024, "dataset.image_size", self.image_size, "4 to 1024"
        )
        need(self.channels in (None, 1, 3), "dataset.channels", self.channels, "1 (grey) or 3 (RGB)")
        need(self.limit is None or self.limit >= 10, "dataset.limit", self.limit, "null or at least 10")
        need(0 <= self.seed < 2**32, "dataset.seed", self.seed, "0 to 4294967295")
        if self.val not in ("auto", "test_half"):
            try:
                fraction = float(self.val)
            except ValueError:
                fraction = -1.0
            need(0 < fraction < 1, "dataset.val", self.val, "auto, test_half or a fraction between 0 and 1")
