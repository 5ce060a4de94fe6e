"""Text tables are read strictly; every fault is one line that says where and what to do."""

from __future__ import annotations

import gzip
import os
import re

import numpy as np
import pandas as pd
import pytest

from invlearn.errors import DataFileError, UnknownNameError
from invlearn.tables import column, delimited, read_table

GOOD = "age,color\n31,red\n40,blue\n"


@pytest.fixture
def write(tmp_path):
    def write_file(content, name="table.csv"):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write_file


def fault(path):
    with pytest.raises(DataFileError) as caught:
        read_table(path)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.txt", "T.CSV"])
def test_delimiter_is_found_out(write, delimiter, name):
    frame = read_table(write(GOOD.replace(",", delimiter), name))
    assert frame.to_dict("list") == {"age": [31, 40], "color": ["red", "blue"]}


def test_decimal_commas_do_not_pass_for_delimiters(write):
    frame = read_table(write("a;b;c\n1,5;2,5;3,0\n1,0;2,0;4,5\n"))
    assert frame["b"].tolist() == ["2,5", "2,0"]


def test_delimiters_inside_quotes_do_not_count(write):
    frame = read_table(write('"name; first";"a, b, c"\n"x, y";1\n"z; w";2\n'))
    assert frame.columns.tolist() == ["name; first", "a, b, c"]
    assert frame["name; first"].tolist() == ["x, y", "z; w"]


def test_line_break_byte_order_mark_blank_lines_and_spaces(write):
    text = '\ufeffage, note ,"two\nlines"\r\n\r\n 31, "a ""b""\nc", 1.5\r\n  \r\n40, NA, null'
    frame = read_table(write(text))
    assert frame.columns.tolist() == ["age", "note", "two lines"]
    assert frame["age"].tolist() == [31, 40]
    assert frame["note"][0] == 'a "b"\nc'
    assert frame.iloc[1].isna().tolist() == [False, True, True]


def test_equals_pandas_on_what_pandas_reads(write):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "x": rng.normal(size=200),
            "n": rng.integers(0, 9, 200),
            "text": [f'say "{i}", {{new\nline}}' for i in range(200)],
            "hole": [None if i % 3 else float(i) for i in range(200)],
        }
    )
    path = write(b"")
    frame.to_csv(path, index=False)
    pd.testing.assert_frame_equal(read_table(path), frame)
    frame.to_csv(path)
    pd.testing.assert_frame_equal(read_table(path), frame)
    zipped = path.with_name("t.csv.gz")
    frame.to_csv(zipped, index=False)
    pd.testing.assert_frame_equal(read_table(zipped), frame)


def test_single_column(write):
    assert read_table(write("age\n31\n\n40\n")).to_dict("list") == {"age": [31, 40]}


def test_missing_file_folder_and_unknown_ending(tmp_path, write):
    assert "does not exist. Check the path." in fault(tmp_path / "none.csv")
    assert "is a folder. Name one CSV, Parquet or Feather file." in fault(tmp_path)
    assert "Expected a file ending in .csv, .tsv" in fault(write(GOOD, "table.xlsx"))
    assert "Could not open 'a b.csv'" in fault("a\0b.csv")
    assert "does not exist" in fault(tmp_path / "two\nlines.csv")
    os.mkfifo(tmp_path / "pipe.csv")
    assert "is a device or pipe. Save the table to disk." in fault(tmp_path / "pipe.csv")


@pytest.mark.parametrize("empty", ["", "\n\n", "  \n \n", "\ufeff"])
def test_empty_file(write, empty):
    assert "the file is empty" in fault(write(empty))


def test_no_rows(write):
    assert "it holds only column names. Write one line per row" in fault(write("age,color\n\n"))


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"PAR1" + bytes(20), "Parquet. Rename it to end in .parquet."),
        (b"ARROW1\0\0", "Feather. Rename it to end in .feather."),
        (b"FEA1" + bytes(20), "Feather version 1. Write it again"),
        (gzip.compress(GOOD.encode(), mtime=0), "gzip. Rename it to end in .csv.gz."),
        (b"PK\x03\x04" + bytes(20), "an Excel workbook or zip archive. Export the table as CSV"),
        (b"%PDF-1.7\n", "a PDF document. Export the table as CSV or Parquet."),
        (b"\n<!DOCTYPE html><body>404", "an HTML page. Export"),
        (b'{"age": [31]}', "JSON. Export"),
        (GOOD.encode("utf-16"), "UTF-16 text. Save it as UTF-8"),
        (GOOD.encode("utf-32"), "UTF-32 text. Save it as UTF-8"),
        (b"ORC\x08\x03", "ORC. Export"),
    ],
)
def test_another_kind_than_the_ending_says(write, content, kind):
    message = fault(write(content))
    assert "Expected CSV in " in message
    assert f"as its ending says, it is {kind}" in message


