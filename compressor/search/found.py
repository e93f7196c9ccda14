"""What a search leaves beside its network: found.json, read without torch."""

from dataclasses import dataclass
from pathlib import Path

from compressor.arch import Quantization
from compressor.checked import read_checked
from compressor.codec import decode
from compressor.errors import CompressorError, StoreError
from compressor.search.types import Agent, Bill

SCHEMA = 2
"""The version of found.json; the first had no check of its own."""


@dataclass(frozen=True)
class Try:
    """One evaluation of a search, in its order: the candidate's quality on the subset of val, and what it costs."""

    quality: float
    bill: Bill


@dataclass(frozen=True)
class LayerNote:
    """What a layer got: of its `channels`, the sizes and bits of the groups that are kept, most important first.

    `act` is the bits of the tensor that it reads.
    """

    name: str
    channels: int
    groups: tuple[int, ...]
    bits: tuple[int, ...]
    act: int


@dataclass(frozen=True)
class Found:
    """The content of found.json.

    `baseline` is the quality of the uncompressed network on the same images; `best` is the key of the candidate that
    was chosen, not by its `quality`. `kept` and `quantization` are what the network of the best policy is made with.
    `seconds` and `unique` count all sittings.
    """

    schema: int
    agent: Agent
    seed: int
    baseline: float
    best: str
    quality: float
    bill: Bill
    kept: dict[str, tuple[int, ...]]
    quantization: Quantization
    layers: tuple[LayerNote, ...]
    tries: tuple[Try, ...]
    unique: int
    seconds: float


def read_found(path: Path) -> Found:
    """Read what a search found.

    Raises:
        StoreError: the file is gone, cut, changed or of another version.
    """
    try:
        return decode(Found, read_checked(path, "search", SCHEMA, earlier=(1,)), str(path))
    except CompressorError as error:
        raise StoreError(f"{error}; remove {path.parent} and the search is run again") from None
