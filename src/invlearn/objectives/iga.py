"""IGA: the environments' gradients must agree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from invlearn.objectives.base import Range, State, Terms, number, zero
from invlearn.objectives.gradient import Combination, GradientObjective, Scalars


@dataclass(frozen=True)
class IGA(GradientObjective):
    """mean_e R_e + λ mean_e ‖∇R_e − mean_f ∇R_f‖².

    The penalty's gradient is (2 / E) Σ_e H_e (∇R_e − mean ∇R), H_e the Hessian of R_e:
    the mean's own part cancels because the deviations sum to zero.

    Parameters
    ----------
    penalty_weight : float
        λ, in units of risk / squared gradient.
    convention : 'mean' or 'domainbed'
        'domainbed' sums the squared deviations over environments instead of averaging.

    References
    ----------
    Koyama, Yamaguchi: When is invariance useful in an Out-of-Distribution Generalization
    problem?, arXiv 2008.01883.

    Examples
    --------
    >>> import torch
    >>> gradients = {"w": torch.tensor([[1.0], [3.0]])}
    >>> scalars, _ = IGA().scalars({"risk": torch.ones(2)}, None)
    >>> combination, _ = IGA(penalty_weight=2.0).combine(scalars, gradients, None)
    >>> combination.terms.total
    tensor(3.)
    """

    penalty_weight: float = number(1e2, Range(1e0, 1e4, log=True))
    convention: str = "mean"
    title: ClassVar[str] = "IGA"
    summary: ClassVar[str] = "Penalizes environments whose gradients point elsewhere."
    source: ClassVar[str] = "Koyama & Yamaguchi 2020"
    strength: ClassVar[str] = "penalty_weight"
    table_strengths: ClassVar[tuple[float, ...]] = (100.0, 1000.0)
    conventions: ClassVar[tuple[str, ...]] = ("mean", "domainbed")

    def combine(
        self, scalars: Scalars, gradients: Mapping[str, Tensor], state: State
    ) -> tuple[Combination, State]:
        risks, n = scalars.values, len(scalars.values)
        scale = 1.0 if self.convention == "domainbed" else 1 / n
        penalty = zero(risks)
        mean = {name: g.mean(0) for name, g in gradients.items()}
        directions = {}
        for name, g in gradients.items():
            deviation = g - mean[name]
            penalty = penalty + scale * deviation.square().sum()
            directions[name] = 2 * scale * self.penalty_weight * deviation
        terms = Terms(risks.mean() + self.penalty_weight * penalty, risks, penalty)
        return Combination(mean, directions, terms), state
