"""Whether environments ask for other inner features."""

from __future__ import annotations

import copy
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
from invlearn.diagnostics.similarity import activations, pwcca, representation
from invlearn.diagnostics.work import affordable, seconds_of_a_row
from invlearn.errors import OptionError
from invlearn.features import concatenate
from invlearn.losses import Loss

STEPS, LEARNING_RATE, TUNING_ROWS, FEWEST_ROWS = 20, 1e-3, 2000, 100

SECONDS = 20.0
"""About how much work of one core the steps may be, by `seconds_of_a_row`."""

PASSES = 3
"""Forward passes that a step is worth."""

TIMES = 2.0
"""How many times the least change matters: alike environments stay below about 1.7."""

NO_CHANGE = 1e-3
"""Smaller changes are taken for this one: too small to be compared."""


def representation_drift(
    model: nn.Module, parts: Sequence[PredictedRows], loss: Loss, *, rng: np.random.Generator
) -> Finding:
    """How far a few training steps on one environment move the model's representation.

    A copy of the model takes 20 full-batch Adam steps (learning rate 1e-3) on one environment;
    `pwcca` compares its representation with the model's on the rows of all environments. How
    far so few steps go depends on the model most of all, so each environment is compared with
    the one that moves the representation least. A weak hint: small ratios rule nothing out.

    Parameters
    ----------
    model : nn.Module
    parts : sequence of PredictedRows
        At most 2,000 rows of an environment are used, fewer where a step takes long.
    loss : Loss
    rng : numpy Generator

    Returns
    -------
    Finding
        'representation-similarity': environment, rows, similarity, times the least change. A
        note where an environment changes the representation over twice as much as another.
    """
    name, title = "representation-similarity", "Whether environments ask for other inner features"
    kept, without = usable(parts, loss)
    if len(kept) < 2:
        return unanswered(name, title, too_few(2, kept, without))
    each = seconds_of_a_row(model, kept[0].x[:64]) * PASSES * STEPS * len(kept)
    most = affordable(TUNING_ROWS, FEWEST_ROWS, each, SECONDS)
    drawn = [draw_rows(rows, most, rng) for rows in kept]
    x = concatenate([rows.x for rows in drawn])
    try:
        if len(activations(model, x[:2])) == 1:
            return unanswered(name, title, "a model of one layer has no inner features.")
        before = representation(model, x)
        after = [representation(_tuned(model, rows, loss), x) for rows in drawn]
        similarity = np.array([pwcca(before, features) for features in after])
    except OptionError as error:
        return unanswered(name, title, str(error))
    change = np.maximum(1 - similarity, NO_CHANGE)
    times = change / change.min()
    frame = pd.DataFrame(
        {
            "environment": [rows.name for rows in drawn],
            "rows": [len(rows) for rows in drawn],
            "similarity": similarity,
            "times the least change": times,
        }
    )
    if any(len(rows) > most for rows in kept):
        without += f" At most {most} rows of an environment were used."
    apart = [rows.label for rows, more in zip(drawn, times, strict=True) if more > TIMES]
    if apart:
        text = (
            f"A few training steps on {listed(apart)} change what the model computes inside up "
            f"to {times.max():.1f} times as much as steps on "
            f"{drawn[int(times.argmin())].label}: other features would serve better "
            f"there.{without}"
        )
        action = "See which columns change their effect there."
        return Finding(name, title, text, action, "note", frame)
    text = (
        "A few training steps on any one environment change what the model computes inside about "
        f"equally little (similarity {similarity.min():.3f} or more, 1 is the same).{without}"
    )
    return Finding(name, title, text, NOTHING, "good", frame)


def _tuned(model: nn.Module, rows: PredictedRows, loss: Loss) -> nn.Module:
    """A copy of the model after a few steps on the rows."""
    tuned = copy.deepcopy(model).eval().requires_grad_(True)
    optimizer = torch.optim.Adam(tuned.parameters(), lr=LEARNING_RATE)
    for _ in range(STEPS):
        optimizer.zero_grad()
        risk = rows.shares @ loss.value(tuned(rows.x), rows.y).to(torch.float64)
        risk.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return tuned
