"""Which pieces of a row the model relies on in each environment, and whether that helps there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

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
from invlearn.diagnostics.pieces import Piece
from invlearn.diagnostics.work import affordable, seconds_of_a_row
from invlearn.evaluation import evaluating, forward
from invlearn.features import as_rows
from invlearn.losses import Loss

PERMUTATIONS = 5

ROWS, FEWEST_ROWS = 1000, 20
"""Rows of an environment whose pieces are permuted: fewer where a model is slow."""

SECONDS = 20.0
"""About how much work of one core there may be, by `seconds_of_a_row`."""

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
    pieces: Sequence[Piece],
    *,
    rng: np.random.Generator,
) -> Finding:
    """Increase of the risk when a piece of the rows is permuted within an environment.

    Permuting takes what the piece (a column, a patch or channel of images) says about the row
    away. Where that raises the risk the model relies on the piece and is right to; where it
    lowers the risk the model relies on it and is misled. Pieces that go together are permuted
    apart, so each may look dispensable.

    Parameters
    ----------
    model : nn.Module
    parts : sequence of PredictedRows
        At most 1,000 rows of an environment are used, fewer (but 20) and fewer columns where a
        pass through the model takes long.
    loss : Loss
    pieces : sequence of Piece
        See `pieces_of`.
    rng : numpy Generator

    Returns
    -------
    Finding
        'feature-reliance': feature, 'increase in' each environment, verdict; at most 30
        features, most conflicting first. An increase is clear beyond its standard error's
        Bonferroni bound over features and environments, and over 1 % of the risk. It warns
        where a feature clearly helps in one environment and clearly hurts in another.
    """
    noun = "part" if any(len(piece.columns) > 1 for piece in pieces) else "column"
    name, title = "feature-reliance", f"Which {noun}s the model relies on, and where that hurts"
    if not pieces:
        return unanswered(name, title, "rows are neither columns nor images.")
    kept, without = usable(parts, loss)
    if not kept:
        return unanswered(name, title, too_few(1, kept, without))
    drawn, pieces, note = _affordable(model, kept, pieces, noun, rng)
    without += note
    increases, signs = _increases(model, drawn, pieces, loss, rng)
    helps, hurts = (signs > 0).any(1), (signs < 0).any(1)
    verdicts = np.select([helps & hurts, hurts, helps], [0, 1, 2], 3)
    order = np.lexsort((-np.abs(increases).max(1), verdicts))
    frame = pd.DataFrame({"feature": [pieces[j].name for j in order]})
    for e, rows in enumerate(drawn):
        frame[f"increase in {rows.name}"] = increases[order, e]
    frame["verdict"] = [_ORDER[verdicts[j]] for j in order]
    shown = frame.head(SHOWN)
    if len(frame) > SHOWN:
        without += f" The table shows {SHOWN} {noun}s."

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
    relied = f"relies on {listed(helping)}" if helping else f"clearly relies on no single {noun}"
    text = f"The model {relied}; no {noun} misleads it in any environment.{without}"
    return Finding(name, title, text, NOTHING, "good", shown)


def _affordable(
    model: nn.Module,
    kept: Sequence[PredictedRows],
    pieces: Sequence[Piece],
    noun: str,
    rng: np.random.Generator,
) -> tuple[list[PredictedRows], Sequence[Piece], str]:
    """The rows and pieces that there is time for, and a sentence on what was left out."""
    few = kept[0].take(torch.arange(min(len(kept[0]), 64)))
    each = seconds_of_a_row(model, as_rows(few.x).dense()) * PERMUTATIONS * len(kept)
    count = len(pieces)
    if noun == "column":
        count = min(affordable(COLUMNS, SHOWN, each * ROWS, SECONDS), count)
    most, note = affordable(ROWS, FEWEST_ROWS, each * count, SECONDS), ""
    if any(len(rows) > most for rows in kept):
        note = f" At most {most} rows of an environment were used."
    drawn = [draw_rows(rows, most, rng) for rows in kept]
    if count < len(pieces):
        note += f" Of {len(pieces)} columns the {count} used most were permuted."
        pieces = _most_used(model, drawn, pieces, count, rng)
    return drawn, pieces, note


def _increases(
    model: nn.Module,
    drawn: Sequence[PredictedRows],
    pieces: Sequence[Piece],
    loss: Loss,
    rng: np.random.Generator,
) -> tuple[Floats, Floats]:
    """Increases [piece, environment] of the risk, and their signs, 0 where none is clear."""
    bound = normal_bound(len(drawn) * len(pieces))
    increases, signs = np.zeros((2, len(pieces), len(drawn)))
    for e, rows in enumerate(drawn):
        risk = float(rows.shares @ rows.losses(loss))
        repeated = repeated_rows(rows)
        for j, piece in enumerate(pieces):
            increase, error = permutation_increase(model, rows, repeated, piece, loss, rng)
            clear = abs(increase) > bound * error and abs(increase) > SHARE * abs(risk)
            increases[j, e], signs[j, e] = increase, np.sign(increase) * clear
    return increases, signs


def repeated_rows(rows: PredictedRows) -> Tensor:
    """The rows once for each permutation [permutations * n, ...], to permute pieces in."""
    dense = as_rows(rows.x).dense()
    return dense.repeat(PERMUTATIONS, *[1] * (dense.ndim - 1))


def permutation_increase(
    model: nn.Module,
    rows: PredictedRows,
    repeated: Tensor,
    piece: Piece,
    loss: Loss,
    rng: np.random.Generator,
) -> tuple[float, float]:
    """Mean increase of the risk over five permutations of a piece, and its standard error.

    The error is for other rows, not only other permutations. A row counts twice, by what it
    receives and by what its value does to the rows that receive it. `repeated` is what
    `repeated_rows` gives, and is so again afterwards.
    """
    n = len(rows)
    orders = torch.from_numpy(np.stack([rng.permutation(n) for _ in range(PERMUTATIONS)]))
    flat = repeated.view(len(repeated), -1)
    before_it = flat[:, piece.columns]
    flat[:, piece.columns] = before_it[orders.flatten()]
    z = forward(model, repeated).to(torch.float64)
    flat[:, piece.columns] = before_it
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
    model: nn.Module,
    parts: Sequence[PredictedRows],
    pieces: Sequence[Piece],
    count: int,
    rng: np.random.Generator,
) -> list[Piece]:
    """The columns whose permutation moves the output most, to first order.

    One backward pass for each output knows of all columns; a pass for each of thousands of
    columns would take minutes.
    """
    few = [draw_rows(rows, PROBED_ROWS, rng) for rows in parts]
    x = torch.cat([as_rows(rows.x).dense() for rows in few]).detach().requires_grad_()
    with evaluating(model), torch.enable_grad():
        z = model(x).reshape(len(x), -1) + 0 * x.sum()  # Of a model that reads nothing too.
        slopes = [torch.autograd.grad(out.sum(), x, retain_graph=True)[0] for out in z.T]
    change = x.detach()[torch.from_numpy(rng.permutation(len(x)))] - x.detach()
    moved = torch.stack([(slope * change).abs().mean(0) for slope in slopes]).mean(0).numpy()
    return [pieces[j] for j in sorted(np.argsort(-moved, kind="stable")[:count].tolist())]
