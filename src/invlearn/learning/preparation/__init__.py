"""The registry of preparations, what happens to rows before training: one file each, one line here.

A preparation relabels the rows' environments or reweights the rows; see
`invlearn.learning.Preparation`.
"""

from __future__ import annotations

from invlearn.errors import unknown_name
from invlearn.learning.plan import Preparation
from invlearn.learning.preparation.eiil import EIIL

PREPARATIONS: dict[str, Preparation] = {
    "eiil": EIIL(),
}


def get_preparation(name: str) -> Preparation:
    """Look a preparation up by name.

    Raises
    ------
    UnknownNameError
        With the nearest known name.
    """
    if name not in PREPARATIONS:
        raise unknown_name("preparation", name, PREPARATIONS)
    return PREPARATIONS[name]
