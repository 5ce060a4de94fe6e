"""Find the MNIST files: in a folder of yours, in the cache, or on a mirror."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from invlearn.datasets.idx import read_idx
from invlearn.errors import DataFileError

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)


@dataclass(frozen=True)
class DataFile:
    """A file of MNIST: its name without .gz, its number of dimensions, and its MD5 decompressed."""

    name: str
    dimensions: int
    md5: str


MNIST = {
    "train": (
        DataFile("train-images-idx3-ubyte", 3, "6bbc9ace898e44ae57da46a324031adb"),
        DataFile("train-labels-idx1-ubyte", 1, "a25bea736e30d166cdddb491f175f624"),
    ),
    "test": (
        DataFile("t10k-images-idx3-ubyte", 3, "2646ac647ad5339dbf082846283269ea"),
        DataFile("t10k-labels-idx1-ubyte", 1, "27ae3e4e09519cfbb04c329615203637"),
    ),
}


def cache_folder() -> Path:
    """Folder of downloaded MNIST files: $INVLEARN_CACHE/mnist, or the user's cache folder."""
    import pooch

    return Path(os.environ.get("INVLEARN_CACHE") or pooch.os_cache("invlearn")) / "mnist"


def find(file: DataFile) -> Path | None:
    """Path of a file that is already here, in $INVLEARN_DATA/mnist or else the cache."""
    folders = [cache_folder()]
    if data := os.environ.get("INVLEARN_DATA"):
        folders.insert(0, Path(data) / "mnist")
    for folder in folders:
        for name in (f"{file.name}.gz", file.name):
            if (folder / name).is_file():
                return folder / name
    return None


def mnist_available() -> bool:
    """Whether every MNIST file is here already, so that nothing needs the network."""
    return all(find(file) is not None for files in MNIST.values() for file in files)


def fetch(file: DataFile, *, mirrors: Sequence[str] = MIRRORS, timeout: float = 30.0) -> Path:
    """Find a file here, or download it from the first mirror that serves it intact.

    A download reaches the cache only after it has been read and its MD5 sum checked.

    Parameters
    ----------
    file : DataFile
        One of those in `MNIST`.
    mirrors : sequence of str
        Addresses of folders that hold the gzipped files, tried in turn.
    timeout : float
        Seconds to wait for a mirror to answer.

    Returns
    -------
    Path

    Raises
    ------
    DataFileError
        No mirror served the file intact, or the cache folder cannot be written.

    Examples
    --------
    >>> fetch(MNIST["test"][0])  # doctest: +SKIP
    PosixPath('.../invlearn/mnist/t10k-images-idx3-ubyte.gz')
    """
    import pooch

    if (found := find(file)) is not None:
        return found
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary = tempfile.TemporaryDirectory(dir=folder, prefix=".download-")
    except OSError as error:
        raise DataFileError(
            f"Expected a cache folder that can be written at '{folder}', got: {error}. "
            "Set INVLEARN_CACHE to another folder."
        ) from error
    download = pooch.HTTPDownloader(progressbar=False, timeout=timeout)
    failures: list[str] = []
    with temporary as name:
        part = Path(name) / f"{file.name}.gz"
        for mirror in mirrors:
            url = f"{mirror.rstrip('/')}/{file.name}.gz"
            try:
                download(url, str(part), None)
                read_idx(part, dimensions=file.dimensions, md5=file.md5)
            except (OSError, DataFileError) as error:
                failures.append(f"  {url}: {str(error).replace(str(part), part.name)}")
                continue
            os.replace(part, folder / part.name)
            return folder / part.name
    raise DataFileError(
        f"Expected to download '{file.name}.gz' from one of {len(mirrors)} mirror(s), all failed:\n"
        + "\n".join(failures)
        + "\nCheck the network, or set INVLEARN_DATA to a folder that holds "
        + ", ".join(f"mnist/{each.name}.gz" for files in MNIST.values() for each in files)
        + "."
    )


def read_mnist(
    part: str, *, mirrors: Sequence[str] = MIRRORS
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Read the images and the digits of one part of MNIST, downloading them if need be.

    Parameters
    ----------
    part : str
        'train' (60,000 rows) or 'test' (10,000 rows).
    mirrors : sequence of str
        As for `fetch`.

    Returns
    -------
    images : array [n, 28, 28], uint8
    digits : array [n], int64

    Raises
    ------
    DataFileError
        A file that is damaged, or missing and not to be had from any mirror.

    Examples
    --------
    >>> images, digits = read_mnist("test")  # doctest: +SKIP
    >>> images.shape  # doctest: +SKIP
    (10000, 28, 28)

    References
    ----------
    LeCun, Cortes, Burges, The MNIST database of handwritten digits.
    """
    images, digits = (
        read_idx(fetch(file, mirrors=mirrors), dimensions=file.dimensions, md5=file.md5)
        for file in MNIST[part]
    )
    return images, digits.astype(np.int64)
