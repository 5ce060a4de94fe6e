"""IGA: the environments' gradients must agree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from invlearn.objectives.base import Combination, GradientObjective, Range, State, Terms, zero


class IGAHyper(NamedTuple):
    """penalty_weight: λ, in units of risk / squared gradient."""

    penalty_weight: float = 1e2


@dataclass(frozen=True)
class IGA(GradientObjective):
    """mean_e R_e + λ mean_e ‖∇R_e − mean_f ∇R_f‖².

    The penalty's gradient is (2 / E) Σ_e H_e (∇R_e − mean ∇R), H_e the Hessian of R_e:
    the mean's own part cancels because the deviations sum to zero.

    Parameters
    ----------
    convention : 'mean' or 'domainbed'
        'domainbed' sums the squared deviations over environments instead of averaging.

    References
    ----------
    Koyama, Yamaguchi: When is invariance useful in an Out-of-Distribution Generalization
    problem?, arXiv 2008.01883.

    Examples
    --------
    >>> gradients = {"w": torch.tensor([[1.0], [3.0]])}
    >>> combination, _ = IGA().combine(torch.ones(2), gradients, IGAHyper(2.0), None)
    >>> combination.terms.total
    tensor(3.)
    """

    convention: str = "mean"
    title: ClassVar[str] = "IGA"
    summary: ClassVar[str] = "Penalises environments whose gradients point elsewhere."
    source: ClassVar[str] = "Koyama & Yamaguchi 2020"
    Hyper: ClassVar[type] = IGAHyper
    space: ClassVar[Mapping[str, Range]] = {"penalty_weight": Range(1e0, 1e4, log=True)}
    strength: ClassVar[str] = "penalty_weight"
    table_strengths: ClassVar[tuple[float, ...]] = (100.0, 1000.0)
    conventions: ClassVar[tuple[str, ...]] = ("mean", "domainbed")

    def __post_init__(self) -> None:
        self._check_convention(self.convention)

    def combine(
        self, risks: Tensor, gradients: Mapping[str, Tensor], hyper: IGAHyper, state: State
    ) -> tuple[Combination, State]:
        n = len(risks)
        scale = 1.0 if self.convention == "domainbed" else 1 / n
        penalty = zero(risks)
        directions = {}
        for name, g in gradients.items():
            deviation = g - g.mean(0)
            penalty = penalty + scale * deviation.square().sum()
            directions[name] = 2 * scale * hyper.penalty_weight * deviation
        terms = Terms(risks.mean() + hyper.penalty_weight * penalty, risks, penalty)
        return Combination(terms, torch.full_like(risks, 1 / n), directions), state
