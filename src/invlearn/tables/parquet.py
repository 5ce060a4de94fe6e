"""A Parquet table that need not fit in memory: a sample, batches, or one column of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from invlearn.errors import DataFileError, OptionError
from invlearn.tables.arrow import check_schema, named_columns, to_frame, unreadable
from invlearn.tables.files import checked_format
from invlearn.tables.formats import format_of
from invlearn.tables.messages import quoted_path, unknown_columns

_BATCH_ROWS = 65_536
_MEASURED_ROWS = 4_096


def can_stream(path: Path) -> bool:
    """Whether a path is a file that `ParquetTable` reads, by its ending.

    Examples
    --------
    >>> can_stream(Path("none.parquet"))
    False
    """
    found = format_of(path)
    return found is not None and found.streams and path.is_file()


class ParquetTable:
    """A Parquet file's rows, read in bounded memory.

    Parameters
    ----------
    path : path
        Ending in .parquet or .pq.

    Raises
    ------
    DataFileError
        As `read_table`. What is wrong with the rows shows when they are read.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "table.parquet"
    ...     pd.DataFrame({"age": range(100)}).to_parquet(path)
    ...     table = ParquetTable(path)
    ...     table.n_rows, table.column_names, len(table.sample(10, seed=0))
    (100, ('age',), 10)
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        found = checked_format(self.path)
        if not found.streams:
            raise DataFileError(
                f"Expected a Parquet file, {quoted_path(self.path)} holds {found.name}. "
                "Write it as Parquet."
            )
        with self._open() as file:
            check_schema(self.path, file.schema_arrow, file.metadata.num_rows)
            self.n_rows: int = file.metadata.num_rows
            self.column_names: tuple[str, ...] = tuple(named_columns(file.schema_arrow))

    @cached_property
    def estimated_bytes(self) -> int:
        """Memory that the whole table would take as a DataFrame, from its first rows' share."""
        first = next(self.batches(rows=_MEASURED_ROWS))
        return int(first.memory_usage(index=False, deep=True).sum() / len(first) * self.n_rows)

    def sample(self, rows: int, seed: int, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Rows spread evenly over the file: one drawn at random from each of `rows` stretches.

        Every row group is read once, a batch at a time.

        Parameters
        ----------
        rows : int
            At least 1; all rows if there are not more.
        seed : int
            Equal seeds give equal samples.
        columns : sequence of str, optional
            All by default.

        Returns
        -------
        DataFrame
            In the file's order; the index is the row's number in the file, from 0.

        Raises
        ------
        OptionError
            Fewer than 1 row.
        UnknownNameError
            A column that the file lacks.
        DataFileError
            Rows that cannot be read.
        """
        if rows < 1:
            raise OptionError(f"Expected a sample of at least 1 row, got {rows}. Raise it.")
        count = min(rows, self.n_rows)
        drawn = np.random.default_rng(seed).random(count)
        edges = np.arange(count + 1) * self.n_rows // count
        picks = edges[:-1] + (drawn * np.diff(edges)).astype(np.int64)
        parts = []
        start = 0
        for batch in self.batches(columns):
            here = picks[np.searchsorted(picks, start) : np.searchsorted(picks, start + len(batch))]
            if len(here):
                parts.append(batch.iloc[here - start].set_axis(here))
            start += len(batch)
        return pd.concat(parts)

    def batches(
        self, columns: Sequence[str] | None = None, rows: int = _BATCH_ROWS
    ) -> Iterator[pd.DataFrame]:
        """The file's rows in order, at most so many at a time.

        Raises
        ------
        OptionError, UnknownNameError, DataFileError
            As `sample`.
        """
        if rows < 1:
            raise OptionError(f"Expected batches of at least 1 row, got {rows}. Raise it.")
        wanted = self._known(self.column_names if columns is None else columns)
        return self._batches(wanted, rows)

    def _batches(self, columns: list[str], rows: int) -> Iterator[pd.DataFrame]:
        with self._open() as file:
            read = 0
            for batch in file.iter_batches(batch_size=rows, columns=columns):
                read += len(batch)
                yield to_frame(batch)[columns]
            if read != self.n_rows:
                raise DataFileError(
                    f"Expected {self.n_rows:,} rows in {quoted_path(self.path)}, {read:,} could be "
                    "read. Write or copy it again."
                )

    def column(self, name: str) -> pd.Series[Any]:
        """One column for all rows; strings as a categorical, which keeps each distinct one once.

        Raises
        ------
        UnknownNameError, DataFileError
            As `sample`.
        """
        names = self._known([name])
        with self._open(read_dictionary=names) as file:
            return to_frame(file.read(columns=names))[name]

    def _known(self, columns: Sequence[str]) -> list[str]:
        missing = [name for name in columns if name not in self.column_names]
        if missing:
            raise unknown_columns(missing, self.column_names)
        return list(columns)

    @contextmanager
    def _open(self, **options: Any) -> Iterator[Any]:
        """The open file, every fault of which is a DataFileError.

        Arrow's reading ahead, which would gather the whole file in memory, is switched off.
        """
        try:
            with pq.ParquetFile(
                self.path, pre_buffer=False, buffer_size=1 << 16, **options
            ) as file:
                yield file
        except DataFileError:
            raise
        except Exception as error:
            raise unreadable(self.path, "Parquet", error) from error
