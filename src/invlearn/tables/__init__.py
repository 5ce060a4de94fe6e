"""A user's table: files in, numbers out.

`read_table` reads a file that may be wrong in any way, `Target` turns the column to predict into
class codes or numbers, `Encoder` turns the other columns into a finite float matrix, and
`ParquetTable` reads what does not fit in memory. Every error is one line and says what to do.
"""

from __future__ import annotations

from invlearn.tables.columns import Encoder
from invlearn.tables.files import column, read_table
from invlearn.tables.formats import WRITERS
from invlearn.tables.parquet import ParquetTable, can_stream
from invlearn.tables.targets import Target

__all__ = [
    "WRITERS",
    "Encoder",
    "ParquetTable",
    "Target",
    "can_stream",
    "column",
    "read_table",
]
