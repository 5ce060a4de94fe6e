"""How a page and its pictures are written."""

from __future__ import annotations

import re

import pytest

from invlearn.errors import OutputError
from invlearn.reports.page import write_page


def test_page_and_pictures_are_written(tmp_path):
    path = write_page("<p>“words”</p>", {"a": b"bytes", "b": b"more"}, tmp_path / "x" / "report")
    assert path == tmp_path / "x" / "report" / "report.html"
    assert path.read_text(encoding="utf-8") == "<p>“words”</p>"
    pictures = sorted((path.parent / "figures").iterdir())
    assert [(picture.name, picture.read_bytes()) for picture in pictures] == [
        ("a.png", b"bytes"),
        ("b.png", b"more"),
    ]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    expected = (
        f"Expected a folder to write the report in, '{tmp_path / 'file'}' cannot be written: "
        "Not a directory. Name another folder, or free this one."
    )
    with pytest.raises(OutputError, match="^" + re.escape(expected) + "$"):
        write_page("", {}, tmp_path / "file")
