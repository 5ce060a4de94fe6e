"""Whether the environments differ enough to tell a shortcut from a cause."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import nn

from invlearn.diagnostics.findings import (
    NOTHING,
    EnvironmentRows,
    Finding,
    draw_rows,
    too_few,
    unanswered,
    usable,
)
from invlearn.diagnostics.intervals import Floats
from invlearn.diagnostics.pieces import image_shape
from invlearn.evaluation import forward
from invlearn.features import as_rows
from invlearn.image_features import ImageFeatures
from invlearn.losses import Loss
from invlearn.selection.certificate import certify
from invlearn.selection.gaps import errs

ROWS, FEWEST_ROWS = 5000, 200
"""Rows of an environment that the pooled reference is fitted on."""

VALUES = 10**7
"""Numbers it is fitted on in all: of wide tables fewer rows are used."""

FOLDS = 5


def diversity(
    parts: Sequence[EnvironmentRows],
    loss: Loss,
    *,
    reference: nn.Module | None = None,
    rng: np.random.Generator,
) -> Finding:
    """Whether what pooled training gets wrong is unequally frequent in the environments.

    Pooled training picks up a shortcut that holds more often than not and errs where it does
    not hold. If those rows are as frequent in every environment, the environments look alike to
    any method that compares them.

    Parameters
    ----------
    parts : sequence of EnvironmentRows
        Of the environments to learn from.
    loss : Loss
    reference : nn.Module, optional
        Trained on the pooled rows. None: a logistic (or ridge) regression on at most 5,000 rows
        of each environment, whose predictions are out of fold.
    rng : numpy Generator

    Returns
    -------
    Finding
        'diversity': environment, rows, frequency of the rows pooled training gets wrong (a
        regression: misses by more than on the median row). It warns unless their frequencies
        differ at the level of one in a thousand.
    """
    name, title = "diversity", "Whether the environments differ enough to learn from"
    kept, without = usable(parts, loss)
    if len(kept) < 2:
        return unanswered(name, title, too_few(2, kept, without), "Add rows of another source.")
    if all(bool((rows.y == kept[0].y[0]).all()) for rows in kept):
        return unanswered(name, title, "the targets are all the same.")
    if reference is None:
        if loss.kind == "unknown":
            return unanswered(
                name, title, "a custom loss needs a reference model trained on the pooled rows."
            )
        width = as_rows(kept[0].x).n_features if image_shape(kept[0].x) is None else 1
        most = min(ROWS, max(VALUES // (width * len(kept)), FEWEST_ROWS))
        if any(len(rows) > most for rows in kept):
            without += f" At most {most} rows of an environment were used."
        kept = [draw_rows(rows, most, rng) for rows in kept]
        errors = out_of_fold_errors(kept, loss, int(rng.integers(2**31)))
    else:
        errors = [_errors(reference, rows, loss) for rows in kept]
    environment = torch.repeat_interleave(torch.tensor([len(rows) for rows in kept]))
    weights = torch.cat([rows.shares for rows in kept])
    wrong = errs(torch.from_numpy(np.concatenate(errors)), loss)
    found = certify(wrong, environment, len(kept), weights)
    frame = pd.DataFrame(
        {
            "environment": [rows.name for rows in kept],
            "rows": [len(rows) for rows in kept],
            "frequency": found.frequencies,
        }
    )
    spread = f"{100 * min(found.frequencies):.1f} to {100 * max(found.frequencies):.1f} %"
    misses = "gets wrong" if loss.kind == "classes" else "misses by more than on the median row"
    if found.holds:
        text = (
            f"The rows that pooled training {misses} are {spread} of an environment, a difference "
            f"beyond chance (p = {found.p_value:.1g}): comparing environments can show what "
            "misleads it. Unequal noise in the environments would look the same."
        )
        return Finding(name, title, text + without, NOTHING, "good", frame)
    text = (
        f"The rows that pooled training {misses} are about as frequent in every environment "
        f"({spread}, p = {found.p_value:.2g}). As far as these rows show, the environments do not "
        "differ in what it gets wrong: no method can then tell a shortcut from a cause by "
        "comparing them, and pooled training is as good a choice."
    )
    action = "Collect rows from environments that differ more, or train on the pooled rows."
    return Finding(name, title, text + without, action, "warning", frame)


def _errors(model: nn.Module, rows: EnvironmentRows, loss: Loss) -> Floats:
    found: Floats = loss.errors(forward(model, rows.x).double(), rows.y).double().numpy()
    return found


def out_of_fold_errors(parts: Sequence[EnvironmentRows], loss: Loss, seed: int) -> list[Floats]:
    """Errors [n_e] of a linear model fitted on the pooled rows of the other four folds.

    0-1 errors, or squared residuals for a regression. Every environment is dealt evenly to the
    folds.
    """
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.model_selection import StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x = np.concatenate([_columns(rows) for rows in parts])
    y = np.concatenate([rows.y.numpy() for rows in parts])
    # In pooled training a row counts by its weight, an environment by its rows.
    weights = np.concatenate([rows.shares.numpy() * len(rows) for rows in parts])
    environment = np.repeat(np.arange(len(parts)), [len(rows) for rows in parts])
    errors = np.empty(len(y))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    for inside, outside in folds.split(x, environment):
        if loss.kind == "classes" and len(np.unique(y[inside])) == 1:
            errors[outside] = y[outside] != y[inside][0]
            continue
        step = LogisticRegression(max_iter=1000) if loss.kind == "classes" else Ridge()
        model = make_pipeline(StandardScaler(), step)
        own = {f"{model.steps[-1][0]}__sample_weight": weights[inside]}
        predicted = model.fit(x[inside], y[inside], **own).predict(x[outside])
        if loss.kind == "classes":
            errors[outside] = predicted != y[outside]
        else:
            squares = (predicted - y[outside]).reshape(len(outside), -1) ** 2
            errors[outside] = squares.mean(axis=1)
    return np.split(errors, np.cumsum([len(rows) for rows in parts])[:-1])


def _columns(rows: EnvironmentRows) -> Floats:
    """What the regression reads: the columns, or what describes images."""
    dense, shape = as_rows(rows.x).dense(), image_shape(rows.x)
    if shape is not None:
        dense = ImageFeatures()(dense.reshape(len(rows), *shape))
    found: Floats = dense.flatten(1).to(torch.float64).numpy()
    return found
