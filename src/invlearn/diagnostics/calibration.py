"""Whether the model's score means the same in every environment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from torch import Tensor

from invlearn.diagnostics.findings import (
    NOTHING,
    Finding,
    PredictedRows,
    listed,
    too_few,
    unanswered,
    usable,
)
from invlearn.diagnostics.intervals import (
    Floats,
    Interval,
    interval,
    normal_bound,
    resampled_means,
    widest_gap,
)
from invlearn.losses import Loss

BINS = 10

SLOPES_APART = 0.2
"""A difference of slopes that matters."""

_PENALTY = 1e-4
"""Pull of the slope towards 1, so that a perfect separation has a finite one."""


class Slope(NamedTuple):
    """Slope of the targets on the model's score, and its bootstrap interval."""

    value: float
    span: Interval


def calibration(
    parts: Sequence[PredictedRows], loss: Loss, *, draws: int, rng: np.random.Generator
) -> Finding:
    """Calibration of the model in each environment, and whether its slope is the same in all.

    The slope is that of the targets on the model's score: of a logistic regression on the logit
    (two classes), the inverse temperature (several), of least squares on the prediction
    (regression). 1 is right; below 1 the score is too extreme. It warns where the slopes of two
    environments differ beyond chance and by more than 0.2; a slope that is so off from 1 is a
    note.

    Parameters
    ----------
    parts : sequence of PredictedRows
    loss : Loss
    draws : int
        Bootstrap draws.
    rng : numpy Generator

    Returns
    -------
    Finding
        'calibration': environment, rows, calibration error (10 equal-count bins; a
        classification) or bias with 'low' and 'high' (mean of prediction less target; a
        regression), slope with 'low' and 'high'.

    References
    ----------
    Wald et al. (2021), arXiv 2102.10395, on calibration in several environments; Guo et al.
    (2017), arXiv 1706.04599, on calibration error and temperature.
    """
    name, title = "calibration", "Whether a score means the same in every environment"
    if loss.kind == "unknown":
        return unanswered(name, title, "calibration is not defined for a custom loss.")
    kept, without = usable(parts, loss, varied=True)
    flat = [rows.label for rows in kept if float(rows.z.std(0).max()) == 0]
    kept = [rows for rows in kept if float(rows.z.std(0).max()) > 0]
    if flat:
        without += f" Without {listed(flat)} (the model's output is constant)."
    if not kept:
        return unanswered(name, title, too_few(1, kept, without))
    if loss.kind == "numbers" and kept[0].z.shape[1] > 1:
        return unanswered(name, title, "it is made for one target column, there are several.")
    frame, slopes = _measured(kept, loss, draws, rng)
    values = np.array([slope.value for slope in slopes])
    if len(kept) > 1:
        gap = widest_gap(values, np.array([slope.span.standard_error for slope in slopes]))
        if gap.clear and gap.difference > SLOPES_APART:
            text = (
                f"The same score means different things: its slope is {values[gap.lower]:.2f} in "
                f"{kept[gap.lower].label} and {values[gap.higher]:.2f} in "
                f"{kept[gap.higher].label} (1 is right), more than chance. Where the slope is "
                f"lower, a high score is worth less.{without}"
            )
            action = (
                "Do not set one threshold on the score for all environments; see which features "
                "change their meaning."
            )
            return Finding(name, title, text, action, "warning", frame)
    bound = normal_bound(len(kept))
    off = [
        rows.label
        for rows, slope in zip(kept, slopes, strict=True)
        if abs(slope.value - 1) > max(bound * slope.span.standard_error, SLOPES_APART)
    ]
    between = f"between {values.min():.2f} and {values.max():.2f} (1 is right)"
    if off:
        text = f"The score's slope lies {between}; it is off in {listed(off)}.{without}"
        action = "Recalibrate the score on held-out rows before reading it as a probability."
        if loss.kind == "numbers":
            action = "Refit the scale of the predictions on held-out rows."
        return Finding(name, title, text, action, "note", frame)
    text = (
        f"A score means about the same everywhere: its slope lies {between}, with no difference "
        f"that is both beyond chance and large.{without}"
    )
    return Finding(name, title, text, NOTHING, "good", frame)


def _measured(
    kept: Sequence[PredictedRows], loss: Loss, draws: int, rng: np.random.Generator
) -> tuple[pd.DataFrame, list[Slope]]:
    """The finding's table, and the slopes in it."""
    table, slopes = [], []
    for rows in kept:
        shares = rows.shares.numpy()
        row: dict[str, object] = {"environment": rows.name, "rows": len(rows)}
        if loss.kind == "numbers":
            residual = (rows.z[:, 0] - rows.y.reshape(len(rows)).double()).numpy()
            span = interval(resampled_means(residual, shares, draws, rng))
            bias = float(shares @ residual)
            row |= {"bias": bias, "bias low": span.low, "bias high": span.high}
        else:
            row["calibration error"] = calibration_error(rows.z, rows.y, rows.shares)
        slope = calibration_slope(rows, loss, draws=draws, rng=rng)
        row |= {"slope": slope.value, "slope low": slope.span.low, "slope high": slope.span.high}
        table.append(row)
        slopes.append(slope)
    return pd.DataFrame(table), slopes


