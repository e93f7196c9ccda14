"""Which kind of file holds published weights, told by its first bytes whatever its name; torch is not imported here."""

import os
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from enum import StrEnum
from io import BufferedReader
from pathlib import Path

from compressor.errors import ModelError
from compressor.files import open_regular
from compressor.folders import ARCH, MIXTURE

MOST_BYTES = 5 * 2**29
"""Bytes that a file of weights may have: VGG-19 with the states of an optimizer takes 2.3 GB."""
MOST_HEADER = 2**22
"""Bytes that the names and shapes of a file's tensors may take: a thousand take 0.2 MB."""
MOST_RECORDS = 2**16
HEAD, CHUNK = 1024, 2**20
LOCAL = struct.Struct("<4s5H3L2H")
"""What stands before a record of a zip archive; its name and more follow, whose lengths are the last two."""
WANTED = "give a state dict: .safetensors, or torch.save(model.state_dict(), 'weights.pth')"


class Kind(StrEnum):
    """The files of weights that are read."""

    SAFETENSORS = "safetensors"
    ZIPPED = "zipped"
    """What `torch.save` writes."""
    LEGACY = "legacy"
    """What `torch.save` wrote before version 1.6."""


MAGIC = (
    (b"PK\x03\x04", Kind.ZIPPED),
    (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", Kind.LEGACY),  # torch's magic number as a pickle
)
FOREIGN = (
    (rb"version https://git-lfs", f"is a pointer of Git LFS, not the weights; run `git lfs pull`, then {WANTED}"),
    (rb"(?i)(\xef\xbb\xbf)?\s*<(!doctype )?html", "is a web page, not the weights; download the file that it links to"),
    (rb"\s*<\?xml(.|\s)*<net", f"is a network of OpenVINO; {WANTED}"),
    (rb"\x89HDF\r\n\x1a\n", f"is an HDF5 file, as Keras and TensorFlow write; {WANTED}"),
    (rb".{4}TFL3", f"is a network of TensorFlow Lite; {WANTED}"),
    (rb"\x08\x01\x12", f"is a SavedModel of TensorFlow; {WANTED}"),
    (rb"\x08[\x01-\x20][\x12\x1a\x2a\x3a\x42]", f"is an ONNX network; {WANTED} of the network that it came from"),
    (rb"\n.{1,4}\n.{1,250}\x12.{1,20}(Placeholder|Const|Variable)", f"is a graph of TensorFlow; {WANTED}"),
    (rb"\x93NUMPY", f"is an array of NumPy; {WANTED}"),
    (rb"GGUF|GGML|lmgg", f"is a file of GGML; {WANTED}"),
    (rb"\x1f\x8b|BZh|\xfd7zXZ|7z\xbc\xaf|Rar!|\x28\xb5\x2f\xfd", "is compressed; unpack it, and give what is inside"),
    (rb"(.|\s){257}ustar", "is a tar archive; unpack it, and give what is inside"),
    (rb"\x80[\x02-\x05]", f"is a pickle that torch.save did not write, and is not opened; {WANTED}"),
)
"""What other files begin with, and what to say of them."""
INSIDE = (
    (r"[^/]+/(constants\.pkl|code/.*)", "is a TorchScript archive; give torch.jit.load(FILE).state_dict(), saved"),
    (r"([^/]+/)?(archive_format|serialized_exported_program.json|models/.*)", "is an exported program (.pt2)"),
    (r"model\.weights\.h5", "is a network of Keras"),
    (r"(.*/)?saved_model\.pb", "is a SavedModel of TensorFlow"),
    (r".*\.np[yz]", "is an archive of NumPy"),
)
"""Files in other zip archives, in the order in which they tell."""


def kind_of(path: Path) -> Kind:
    """Return the kind of a file of weights, of which little is read.

    Raises:
        ModelError: it is of a kind that is not read; the line names the kind, and what to give instead.
        FileError: it is no regular file, or larger than weights are.
        OSError: it cannot be opened.
    """
    if path.is_dir():
        raise ModelError(f"{path}: {_folder(path)}")
    with open_regular(path, MOST_BYTES) as file:
        try:
            return _told(file, os.fstat(file.fileno()).st_size)
        except ModelError as error:
            raise ModelError(f"{path}: {error}") from None


def _folder(path: Path) -> str:
    if any((path / name).is_file() for name in (ARCH, MIXTURE)):
        return "is a model's folder of this program; go on from it with checkpoint=FOLDER"
    if (path / "saved_model.pb").is_file():
        return f"is a SavedModel of TensorFlow; {WANTED}"
    inside = sorted(each.name for end in ("*.safetensors", "*.bin", "*.pth", "*.pt") for each in path.glob(end))
    return f"is a folder; give a file of weights{f', such as {inside[0]} in it' if inside else ''}"


def _told(file: BufferedReader, size: int) -> Kind:
    head = file.read(HEAD)
    if not head:
        raise ModelError(f"is empty; {WANTED}")
    for start, kind in MAGIC:
        if head.startswith(start):
            if kind is Kind.ZIPPED:
                _check_archive(file, size)
            return kind
    if head[8:9] == b"{":
        _check_header(int.from_bytes(head[:8], "little"), size)
        return Kind.SAFETENSORS
    for pattern, line in FOREIGN:
        if re.match(pattern, head, re.DOTALL):
            raise ModelError(line)
    raise ModelError(f"is no file of weights, or its beginning is damaged; {WANTED}")


def _check_header(length: int, size: int) -> None:
    if length > MOST_HEADER or length + 8 > size:
        raise ModelError(
            f"is no whole safetensors file: its header has {length} bytes, of {size} in all; it is cut or changed"
        )


def _check_archive(file: BufferedReader, size: int) -> None:
    """Refuse archives of another program, and records that could become more bytes than the file has."""
    try:
        with zipfile.ZipFile(file) as archive:
            records, comment = archive.infolist(), archive.comment
    except Exception:  # noqa: BLE001 - damaged archives fail in many ways
        raise ModelError("is no whole PyTorch file; it is cut or changed") from None
    names = [record.filename for record in records]
    for pattern, line in INSIDE:
        if any(re.fullmatch(pattern, name) for name in names):
            raise ModelError(line if ";" in line else f"{line}; {WANTED}")
    if sum(name.endswith("/data.pkl") and name.count("/") == 1 for name in names) != 1:
        raise ModelError("is a zip archive, no PyTorch file; unpack it, and give what is inside")
    folder = next(name for name in names if name.endswith("/data.pkl")).removesuffix("data.pkl")
    wrong = [name for name in names if not name.startswith(folder) or ".." in name.split("/")]
    if wrong or comment or len(set(names)) != len(names) or len(names) > MOST_RECORDS:
        raise ModelError(f"holds records that torch.save does not write ({(wrong or ['twice named'])[0]!r})")
    if any(record.compress_type != zipfile.ZIP_STORED for record in records):
        raise ModelError("holds compressed records, as torch.save does not write; unpack it and save it again")
    if sum(record.file_size for record in records) > size:
        raise ModelError("says that its records have more bytes than the file; it is cut, changed or hostile")


def pickled_part(path: Path, kind: Kind) -> bytes:
    """Return the bytes that the pickles of a PyTorch file lie in, at most `MOST_HEADER`.

    Raises:
        ModelError: there are more of them.
    """
    with open_regular(path, MOST_BYTES) as file:
        if kind is Kind.LEGACY:  # they are followed by the tensors
            return file.read(MOST_HEADER)
        (record,) = (each for each in _records(file) if each.filename.endswith("/data.pkl"))
        if record.file_size > MOST_HEADER:
            raise ModelError(f"names its tensors in {record.file_size} bytes; a state dict has at most {MOST_HEADER}")
        return b"".join(_content(file, record))


def check_sums(path: Path) -> None:
    """Refuse a zipped file of which a record is not what its checksum says; torch does not look at it.

    Files saved with `torch.serialization.set_crc32_options(False)` have none, 0.

    Raises:
        ModelError: such a file.
    """
    with open_regular(path, MOST_BYTES) as file:
        for record in _records(file):
            found = 0
            for part in _content(file, record) if record.CRC else ():
                found = zlib.crc32(part, found)
            if found != record.CRC:
                raise ModelError(f"record {record.filename!r} is not what its checksum says; it was changed")


def _records(file: BufferedReader) -> list[zipfile.ZipInfo]:
    with zipfile.ZipFile(file) as archive:
        return archive.infolist()


def _content(file: BufferedReader, record: zipfile.ZipInfo) -> Iterator[bytes]:
    """Yield the bytes of a record that is not compressed; zipfile itself insists on checksums."""
    file.seek(record.header_offset)
    *_, name, extra = LOCAL.unpack(file.read(LOCAL.size))
    file.seek(name + extra, os.SEEK_CUR)
    for first in range(0, record.file_size, CHUNK):
        yield file.read(min(CHUNK, record.file_size - first))
