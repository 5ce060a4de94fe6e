"""Feature rows that lie in a temporary file on disk, of which only what is asked for is read."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from invlearn.errors import EnvironmentsError, OutputError

_Rows = npt.NDArray[np.int64]


class RowStore:
    """A temporary file with room for n rows of float32, gone once closed or the process has ended.

    It has no name in its folder where the system allows that, so nothing is left behind however
    the process ends. Rows are read and written with system calls of their own instead of through
    a memory map, whose pages would count as resident.

    Parameters
    ----------
    n_rows, n_features : int
    folder : path, optional
        Where the file is; default: the system's for temporary files, which TMPDIR sets. Best on a
        disk: some systems keep theirs in memory.

    Raises
    ------
    OutputError
        A folder that cannot be written to, or has not enough room.

    Examples
    --------
    >>> with RowStore(3, 2) as store:
    ...     store.put(np.array([2, 0, 1]), np.array([[5, 6], [1, 2], [3, 4]]))
    ...     store.take(np.array([2, 0])).tolist()
    [[5.0, 6.0], [1.0, 2.0]]
    """

    def __init__(self, n_rows: int, n_features: int, folder: str | Path | None = None) -> None:
        self.n_rows, self.n_features = n_rows, n_features
        self.folder = Path(tempfile.gettempdir() if folder is None else folder)
        self._row_bytes = 4 * n_features
        needed = n_rows * self._row_bytes
        try:
            free = shutil.disk_usage(self.folder).free
            if free < needed:
                raise OutputError(
                    f"Expected {needed / 1e9:.1f} GB of room in '{self.folder}' for the encoded "
                    f"rows, got {free / 1e9:.1f} GB. Free some, or choose another folder (TMPDIR)."
                )
            self._file = tempfile.TemporaryFile(dir=self.folder, buffering=0)  # noqa: SIM115
        except OSError as error:
            raise self._unwritable(error) from error

    def put(self, rows: _Rows, values: npt.NDArray[Any]) -> None:
        """Write values [m, n_features] to the rows [m] of these numbers, in any order.

        Raises
        ------
        OutputError
            The disk is full, or fails.
        """
        descriptor = self._descriptor
        order = np.argsort(rows, kind="stable")
        values = np.ascontiguousarray(values[order], dtype=np.float32)
        done = 0
        for start, count in _runs(rows[order]):
            data = values[done : done + count].data.cast("B")
            place = start * self._row_bytes
            while len(data):
                try:
                    written = os.pwrite(descriptor, data, place)
                except OSError as error:
                    raise self._unwritable(error) from error
                data, place = data[written:], place + written
            done += count

    def take(self, rows: _Rows) -> Tensor:
        """The rows [m, n_features] of these numbers, in this order; neighbors are read at once.

        Raises
        ------
        EnvironmentsError
            A closed file, or rows that were never written.
        """
        if not len(rows):
            return torch.empty(0, self.n_features)
        descriptor, size = self._descriptor, self._row_bytes
        parts: list[bytes] = []
        for start, count in _runs(rows):
            place, stop = start * size, (start + count) * size
            while place < stop:
                part = os.pread(descriptor, stop - place, place)
                if not part:
                    raise EnvironmentsError(
                        f"Expected {self.n_rows:,} stored rows, row {place // size:,} was never "
                        "written. Write all of them first."
                    )
                parts.append(part)
                place += len(part)
        values = torch.frombuffer(bytearray().join(parts), dtype=torch.float32)
        return values.reshape(len(rows), self.n_features)

    def close(self) -> None:
        """Remove the file; its rows cannot be read any more."""
        self._file.close()

    def __enter__(self) -> RowStore:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def _descriptor(self) -> int:
        if self._file.closed:
            raise EnvironmentsError(
                "Expected stored rows that are open, their file was closed and is gone. Use them "
                "inside the with-block."
            )
        return self._file.fileno()

    def _unwritable(self, error: OSError) -> OutputError:
        return OutputError(
            f"Cannot write encoded rows to '{self.folder}': {error.strerror or error}. Choose "
            "another folder (TMPDIR)."
        )


def _runs(rows: _Rows) -> Iterator[tuple[int, int]]:
    """Stretches of row numbers that count up by 1, as (first, how many)."""
    firsts = np.flatnonzero(np.diff(rows, prepend=rows[:1] - 2) != 1)
    counts = np.diff(firsts, append=len(rows))
    return zip(rows[firsts].tolist(), counts.tolist(), strict=True)


@dataclass(frozen=True, eq=False)
class StoredRows:
    """Rows of features [n, d] in a `RowStore`; indexing reads them as a tensor.

    Attributes
    ----------
    store : RowStore
    spans : tuple of (int, int)
        Which of the store's rows these are, in order, as (first, after the last).
    device : torch.device
        Where a tensor that is read is put. The rows themselves stay on disk.

    Examples
    --------
    >>> with RowStore(3, 2) as store:
    ...     store.put(np.arange(3), np.array([[1, 2], [3, 4], [5, 6]]))
    ...     rows = StoredRows.of(store)
    ...     len(rows), rows[1:].tolist(), rows[torch.tensor([2, 0])].tolist()
    (3, [[3.0, 4.0], [5.0, 6.0]], [[5.0, 6.0], [1.0, 2.0]])
    """

    store: RowStore
    spans: tuple[tuple[int, int], ...]
    device: torch.device = field(default=torch.device("cpu"))
    in_memory: ClassVar[bool] = False
    channel: ClassVar[None] = None
    n_channels: ClassVar[int] = 1

    @classmethod
    def of(cls, store: RowStore) -> StoredRows:
        """All rows of a store."""
        return cls(store, ((0, store.n_rows),))

    def __len__(self) -> int:
        return sum(last - first for first, last in self.spans)

    def __getitem__(self, rows: slice | Tensor) -> Tensor:
        n = len(self)
        if isinstance(rows, slice):
            wanted = np.arange(*rows.indices(n), dtype=np.int64)
        else:
            host = rows.cpu()
            wanted = (host.nonzero()[:, 0] if host.dtype == torch.bool else host).numpy()
        if len(wanted) and not 0 <= wanted.min() <= wanted.max() < n:
            raise IndexError(
                f"Expected positions from 0 to {n - 1:,} of stored rows, got {wanted.min():,} to "
                f"{wanted.max():,}."
            )
        firsts, lasts = np.array(self.spans, dtype=np.int64).reshape(-1, 2).T
        starts = np.cumsum(lasts - firsts) - (lasts - firsts)
        span = np.searchsorted(starts, wanted, side="right") - 1
        return self.store.take(wanted - starts[span] + firsts[span]).to(self.device)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the numbers."""
        return torch.float32

    @property
    def n_features(self) -> int:
        """Numbers of each row."""
        return self.store.n_features

    def to(self, device: torch.device | str) -> StoredRows:
        """The same rows, read to another device."""
        return replace(self, device=torch.device(device))

    def stretch(self, start: int, stop: int) -> StoredRows:
        """The rows from one position up to another, still on disk."""
        spans, passed = [], 0
        for first, last in self.spans:
            a = max(first + start - passed, first)
            b = min(first + stop - passed, last)
            if a < b:
                spans.append((a, b))
            passed += last - first
        return replace(self, spans=tuple(spans))

    @property
    def values(self) -> Tensor:
        """All rows, read."""
        return self[:]

    @property
    def row_shape(self) -> tuple[int, ...]:
        """(d,)."""
        return (self.n_features,)

    def take(self, rows: Tensor) -> Tensor:
        """The rows at some positions, read."""
        return self[rows]

    def dense(self) -> Tensor:
        """All rows, read."""
        return self[:]

    def check(self, where: str) -> None:
        """Nothing: what is on disk was encoded, which gives finite numbers."""

    def joined(self, parts: Sequence[StoredRows]) -> StoredRows:
        """Parts of one store after one another, still on disk.

        Raises
        ------
        EnvironmentsError
            Parts of several stores.
        """
        if any(part.store is not self.store for part in parts):
            raise EnvironmentsError(
                "Expected stored rows of one file to be joined, got several files. Store them "
                "together."
            )
        return replace(self, spans=tuple(span for part in parts for span in part.spans))
