"""Which features the model relies on in each environment, and whether that helps there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import nn

from invlearn.diagnostics.findings import (
    NOTHING,
    Finding,
    PredictedRows,
    draw_rows,
    listed,
    too_few,
    unanswered,
    usable,
)
from invlearn.diagnostics.intervals import Floats, normal_bound
from invlearn.evaluation import forward
from invlearn.features import as_rows
from invlearn.losses import Loss

PERMUTATIONS = 5

ROWS = 1000
"""Rows of an environment whose features are permuted."""

COLUMNS = 200
"""More columns than this are cut to those whose permutation moves the model's output most."""

PROBED_ROWS = 100
"""Rows of an environment that say so."""

SHOWN = 30

SHARE = 0.01
"""A share of the risk by which a permutation has to change it to matter."""

_ORDER = ("helps and hurts", "hurts", "helps", "no clear use")


def feature_reliance(
    model: nn.Module,
    parts: Sequence[PredictedRows],
    loss: Loss,
    feature_names: Sequence[str],
    *,
    rng: np.random.Generator,
) -> Finding:
    """Increase of the risk when a feature is permuted within an environment.

    Permuting takes what the feature says about the row away. Where that raises the risk the
    model relies on the feature and is right to; where it lowers the risk the model relies on it
    and is misled. Features that go together are permuted apart, so each may look dispensable.

    Parameters
    ----------
    model : nn.Module
    parts : sequence of PredictedRows
        Features [n, d]; at most 1,000 rows of an environment are used.
    loss : Loss
    feature_names : sequence of str
        One per column.
    rng : numpy Generator

    Returns
    -------
    Finding
        'feature-reliance': feature, 'increase in' each environment, verdict; at most 30
        features, most conflicting first. An increase is clear beyond its standard error's
        Bonferroni bound over features and environments, and over 1 % of the risk. It warns
        where a feature clearly helps in one environment and clearly hurts in another.
    """
    name, title = "feature-reliance", "Which columns the model relies on, and where that hurts"
    kept, without = usable(parts, loss)
    if not kept:
        return unanswered(name, title, too_few(1, kept, without))
    if any(len(rows) > ROWS for rows in kept):
        without += f" At most {ROWS} rows of an environment were used."
    drawn = [draw_rows(rows, ROWS, rng) for rows in kept]
    columns = _most_used(model, drawn, len(feature_names), rng)
    if len(columns) < len(feature_names):
        without += f" Of {len(feature_names)} columns the {COLUMNS} used most were permuted."
    increases, signs = _increases(model, drawn, columns, loss, rng)
    helps, hurts = (signs > 0).any(1), (signs < 0).any(1)
    verdicts = np.select([helps & hurts, hurts, helps], [0, 1, 2], 3)
    order = np.lexsort((-np.abs(increases).max(1), verdicts))
    frame = pd.DataFrame({"feature": [feature_names[columns[j]] for j in order]})
    for e, rows in enumerate(drawn):
        frame[f"increase in {rows.name}"] = increases[order, e]
    frame["verdict"] = [_ORDER[verdicts[j]] for j in order]
    shown = frame.head(SHOWN)
    if len(frame) > SHOWN:
        without += f" The table shows {SHOWN} columns."

    def named(verdict: str) -> list[str]:
        return [f"'{f}'" for f in frame.loc[frame["verdict"] == verdict, "feature"]]

    def where(j: int, sign: int) -> str:
        return listed([rows.label for rows, s in zip(drawn, signs[j], strict=True) if s == sign])

    if both := named("helps and hurts"):
        first = int(order[0])
        text = (
            f"The model relies on {listed(both)}, which helps it in some environments and "
            f"misleads it in others: {both[0]} helps in {where(first, 1)} and misleads in "
            f"{where(first, -1)}.{without}"
        )
        action = f"Train without {listed(both)} as a comparison, or with a larger penalty."
        return Finding(name, title, text, action, "warning", shown)
    if misled := named("hurts"):
        first = int(order[0])
        text = (
            f"The model would do better if it did not look at {listed(misled)}: {misled[0]} "
            f"misleads it in {where(first, -1)} and clearly helps it nowhere.{without}"
        )
        return Finding(
            name, title, text, f"Train without {listed(misled)} as a comparison.", "note", shown
        )
    helping = named("helps")
    relied = f"relies on {listed(helping)}" if helping else "clearly relies on no single column"
    text = f"The model {relied}; no column misleads it in any environment.{without}"
    return Finding(name, title, text, NOTHING, "good", shown)


def _increases(
    model: nn.Module,
    drawn: Sequence[PredictedRows],
    columns: Sequence[int],
    loss: Loss,
    rng: np.random.Generator,
) -> tuple[Floats, Floats]:
    """Increases [column, environment] of the risk, and their signs, 0 where none is clear."""
    bound = normal_bound(len(drawn) * len(columns))
    increases, signs = np.zeros((2, len(columns), len(drawn)))
    for e, rows in enumerate(drawn):
        risk = float(rows.shares @ rows.losses(loss))
        for j, column in enumerate(columns):
            increase, error = permutation_increase(model, rows, column, loss, rng)
            clear = abs(increase) > bound * error and abs(increase) > SHARE * abs(risk)
            increases[j, e], signs[j, e] = increase, np.sign(increase) * clear
    return increases, signs


def permutation_increase(
    model: nn.Module, rows: PredictedRows, column: int, loss: Loss, rng: np.random.Generator
) -> tuple[float, float]:
    """Mean increase of the risk over five permutations of a column, and its standard error.

    The error is for other rows, not only other permutations. A row counts twice, by what it
    receives and by what its value does to the rows that receive it.
    """
    n = len(rows)
    orders = torch.from_numpy(np.stack([rng.permutation(n) for _ in range(PERMUTATIONS)]))
    x = as_rows(rows.x).dense().repeat(PERMUTATIONS, 1)
    x[:, column] = as_rows(rows.x).dense()[orders.flatten(), column]
    z = forward(model, x, rows_at_a_time=max(5000, n)).to(torch.float64)
    y = rows.y.repeat(PERMUTATIONS, *[1] * (rows.y.ndim - 1))
    after = loss.value(z, y).to(torch.float64).reshape(PERMUTATIONS, n)
    before, received = rows.losses(loss), after.mean(0)
    risk, permuted = rows.shares @ before, rows.shares @ received
    given = torch.zeros(n, dtype=torch.float64)
    given.index_add_(0, orders.flatten(), (rows.shares * after).flatten())
    own = rows.shares * (received - permuted - before + risk)
    influence = own + given / PERMUTATIONS - permuted / n
    return float(permuted - risk), float(influence.norm())


def _most_used(
    model: nn.Module, parts: Sequence[PredictedRows], count: int, rng: np.random.Generator
) -> list[int]:
    """Columns to permute: if there are too many, those whose permutation moves the output most."""
    if count <= COLUMNS:
        return list(range(count))
    few = [draw_rows(rows, PROBED_ROWS, rng) for rows in parts]
    x, z = (
        torch.cat(tensors)
        for tensors in zip(*((as_rows(r.x).dense(), r.z) for r in few), strict=True)
    )
    order = torch.from_numpy(rng.permutation(len(x)))
    moved = np.empty(count)
    for column in range(count):
        permuted = x.clone()
        permuted[:, column] = x[order, column]
        moved[column] = float((forward(model, permuted) - z).abs().mean())
    return sorted(np.argsort(-moved, kind="stable")[:COLUMNS].tolist())
