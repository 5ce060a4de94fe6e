"""IDX files: good ones are read, and every kind of bad one says what is wrong and what to do."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import numpy as np
import pytest

from invlearn.datasets.idx import read_idx
from invlearn.errors import DataFileError

VALUES = (np.arange(2 * 3 * 4) * 7 % 256).astype(np.uint8).reshape(2, 3, 4)
PLAIN = bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4]) + VALUES.tobytes()
MD5 = hashlib.md5(PLAIN).hexdigest()
AGAIN = "delete it and fetch it again."


def error_of(path: Path, data: bytes | None, md5: str | None = MD5) -> str:
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(DataFileError) as caught:
        read_idx(path, dimensions=3, md5=md5)
    return str(caught.value)


@pytest.mark.parametrize("name", ["images", "images.gz"])
@pytest.mark.parametrize("compressed", [False, True])
def test_compression_is_told_by_content_not_by_name(
    tmp_path: Path, name: str, compressed: bool
) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(PLAIN) if compressed else PLAIN)
    got = read_idx(path, dimensions=3, md5=MD5)
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, VALUES)
    np.testing.assert_array_equal(read_idx(str(path), dimensions=3), VALUES)


def test_missing(tmp_path: Path) -> None:
    path = tmp_path / "images"
    assert error_of(path, None) == (
        f"Expected a data file at '{path}', got none. Put the file there or check the path."
    )


def test_truncated_gzip(tmp_path: Path) -> None:
    path = tmp_path / "images.gz"
    data = gzip.compress(PLAIN)[:-12]
    assert error_of(path, data) == (
        f"Expected a whole gzip file at '{path}', got one that ends early after {len(data)} "
        f"bytes. The file is truncated; {AGAIN}"
    )


def test_corrupted_gzip(tmp_path: Path) -> None:
    path = tmp_path / "images.gz"
    data = bytearray(gzip.compress(PLAIN))
    data[-6] ^= 255
    message = error_of(path, bytes(data))
    assert message.startswith(
        f"Expected a valid gzip file at '{path}', got one that does not decompress (CRC check"
    )
    assert message.endswith(f"The file is corrupted; {AGAIN}")


def test_corrupted_names_both_sums(tmp_path: Path) -> None:
    path = tmp_path / "images"
    data = PLAIN[:-1] + b"\x01"
    got = hashlib.md5(data).hexdigest()
    expected = (
        f"Expected '{path}' to have MD5 {MD5} after decompression, got {got}. "
        f"The file is corrupted; {AGAIN}"
    )
    assert error_of(path, data) == expected
    assert error_of(path, gzip.compress(data)) == expected


@pytest.mark.parametrize(
    ("start", "shown"),
    [(b"<htm", "3c 68 74 6d"), (b"\0\0\x08\x01", "00 00 08 01"), (b"\0\0\x0d\x03", "00 00 0d 03")],
)
def test_wrong_magic(tmp_path: Path, start: bytes, shown: str) -> None:
    path = tmp_path / "images"
    assert error_of(path, start + PLAIN[4:]) == (
        f"Expected '{path}' to start with the IDX bytes 00 00 08 03 (unsigned bytes, "
        f"3 dimension(s)), got {shown}. It is another file under this name; {AGAIN}"
    )


def test_empty(tmp_path: Path) -> None:
    assert "got an empty file." in error_of(tmp_path / "images", b"")


def test_truncated_header(tmp_path: Path) -> None:
    path = tmp_path / "images"
    assert error_of(path, PLAIN[:10]) == (
        f"Expected an IDX header of 16 bytes in '{path}', got 10 bytes. "
        f"The file is truncated; {AGAIN}"
    )


@pytest.mark.parametrize(
    ("data", "got", "what"), [(PLAIN[:-5], 19, "truncated"), (PLAIN + b"!", 25, "too long")]
)
def test_header_announces_another_size(tmp_path: Path, data: bytes, got: int, what: str) -> None:
    path = tmp_path / "images"
    assert error_of(path, data, md5=None) == (
        f"Expected 24 bytes after the header of '{path}', which announces shape (2, 3, 4), "
        f"got {got}. The file is {what}; {AGAIN}"
    )


def test_huge_announced_size_does_not_overflow(tmp_path: Path) -> None:
    data = bytes([0, 0, 8, 3]) + b"\xff" * 12 + b"123"
    assert f"Expected {(2**32 - 1) ** 3} bytes" in error_of(tmp_path / "images", data, md5=None)
