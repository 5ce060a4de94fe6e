"""Which environments of one's own rows can be learned from and measured in."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from invlearn.errors import EnvironmentsError
from invlearn.rows.source import Source
from invlearn.tables import Target

FEWEST_ROWS = 10
"""An environment of fewer rows says too little of itself to be measured in."""


def set_aside(source: Source, *, fewest: int = FEWEST_ROWS, one_class: bool = False) -> Source:
    """Without environments that are too small, or (unless allowed) hold one class only; noted.

    Raises
    ------
    EnvironmentsError
        Nothing is left.
    """
    kept, notes = [], list(source.notes)
    sizes = source.sizes
    if len(sizes) > max(len(source.y) // 2, 1000):
        raise EnvironmentsError(
            f"Expected environments of several rows each, got {len(sizes):,} in "
            f"{len(source.y):,} rows. Is '{source.environment_name}' the right column?"
        )
    pairs = pd.DataFrame({"environment": source.environments, "y": source.y})
    classes = pairs.groupby("environment")["y"].nunique()
    for name, size in sizes.items():
        if size < fewest:
            rows = "row" if size == 1 else "rows"
            notes.append(f"Environment '{name}' has {size} {rows}: too few, set aside.")
        elif not one_class and source.target.task == "classification" and classes[name] < 2:
            notes.append(f"Environment '{name}' holds one class only: set aside.")
        else:
            kept.append(name)
    if not kept:
        raise EnvironmentsError(
            f"Expected environments of {fewest} rows or more with two classes, none of "
            f"{len(source.names)} is one. Is '{source.environment_name}' the right column?"
        )
    return replace(_used_classes(source.of(kept)), notes=tuple(notes))


def _used_classes(source: Source) -> Source:
    """Without classes that no row has any more."""
    used = np.unique(source.y)
    if source.target.task == "regression" or len(used) == len(source.target.classes):
        return source
    classes = tuple(source.target.classes[code] for code in used)
    return replace(
        source, target=Target("classification", classes), y=np.searchsorted(used, source.y)
    )
