"""What a file that is no table of ours is by its first bytes, whatever its name says."""

from __future__ import annotations

_SIGNATURES = (
    (b"FEA1", "Feather version 1"),
    (b"PK\x03\x04", "an Excel workbook or zip archive"),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook"),
    (b"%PDF", "a PDF document"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\x89HDF", "HDF5"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"SQLite format 3", "an SQLite database"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstandard"),
    (b"7z\xbc\xaf", "a 7-Zip archive"),
    (b"Rar!", "a RAR archive"),
    (b"\x80\x02", "a Python pickle"),
    (b"\x80\x03", "a Python pickle"),
    (b"\x80\x04", "a Python pickle"),
    (b"\x80\x05", "a Python pickle"),
    (b"Obj\x01", "Avro"),
    (b"ORC", "ORC"),
    (b"{\\rtf", "an RTF document"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself"),
    # The longer mark first: UTF-32's begins with UTF-16's.
    (b"\xff\xfe\x00\x00", "UTF-32 text"),
    (b"\x00\x00\xfe\xff", "UTF-32 text"),
    (b"\xff\xfe", "UTF-16 text"),
    (b"\xfe\xff", "UTF-16 text"),
)
_MARKUP = (
    (b"<!doctype html", "an HTML page"),
    (b"<html", "an HTML page"),
    (b"<head", "an HTML page"),
    (b"<?xml", "XML"),
    (b'{"', "JSON"),
    (b'[{"', "JSON"),
    (b"[[", "JSON"),
)
_TAR_MARK = slice(257, 262)


def other_kind(start: bytes) -> str | None:
    r"""What else than a table a file holds, by its first 512 bytes; None where that is unknown.

    Examples
    --------
    >>> other_kind(b"\n<HTML><body>"), other_kind(b"a,b\n1,2")
    ('an HTML page', None)
    """
    for signature, kind in _SIGNATURES:
        # 'ORC' and 'BZh' could also begin the header of a table of text.
        if start.startswith(signature) and (len(signature) > 3 or not _plain(start)):
            return kind
    if start[_TAR_MARK] == b"ustar":
        return "a tar archive"
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return next((kind for mark, kind in _MARKUP if text.startswith(mark)), None)


def _plain(start: bytes) -> bool:
    return all(32 <= byte < 127 or byte in b"\t\r\n" for byte in start)
