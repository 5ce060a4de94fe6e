"""Environments inferred from a reference model's mistakes, where nobody wrote them down (EIIL)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from invlearn.environments import Environments
from invlearn.errors import EnvironmentsError
from invlearn.evaluation import forward
from invlearn.learning.plan import Plan
from invlearn.learning.reference import reference_plan
from invlearn.learning.runs import train
from invlearn.losses import Loss

NAMES = ("inferred: shortcut holds", "inferred: shortcut misleads")


def most_different_split(dummy_gradients: Tensor) -> Tensor:
    r"""The split of rows into two environments that maximizes a reference's IRMv1 penalty.

    .. math:: \max_{q \in [0, 1]^n} \; \Big\| \frac{1}{N} \sum_i q_i d_i \Big\|^2
        + \Big\| \frac{1}{N} \sum_i (1 - q_i) d_i \Big\|^2

    with the rows' dummy gradients d_i of a fixed reference. The two sums add up to a constant, so
    the objective is convex in the first and the maximum is where it is largest or smallest:
    at q_i = 1[d_i > 0] (or the reverse, the same two environments). With two classes these are
    the rows the reference gets wrong and those it gets right; with more, or in a regression, those
    whose loss a smaller output would lower, and the others. No ascent is needed. Row weights
    change the sums but not the maximizer.

    Parameters
    ----------
    dummy_gradients : Tensor [n]

    Returns
    -------
    Tensor [n], bool
        The rows of the second environment, d_i > 0: rescaling the reference down serves them.

    References
    ----------
    Creager, Jacobsen, Zemel: Environment Inference for Invariant Learning, arXiv 2010.07249,
    section 3.1. Their code ascends q with Adam to the same place.

    Examples
    --------
    >>> import torch
    >>> most_different_split(torch.tensor([-1.0, 2.0, -3.0])).tolist()
    [False, True, False]
    """
    return dummy_gradients > 0


@dataclass(frozen=True)
class EIIL:
    """All rows as two environments, split by what a reference ERM gets wrong.

    The reference is that of the group rules, an ERM of the same network for half of the plan's
    steps. There it is taken at the step where its errors depend most on the environment; here
    there are none yet to tell steps apart, so it is taken at its last one, as the paper takes a
    reference whose training is over. What it learned has to be the shortcut. Where that is the
    cause, the inferred environments say nothing about shortcuts; nothing in the rows can tell.
    """

    def prepare(
        self, rows: Environments, plan: Plan, loss: Loss, n_outputs: int, seed: int
    ) -> Environments:
        """Rows of the two inferred environments; those they had are dropped.

        Raises
        ------
        EnvironmentsError
            Fewer than two rows are on one of the two sides.
        """
        there = rows.to(plan.device)
        reference = train(reference_plan(plan), there, loss, n_outputs, seed).model
        z = forward(reference, there.x).cpu()
        misled = most_different_split(loss.dummy_gradient(z, rows.y).sum(1))
        counts = (int((~misled).sum()), int(misled.sum()))
        if min(counts) < 2:
            raise EnvironmentsError(
                f"Expected a reference model that a smaller output would serve in some rows and "
                f"not in others (with two classes: that errs on some), got {counts[1]} of "
                f"{sum(counts)}. Environments cannot be inferred here: name them, or train without."
            )
        parts = {}
        for name, side in zip(NAMES, (~misled, misled), strict=True):
            part = (rows.x[side], rows.y[side])
            parts[name] = part if rows.weights is None else (*part, rows.weights[side])
        return Environments.from_parts(parts)
