"""The packed file: one safetensors file with bit-packed integers, scales, biases and the arch; read without torch.

Tensors of the file, all of one dimension: `header`, JSON compressed by zlib (`Header`); `weights`, the layers' integers
one after another as `bitpack` packs them; `widths`, the bits of the channels of mixed layers; `floats`, for each layer
its scales and biases, or its weights and biases where it is not quantized, then the activations' scales, then the
exits' thresholds. Batch normalisation is folded: a convolution's outputs are integers . inputs * scale + bias.
"""

import json
import math
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from compressor.arch import FLOAT, Arch, check, exit_blocks, tensor_names
from compressor.codec import decode, encode, parse_json
from compressor.deploy.bitpack import WIDEST, pack, pack_widths, packed_bytes, unpack, unpack_widths
from compressor.deploy.shapes import Shape, Shapes, shapes_of
from compressor.errors import CompressorError, ModelError
from compressor.files import open_regular
from compressor.memory import pass_on

METADATA = {"format": "compressor-packed", "schema": "1"}
TENSORS = {"header": "U8", "weights": "U8", "widths": "U8", "floats": "F32"}
MOST_HEADER = 2**24
"""Bytes that a header may have when it is no longer compressed; one that has more is hostile."""
MOST_EMPTY = 2**27
"""Weights of 0 bits and cells of shortcuts' maps that a network may have; a few bytes could ask for any number."""


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
    path.write_bytes(_file_of(tensors))


def _file_of(tensors: dict[str, np.ndarray]) -> bytes:
    """Return a safetensors file; the library would write its metadata in an order that is another in each process."""
    header: dict[str, Any] = {"__metadata__": METADATA}
    end, rows = 0, []
    for name in sorted(tensors, key=lambda name: (-tensors[name].itemsize, name)):  # floats first, where they align
        rows.append(tensors[name].astype(tensors[name].dtype.newbyteorder("<")).tobytes())
        header[name] = {
            "dtype": TENSORS[name],
            "shape": list(tensors[name].shape),
            "data_offsets": [end, end := end + len(rows[-1])],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + b"".join(rows)


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
        pass_on(error)
        raise ModelError(f"{path}: is missing, cut or not a packed file ({error})") from None
    except CompressorError as error:
        raise ModelError(f"{path}: {error}") from None


def _read(path: Path, lent: Packed | None) -> Packed:
    tensors = _tensors(path)
    header = decode(Header, _json(tensors["header"]), "header")
    floats, weights, widths = (_Reader(tensors[name], name) for name in ("floats", "weights", "widths"))
    arch = check(decode(Arch, header.arch, "arch"))
    shapes = shapes_of(arch)
    _compare(header, shapes, lent)
    bits = {note.name: _bits(note, widths) for note in header.layers}
    _limit(bits, shapes)
    layers = {note.name: _layer(note.shape, bits[note.name], floats, weights) for note in header.layers}
    arch = _with_bits(arch, layers, shapes)
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
    open_regular(path).close()  # a pipe would be waited for
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
        return parse_json(text)
    except (zlib.error, ValueError):
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


def _compare(header: Header, shapes: Shapes, lent: Packed | None) -> None:
    """Refuse layers and shortcuts that are not those of the network, before anything of their size is made."""
    found = {name: layer.weights.shape for name, layer in lent.layers.items()} if lent else {}
    count = len(found) + len(header.layers)
    found |= {note.name: note.shape for note in header.layers}
    if len(found) != count or found.keys() != shapes.layers.keys():
        raise ModelError("its layers are not those of its network")
    for name, shape in shapes.layers.items():
        if found[name] != shape:
            raise ModelError(f"layer {name!r} has the shape {list(found[name])}, its network says {list(shape)}")
    maps = (lent.maps if lent else {}) | header.maps
    if maps.keys() != shapes.maps.keys():
        raise ModelError("its shortcuts are not those of its network")
    for name, (out, reads) in shapes.maps.items():
        if len(maps[name]) != out or not all(-1 <= source < reads for source in maps[name]):
            raise ModelError(f"shortcut {name!r} copies channels that are not there")


def _bits(note: LayerNote, widths: _Reader) -> tuple[int, ...]:
    """Give the one width of a layer, or a width a channel."""
    channels = note.shape[0]
    if note.bits is None:
        return tuple(unpack_widths(widths.take(-(-channels // 2)), channels).tolist())
    if note.bits != FLOAT and not 0 <= note.bits <= WIDEST:
        raise ModelError(f"layer {note.name!r} has {note.bits} bits; allowed are 0 to {WIDEST}")
    return (note.bits,)


def _limit(bits: dict[str, tuple[int, ...]], shapes: Shapes) -> None:
    """Refuse more of what takes nothing in the file than any network has."""
    empty = sum(math.prod(shape) for shape in shapes.maps.values())
    for name, each in bits.items():
        empty += math.prod(shapes.layers[name]) * each.count(0) // len(each)
    if empty > MOST_EMPTY:
        raise ModelError(f"has {empty} weights that take no bits; at most {MOST_EMPTY} may")


def _layer(shape: Shape, bits: tuple[int, ...], floats: _Reader, weights: _Reader) -> PackedLayer:
    channels, each = shape[0], math.prod(shape[1:])
    if bits == (FLOAT,):
        return PackedLayer(floats.take(channels * each).reshape(shape), bits, None, floats.take(channels))
    row = _each(bits, channels)
    integers = unpack(weights.take(packed_bytes(row, each)), row, each).reshape(shape)
    return PackedLayer(integers, bits, floats.take(channels), floats.take(channels))


def _with_bits(arch: Arch, layers: dict[str, PackedLayer], shapes: Shapes) -> Arch:
    """Fill in the bits of mixed layers, which the header's arch leaves out."""
    if (rule := arch.quantization) is None:
        return arch
    given = ((w.bits or layers[w.layer].bits) if w.layer in layers else w.bits for w in rule.weights)
    weights = tuple(replace(w, bits=bits) for w, bits in zip(rule.weights, given, strict=True))
    for w in weights:
        if len(w.bits) not in (1, channels := shapes.layers[w.layer][0]):
            raise ModelError(f"layer {w.layer!r} has bits for {len(w.bits)} channels, not for {channels}")
    return check(replace(arch, quantization=replace(rule, weights=weights)))
