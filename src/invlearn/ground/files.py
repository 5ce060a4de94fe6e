"""Files and folders written whole or not at all, and folders that are free to be written to."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from invlearn.errors import OutputError


def write_whole(path: Path, content: str | bytes | Callable[[Path], Any]) -> Path:
    """Write a file so that a reader sees the old one or the new one, never a half.

    Parameters
    ----------
    path : path
        An existing file is replaced.
    content : str, bytes or callable
        A function writes the file at the path that it is given, which is beside `path`.

    Raises
    ------
    OutputError
        A file that cannot be written; the old one is then as it was.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_whole(Path(folder) / "a.txt", "three").read_text()
    'three'
    """
    part = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        if path.is_dir():
            raise OutputError(
                f"Expected a file to write, '{path}' is a folder. Choose another name."
            )
        if callable(content):
            content(part)
        else:
            part.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
        os.replace(part, path)
    except OSError as error:
        raise OutputError(
            f"Cannot write '{path}': {error.strerror or error}. Make room, or choose another place."
        ) from error
    finally:
        with suppress(OSError):
            part.unlink()
    return path


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write a new folder of files, all of them or none; its parents are made.

    Raises
    ------
    OutputError
        It is taken, or cannot be written.
    """
    check_free(folder)
    folder = Path(os.path.realpath(folder))
    draft = folder.parent / f".unfinished-{secrets.token_hex(8)}"
    try:
        draft.mkdir(parents=True)
        for name, content in files.items():
            with open(draft / name, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        os.replace(draft, folder)
    except BaseException as error:
        shutil.rmtree(draft, ignore_errors=True)
        if isinstance(error, OSError):
            raise OutputError(
                f"Cannot write '{folder}': {error.strerror or error}. Make room, or choose another "
                "place."
            ) from error
        raise


def check_free(folder: Path, names: Sequence[str] | None = None) -> None:
    """Look whether a folder is free to be written to, and change nothing.

    Parameters
    ----------
    folder : path
        It need not be there yet.
    names : sequence of str, optional
        What must not be in it; by default it has to be new or empty.

    Raises
    ------
    OutputError
        It is a file, cannot be written, or is taken.
    """
    try:
        if folder.exists() and not folder.is_dir():
            raise OutputError(f"Expected a folder, '{folder}' is a file. Choose another one.")
        parent = folder
        while not parent.exists():
            parent = parent.parent
        _check_writable(parent, folder)
        taken = names is None and folder.exists() and any(folder.iterdir())
    except OSError as error:
        raise _refused(folder, error) from error
    if taken:
        raise OutputError(
            f"Expected a new or empty folder, '{folder}' is taken. Choose another one."
        )
    if held := [name for name in names or () if (folder / name).exists()]:
        raise OutputError(
            f"'{folder}' already holds results ({', '.join(held)}); they are never overwritten. "
            "Choose another folder, or remove this one."
        )


def check_file(path: Path) -> None:
    """Look whether a file can be written, and change nothing.

    Raises
    ------
    OutputError
        It is a folder, or its own cannot be written to.
    """
    try:
        if path.is_dir():
            raise OutputError(
                f"Expected a file to write, '{path}' is a folder. Choose another name."
            )
        _check_writable(path.parent, path)
    except OSError as error:
        raise _refused(path, error) from error


def make_folder(folder: Path) -> None:
    """Make a folder with its parents; OutputError, with the reason, if that cannot be done."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _refused(folder, error) from error


def _check_writable(folder: Path, what: Path) -> None:
    """Raise OutputError unless something can be made in a folder."""
    why = ""
    if folder.is_dir():
        try:
            # Only trying tells: of a file system that is read only, permissions say nothing.
            tempfile.TemporaryDirectory(prefix=".", suffix=".part", dir=folder).cleanup()
        except OSError as error:
            why = f" ({error.strerror or error})"
        else:
            return
    elif not folder.exists():
        why = " (it does not exist)"
    raise OutputError(
        f"Cannot write to '{what}': '{folder}' is not a writable folder{why}. Choose another one, "
        "or change its permissions."
    )


def _refused(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"Cannot write '{path}': {error.strerror or error}. Choose another place, or change its "
        "permissions."
    )
