"""Whether one last layer suits every environment, or each asks for its own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor, nn

from invlearn.diagnostics.findings import (
    NOTHING,
    Finding,
    Level,
    PredictedRows,
    draw_rows,
    listed,
    too_few,
    unanswered,
    usable,
)
from invlearn.diagnostics.intervals import interval, normal_bound, resampled_means
from invlearn.diagnostics.similarity import activations, representation
from invlearn.errors import OptionError
from invlearn.losses import Loss

FOLDS = 5

ROWS, FEWEST_ROWS = 4000, 500
"""Rows of an environment that a last layer is refitted on, and evaluated on."""

VALUES = 4 * 10**6
"""Numbers it is refitted on: of wide layers fewer rows are used."""

PENALTIES = (10.0, 1.0, 0.1, 0.01, 0.001)
"""L2 penalties on the change of the last layer, strongest first: each starts the next."""

SHARE = 0.05
"""A share of the risk that a refit has to save to matter."""


def invariance_gap(
    model: nn.Module,
    parts: Sequence[PredictedRows],
    loss: Loss,
    *,
    draws: int,
    rng: np.random.Generator,
) -> Finding:
    r"""How much a last layer made for one environment would save there.

    .. math:: \mathrm{gap}_e = R_e(w \circ \Phi) - R_e^{cv}(\hat w_e \circ \Phi)

    with Φ the frozen representation, w the model's last layer and ŵ_e one refitted in
    environment e, whose risk is that of 5-fold cross-validation inside e: a refit gains nothing
    by learning rows by heart. Invariant Risk Minimization asks for a gap of zero in every
    environment. A refit is a linear correction on top of the model's own output, penalized by
    its size, so that it starts at the model and leaves it only where rows ask for that; of five
    penalties each fold takes the one with which the other folds' rows do best.

    Parameters
    ----------
    model : nn.Module
    parts : sequence of PredictedRows
        Its rows and outputs; at most 4,000 of an environment are used.
    loss : Loss
    draws : int
        Bootstrap draws.
    rng : numpy Generator

    Returns
    -------
    Finding
        'invariance-gap': environment, rows, risk, refitted risk, gap with 'low' and 'high'. It
        warns where a gap is beyond chance and over 5 % of the risk. A model of one layer has no
        representation but its input, on which a refit may use what the model rightly leaves
        alone: then the finding is never more than a note.
    """
    name, title = "invariance-gap", "Whether one classifier suits every environment"
    kept, without = usable(parts, loss, varied=True)
    if not kept:
        return unanswered(name, title, too_few(1, kept, without))
    try:
        layers = _layers(model, kept[0])
    except OptionError as error:
        return unanswered(name, title, str(error))
    if not layers:
        return unanswered(name, title, "the model does not end in a linear layer.")
    width = representation(model, kept[0].x[:1]).shape[1]
    most = min(ROWS, max(VALUES // width, FEWEST_ROWS))
    frame, clear = _gaps(model, kept, loss, draws, rng, most)
    if any(len(rows) > most for rows in kept):
        without += f" At most {most} rows of an environment were used."
    if not any(clear):
        text = (
            "In no environment would a last layer made for it do clearly better: what the model "
            f"computes before its last layer means about the same everywhere.{without}"
        )
        return Finding(name, title, text, NOTHING, "good", frame)
    where = listed([rows.label for rows, sure in zip(kept, clear, strict=True) if sure])
    worst = frame.iloc[int(frame["gap"].argmax())]
    text = (
        f"In {where} a last layer made for that environment would do clearly better: it would "
        f"save {100 * worst['gap'] / worst['risk']:.0f} % of the risk in '{worst['environment']}'."
    )
    level: Level = "warning"
    action = (
        "See which features change their effect, drop them or train with a larger penalty; if it "
        "is so in every environment, check first that training was not stopped early."
    )
    if len(layers) == 1:
        level = "note"
        text += (
            " This model has one layer only, so this says that the columns' meaning changes "
            "between environments, not that the model relies on it."
        )
        action = "See which columns the model relies on and whether they help everywhere."
    else:
        text += " What the model computes before it still carries something whose meaning changes."
    return Finding(name, title, text + without, action, level, frame)


def _gaps(
    model: nn.Module,
    kept: Sequence[PredictedRows],
    loss: Loss,
    draws: int,
    rng: np.random.Generator,
    most: int,
) -> tuple[pd.DataFrame, list[bool]]:
    """The finding's table, and where the gap is beyond chance and large."""
    table, clear = [], []
    for whole in kept:
        rows = draw_rows(whole, most, rng)
        shares, losses = rows.shares.numpy(), rows.losses(loss)
        refitted = refitted_losses(representation(model, rows.x), rows, loss, rng)
        saved = (losses - refitted).numpy()
        span = interval(resampled_means(saved, shares, draws, rng))
        risk, gap = float(rows.shares @ losses), float(shares @ saved)
        sure = gap > normal_bound(len(kept)) * span.standard_error and gap > SHARE * abs(risk)
        clear.append(sure)
        table.append(
            {
                "environment": rows.name,
                "rows": len(rows),
                "risk": risk,
                "refitted risk": risk - gap,
                "gap": gap,
                "gap low": span.low,
                "gap high": span.high,
            }
        )
    return pd.DataFrame(table), clear


