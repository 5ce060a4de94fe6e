"""Errors of two groups of rows, one of which misleads a reference ERM, along a run's steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from invlearn.errors import OptionError
from invlearn.losses import Loss
from invlearn.outputs import Outputs, SplitOutputs
from invlearn.selection.certificate import Certificate, certify

Floats = npt.NDArray[np.float64]


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
            torch.cat([errs(part.errors(outputs.loss, part.z[t]), outputs.loss) for part in parts]),
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


def errs(errors: Tensor, loss: Loss) -> Tensor:
    """Whether a model errs on rows [n] of such errors (a regression: more than on the median)."""
    return errors > (0.5 if loss.kind == "classes" else float(errors.median()))


def reference_group(split: SplitOutputs, outputs: Outputs) -> Tensor:
    """Rows [n] on which the reference ERM errs."""
    if split.reference is None:
        raise OptionError(
            "Expected the outputs of a reference ERM, found none. Pass "
            "outputs.with_reference(...), or use the rule 'inner-step-groups-agree'."
        )
    return errs(split.errors(outputs.loss, split.reference), outputs.loss)


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
    if source == "reference":
        fixed = torch.cat([reference_group(part, outputs) for part in parts])
        groups = [fixed] * len(outputs.steps)
    else:
        groups = _raised(parts, splits)
    constants = _constant_errors(torch.cat([part.y for part in parts]), weights, outputs.loss)
    out: list[tuple[float, float, float, float, bool]] = []
    for t, group in enumerate(groups):
        if not t or group is not groups[t - 1]:
            certificate = certify(group, environment, len(parts[0].names), weights)
            constant = _lowest_worst(constants, group, weights)
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
    difference, error, worst, by_constant, certified = map(np.array, zip(*out, strict=True))
    return Gaps(difference, error, worst, by_constant, certified.astype(bool), certificate)


def _raised(parts: Sequence[SplitOutputs], splits: Sequence[str]) -> list[Tensor]:
    """At every step the rows whose loss an inner step raises."""
    raised = [part.raised for part in parts if part.raised is not None]
    if len(raised) < len(parts):
        raise OptionError(
            "Expected outputs that say which rows' loss an inner step raises, found none "
            f"for {', '.join(splits)}. Read the split 'validation'."
        )
    return list(torch.cat(raised, 1))


def _lowest_worst(candidates: list[Tensor], group: Tensor, weights: Tensor) -> float:
    """The lowest of the candidates' larger mean errors [n] in the group and outside."""
    return min(
        max(_mean(errors[side], weights[side])[0] for side in (group, ~group))
        for errors in candidates
    )


def _constant_errors(y: Tensor, weights: Tensor, loss: Loss) -> list[Tensor]:
    """Errors [n] of each constant class, or (a regression) of the mean target."""
    if loss.kind == "classes":
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
