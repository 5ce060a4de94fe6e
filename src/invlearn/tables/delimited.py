"""Read delimited text strictly: every row has the header's width, every name is there once."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from invlearn.errors import DataFileError
from invlearn.tables.messages import listed, one_line, quoted, quoted_path

_DELIMITERS = (",", ";", "\t", "|")
_SNIFFED_ROWS = 100
_NAMES = {",": "comma", ";": "semicolon", "\t": "tab", "|": "pipe"}


def read_delimited(path: Path) -> pd.DataFrame:
    r"""Table of a text file of comma, semicolon, tab or pipe separated values, gzipped or not.

    pandas alone pads short rows, renames repeated columns and lets one stray quote swallow rows,
    so the rows are counted first and pandas only turns them into values.

    Raises
    ------
    DataFileError
        Whatever is wrong with the file, with the line.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "table.csv"
    ...     _ = path.write_text("age;name\n31;Ada\n")
    ...     read_delimited(path).to_dict("list")
    {'age': [31], 'name': ['Ada']}
    """
    try:
        return _read(path)
    except DataFileError:
        raise
    except UnicodeDecodeError:
        raise _not_utf8(path) from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataFileError(
            f"Expected {quoted_path(path)} to be a whole gzip file, it is cut short or corrupted "
            f"({one_line(error)}). Copy or compress it again."
        ) from error
    except Exception as error:  # pandas raises many kinds; a user's file must not end in a trace.
        raise DataFileError(
            f"Could not read {quoted_path(path)} as delimited text: {one_line(error)}. "
            "Check that it is a table of text in UTF-8."
        ) from error


class _Layout(NamedTuple):
    delimiter: str
    names: list[str]
    rows: int


def _read(path: Path) -> pd.DataFrame:
    with _text(path) as stream:
        layout = _checked_layout(path, stream)
        stream.seek(0)
        frame: pd.DataFrame = pd.read_csv(
            stream,
            sep=layout.delimiter,
            names=layout.names,
            header=0,
            index_col=False,
            skipinitialspace=True,
            low_memory=False,
        )
    if len(frame) != layout.rows:
        raise DataFileError(
            f"Expected {layout.rows:,} rows in {quoted_path(path)}, {len(frame):,} could be read. "
            "Remove empty lines and stray control characters."
        )
    if layout.names[0] == "":
        if frame.iloc[:, 0].tolist() != list(range(len(frame))):
            raise _unnamed(path, [1])
        frame = frame.iloc[:, 1:]
    return frame


def _checked_layout(path: Path, stream: io.TextIOBase) -> _Layout:
    """Delimiter, column names and number of rows, once every line is known to fit."""
    head = "".join(islice(_lines(path, stream), _SNIFFED_ROWS))
    delimiter = _delimiter(head)
    stream.seek(0)
    records = _records(path, stream, delimiter)
    first = next(records, None)
    if first is None:
        raise DataFileError(
            f"Expected a table in {quoted_path(path)}, the file is empty. "
            "Write a line of column names and then one line per row."
        )
    names = [" ".join(name.split()) for name in first[1]]
    _check_names(path, names)
    rows = 0
    for line, record in records:
        rows += 1
        if len(record) != len(names):
            plural = "" if len(record) == 1 else "s"
            raise DataFileError(
                f"Line {line} of {quoted_path(path)} has {len(record)} field{plural}, expected "
                f"{len(names)} as in its first line (separated by a {_NAMES[delimiter]}). "
                "Repair or remove the line; put fields that hold the separator in quotes."
            )
    if rows == 0:
        raise DataFileError(
            f"Expected rows in {quoted_path(path)}, it holds only column names. "
            "Write one line per row below them."
        )
    return _Layout(delimiter, names, rows)


def _delimiter(head: str) -> str:
    """The delimiter that splits most of the first lines as it splits the header."""
    best, choice = (0.0, 1), ","
    for delimiter in _DELIMITERS:
        # Not strict: a broken quote is reported, with its line, once the delimiter is known.
        parsed = csv.reader(
            io.StringIO(head, newline=""), delimiter=delimiter, skipinitialspace=True
        )
        try:
            widths = [len(record) for record in parsed if not _blank(record)]
        except csv.Error:
            continue
        if widths and widths[0] > 1:
            share = sum(width == widths[0] for width in widths[1:]) / max(len(widths) - 1, 1)
            if (share, widths[0]) > best:
                best, choice = (share, widths[0]), delimiter
    return choice


def _records(path: Path, stream: io.TextIOBase, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Records that are not blank, each with the number of the line that it begins on."""
    reader = csv.reader(
        _lines(path, stream), delimiter=delimiter, skipinitialspace=True, strict=True
    )
    line = 1
    try:
        for record in reader:
            if not _blank(record):
                yield line, record
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataFileError(f"Line {line} of {quoted_path(path)} {_quote_fault(error)}") from error


