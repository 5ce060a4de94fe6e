"""Files whole or not at all; folders refused when they are taken."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from invlearn.errors import OutputError
from invlearn.ground.files import check_file, check_free, make_folder, write_folder, write_whole


def held(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize(
    "content", ["é\n", "é\n".encode(), lambda path: path.write_text("é\n", encoding="utf-8")]
)
def test_a_file_is_written_and_readable_by_others(content, tmp_path):
    path = write_whole(tmp_path / "a.txt", content)
    assert path.read_bytes() == "é\n".encode()
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()
    assert held(tmp_path) == ["a.txt"]


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _no_room(*_):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("name", ["kept.txt", "new.txt"])
def test_a_failed_write_leaves_nothing_and_keeps_what_was_there(name, tmp_path, monkeypatch):
    (tmp_path / "kept.txt").write_text("old")
    monkeypatch.setattr(os, "replace", _no_room)
    with pytest.raises(OutputError) as caught:
        write_whole(tmp_path / name, "new")
    assert str(caught.value) == (
        f"Cannot write '{tmp_path / name}': No space left on device. Make room, or choose another "
        "place."
    )
    assert held(tmp_path) == ["kept.txt"]
    assert (tmp_path / "kept.txt").read_text() == "old"


def test_an_interrupted_write_leaves_nothing(tmp_path):
    def write(path):
        path.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "a.txt", write)
    assert held(tmp_path) == []


def test_a_folder_in_a_files_place_is_named(tmp_path):
    with pytest.raises(
        OutputError, match=r"Expected a file to write, '.*' is a folder\. Choose an"
    ):
        write_whole(tmp_path, "text")


def test_a_folder_is_written_with_its_parents(tmp_path):
    write_folder(tmp_path / "a" / "b", {"one": b"1", "two": b"2"})
    assert held(tmp_path / "a") == ["b", "b/one", "b/two"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_folder_that_failed_is_not_there(call, tmp_path, monkeypatch):
    monkeypatch.setattr(os, call, _no_room)
    with pytest.raises(OutputError, match=r"Cannot write '.*m': No space left on device\. Make"):
        write_folder(tmp_path / "m", {"one": b"1"})
    assert held(tmp_path) == []


def test_what_is_free(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    check_free(tmp_path / "new" / "deep")
    check_free(tmp_path / "empty")
    check_free(tmp_path / "full", ["results.csv"])
    with pytest.raises(
        OutputError, match=r"^Expected a new or empty folder, '.*full' is taken\. Choose another"
    ):
        check_free(tmp_path / "full")
    with pytest.raises(
        OutputError, match=r"full' already holds results \(notes.txt\); they are never overwr"
    ):
        check_free(tmp_path / "full", ["results.csv", "notes.txt"])
    with pytest.raises(OutputError, match=r"^Expected a folder, '.*notes.txt' is a file\. Choose"):
        check_free(tmp_path / "full" / "notes.txt")
    with pytest.raises(OutputError, match=r"^Cannot write to .*notes.txt' is not a writable fol"):
        check_free(tmp_path / "full" / "notes.txt" / "below")
    assert held(tmp_path) == ["empty", "full", "full/notes.txt"]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs Linux")
def test_a_folder_that_cannot_be_made_is_named_with_the_reason():
    text = r"Cannot write to '/proc/x': '/proc' is not a writable folder \(.+\)\. Choose another"
    with pytest.raises(OutputError, match=text):
        check_free(Path("/proc/x"))
    with pytest.raises(OutputError, match=text):
        check_file(Path("/proc/x"))
    with pytest.raises(OutputError, match=r"Cannot write '/proc/x/y': .+\. Choose another place"):
        make_folder(Path("/proc/x/y"))


def test_a_name_that_is_too_long_is_refused_with_the_reason(tmp_path):
    for check in (check_free, check_file):
        with pytest.raises(OutputError, match=r"Cannot write '.*aaa': File name too long\. Choose"):
            check(tmp_path / ("a" * 300))


def test_a_file_is_checked_where_it_is_to_be_written(tmp_path):
    check_file(tmp_path / "new.csv")
    (tmp_path / "old.csv").write_text("1")
    check_file(tmp_path / "old.csv")
    with pytest.raises(OutputError, match=r"Expected a file to write, '.*' is a folder\. Choose"):
        check_file(tmp_path)
    with pytest.raises(OutputError, match=r"is not a writable folder \(it does not exist\)"):
        check_file(tmp_path / "none" / "new.csv")
    with pytest.raises(OutputError, match=r"'.*old\.csv' is not a writable folder\. Choose"):
        check_file(tmp_path / "old.csv" / "new.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["old.csv"]