def _layers(model: nn.Module, rows: PredictedRows) -> list[str]:
    """Names of the model's layers; none where its output is not that of a linear last one."""
    found = activations(model, rows.x[:100])
    last = dict(model.named_modules()).get(list(found)[-1], model)
    z, output = rows.z[:100], found[list(found)[-1]].double()
    same = output.shape == z.shape and torch.allclose(output, z, rtol=1e-4, atol=1e-5)
    return list(found) if isinstance(last, nn.Linear) and same else []


def refitted_losses(
    features: Tensor, rows: PredictedRows, loss: Loss, rng: np.random.Generator
) -> Tensor:
    """Loss of every row [n] under a last layer refitted without the row's fold.

    Parameters
    ----------
    features : Tensor [n, p]
        The frozen representation; it is standardized here.
    rows : PredictedRows
        With the outputs that the refits correct.
    loss : Loss
    rng : numpy Generator
        Deals the rows to five folds (each class evenly).
    """
    h = features.to(torch.float64)
    h = h - rows.shares @ h
    spread = (rows.shares @ h.square()).sqrt()
    used = spread > 1e-6 * spread.max().clamp(min=1e-12)
    h = h[:, used] / spread[used]
    if h.shape[1] > len(h):
        # Penalized refits lie in the span of the rows: in its own coordinates they are the same.
        u, s, _ = torch.linalg.svd(h, full_matrices=False)
        h = u * s
    order = rng.permutation(len(rows))
    if loss.kind == "classes":
        order = order[np.argsort(rows.y.numpy()[order], kind="stable")]
    fold = np.empty(len(rows), dtype=np.int64)
    fold[order] = np.arange(len(rows)) % FOLDS
    losses = torch.empty(len(PENALTIES), len(rows), dtype=torch.float64)
    for f in range(FOLDS):
        inside, outside = _positions(fold != f), _positions(fold == f)
        change = h.new_zeros(h.shape[1] + 1, rows.z.shape[1])
        for i, penalty in enumerate(PENALTIES):
            change = _refit(h[inside], rows.take(inside), loss, penalty, change)
            z = rows.z[outside] + h[outside] @ change[1:] + change[0]
            losses[i, outside] = loss.value(z, rows.y[outside]).to(torch.float64)
    chosen = torch.empty(len(rows), dtype=torch.float64)
    for f in range(FOLDS):
        others, own = _positions(fold != f), _positions(fold == f)
        best = int((losses[:, others] @ rows.shares[others]).argmin())
        chosen[own] = losses[best, own]
    return chosen


def _positions(mask: npt.NDArray[np.bool_]) -> Tensor:
    return torch.from_numpy(np.flatnonzero(mask))


def _refit(h: Tensor, rows: PredictedRows, loss: Loss, penalty: float, start: Tensor) -> Tensor:
    """Change [1 + p, k] of the intercept and weights that minimizes the penalized risk."""
    change = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [change], max_iter=100, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        z = rows.z + h @ change[1:] + change[0]
        risk = rows.shares @ loss.value(z, rows.y).to(torch.float64)
        total: Tensor = risk + penalty / 2 * change[1:].square().sum()
        total.backward()  # type: ignore[no-untyped-call]
        return total

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return change.detach()
