"""What a network takes as images, checked where somebody hands them over. No torch here."""

from collections.abc import Sequence

from compressor.errors import ModelError


def refuse_images(kind: str, shape: Sequence[int], wanted: str, channels: int, *, floats: bool, size: int = 0) -> None:
    """Refuse images of another type or shape than networks read.

    Args:
        kind: the name of their type, such as uint8.
        shape: their shape, which is to be (N, channels, H, W).
        wanted: what they are to be, for the message.
        channels: how many they are to have.
        floats: whether any type of floats will do beside uint8.
        size: pixels a side; 0 for any.

    Raises:
        ModelError: they are not those.
    """
    if kind != "uint8" and not (floats and "float" in kind):
        raise ModelError(f"images are {kind}; give {wanted}")
    if len(shape) != 4 or shape[1] != channels or (size and tuple(shape[2:]) != (size, size)):
        raise ModelError(f"images have the shape {list(shape)}; give {wanted}")
