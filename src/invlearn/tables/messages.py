"""How names and values of a user's table show in an error: on one line, and not too long."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from invlearn.errors import UnknownNameError

_SHOWN_NAMES = 20
_SHOWN_CHARACTERS = 60


def one_line(text: object) -> str:
    r"""Text with line breaks, control characters and runs of spaces made single spaces.

    Examples
    --------
    >>> one_line("a\n  b\x00c")
    'a b c'
    """
    printable = "".join(c if c.isprintable() else " " for c in str(text))
    return " ".join(printable.split())


def quoted(value: object) -> str:
    """A name or value in quotes, shortened.

    Examples
    --------
    >>> quoted("age"), len(quoted("x" * 1000))
    ("'age'", 62)
    """
    text = one_line(value)
    return f"'{text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 3] + '...'}'"


def quoted_path(path: object) -> str:
    """A file's path in quotes, whole.

    Examples
    --------
    >>> quoted_path("data/table.csv")
    "'data/table.csv'"
    """
    return f"'{one_line(path)}'"


def listed(values: Iterable[object], shown: int = 3) -> str:
    """The first few values in quotes, and how many more there are.

    Examples
    --------
    >>> listed("abcde")
    "'a', 'b', 'c' and 2 more"
    """
    values = list(values)
    more = f" and {len(values) - shown:,} more" if len(values) > shown else ""
    return ", ".join(quoted(value) for value in values[:shown]) + more


def unknown_columns(
    names: Sequence[str], present: Iterable[str], purpose: str = ""
) -> UnknownNameError:
    """Build the error for columns that a table lacks, each with the nearest present name.

    Parameters
    ----------
    names : sequence of str
        The columns that are missing.
    present : iterable of str
        The columns that the table has.
    purpose : str
        What the column was wanted for ('target'); may be empty.

    Examples
    --------
    >>> print(unknown_columns(["aeg"], ["age", "color"], "target"))
    Unknown target column 'aeg' (did you mean 'age'?). The table has 2 columns: 'age', 'color'.
    """
    present = list(present)
    folded = {name.lower(): name for name in reversed(present)}
    wanted = []
    for name in names[:_SHOWN_NAMES]:
        near = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0.5)
        hint = f" (did you mean {quoted(folded[near[0]])}?)" if near else ""
        wanted.append(quoted(name) + hint)
    if len(names) > _SHOWN_NAMES:
        wanted.append(f"and {len(names) - _SHOWN_NAMES:,} more")
    what = f"{purpose} column" if purpose else "column"
    plural = "s" if len(names) > 1 else ""
    columns = f"{len(present):,} column{'' if len(present) == 1 else 's'}"
    return UnknownNameError(
        f"Unknown {one_line(what)}{plural} {', '.join(wanted)}. "
        f"The table has {columns}: {listed(present, _SHOWN_NAMES)}."
    )
