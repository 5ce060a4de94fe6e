"""What a diagnosis says, in words and numbers, and the rows it says it of."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import Any, Literal, Self, TypeVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from invlearn.environments import Environments
from invlearn.errors import OptionError
from invlearn.evaluation import forward, row_shares
from invlearn.features import Features
from invlearn.losses import Loss

MIN_ROWS = 20
"""An environment with fewer rows is left out: its numbers would be noise."""

NOTHING = "Nothing to do."

Level = Literal["good", "note", "warning"]


@dataclass(frozen=True, repr=False)
class Finding:
    """One thing that a diagnosis found, for a reader from outside the field.

    Attributes
    ----------
    name : str
        'risk-profile', 'invariance-gap', ...
    title : str
        A heading.
    sentence : str
        What the numbers say about this model and these rows, in plain words.
    action : str
        What to do about it, in a sentence.
    level : 'good', 'note' or 'warning'
    table : DataFrame
        The numbers; empty where the finding says why there are none.
    """

    name: str
    title: str
    sentence: str
    action: str
    level: Level
    table: pd.DataFrame

    def plain(self) -> dict[str, Any]:
        """Everything as JSON has it, the table as a list of its rows."""
        return vars(self) | {"table": json.loads(self.table.to_json(orient="records"))}

    def __repr__(self) -> str:
        return f"Finding({self.name}, {self.level}: {self.sentence})"

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        words = f"<p>{escape(self.sentence)} {escape(self.action)}</p>"
        table = (
            self.table.to_html(index=False, float_format="{:.3g}".format) if len(self.table) else ""
        )
        return f"<h4>{escape(self.title)} ({self.level})</h4>{words}{table}"


class Findings(list[Finding]):
    """Findings in the order in which they press."""

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return "".join(finding._repr_html_() for finding in self)


def unanswered(name: str, title: str, why: str, action: str = NOTHING) -> Finding:
    """Make the finding that says why there is none.

    Examples
    --------
    >>> unanswered("effects", "What each feature does", "there is one environment.").sentence
    'Left out: there is one environment.'
    """
    return Finding(name, title, f"Left out: {why}", action, "note", pd.DataFrame())


@dataclass(frozen=True, kw_only=True)
class EnvironmentRows:
    """Rows of one environment; those of weight zero are dropped.

    Attributes
    ----------
    name : str
    x : Tensor [n, ...] or ChannelImages of n rows
    y : Tensor [n] or [n, k]
    shares : Tensor [n], float64
        Row weights that sum to 1.
    """

    name: str
    x: Features
    y: Tensor
    shares: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def take(self, rows: Tensor) -> Self:
        """The rows at some positions."""
        kept = self.shares[rows]
        return replace(self, x=self.x[rows], y=self.y[rows], shares=kept / kept.sum())


@dataclass(frozen=True, kw_only=True)
class PredictedRows(EnvironmentRows):
    """Rows of one environment and what the model says of them.

    Attributes
    ----------
    z : Tensor [n, k], float64
        The model's outputs.
    new : bool
        Whether the model was trained without this environment.
    """

    z: Tensor
    new: bool

    @property
    def label(self) -> str:
        """The name as sentences show it."""
        return f"'{self.name}'" + (" (new)" if self.new else "")

    def take(self, rows: Tensor) -> Self:
        """The rows at some positions."""
        return replace(super().take(rows), z=self.z[rows])

    def losses(self, loss: Loss) -> Tensor:
        """Loss of every row [n]."""
        return loss.value(self.z, self.y).to(torch.float64)


def environment_rows(environments: Environments) -> list[EnvironmentRows]:
    """The rows of each environment, with their shares of its weight.

    Examples
    --------
    >>> envs = Environments.from_arrays([[0.0], [1.0]], [0, 1], ["a", "a"], weights=[1.0, 3.0])
    >>> environment_rows(envs)[0].shares.tolist()
    [0.25, 0.75]
    """
    found, weights, offsets = [], environments.weights, environments.offsets
    for e, (name, x, y) in enumerate(environments):
        own = None if weights is None else weights[offsets[e] : offsets[e + 1]]
        shares = row_shares(y, own)
        rows = EnvironmentRows(name=name, x=x, y=y, shares=shares)
        found.append(rows if bool((shares > 0).all()) else rows.take(shares.nonzero()[:, 0]))
    return found


def predicted_rows(
    model: nn.Module, environments: Environments, seen: Sequence[str] | None = None
) -> list[PredictedRows]:
    """The rows of each environment with the model's outputs.

    Parameters
    ----------
    model : nn.Module
        On the device of the rows.
    environments : Environments
    seen : sequence of str, optional
        Environments the model was trained on; the others are new. None: all of them.

    Raises
    ------
    OptionError
        Outputs that are not finite.
    """
    found = []
    for rows in environment_rows(environments):
        z = forward(model, rows.x).to(torch.float64)
        if not bool(z.isfinite().all()):
            raise OptionError(
                f"Expected finite outputs, got NaN or infinity in environment '{rows.name}'. "
                "Look for a training run that diverged."
            )
        new = seen is not None and rows.name not in seen
        found.append(
            PredictedRows(name=rows.name, x=rows.x, y=rows.y, shares=rows.shares, z=z, new=new)
        )
    return found


AnyRows = TypeVar("AnyRows", bound=EnvironmentRows)


def draw_rows(rows: AnyRows, limit: int, rng: np.random.Generator) -> AnyRows:
    """At most so many rows, drawn without replacement, in their old order."""
    if len(rows) <= limit:
        return rows
    picked = np.sort(rng.choice(len(rows), limit, replace=False))
    return rows.take(torch.from_numpy(picked))


def usable(
    parts: Iterable[AnyRows], loss: Loss, *, varied: bool = False
) -> tuple[list[AnyRows], str]:
    """Environments with rows enough, and a sentence that names the others and says why.

    Parameters
    ----------
    parts : iterable of rows
    loss : Loss
    varied : bool
        Whether an environment whose targets are all the same is of no use either.
    """
    kept, reasons = [], []
    for rows in parts:
        if len(rows) < MIN_ROWS:
            reasons.append(f"'{rows.name}' (fewer than {MIN_ROWS} rows)")
        elif varied and bool((rows.y == rows.y[0]).all()):
            one = "one class only" if loss.kind == "classes" else "one target value only"
            reasons.append(f"'{rows.name}' ({one})")
        else:
            kept.append(rows)
    return kept, f" Without {', '.join(reasons)}." if reasons else ""


def too_few(needed: int, kept: Sequence[EnvironmentRows], without: str) -> str:
    """Why there are too few environments for something."""
    noun = "environment" if needed == 1 else "environments"
    return f"it needs {needed} {noun} with rows enough, there are {len(kept)}.{without}"


def listed(words: Sequence[str], limit: int = 5) -> str:
    """A list as a sentence has it.

    Examples
    --------
    >>> listed(["a", "b", "c"]), listed(["a", "b", "c", "d"], 2)
    ('a, b and c', 'a, b and 2 more')
    """
    shown = list(words[:limit])
    if len(words) > limit:
        shown.append(f"{len(words) - limit} more")
    return shown[0] if len(shown) == 1 else ", ".join(shown[:-1]) + f" and {shown[-1]}"
