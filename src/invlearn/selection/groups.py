"""Rules that read two groups of rows, one of which a shortcut misleads.

The environment says little about a single row's shortcut, so a gap between environments is a
noisy statistic. Whether a reference ERM errs on a row says much; whether that is a shortcut,
the environments can certify: its errors then come with another frequency in each. Where the
groups' errors agree, the predictor does not lean on what misled the reference.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from invlearn.errors import OptionError
from invlearn.outputs import Outputs
from invlearn.selection.gaps import Gaps, gaps
from invlearn.selection.rules import Choice, Note, agreeing_steps, mean_table, risks_agree, step_of

NORMAL = 1.96
"""Two-sided 5 % point of the normal distribution."""

_ROUNDING = 1e-9
"""Equal errors differ by less than this."""

_MISLED = {"reference": "mislead the reference", "inner-step": "a pooled step hurts"}


def groups_agree(
    curves: pd.DataFrame,
    target: str = "",
    outputs: Outputs | None = None,
    *,
    source: str = "reference",
    splits: Sequence[str] = ("train", "validation"),
    margin: float = 0.05,
    patience: int = 10,
    min_step: int = 1,
) -> Choice:
    """The last steps at which the groups' errors agree; the one where they do most nearly.

    A step agrees when its difference of errors lies within 1.96 standard errors of zero, or
    within three times that where zero lies between it and its neighbor's and it is the nearer
    of the two; its risk has to beat a constant predictor's clearly. Among the last agreeing
    steps (with fewer than `patience` others in a row between them) the one is taken whose
    difference is nearest to zero.

    Parameters
    ----------
    curves : DataFrame
        Of one run.
    target : str
        Not read.
    outputs : Outputs
        Of the same run.
    source : 'reference' or 'inner-step'
        See `gaps`.
    splits : sequence of str
        Whose rows are read; those that were not kept are left out.
    margin : float
        Share by which the mean validation risk has to beat the best constant's.
    patience : int
        So many evaluations in a row without agreement set the last agreeing steps apart.
    min_step : int
        Earlier steps are not considered; step 0 is the untrained model.

    Returns
    -------
    Choice
        With the difference of errors along the steps. Where the environments do not certify the
        groups, the choice of the rule 'risks-agree' with a note; where no step agrees, the last
        step, with ``satisfied=False``.
    """
    found, steps = _read(outputs, source, splits)
    beats = mean_table(curves, "validation", "risk") <= (1 - margin) * mean_table(
        curves, "validation", "constant_risk"
    )
    beats = beats.reindex(steps, fill_value=False) & (steps >= min_step)
    allowed = beats & found.certified
    if beats.any() and not allowed.any():
        instead = risks_agree(curves, target, margin=margin, min_step=min_step)
        return _not_identifiable(found, source, instead)
    statistic = pd.Series(found.difference, index=steps)
    bound = pd.Series(NORMAL * found.standard_error, index=steps)
    episode = _last_episode(agreeing_steps(statistic, bound) & allowed.to_numpy(), patience)
    if not len(episode):
        return Choice(int(steps[-1]), False, statistic, bound)
    best = episode[int(np.argmin(np.abs(found.difference[episode])))]
    return Choice(int(steps[best]), True, statistic, bound, latest=int(steps[episode[-1]]))


def lowest_worst_group(
    curves: pd.DataFrame,
    target: str = "",
    outputs: Outputs | None = None,
    *,
    source: str = "reference",
    splits: Sequence[str] = ("validation",),
    margin: float = 0.0,
    min_step: int = 1,
) -> Choice:
    """The step at which the worse-off of the two groups errs least, on validation rows.

    A predictor that leans on what misled the reference errs more where it did, one that bets
    against it errs more elsewhere. Unlike `groups_agree` this asks for no crossing, and how well
    the predictor does counts: its error has to be less than that of any constant one. Training
    rows are not read: they would favor whatever was learned by heart.

    Parameters
    ----------
    curves, target, outputs, source, splits, min_step
        See `groups_agree`.
    margin : float
        Share by which the error has to be less than that of the constant predictor which does
        best by its own worse-off group.

    Returns
    -------
    Choice
        With the larger of the two errors along the steps. Where the environments do not certify
        the groups, the choice of the rule 'risks-agree' with a note; where no step does better
        than a constant predictor, the last step, with ``satisfied=False``.

    References
    ----------
    Worst-group error is what GroupDRO (Sagawa et al., arXiv 1911.08731) minimizes and what
    Liu et al. (arXiv 2107.09044) select by, with groups that somebody labeled.
    """
    found, steps = _read(outputs, source, splits)
    late = pd.Series(steps >= min_step, index=steps)
    if not (late & found.certified).any():
        instead = risks_agree(curves, target, min_step=min_step)
        return _not_identifiable(found, source, instead)
    statistic = pd.Series(found.worst, index=steps)
    beats = statistic < (1 - margin) * found.constant - _ROUNDING
    allowed = late & found.certified & beats
    if not allowed.any():
        return Choice(int(allowed.index[-1]), False, statistic)
    step = step_of(statistic[allowed].idxmin())
    # Steps that could not be chosen say nothing about whether better ones will come.
    latest = max(step, *map(step_of, allowed.index[~allowed]), 0)
    return Choice(step, True, statistic, latest=latest)


def _read(
    outputs: Outputs | None, source: str, splits: Sequence[str]
) -> tuple[Gaps, pd.Index[int]]:
    """The groups' errors, over those of the splits that were kept; and the steps."""
    if outputs is None:
        raise OptionError(
            "Expected the outputs of the run beside its results, got none. Train with "
            "keep_outputs=('train', 'validation')."
        )
    present = [name for name in splits if name in outputs.splits]
    if "validation" not in present:
        raise OptionError("Expected outputs for validation rows, found none. Keep that split's.")
    return gaps(outputs, source, present), pd.Index(outputs.steps, name="step")


def _not_identifiable(found: Gaps, source: str, fallback: Choice) -> Choice:
    """What stands in where the environments certify no group."""
    shares = ", ".join(f"{100 * f:.1f} %" for f in found.certificate.frequencies)
    return fallback._replace(
        statistic=None,
        bound=None,
        note=Note(
            "not identifiable from these environments",
            "no difference was found in how often they hold the rows that " + _MISLED[source],
            shares,
            "'risks agree' chose instead",
        ),
    )


def _last_episode(good: npt.NDArray[np.bool_], patience: int) -> npt.NDArray[np.intp]:
    """Positions that hold, after the last stretch of at least `patience` that do not."""
    places = np.flatnonzero(good)
    starts = np.flatnonzero(np.diff(places) > patience)
    return places[starts[-1] + 1 :] if len(starts) else places
