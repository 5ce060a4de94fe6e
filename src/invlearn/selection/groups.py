"""Rules that read two groups of rows, one of which a shortcut misleads.

The environment says little about a single row's shortcut, so a gap between environments is a
noisy statistic. Whether a reference ERM errs on a row says much; whether that is a shortcut,
the environments can certify: its errors then come with another frequency in each. Where the
groups' errors agree, the predictor does not lean on what misled the reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from scipy.stats import chi2, chi2_contingency
from torch import Tensor

from invlearn.errors import OptionError
from invlearn.losses import Loss
from invlearn.outputs import Outputs, SplitOutputs
from invlearn.selection.rules import Choice, agreeing_steps, mean_table, risks_agree, step_of

LEVEL = 1e-3
"""Level of the test that the group is as frequent in every environment."""

NORMAL = 1.96
"""Two-sided 5 % point of the normal distribution."""

_ROUNDING = 1e-9
"""Equal errors differ by less than this."""

_MISLED = {"reference": "mislead the reference", "inner-step": "a pooled step hurts"}

Floats = npt.NDArray[np.float64]


class Certificate(NamedTuple):
    """Whether a group of rows is unequally frequent in the environments.

    statistic: chi-squared with E − 1 degrees of freedom; frequencies [E].
    """

    statistic: float
    p_value: float
    frequencies: tuple[float, ...]

    @property
    def holds(self) -> bool:
        """Whether the frequencies differ beyond chance."""
        return self.p_value < LEVEL


def certify(
    group: Tensor, environment: Tensor, n_envs: int, weights: Tensor | None = None
) -> Certificate:
    """Test whether a group's frequency differs between environments.

    It may differ for other reasons than a shortcut: environments with unequal label noise have
    unequal frequencies of a reference's errors too. A certificate that fails is therefore
    worth more than one that holds.

    Parameters
    ----------
    group : Tensor [n], bool
    environment : Tensor [n], int64
    n_envs : int
    weights : Tensor [n], optional
        Row weights. An environment counts as the (Σ w)² / Σ w² rows of equal weight that would
        know as much.

    Examples
    --------
    >>> group = torch.tensor([True] * 30 + [False] * 70 + [True] * 70 + [False] * 30)
    >>> certify(group, torch.arange(200) // 100, 2).holds
    True
    """
    w = torch.ones(len(group), dtype=torch.float64) if weights is None else weights.double()
    inside, total, squares = (
        torch.bincount(e, values, n_envs).numpy()
        for e, values in (
            (environment[group], w[group]),
            (environment, w),
            (environment, w.square()),
        )
    )
    frequencies = np.divide(inside, total, out=np.zeros(n_envs), where=total > 0)
    shown = tuple(frequencies.tolist())
    sizes = np.divide(total**2, squares, out=np.zeros(n_envs), where=total > 0)
    counts = np.stack([sizes * frequencies, sizes * (1 - frequencies)])
    if min(counts.sum(0).min(), counts.sum(1).min()) < 1e-9:
        return Certificate(0.0, 1.0, shown)
    statistic = float(chi2_contingency(counts, correction=False).statistic)
    return Certificate(statistic, float(chi2.sf(statistic, n_envs - 1)), shown)


@dataclass(frozen=True)
class Gaps:
    """The groups' errors along the steps, [T] each.

    difference: mean error inside the group less that outside; standard_error: its own;
    worst: the larger of the two means; constant: that of the constant predictor which does best
    by it; certified: whether the group is one, by step.
    """

    difference: Floats
    standard_error: Floats
    worst: Floats
    constant: Floats
    certified: npt.NDArray[np.bool_]
    certificate: Certificate


def reference_step(outputs: Outputs) -> int:
    """The step of a reference ERM whose errors depend most on the environment.

    A reference that was trained longer errs on hard rows too, on which any predictor errs, and
    the groups' errors no longer agree where the shortcut is out of use. Of its steps the one with
    the largest certificate holds the shortcut's rows most purely.

    Parameters
    ----------
    outputs : Outputs
        Of the reference itself, with the rows that the groups are to be made of.
    """
    parts = list(outputs.splits.values())
    environment = torch.cat([part.environment for part in parts])
    weights = _weights(parts)
    found = [
        certify(
            torch.cat([_errs(part, outputs.loss, part.z[t]) for part in parts]),
            environment,
            len(parts[0].names),
            weights,
        ).statistic
        for t in range(len(outputs.steps))
    ]
    return outputs.steps[int(np.argmax(found))]


def _weights(parts: Sequence[SplitOutputs]) -> Tensor:
    """Row weights of several splits in float64, 1 where a split has none."""
    return torch.cat(
        [
            torch.ones(len(p.y), dtype=torch.float64) if p.weights is None else p.weights.double()
            for p in parts
        ]
    )


def _errs(split: SplitOutputs, loss: Loss, z: Tensor) -> Tensor:
    errors = split.errors(loss, z)
    return errors > (0.5 if loss.classification else float(errors.median()))


def reference_group(split: SplitOutputs, outputs: Outputs) -> Tensor:
    """Rows [n] on which the reference ERM errs (a regression: more than on the median row)."""
    if split.reference is None:
        raise OptionError(
            "Expected the outputs of a reference ERM, found none. Pass "
            "outputs.with_reference(...), or use the rule 'inner-step-groups-agree'."
        )
    return _errs(split, outputs.loss, split.reference)


def gaps(outputs: Outputs, source: str, splits: Sequence[str]) -> Gaps:
    """Errors of the two groups at every step, over the rows of some splits together.

    Parameters
    ----------
    outputs : Outputs
    source : 'reference' or 'inner-step'
        Groups of rows on which the reference errs, or of rows whose loss a small step down the
        pooled risk's gradient raises, anew at every step.
    splits : sequence of str
    """
    parts = [outputs.splits[name] for name in splits]
    environment = torch.cat([part.environment for part in parts])
    weights = _weights(parts)
    n_envs = len(parts[0].names)
    fixed = None
    if source == "reference":
        fixed = torch.cat([reference_group(part, outputs) for part in parts])
    constants = _constant_errors(torch.cat([part.y for part in parts]), weights, outputs.loss)
    certificate, constant = None, float("nan")
    if fixed is not None:
        certificate = certify(fixed, environment, n_envs, weights)
        constant = _lowest_worst(constants, fixed, weights)
    out: list[tuple[float, float, float, float, bool]] = []
    for t in range(len(outputs.steps)):
        group = fixed
        if group is None:
            raised = [part.raised for part in parts]
            if any(r is None for r in raised):
                raise OptionError(
                    "Expected outputs that say which rows' loss an inner step raises, found none "
                    f"for {', '.join(splits)}. Read the split 'validation'."
                )
            group = torch.cat([r[t] for r in raised if r is not None])
            certificate = certify(group, environment, n_envs, weights)
            constant = _lowest_worst(constants, group, weights)
        assert certificate is not None
        errors = torch.cat([part.errors(outputs.loss, part.z[t]) for part in parts])
        means, variances = zip(
            *(_mean(errors[side], weights[side]) for side in (group, ~group)), strict=True
        )
        out.append(
            (
                means[0] - means[1],
                float(np.sqrt(sum(variances))),
                float(np.max(means)),  # NaN if either is.
                constant,
                certificate.holds,
            )
        )
    assert certificate is not None
    difference, error, worst, by_constant, certified = map(np.array, zip(*out, strict=True))
    return Gaps(difference, error, worst, by_constant, certified.astype(bool), certificate)


def _lowest_worst(candidates: list[Tensor], group: Tensor, weights: Tensor) -> float:
    """The lowest of the candidates' larger mean errors [n] in the group and outside."""
    return min(
        max(_mean(errors[side], weights[side])[0] for side in (group, ~group))
        for errors in candidates
    )


def _constant_errors(y: Tensor, weights: Tensor, loss: Loss) -> list[Tensor]:
    """Errors [n] of each constant class, or (a regression) of the mean target."""
    if loss.classification:
        return [(y != label).to(torch.float64) for label in torch.unique(y)]
    share = (weights / weights.sum()).reshape(-1, *[1] * (y.ndim - 1))
    mean = (share * y.to(torch.float64)).sum(0, keepdim=True).expand(len(y), *y.shape[1:])
    return [loss.errors(mean.reshape(len(y), -1), y).to(torch.float64)]


def _mean(errors: Tensor, weights: Tensor) -> tuple[float, float]:
    """Weighted mean of a group's errors and its squared standard error."""
    if not len(errors) or not float(weights.sum()) > 0:
        return float("nan"), float("nan")
    share = weights / weights.sum()
    mean = share @ errors
    return float(mean), float((share * (errors - mean)).square().sum())


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
    within three times that where zero lies between it and its neighbour's and it is the nearer
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
    rows are not read: they would favor whatever was learnt by heart.

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
    Worst-group error is what GroupDRO (Sagawa et al., arXiv 1911.08731) minimises and what
    Liu et al. (arXiv 2107.09044) select by, with groups that somebody labelled.
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
        note="not identifiable from these environments: no difference was found in how "
        f"often they hold the rows that {_MISLED[source]} ({shares}); 'risks agree' "
        "chose instead",
    )


def _last_episode(good: npt.NDArray[np.bool_], patience: int) -> npt.NDArray[np.intp]:
    """Positions that hold, after the last stretch of at least `patience` that do not."""
    places = np.flatnonzero(good)
    starts = np.flatnonzero(np.diff(places) > patience)
    return places[starts[-1] + 1 :] if len(starts) else places
