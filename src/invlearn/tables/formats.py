"""The formats a table is read from and written to: a new one is one entry of FORMATS."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from invlearn.errors import DataFileError
from invlearn.tables.arrow import read_arrow
from invlearn.tables.delimited import read_delimited
from invlearn.tables.messages import quoted_path
from invlearn.tables.signatures import other_kind


@dataclass(frozen=True)
class Format:
    """A format of tables.

    Attributes
    ----------
    name : str
    endings : tuple of str
        Of its files' names, the usual one first.
    signatures : tuple of bytes
        How its files begin; none for text.
    read : callable
        ``(path) -> DataFrame``.
    write : callable, optional
        ``(frame, path)``, to a file with the usual ending; None for a format that is only read.
    streams : bool
        Whether `ParquetTable` reads it in bounded memory.
    """

    name: str
    endings: tuple[str, ...]
    signatures: tuple[bytes, ...]
    read: Callable[[Path], pd.DataFrame]
    write: Callable[[pd.DataFrame, Path], Any] | None = None
    streams: bool = False


def _read_gzip(path: Path) -> pd.DataFrame:
    start = b""
    with suppress(Exception), gzip.open(path, "rb") as compressed:  # The reader says what broke.
        start = compressed.read(512)
    kind = kind_of_bytes(start)
    if kind:
        raise DataFileError(
            f"Expected delimited text in {quoted_path(path)}, its compressed content is {kind}. "
            "Compress a CSV file."
        )
    return read_delimited(path)


FORMATS = (
    Format(
        "CSV",
        (".csv", ".tsv", ".txt"),
        (),
        read_delimited,
        lambda frame, path: frame.to_csv(path, index=False),
    ),
    Format("gzip", (".csv.gz", ".tsv.gz", ".txt.gz"), (b"\x1f\x8b",), _read_gzip),
    Format(
        "Parquet",
        (".parquet", ".pq"),
        (b"PAR1",),
        partial(read_arrow, kind="Parquet"),
        lambda frame, path: frame.to_parquet(path, index=False),
        streams=True,
    ),
    Format(
        "Feather",
        (".feather", ".arrow"),
        # The second is an Arrow stream's: .arrow files without a footer.
        (b"ARROW1", b"\xff\xff\xff\xff"),
        partial(read_arrow, kind="Feather"),
        lambda frame, path: frame.to_feather(path),
    ),
)

WRITERS = {form.endings[0]: form.write for form in FORMATS if form.write is not None}
"""How a table is written, by the file's ending."""


def format_of(path: Path) -> Format | None:
    """The format that a file's ending says; None where it says nothing.

    Examples
    --------
    >>> format_of(Path("rows.TSV.gz")).name, format_of(Path("rows.xlsx"))
    ('gzip', None)
    """
    name = path.name.lower()
    return next((form for form in FORMATS if name.endswith(form.endings)), None)


def kind_of_bytes(start: bytes) -> str | None:
    r"""What a file holds, recognized by its first 512 bytes; None for plain text and the unknown.

    Examples
    --------
    >>> kind_of_bytes(b"PAR1\x15\x04"), kind_of_bytes(b"\n<HTML><body>"), kind_of_bytes(b"a,b\n1,2")
    ('Parquet', 'an HTML page', None)
    """
    own = (form.name for form in FORMATS if start.startswith(form.signatures))
    return next(own, None) or other_kind(start)
