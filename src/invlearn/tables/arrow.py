"""Read Parquet and Feather files whose bytes may be anything, and make them pandas' own."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from invlearn.errors import DataFileError
from invlearn.tables.messages import listed, one_line, quoted, quoted_path

_UNNAMED_INDEX = "__index_level_0__"
_SHOWN_CHARACTERS = 200


def read_arrow(path: Path, kind: str) -> pd.DataFrame:
    """Table of a Parquet or Feather file.

    Parameters
    ----------
    path : path
    kind : str
        'Parquet' or 'Feather'.

    Raises
    ------
    DataFileError
        Anything that is wrong with the file.
    """
    try:
        with pa.OSFile(str(path), "rb") as stream:
            if kind == "Parquet":
                file = pq.ParquetFile(stream)
                check_schema(path, file.schema_arrow, file.metadata.num_rows)
                table = file.read()
            else:
                table = _read_feather(path, stream)
        return to_frame(table.select(named_columns(table.schema)))
    except DataFileError:
        raise
    except Exception as error:  # Arrow's errors are of many kinds; none may reach the user raw.
        raise unreadable(path, kind, error) from error


def _read_feather(path: Path, stream: Any) -> Any:
    has_footer = stream.read(6) == b"ARROW1"
    stream.seek(0)
    reader = pa.ipc.open_file(stream) if has_footer else pa.ipc.open_stream(stream)
    check_schema(path, reader.schema)
    table = reader.read_all()
    check_schema(path, table.schema, table.num_rows)
    return table


def to_frame(table: Any) -> pd.DataFrame:
    """Data frame of an Arrow table or batch, whose lengths and codes are checked first."""
    # Corrupted offsets would be followed to addresses outside the file's memory.
    table.validate(full=True)
    # What pandas noted on its index would hide a column that was the index on writing.
    frame: pd.DataFrame = table.to_pandas(ignore_metadata=True, date_as_object=False)
    for name in frame.select_dtypes(["datetime", "datetimetz"]).columns:
        frame[name] = frame[name].where(_in_calendar(frame[name]))
    return frame


def _in_calendar(dates: pd.Series[Any]) -> pd.Series[bool]:
    """Mask of the dates whose year Python can write; others are corrupted and count as missing."""
    if dates.dt.tz is None:
        years, first, last = dates.dt.year, 1, 9999
    else:
        # A local time can be in the year before or after that in UTC.
        years, first, last = dates.dt.tz_convert("UTC").dt.year, 2, 9998
    inside: pd.Series[bool] = years.between(first, last)
    return inside


def named_columns(schema: Any) -> list[str]:
    """Names of the columns but for an index without a name that pandas wrote beside them."""
    return [name for name in schema.names if name != _UNNAMED_INDEX] or list(schema.names)


def check_schema(path: Path, schema: Any, rows: int | None = None) -> None:
    """Refuse a table without columns or rows, with repeated or missing names, or nested.

    Raises
    ------
    DataFileError
        Naming the column.
    """
    if not schema.names:
        raise DataFileError(
            f"Expected columns in {quoted_path(path)}, it has none. Write the table again."
        )
    if rows is not None and rows < 1:
        raise DataFileError(
            f"Expected rows in {quoted_path(path)}, it holds only column names. "
            "Write the table again."
        )
    if "" in schema.names:
        raise DataFileError(
            f"Expected a name for every column of {quoted_path(path)}, column "
            f"{schema.names.index('') + 1} has none. Name it or remove it."
        )
    repeated = [name for name, count in Counter(schema.names).items() if count > 1]
    if repeated:
        raise DataFileError(
            f"Expected every column name of {quoted_path(path)} once, got {listed(repeated)} "
            "several times. Rename them."
        )
    for field in schema:
        if pa.types.is_nested(field.type):
            raise DataFileError(
                f"Expected one value per field in {quoted_path(path)}, column {quoted(field.name)} "
                f"holds {quoted(field.type)}. Spread it over columns of its own or remove it."
            )


def unreadable(path: Path, kind: str, error: Exception) -> DataFileError:
    """Build the error for a file that Arrow or pandas gave up on."""
    # Arrow's texts can hold whole schemas.
    text = one_line(error)[:_SHOWN_CHARACTERS].rstrip(". ") or type(error).__name__
    return DataFileError(
        f"Could not read {quoted_path(path)} as {kind}: {text}. "
        "It is cut short, corrupted or holds what pandas has no type for; write it again."
    )
