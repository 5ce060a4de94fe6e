"""Read IDX files (the format of MNIST), compressed or not, and say what is wrong with bad ones."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from invlearn.errors import DataFileError

_GZIP_MAGIC = b"\x1f\x8b"
_UNSIGNED_BYTES = 8


def read_idx(path: Path | str, *, dimensions: int, md5: str | None = None) -> npt.NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes, gzipped or not (its first bytes tell, not its name).

    Parameters
    ----------
    path : path
        Of the file.
    dimensions : int
        How many the array has: 3 for MNIST images, 1 for its labels.
    md5 : str, optional
        MD5 sum, in hexadecimal, that the decompressed bytes have to have.

    Returns
    -------
    array of uint8, with as many dimensions as asked for
        Read-only.

    Raises
    ------
    DataFileError
        A file that is missing, truncated, corrupted or of another kind.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "labels"
    ...     _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1]))
    ...     read_idx(path, dimensions=1).tolist()
    [7, 2, 1]

    References
    ----------
    LeCun, Cortes, Burges, The MNIST database of handwritten digits, section on file formats.
    """
    path = Path(path)
    data = _decompressed(path)
    header = 4 + 4 * dimensions
    expected_magic = bytes([0, 0, _UNSIGNED_BYTES, dimensions])
    if data[:4] != expected_magic:
        raise DataFileError(
            f"Expected '{path}' to start with the IDX bytes {expected_magic.hex(' ')} (unsigned "
            f"bytes, {dimensions} dimension(s)), got {data[:4].hex(' ') or 'an empty file'}. "
            "It is another file under this name; delete it and fetch it again."
        )
    if len(data) < header:
        raise DataFileError(
            f"Expected an IDX header of {header} bytes in '{path}', got {len(data)} bytes. "
            "The file is truncated; delete it and fetch it again."
        )
    shape = tuple(int.from_bytes(data[k : k + 4], "big") for k in range(4, header, 4))
    payload = len(data) - header
    size = int(np.prod(shape, dtype=object))
    if payload != size:
        raise DataFileError(
            f"Expected {size} bytes after the header of '{path}', which announces shape {shape}, "
            f"got {payload}. The file is {'truncated' if payload < size else 'too long'}; "
            "delete it and fetch it again."
        )
    if md5 is not None:
        got = hashlib.md5(data, usedforsecurity=False).hexdigest()
        if got != md5:
            raise DataFileError(
                f"Expected '{path}' to have MD5 {md5} after decompression, got {got}. "
                "The file is corrupted; delete it and fetch it again."
            )
    return np.frombuffer(data, dtype=np.uint8, offset=header).reshape(shape)


def _decompressed(path: Path) -> bytes:
    """Bytes of the file, gunzipped if they are gzip's."""
    if not path.is_file():
        raise DataFileError(
            f"Expected a data file at '{path}', got none. Put the file there or check the path."
        )
    data = path.read_bytes()
    if not data.startswith(_GZIP_MAGIC):
        return data
    try:
        return gzip.decompress(data)
    except EOFError:
        raise DataFileError(
            f"Expected a whole gzip file at '{path}', got one that ends early after {len(data)} "
            "bytes. The file is truncated; delete it and fetch it again."
        ) from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataFileError(
            f"Expected a valid gzip file at '{path}', got one that does not decompress ({error}). "
            "The file is corrupted; delete it and fetch it again."
        ) from None
