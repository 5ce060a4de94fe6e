"""The house keeps to its measure: a file is read in one sitting, a function is on one screen."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "invlearn"
FILES = sorted(path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py"))

MOST_LINES, MOST_LINES_OF_A_FUNCTION = 300, 60
"""Of a file; of a function without its docstring."""

EXCEPTIONS: dict[str, str] = {
    "cli/compare.py compare": "a parameter and its help for each option of the command",
}
"""Files, or functions in them, that are longer, and why."""


def lengths(path: Path) -> dict[str, int]:
    """Lines of a file ('') and of its functions, by name, without docstrings."""
    text = path.read_text(encoding="utf-8")
    found = {"": text.count("\n")}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            docstring = 0
            if ast.get_docstring(node) is not None:
                docstring = (first.end_lineno or first.lineno) - first.lineno + 1
            found[node.name] = (node.end_lineno or node.lineno) - node.lineno + 1 - docstring
    return found


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_read_in_one_sitting(name):
    long = {
        f"{name} {function}".strip(): lines
        for function, lines in lengths(SOURCE / name).items()
        if lines > (MOST_LINES_OF_A_FUNCTION if function else MOST_LINES)
    }
    assert set(long) <= set(EXCEPTIONS), long


def test_every_exception_is_one():
    for exception in EXCEPTIONS:
        name, _, function = exception.partition(" ")
        most = MOST_LINES_OF_A_FUNCTION if function else MOST_LINES
        assert lengths(SOURCE / name)[function] > most, exception
