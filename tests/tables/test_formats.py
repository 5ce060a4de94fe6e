"""Formats: what each entry says of itself, and a new one, which is one entry."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from invlearn.tables import WRITERS, can_stream, formats, read_table
from invlearn.tables.formats import FORMATS, Format, format_of

TABLE = pd.DataFrame({"age": [31, 42], "color": ["red", "blue"]})


@pytest.mark.parametrize("ending", WRITERS)
def test_what_is_written_is_read(tmp_path, ending):
    file = tmp_path / f"table{ending}"
    WRITERS[ending](TABLE, file)
    pd.testing.assert_frame_equal(read_table(file), TABLE)
    start = file.read_bytes()[:512]
    assert formats.kind_of_bytes(start) == (None if ending == ".csv" else format_of(file).name)
    assert can_stream(file) == (ending == ".parquet")


def test_endings_are_of_one_format_each():
    endings = [ending for form in FORMATS for ending in form.endings]
    assert len(set(endings)) == len(endings)
    for form in FORMATS:
        assert {format_of(Path(f"Table{ending.upper()}")) for ending in form.endings} == {form}


def test_a_folder_and_a_missing_file_cannot_be_streamed(tmp_path):
    (tmp_path / "folder.parquet").mkdir()
    assert not can_stream(tmp_path / "folder.parquet")
    assert not can_stream(tmp_path / "none.parquet")


def test_a_new_format_is_one_entry(tmp_path, monkeypatch):
    orc = Format("ORC", (".orc",), (b"ORC",), pd.read_orc, lambda frame, path: frame.to_orc(path))
    monkeypatch.setattr(formats, "FORMATS", (*FORMATS, orc))
    file = tmp_path / "table.orc"
    orc.write(TABLE, file)
    pd.testing.assert_frame_equal(read_table(file), TABLE)
