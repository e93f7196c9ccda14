"""The packed file: one safetensors file with bit-packed integers, scales, biases and the arch; read without torch.

Tensors of the file, all of one dimension: `header`, JSON compressed by zlib (`Header`); `weights`, the layers' integers
one after another as `bitpack` packs them; `widths`, the bits of the channels of mixed layers; `floats`, for each layer
its scales and biases, or its weights and biases where it is not quantized, then the activations' scales, then the
exits' thresholds. Batch normalisation is folded: a convolution's outputs are integers . inputs * scale + bias.
"""

import json
import math
import zlib
from collections.abc import Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from compressor.arch import FLOAT, Arch, check, exit_blocks, layer_names, tensor_names
from compressor.codec import decode, encode
from compressor.deploy.bitpack import WIDEST, pack, pack_widths, packed_bytes, unpack, unpack_widths
from compressor.errors import CompressorError, ModelError

METADATA = {"format": "compressor-packed", "schema": "1"}
TENSORS = {"header": "U8", "weights": "U8", "widths": "U8", "floats": "F32"}
MOST_HEADER = 2**24
"""Bytes that a header may have when it is no longer compressed; one that has more is hostile."""


@dataclass(frozen=True)
class PackedLayer:
    """A convolution or linear layer after folding.

    `weights` are int8 (out, ...), or float32 where the layer is not quantized and `scales` is None; `bits` has one
    width, or one for each channel; `scales` and `biases` are float32 (out,).
    """

    weights: np.ndarray
    bits: tuple[int, ...]
    scales: np.ndarray | None
    biases: np.ndarray


@dataclass(frozen=True)
class Packed:
    """A network as the file holds it.

    `acts` are the scales of rounded activations by name; `maps` says of option-A shortcuts which input channel each
    output channel copies, -1 for none; `thresholds` are (exits,).
    """

    arch: Arch
    layers: dict[str, PackedLayer]
    acts: dict[str, float]
    maps: dict[str, tuple[int, ...]]
    thresholds: np.ndarray


@dataclass(frozen=True)
class LayerNote:
    """A layer in the header; `bits` None: its channels differ and their widths are in `widths`."""

    name: str
    shape: tuple[int, ...]
    bits: int | None


@dataclass(frozen=True)
class Header:
    """What the header says; of mixed layers the arch leaves out the bits."""

    arch: dict[str, Any]
    layers: tuple[LayerNote, ...]
    acts: tuple[str, ...]
    maps: dict[str, tuple[int, ...]]


def write_packed(packed: Packed, path: Path) -> None:
    """Write the file."""
    notes, weights, widths, floats = [], [], [], []
    for name, layer in packed.layers.items():
        mixed = len(set(layer.bits)) > 1
        notes.append(LayerNote(name, layer.weights.shape, None if mixed else layer.bits[0]))
        if layer.scales is None:
            floats += [layer.weights.ravel(), layer.biases]
            continue
        bits = _each(layer.bits, len(layer.weights))
        weights.append(pack(layer.weights, bits))
        floats += [layer.scales, layer.biases]
        if mixed:
            widths.append(pack_widths(bits))
    floats += [np.array(list(packed.acts.values()), np.float32), packed.thresholds]
    mixed_names = {note.name for note in notes if note.bits is None}
    header = Header(_without_bits(packed.arch, mixed_names), tuple(notes), tuple(packed.acts), packed.maps)
    text = json.dumps(encode(header), separators=(",", ":"), allow_nan=False).encode()
    tensors = {
        "header": np.frombuffer(zlib.compress(text, 9), np.uint8),
        "weights": np.concatenate([np.empty(0, np.uint8), *weights]),
        "widths": np.concatenate([np.empty(0, np.uint8), *widths]),
        "floats": np.concatenate(floats).astype(np.float32),
    }
    save_file(tensors, path, METADATA)


def _each(bits: tuple[int, ...], channels: int) -> np.ndarray:
    return np.array(bits if len(bits) > 1 else bits * channels, np.uint8)


def _without_bits(arch: Arch, layers: set[str]) -> dict[str, Any]:
    data = encode(arch)
    for explicit in (data["quantization"] or {"weights": []})["weights"]:
        if explicit["layer"] in layers:
            explicit["bits"] = []
    return data


def read_packed(path: Path, lent: Packed | None = None) -> Packed:
    """Read the file; integers, scales and biases are those that were written, bit for bit.

    `lent` has layers, activations and maps that the network shares with another, whose file alone holds them.

    Raises:
        ModelError: the file is missing, cut, changed, hostile, or of another format.
    """
    try:
        return _read(path, lent)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: is missing, cut or not a packed file ({error})") from None
    except CompressorError as error:
        raise ModelError(f"{path}: {error}") from None


