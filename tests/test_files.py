"""Only regular files of a sensible size are read, and nothing is waited for."""

import os
from pathlib import Path

import pytest

from compressor.errors import FileError
from compressor.files import open_regular, read_bytes, read_text


def test_a_pipe_that_nobody_writes_to_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileError, match="is a pipe; a regular file is needed"):
        open_regular(tmp_path / "pipe")


def test_a_device_and_a_folder_are_refused_by_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="/dev/zero: is a device"):
        read_bytes(Path("/dev/zero"), 10)
    with pytest.raises(FileError, match="is a folder"):
        read_bytes(tmp_path, 10)


def test_a_file_larger_than_its_kind_may_be_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(2**40)  # reading it would take a terabyte
    with pytest.raises(FileError, match=r"1099511627776 bytes; a file of this kind has at most 1000"):
        read_bytes(tmp_path / "sparse", 1000)


def test_a_link_to_a_regular_file_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("é", encoding="utf-8")
    (tmp_path / "link").symlink_to("real")
    assert read_text(tmp_path / "link", 2) == "é"
    with pytest.raises(FileError):
        read_text(tmp_path / "link", 1)
