"""Read a table from a file that may be wrong in any way; pick a column by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from invlearn.errors import DataFileError, EnvironmentsError
from invlearn.tables.formats import FORMATS, Format, format_of, kind_of_bytes
from invlearn.tables.messages import one_line, quoted, quoted_path, unknown_columns


def read_table(path: str | Path) -> pd.DataFrame:
    r"""Table of a CSV, Parquet or Feather file; its ending says which.

    CSV is UTF-8 text, separated by commas, semicolons, tabs or pipes (found out by itself), with
    column names in its first line. Empty fields and what pandas calls missing ('NA', 'null', ...)
    are missing; decimal commas and thousands separators are not guessed. A first column without a
    name that counts 0 to n - 1 (an index that pandas wrote) is dropped.

    Parameters
    ----------
    path : path
        Ending in .csv, .tsv, .txt (also with .gz), .parquet, .pq, .feather or .arrow.

    Returns
    -------
    DataFrame
        At least one row and one column; column names are distinct strings.

    Raises
    ------
    DataFileError
        Anything that is wrong with the file, in one line.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "table.tsv"
    ...     _ = path.write_text("age\tcolor\n31\tred\n")
    ...     read_table(path).to_dict("list")
    {'age': [31], 'color': ['red']}
    """
    path = Path(path)
    return checked_format(path).read(path)


def column(frame: pd.DataFrame, name: str, purpose: str) -> pd.Series[Any]:
    """The column of that name.

    Parameters
    ----------
    frame : DataFrame
    name : str
    purpose : str
        What it is wanted for, for the error ('target', 'environment').

    Raises
    ------
    UnknownNameError
        No such column; with the nearest name.
    EnvironmentsError
        Several of that name.

    Examples
    --------
    >>> column(pd.DataFrame({"age": [31]}), "age", "target").tolist()
    [31]
    """
    names = [str(given) for given in frame.columns]
    if name not in names:
        raise unknown_columns([name], names, purpose)
    if names.count(name) > 1:
        raise EnvironmentsError(
            f"Expected every column name once, got '{name}' several times. Rename them."
        )
    return frame.iloc[:, names.index(name)]


def checked_format(path: Path) -> Format:
    """The format of a file, once its bytes agree with its ending.

    Raises
    ------
    DataFileError
        A file that is missing, unreadable, empty, of another kind than its ending says, or whose
        ending says nothing.
    """
    try:
        if path.is_dir():
            raise DataFileError(
                f"Expected a file, {quoted_path(path)} is a folder. "
                "Name one CSV, Parquet or Feather file."
            )
        if path.exists() and not path.is_file():  # Opening a pipe would wait for its writer.
            raise DataFileError(
                f"Expected a file, {quoted_path(path)} is a device or pipe. Save the table to disk."
            )
        with path.open("rb") as stream:
            start = stream.read(512)
    except FileNotFoundError as error:
        raise DataFileError(
            f"Expected a file, {quoted_path(path)} does not exist. Check the path."
        ) from error
    except (OSError, ValueError) as error:
        if isinstance(error, DataFileError):
            raise
        raise DataFileError(
            f"Could not open {quoted_path(path)}: {one_line(error)}. "
            "Check the path and its permissions."
        ) from error
    expected = format_of(path)
    if expected is None:
        endings = ", ".join(ending for form in FORMATS for ending in form.endings)
        raise DataFileError(
            f"Expected a file ending in {endings}, got {quoted(path.name)}. "
            "Save the table as CSV or Parquet."
        )
    if not start:
        raise DataFileError(
            f"Expected a table in {quoted_path(path)}, the file is empty. Write or copy it again."
        )
    found = kind_of_bytes(start)
    if found is None and expected.signatures:
        raise DataFileError(
            f"Expected {expected.name} in {quoted_path(path)} as its ending says, its first bytes "
            "are another format's. Give the file the ending of what it holds, or write it again."
        )
    if found is not None and found != expected.name:
        raise DataFileError(
            f"Expected {expected.name} in {quoted_path(path)} as its ending says, it is {found}. "
            f"{_remedy(found)}"
        )
    return expected


def _remedy(found: str) -> str:
    for form in FORMATS:
        if form.name == found:
            return f"Rename it to end in {form.endings[0]}."
    if found == "Feather version 1":
        return "Write it again with a pandas or pyarrow of 2020 or later."
    if found.endswith("text"):
        return "Save it as UTF-8 (spreadsheets call it 'CSV UTF-8')."
    return "Export the table as CSV or Parquet."