def _read(path: Path, lent: Packed | None) -> Packed:
    tensors = _tensors(path)
    header = decode(Header, _json(tensors["header"]), "header")
    floats, weights, widths = (_Reader(tensors[name], name) for name in ("floats", "weights", "widths"))
    layers = {note.name: _layer(note, floats, weights, widths) for note in header.layers}
    arch = _arch(header, layers, lent.layers.keys() if lent else set())
    acts = dict(zip(header.acts, floats.take(len(header.acts)).tolist(), strict=True))
    thresholds = floats.take(len(exit_blocks(arch)), infinite=True)
    for reader in (floats, weights, widths):
        reader.end()
    if unknown := sorted(acts.keys() - tensor_names(arch)):
        raise ModelError(f"names the activation {unknown[0]!r}, which its network does not have")
    found = Packed(arch, layers, acts, header.maps, thresholds)
    if lent is None:
        return found
    return replace(found, layers=lent.layers | layers, acts=lent.acts | acts, maps=lent.maps | header.maps)


def _tensors(path: Path) -> dict[str, np.ndarray]:
    with safe_open(path, "np") as file:
        if (file.metadata() or {}) != METADATA or set(file.keys()) != set(TENSORS):
            raise ModelError(f"is not a packed file of schema {METADATA['schema']}, which this version reads")
        for name, kind in TENSORS.items():
            found = file.get_slice(name)
            if found.get_dtype() != kind or len(found.get_shape()) != 1:
                raise ModelError(f"tensor {name!r} is no row of {kind}")
        return {name: file.get_tensor(name) for name in TENSORS}


def _json(data: np.ndarray) -> Any:
    reader = zlib.decompressobj()
    try:
        text = reader.decompress(data.tobytes(), MOST_HEADER)
        if not reader.eof or reader.unused_data:
            raise ModelError("its header is cut, too long or not its own")
        return json.loads(text)
    except (zlib.error, ValueError, RecursionError):
        raise ModelError("its header is cut or changed") from None


class _Reader:
    """Takes a row's items one after another; too few, or some left at the end, are an error."""

    def __init__(self, data: np.ndarray, name: str) -> None:
        self.data, self.name, self.first = data, name, 0

    def take(self, count: int, *, infinite: bool = False) -> np.ndarray:
        found = self.data[self.first : self.first + count]
        if len(found) != count:
            raise ModelError(f"tensor {self.name!r} ends too early")
        bad = np.isnan(found) if infinite else ~np.isfinite(found)
        if bad.any():
            raise ModelError(f"tensor {self.name!r} holds numbers that are not finite")
        self.first += count
        return found

    def end(self) -> None:
        if self.first != len(self.data):
            raise ModelError(f"tensor {self.name!r} holds {len(self.data) - self.first} items too many")


def _layer(note: LayerNote, floats: _Reader, weights: _Reader, widths: _Reader) -> PackedLayer:
    if len(note.shape) not in (2, 4) or not all(1 <= size <= 2**20 for size in note.shape):
        raise ModelError(f"layer {note.name!r} has the shape {list(note.shape)}")
    channels, each = note.shape[0], math.prod(note.shape[1:])
    if note.bits == FLOAT:
        return PackedLayer(floats.take(channels * each).reshape(note.shape), (FLOAT,), None, floats.take(channels))
    if note.bits is not None and not 0 <= note.bits <= WIDEST:
        raise ModelError(f"layer {note.name!r} has {note.bits} bits; allowed are 0 to {WIDEST}")
    if note.bits is None:
        bits = unpack_widths(widths.take(-(-channels // 2)), channels)
    else:
        bits = np.full(channels, note.bits, np.uint8)
    integers = unpack(weights.take(packed_bytes(bits, each)), bits, each).reshape(note.shape)
    each_bits = tuple(bits.tolist()) if note.bits is None else (note.bits,)
    return PackedLayer(integers, each_bits, floats.take(channels), floats.take(channels))


def _arch(header: Header, layers: dict[str, PackedLayer], lent: Set[str]) -> Arch:
    explicit = (header.arch.get("quantization") or {}).get("weights") or []
    for entry in explicit if isinstance(explicit, list) else []:
        if isinstance(entry, dict) and not entry.get("bits") and (layer := layers.get(str(entry.get("layer")))):
            entry["bits"] = list(layer.bits)
    arch = check(decode(Arch, header.arch, "arch"))
    if len(layers) != len(header.layers) or layers.keys() != layer_names(arch) - lent:
        raise ModelError("its layers are not those of its network")
    return arch