def _quote_fault(error: csv.Error) -> str:
    text = one_line(error)
    if "unexpected end" in text or "field larger" in text:
        return "opens a quote that is never closed. Close it, or write two quotes to mean one."
    if "expected after" in text:
        return (
            "has text after a closing quote. Write a quote inside a quoted field twice, and leave "
            "no space between the quote and the separator."
        )
    return f"cannot be split into fields ({text}). Repair or remove it."


def _blank(record: list[str]) -> bool:
    return not record or (len(record) == 1 and not record[0].strip(" \t"))


def _lines(path: Path, stream: io.TextIOBase) -> Iterator[str]:
    for number, line in enumerate(stream, 1):
        if "\0" in line:
            raise DataFileError(
                f"Expected text in {quoted_path(path)}, line {number} holds a NUL byte. "
                "Save the table as CSV in UTF-8 (UTF-16 and binary files hold such bytes)."
            )
        yield line


def _check_names(path: Path, names: list[str]) -> None:
    unnamed = [place for place, name in enumerate(names, 1) if not name]
    # pandas writes its index as a first column without a name.
    if unnamed and (unnamed != [1] or len(names) == 1):
        raise _unnamed(path, unnamed)
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        places = [str(place) for place, name in enumerate(names, 1) if name == repeated[0]]
        raise DataFileError(
            f"Expected every column name of {quoted_path(path)} once, got {listed(repeated)} "
            f"several times ({quoted(repeated[0])} in columns {', '.join(places[:5])}). "
            "Rename them."
        )


def _unnamed(path: Path, places: list[int]) -> DataFileError:
    return DataFileError(
        f"Expected a name for every column of {quoted_path(path)}, column {places[0]} has none"
        f"{f' (nor {len(places) - 1} more)' if len(places) > 1 else ''}. "
        "Name it in the first line, or remove the column."
    )


@contextmanager
def _text(path: Path) -> Iterator[Any]:
    # Any rather than TextIOBase: pandas' stubs ask for a wider protocol than io declares.
    with (
        _bytes(path) as raw,
        io.TextIOWrapper(raw, encoding="utf-8-sig", errors="strict", newline="") as text,
    ):
        yield text


@contextmanager
def _bytes(path: Path) -> Iterator[Any]:
    if path.suffix.lower() == ".gz":
        with gzip.open(path, "rb") as compressed:
            yield compressed
    else:
        with path.open("rb") as plain:
            yield plain


def _not_utf8(path: Path) -> DataFileError:
    where = "the file"
    with _bytes(path) as raw:
        for number, line in enumerate(raw, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                where = f"line {number} (byte 0x{line[error.start]:02x})"
                break
    return DataFileError(
        f"Expected UTF-8 text in {quoted_path(path)}, {where} is not. "
        "Save the table as UTF-8 (spreadsheets call it 'CSV UTF-8')."
    )
