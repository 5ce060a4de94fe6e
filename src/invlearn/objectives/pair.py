"""PAIR: risk, IRMv1 and V-REx weighed anew at every step, towards a preferred balance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any, ClassVar

import torch
from torch import Tensor

from invlearn.losses import Loss
from invlearn.objectives.base import Outer, Range, State, Terms, number
from invlearn.objectives.gradient import Combination, GradientObjective, Scalars

_ROUNDING = 1e-12
"""A constraint counts as met if it is missed by no more than this share of its terms."""


def pareto_weights(
    values: Tensor, gram: Tensor, preference: Tensor, tolerance: float | Tensor
) -> Tensor:
    """Weights of three objectives, of the exact Pareto optimal search towards a preference.

    With r the preference and p ∝ r l the objectives' shares, μ = Σ p log 3 p says how far they
    are from the preferred balance (all r l equal), and a = r (log 3 p − μ) is the combination
    whose gradient lessens μ fastest. Of the weights α ≥ 0 with Σ α = 1, and with C the Gram matrix
    of the gradients:

    - μ above the tolerance: the largest α C a (towards the balance), where (C α)_j is at least
      (C a)_j for objectives that the balance makes grow, and at least 0 for the one with the
      largest share;
    - else: the largest 1ᵀ C α (descent), where no objective grows, C α ≥ 0, and α C a is at
      least the smaller of 0 and max C a.

    Both are linear programs over a triangle, so the best corner is the best point, and every corner
    is computed. A constraint c α ≥ b is written as (c − b) α ≥ 0, the same where Σ α = 1;
    corners are then cross products of two of them.

    Parameters
    ----------
    values : Tensor [3]
        The objectives l ≥ 0.
    gram : Tensor [3, 3]
        Inner products of their gradients.
    preference : Tensor [3]
        r ≥ 0; the larger, the smaller the objective is to be.
    tolerance : float
        Of μ, in nats.

    Returns
    -------
    Tensor [3]
        The preference itself (normalized) where an objective is 0 or no weights are allowed.

    References
    ----------
    Mahapatra, Rajan: Multi-Task Learning with User Preferences: Gradient Descent with
    Controlled Ascent in Pareto Optimization, ICML 2020.

    Examples
    --------
    >>> even, gram = torch.tensor([1.0, 1.0, 1.0]), torch.eye(3)
    >>> pareto_weights(torch.tensor([4.0, 1.0, 1.0]), gram, even, 0.1)
    tensor([1., 0., 0.])
    """
    r = preference / preference.sum()
    weighted = r * values
    share = weighted / weighted.sum()
    excess = (3 * share).log()
    distance = (share * excess).sum()
    balance = gram @ (r * (excess - distance))

    seeks_balance = distance > tolerance
    most = weighted == weighted.max()
    bound = torch.where(most, 0.0, balance)
    bounded = (most | (balance <= 0)).to(gram.dtype)
    none = torch.zeros_like(balance)
    to_balance = torch.cat([bounded[:, None] * (gram - bound[:, None]), none[None]])
    descent = torch.cat([gram, (balance - balance.max().clamp(max=0.0))[None]])
    constraints = torch.where(seeks_balance, to_balance, descent)
    goal = torch.where(seeks_balance, balance, gram.sum(0))
    best, found = _best_corner(goal, constraints)
    return torch.where(found & torch.isfinite(balance).all(), best, r)


def _best_corner(goal: Tensor, constraints: Tensor) -> tuple[Tensor, Tensor]:
    """α on the triangle with the largest goal [3] · α and constraints [c, 3] α ≥ 0, if any."""
    rows = torch.cat([torch.eye(3, dtype=goal.dtype, device=goal.device), constraints])
    size = rows.abs().amax(1, keepdim=True)
    rows = rows / torch.where(size > 0, size, 1.0)
    first, second = zip(*combinations(range(len(rows)), 2), strict=True)
    points = torch.linalg.cross(rows[list(first)], rows[list(second)])
    total = points.sum(1, keepdim=True)
    proper = total.abs() > 1e-12 * points.abs().sum(1, keepdim=True)
    points = points / torch.where(proper, total, 1.0)
    terms = rows[None] * points[:, None]
    met = terms.sum(2) >= -_ROUNDING * terms.abs().sum(2)
    allowed = met.all(1) & proper[:, 0]
    height = torch.where(allowed, points @ goal, -torch.inf)
    best = points.index_select(0, height.argmax(0, keepdim=True))[0]
    return best.clamp(min=0.0), allowed.any()


@dataclass(frozen=True)
class PAIR(GradientObjective):
    """α · (mean_e R_e, mean_e ‖D_e‖², Var_e R_e) with α found anew at every step (PAIR-o, IRMX).

    Instead of fixed penalty weights there is a preference r, and α is taken (`pareto_weights`,
    from the values and the gradients' inner products) so that training heads for the point of the
    Pareto front at which r₁ R = r₂ ‖D‖² = r₃ Var. α is not differentiated.

    Parameters
    ----------
    preference : float
        r₃ / r₁: how many times smaller than the risk the variance of risks is to become. 0 is ERM.
        On standardized rows 1e3 suffices: with a thousand rows an environment, risks differ by
        that much by chance. The published preference (1e-12, 1e-2, 0.99) is 1e12, to one per
        cent, and leaves the risk to what the two penalties allow.
    irm_share : float
        r₂ / r₃.
    tolerance : float
        From which distance to the preferred balance on (nats, at most log 3) it is sought before
        anything else.
    convention : 'mean' or 'pair-code'
        'mean' takes the population's variance of the risks; the authors' code divides by E − 1.
        Their code for Colored MNIST takes the inner products of the classifier's gradients alone,
        while all parameters learn; here as in their other code they are those of all parameters.
        Before PAIR sets in it trains by ERM, which here is a schedule. Their variant SEPO
        (normalized gradients, a penalty on changes of α) and its adaptive preference are not here.

    References
    ----------
    Chen, Zhou, Bian, Xie, Wu, Zhang, Ma, Yang, Zhao, Han, Cheng: Pareto Invariant Risk
    Minimization, arXiv 2206.07766.

    Examples
    --------
    >>> means = {"risk": torch.ones(2), "dummy_gradient": torch.tensor([[1.0], [2.0]])}
    >>> PAIR().scalars(means, None)[0].values
    tensor([1.0000, 2.5000, 0.0000])
    """

    preference: float = number(1e3, Range(1e1, 1e12, log=True))
    irm_share: float = number(1e-2, Range(1e-4, 1e2, log=True))
    tolerance: float = number(0.1, Range(1e-4, 1.0, log=True))
    convention: str = "mean"
    title: ClassVar[str] = "PAIR"
    summary: ClassVar[str] = "Weighs risk, IRMv1 and V-REx at every step, towards a preference."
    source: ClassVar[str] = "Chen et al. 2022"
    strength: ClassVar[str] = "preference"
    table_strengths: ClassVar[tuple[float, ...]] = (1e3, 1e4)
    conventions: ClassVar[tuple[str, ...]] = ("mean", "pair-code")

    def moments(self, loss: Loss, z: Tensor, y: Tensor, h: Any) -> dict[str, Tensor | Outer]:
        return {"risk": loss.value(z, y), "dummy_gradient": loss.dummy_gradient(z, y)}

    def scalars(self, means: Mapping[str, Tensor], state: State) -> tuple[Scalars, State]:
        risks = means["risk"]
        n = len(risks)
        invariance = means["dummy_gradient"].square().sum(-1).mean()
        variance = (risks - risks.mean()).square().sum() / (
            n if self.convention == "mean" else n - 1
        )
        values = torch.stack([risks.mean(), invariance, variance])
        return Scalars(values, Terms(risks.mean(), risks, invariance + variance)), state

    def combine(
        self, scalars: Scalars, gradients: Mapping[str, Tensor], state: State
    ) -> tuple[Combination, State]:
        values = scalars.values
        flat = [g.flatten(1).to(values.dtype) for g in gradients.values()]
        gram = torch.stack([g @ g.T for g in flat]).sum(0)
        one = torch.ones_like(values[0])
        preference = torch.stack(
            [one, self.irm_share * self.preference * one, self.preference * one]
        )
        alpha = pareto_weights(values, gram, preference, self.tolerance)
        total = {name: torch.tensordot(alpha.to(g.dtype), g, 1) for name, g in gradients.items()}
        terms = scalars.terms._replace(total=(alpha * values).sum())
        return Combination(total, None, terms), state
