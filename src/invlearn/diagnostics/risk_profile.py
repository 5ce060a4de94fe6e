"""How the model does in each environment; whether a constant or another scale would do as well."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from invlearn.diagnostics.findings import (
    NOTHING,
    Finding,
    Level,
    PredictedRows,
    listed,
    too_few,
    unanswered,
    usable,
)
from invlearn.diagnostics.intervals import interval, normal_bound, resampled_means, widest_gap
from invlearn.losses import Loss
from invlearn.metrics import METRICS, Metric, usual_metric

POINTS = 0.05
"""A difference of accuracies that matters."""

RATIO = 1.2
"""A ratio of errors that matters."""

SCALE = 0.1
"""How far from 1 the best scale of the output has to be to matter."""

BEST_SCALES = (-10.0, 10.0)
"""Where the best scale of the output is looked for."""


def risk_profile(
    parts: Sequence[PredictedRows], loss: Loss, *, draws: int, rng: np.random.Generator
) -> Finding:
    """Risk and accuracy (or root mean squared error) of the model in each environment.

    With 95 % percentile-bootstrap intervals over rows. It warns where two environments differ
    beyond chance, whichever pair is looked at, and by more than 5 points of accuracy or a fifth
    of the root mean squared error (of the risk, for a custom loss).

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
        'risk-profile': environment, rows, then each measure with its 'low' and 'high'.
    """
    name, title = "risk-profile", "How the model does in each environment"
    kept, without = usable(parts, loss)
    if not kept:
        return unanswered(name, title, too_few(1, kept, without))
    metric = usual_metric(loss.kind)
    shown = list(dict.fromkeys([METRICS["risk"], metric]))
    table, values, errors = [], [], []
    for rows in kept:
        shares = rows.shares.numpy()
        matrix = torch.stack([m.of_rows(loss, rows.z, rows.y).double() for m in shown], 1).numpy()
        found = resampled_means(matrix, shares, draws, rng)
        row: dict[str, object] = {"environment": rows.name, "rows": len(rows)}
        for m, mean, drawn in zip(shown, shares @ matrix, found.T, strict=True):
            value, span = m.of_mean(mean), interval(m.of_mean(drawn))
            row |= {m.title: value, f"{m.title} low": span.low, f"{m.title} high": span.high}
        table.append(row)
        values.append(float(value))
        errors.append(span.standard_error)
    frame = pd.DataFrame(table)
    if len(kept) == 1:
        only = f"{metric.title} {metric.show(values[0])} in {kept[0].label}"
        means_text = f"One environment only ({only}): nothing to compare.{without}"
        return Finding(name, title, means_text, "Add rows of other sources.", "note", frame)
    gap = widest_gap(np.array(values), np.array(errors))
    low, high = values[gap.lower], values[gap.higher]
    matters = high - low > POINTS if metric.percent else high > RATIO * low
    spans = (
        f"{metric.title} {metric.show(low)} in {kept[gap.lower].label} and "
        f"{metric.show(high)} in {kept[gap.higher].label}"
    )
    if gap.clear and matters:
        return Finding(
            name,
            title,
            f"The model does not do equally well everywhere: {spans}, a difference of "
            f"{_difference(metric, gap.difference)} ± {_difference(metric, gap.margin)}, "
            f"more than chance.{without}",
            "See below whether features change their meaning there; if none does, that "
            "environment is only harder.",
            "warning",
            frame,
        )
    reason = "too little to matter" if gap.clear else "within chance"
    text = f"The model does about equally well everywhere: {spans}, which is {reason}.{without}"
    return Finding(name, title, text, NOTHING, "good", frame)


def collapse(
    parts: Sequence[PredictedRows], loss: Loss, *, draws: int, rng: np.random.Generator
) -> Finding:
    """Whether the model's risk is below that of the best constant of each environment.

    Parameters
    ----------
    parts, loss, draws, rng
        As `risk_profile`.

    Returns
    -------
    Finding
        'collapse': environment, rows, risk with 'low' and 'high', constant risk.
    """
    name, title = "collapse", "Whether the model beats a constant answer"
    kept, without = usable(parts, loss, varied=True)
    if not kept:
        return unanswered(name, title, too_few(1, kept, without))
    table = []
    for rows in kept:
        losses, shares = rows.losses(loss).numpy(), rows.shares.numpy()
        span = interval(resampled_means(losses, shares, draws, rng))
        table.append(
            {
                "environment": rows.name,
                "rows": len(rows),
                "risk": float(shares @ losses),
                "risk low": span.low,
                "risk high": span.high,
                "constant risk": loss.constant_risk(rows.y, rows.shares),
            }
        )
    frame = pd.DataFrame(table)
    if not np.isfinite(frame["constant risk"]).all():
        return unanswered(name, title, "the best constant of a custom loss is not known.")
    lost = frame["risk"] >= frame["constant risk"]
    unsure = ~lost & (frame["risk high"] >= frame["constant risk"])
    level: Level = "warning" if lost.any() else "note" if unsure.any() else "good"
    which = {"warning": lost, "note": unsure, "good": lost}[level]
    where = listed([rows.label for rows, w in zip(kept, which, strict=True) if w] or [""])
    text = {
        "warning": f"In {where} the model is no better than one constant answer for every row "
        f"(the best constant of that environment).{without}",
        "note": f"In {where} it is not sure that the model is better than one constant answer "
        f"for every row.{without}",
        "good": f"In every environment the model is better than any constant answer.{without}",
    }[level]
    action = {
        "warning": "Do not use the model there; if it is so everywhere, training collapsed: use "
        "a smaller penalty or another step.",
        "note": "Gather more rows of these environments before trusting the model there.",
        "good": NOTHING,
    }[level]
    return Finding(name, title, text, action, level, frame)


def dummy_gradients(parts: Sequence[PredictedRows], loss: Loss) -> Finding:
    """Whether rescaling the model's output would lower its risk, in each environment.

    The mean dummy gradient is the derivative of the risk when the output is scaled by w, at
    w = 1. Positive: the output is too large (a classifier is too sure); negative: too small
    (too timid). It counts where it is beyond chance and the best scale is over a tenth away
    from 1. It warns where the output is too large in one environment and too small in
    another: then no one scale suits all of them. Of a classifier, the standard error is no
    less than that of a right scale.

    Parameters
    ----------
    parts : sequence of PredictedRows
    loss : Loss

    Returns
    -------
    Finding
        'dummy-gradient': environment, rows, dummy gradient, standard error, best scale (in
        -10 to 10; negative where the output points the wrong way), verdict.

    References
    ----------
    Arjovsky et al. (2019), arXiv 1907.02893, section 3.1.
    """
    name, title = "dummy-gradient", "Whether the model's output has the right scale"
    kept, without = usable(parts, loss)
    if not kept:
        return unanswered(name, title, too_few(1, kept, without))
    words = ("too sure", "too timid") if loss.kind == "classes" else ("too large", "too small")
    bound = normal_bound(len(kept))
    table = []
    large: list[str] = []
    small: list[str] = []
    for rows in kept:
        values = loss.dummy_gradient(rows.z, rows.y).sum(1).double()
        mean = float(rows.shares @ values)
        # With few rows of a class the values may hardly differ by chance.
        error = max(float((rows.shares * (values - mean)).norm()), _right_scale_error(rows, loss))
        scale = _best_scale(rows, loss)
        verdict = "right"
        if abs(mean) > bound * error and abs(scale - 1) > SCALE:
            verdict = words[0] if mean > 0 else words[1]
            (large if mean > 0 else small).append(rows.label)
        table.append(
            {
                "environment": rows.name,
                "rows": len(rows),
                "dummy gradient": mean,
                "standard error": error,
                "best scale": scale,
                "verdict": verdict,
            }
        )
    frame = pd.DataFrame(table)
    what = "The model is" if loss.kind == "classes" else "The model's predictions are"
    if large and small:
        text = (
            f"{what} {words[0]} in {listed(large)} and {words[1]} in {listed(small)}: no one "
            f"scale of the output suits all environments.{without}"
        )
        action = "See which features change their meaning; a larger penalty evens this out."
        return Finding(name, title, text, action, "warning", frame)
    if large or small:
        side = f"{words[0]} in {listed(large)}" if large else f"{words[1]} in {listed(small)}"
        verb = "shrinking" if large else "enlarging"
        text = f"{what} {side}: {verb} the output would lower the risk there.{without}"
        action = "Recalibrate the model on held-out rows."
        return Finding(name, title, text, action, "note", frame)
    text = f"In no environment would rescaling the output clearly lower the risk.{without}"
    return Finding(name, title, text, NOTHING, "good", frame)


def _right_scale_error(rows: PredictedRows, loss: Loss) -> float:
    """Standard error of the mean dummy gradient if the model's probabilities were right."""
    if loss.kind != "classes":
        return 0.0
    logits, p = loss.logits(rows.z), loss.probabilities(rows.z)
    mean = (p * logits).sum(1, keepdim=True)
    variance = (p * (logits - mean).square()).sum(1)
    return float((rows.shares.square() @ variance).sqrt())


def _best_scale(rows: PredictedRows, loss: Loss) -> float:
    from scipy.optimize import minimize_scalar

    if not bool(rows.z.any()):
        return 1.0

    def risk(scale: float) -> float:
        return float(rows.shares @ loss.value(scale * rows.z, rows.y).to(torch.float64))

    return float(minimize_scalar(risk, bounds=BEST_SCALES, method="bounded").x)


def _difference(metric: Metric, value: float) -> str:
    return f"{100 * value:.1f} points" if metric.percent else f"{value:.2g}"