def calibration_error(z: Tensor, y: Tensor, shares: Tensor) -> float:
    r"""Expected calibration error over 10 equal-count bins.

    .. math:: \sum_b s_b \, |\bar p_b - \bar o_b|

    with p the probability of class 1 and o whether it came (one output), or p the largest
    probability and o whether that class came (several). Equal probabilities share a bin.

    Parameters
    ----------
    z : Tensor [n, k]
    y : Tensor [n]
    shares : Tensor [n]
        Row weights that sum to 1.

    Examples
    --------
    >>> import torch
    >>> z, y = torch.zeros(4, 1), torch.tensor([0, 1, 1, 1])
    >>> calibration_error(z, y, torch.full((4,), 0.25))
    0.25
    """
    logits = z.double().reshape(len(y), -1)
    if logits.shape[1] == 1:
        probability, outcome = logits[:, 0].sigmoid(), y.double()
    else:
        probability, best = logits.softmax(1).max(1)
        outcome = (best == y).double()
    p = probability.numpy()
    # A bin takes the rows below its quantile whole: ties sorted by row would fake an error.
    inner = np.unique(np.quantile(p, np.arange(1, BINS) / BINS))
    bins = np.searchsorted(inner, p, side="left")
    missed = np.bincount(bins, (shares.double() * (probability - outcome)).numpy())
    return float(np.abs(missed).sum())


def calibration_slope(
    rows: PredictedRows, loss: Loss, *, draws: int, rng: np.random.Generator
) -> Slope:
    """Slope of the targets on the score in one environment; see `calibration`.

    The interval is of one Newton step from the estimate in each bootstrap draw: for least
    squares the draw's own estimate, else a close approximation that needs no refit. The draws
    are spread, if need be, to the standard error that the model itself has on these rows.

    Parameters
    ----------
    rows : PredictedRows
        With outputs that are not constant.
    loss : Loss
        Over classes or numbers.
    draws : int
    rng : numpy Generator
    """
    z, y, shares = rows.z.numpy(), rows.y.numpy(), rows.shares.numpy()
    several = loss.kind == "classes" and rows.z.shape[1] > 1
    # In units of the score's spread the problem is well scaled; the slope is rescaled after.
    scale = float(z.std()) or 1.0
    u = z / scale
    # A logit's intercept needs it too where a draw's rows are all far from the threshold.
    free = 0.0 if loss.kind == "numbers" else _PENALTY
    pull = np.diag([_PENALTY] if several else [free, _PENALTY])
    target = np.array([scale] if several else [0.0, scale])
    if not several:
        u = u.reshape(len(y), 1)
        u = np.concatenate([np.ones_like(u), u], axis=1)
        y = y.reshape(len(y)).astype(np.float64)

    def mean_of(theta: Floats) -> tuple[float, Floats, Floats]:
        value, gradient, hessian = _derivatives(theta, u, y, loss.kind)
        away = theta - target
        return (
            float(shares @ value + away @ pull @ away / 2),
            shares @ gradient + pull @ away,
            np.tensordot(shares, hessian, 1) + pull,
        )

    from scipy.optimize import minimize

    fitted: Floats = minimize(
        lambda theta: mean_of(theta)[0],
        target,
        jac=lambda theta: mean_of(theta)[1],
        hess=lambda theta: mean_of(theta)[2],
        method="trust-exact",
        options={"gtol": 1e-9},
    ).x
    _, gradient, hessian = _derivatives(fitted, u, y, loss.kind)
    width = len(fitted)
    drawn = resampled_means(
        np.concatenate([gradient, hessian.reshape(len(y), -1)], axis=1), shares, draws, rng
    )
    gradients = drawn[:, :width] + pull @ (fitted - target)
    hessians = drawn[:, width:].reshape(-1, width, width) + pull
    moved = -np.linalg.solve(hessians, gradients[:, :, None])[:, -1, 0]
    # Where few rows carry the slope, or the rarer class, the draws may hardly differ by chance.
    bread = np.linalg.inv(np.tensordot(shares, hessian, 1) + pull)
    noise = float(shares @ (u @ fitted - y) ** 2) if loss.kind == "numbers" else 1.0
    variance = noise * (bread @ np.tensordot(shares**2, hessian, 1) @ bread)[-1, -1]
    moved *= max(1.0, float(np.sqrt(variance)) / max(float(moved.std(ddof=1)), 1e-300))
    return Slope(float(fitted[-1]) / scale, interval((fitted[-1] + moved) / scale))


def _derivatives(
    theta: Floats, u: Floats, y: npt.NDArray[Any], kind: str
) -> tuple[Floats, Floats, Floats]:
    """Value [n], gradient [n, p] and Hessian [n, p, p] of each row's loss in the parameters.

    u: the outputs [n, k] of several classes, which one parameter scales, or [n, 2] of 1 and the
    score.
    """
    from scipy.special import expit, logsumexp, softmax

    if len(theta) == 1:
        score, own = theta[0] * u, u[np.arange(len(y)), y]
        p = softmax(score, axis=1)
        mean = (p * u).sum(1)
        curve = (p * (u - mean[:, None]) ** 2).sum(1)
        value = logsumexp(score, axis=1) - theta[0] * own
        return value, (mean - own)[:, None], curve[:, None, None]
    score = u @ theta
    if kind == "classes":
        p = expit(score)
        value, slope, curve = np.logaddexp(0, score) - y * score, p - y, p * (1 - p)
    else:
        value, slope, curve = (score - y) ** 2 / 2, score - y, np.ones(len(y))
    return value, slope[:, None] * u, curve[:, None, None] * u[:, :, None] * u[:, None, :]