def test_header_may_begin_with_the_letters_of_a_short_signature(write):
    assert read_table(write("ORC,BZh\n1,2\n")).columns.tolist() == ["ORC", "BZh"]


@pytest.mark.parametrize("ending", [".parquet", ".feather", ".csv.gz"])
def test_text_under_a_binary_ending(write, ending):
    assert "its first bytes are another format's" in fault(write(GOOD, f"table{ending}"))


def test_compressed_content_and_truncated_compression(write):
    inner = write(gzip.compress(b"PAR1" + bytes(99)), "table.csv.gz")
    assert "its compressed content is Parquet. Compress a CSV file." in fault(inner)
    rng = np.random.default_rng(0)
    text = "a\n" + "\n".join(map(str, rng.integers(0, 10**9, 3000)))
    whole = gzip.compress(text.encode())
    assert "cut short or corrupted" in fault(write(whole[:-500], "table.csv.gz"))
    flipped = whole[:800] + bytes(byte ^ 255 for byte in whole[800:830]) + whole[830:]
    assert "cut short or corrupted" in fault(write(flipped, "table.csv.gz"))


def test_not_utf8_says_the_line(write):
    message = fault(write("name,age\nAda,31\nRené,40\n".encode("latin-1")))
    assert "line 3 (byte 0xe9) is not" in message
    assert "Save the table as UTF-8 (spreadsheets call it 'CSV UTF-8')." in message


def test_nul_byte_says_the_line(write):
    assert "line 3 holds a NUL byte" in fault(write("a,b\n1,2\n3,\x004\n"))


@pytest.mark.parametrize(("width", "plural"), [(99, "s"), (101, "s"), (1, "")])
def test_broken_line_says_the_line_of_the_file(write, width, plural):
    lines = [",".join(f"c{i}" for i in range(100))] + [",".join("1" * 100)] * 80
    lines[72] = ",".join("1" * width)
    lines[10] = '"two\nlines",' + ",".join("1" * 99)
    message = fault(write("\n".join(lines)))
    assert re.search(
        rf"Line 74 of '.*' has {width} field{plural}, expected 100 as in its first line "
        r"\(separated by a comma\)",
        message,
    )


def test_faults_of_quotes_say_the_line_they_begin_on(write):
    assert "Line 3 of " in (message := fault(write('a,b\n1,2\n3,"4\n5,6\n')))
    assert "opens a quote that is never closed" in message
    message = fault(write('a,b\n1,"2\n3,"4\n5,6\n'))
    assert "Line 2 of " in message
    assert "has text after a closing quote" in message
    message = fault(write('a,b\n1,"2\n' + "3,4\n" * 50_000))
    assert "Line 2 of " in message
    assert "opens a quote that is never closed" in message


def test_repeated_and_missing_names(write):
    message = fault(write("a,b,a,b,a\n1,2,3,4,5\n"))
    assert "got 'a', 'b' several times ('a' in columns 1, 3, 5). Rename them." in message
    assert "column 2 has none (nor 1 more)" in fault(write("a,,b,\n1,2,3,4\n"))
    assert "column 1 has none. Name it in the first line" in fault(write(",b\n5,2\n6,3\n"))
    # A row that counts like pandas' index is dropped; the names pandas would invent never show.
    assert read_table(write(",b\n0,2\n1,3\n")).columns.tolist() == ["b"]


def test_names_that_pandas_would_have_invented_stay(write):
    assert read_table(write("a,a.1,Unnamed: 0\n1,2,3\n")).shape == (1, 3)


def test_column_by_name():
    frame = pd.DataFrame({"age": [31], "color": ["red"], 7: [1.5]})
    assert column(frame, "7", "target").tolist() == [1.5]
    with pytest.raises(UnknownNameError) as caught:
        column(frame, "colour", "environment")
    assert str(caught.value) == (
        "Unknown environment column 'colour' (did you mean 'color'?). "
        "The table has 3 columns: 'age', 'color', '7'."
    )


def test_column_error_stays_short_and_on_one_line():
    frame = pd.DataFrame(np.zeros((1, 5000)), columns=["two\nlines" * 50, *map(str, range(4999))])
    with pytest.raises(UnknownNameError) as caught:
        column(frame, "no\nsuch", "target")
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert len(message) < 500
    assert "and 4,980 more" in message


def test_a_table_of_text_is_opened_once_for_all_its_passes(tmp_path, monkeypatch):
    opened = []
    once = delimited._bytes
    monkeypatch.setattr(delimited, "_bytes", lambda path: opened.append(path) or once(path))
    path = tmp_path / "table.csv"
    path.write_text("a;b\n1;2\n")
    assert read_table(path).to_dict("list") == {"a": [1], "b": [2]}
    assert opened == [path]
