"""Fishr: the classifier's gradients must vary from row to row alike in every environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from invlearn.errors import OptionError
from invlearn.losses import Loss
from invlearn.objectives.base import MeanObjective, Outer, Range, State, Terms, number
from invlearn.objectives.ib_irm import unbiased


@dataclass(frozen=True)
class Fishr(MeanObjective):
    """mean_e R_e + λ mean_e ‖v_e − mean_f v_f‖² / p, v_e the variances of the rows' gradients.

    A row's gradient in the classifier's weights and bias is δ ⊗ [h, 1], δ = ∂ℓ/∂z [k] and h [d]
    the classifier's inputs, p = k (d + 1) numbers; v_e is their variance over the rows of e. Both
    moments are products of matrices, so no row's gradient is formed. The bias counts whether or
    not the classifier has one.

    The state m_e [E, k, d + 1] is a moving average of the variances: v_e is replaced by
    v_e + m_e ε / (1 − ε), and then m_e by ε m_e + (1 − ε) v_e, as published. The derivative in
    v_e is so that of a single step, while differences that last count up to 1 / (1 − ε) times.

    Parameters
    ----------
    penalty_weight : float
        λ, in units of risk / gradient⁴. With ε at 0.95, 100 is felt on standardized rows and
        DomainBed's default, 1000, nearly equates the variances; with ε at 0 it takes 10 to 100
        times as much.
    ema : float
        ε in [0, 1): 0 takes each step's variances by themselves, right where a step sees all rows.
    convention : 'mean', 'domainbed', 'fishr-paper' or 'fishr-cmnist'
        'mean' and 'domainbed' are the formula above, with the population's variances.
        'fishr-paper' does not divide by p, and takes variances with n − 1. 'fishr-cmnist' is the
        authors' code for Colored MNIST: not divided by p, summed over environments, used with
        ``ema=0``.

    References
    ----------
    Rame, Dancette, Cord: Fishr: Invariant Gradient Variances for Out-of-Distribution
    Generalization, arXiv 2109.02934.

    Examples
    --------
    >>> means = {"risk": torch.ones(2), "mass": torch.full((2,), 10.0)}
    >>> means |= {"gradient": torch.zeros(2, 1, 1)}
    >>> means["gradient_square"] = torch.tensor([[[1.0]], [[3.0]]])
    >>> objective = Fishr(penalty_weight=2.0, ema=0.0)
    >>> objective.value(means, objective.init(2, torch.zeros(1)))[0].total
    tensor(3.)
    """

    penalty_weight: float = number(100.0, Range(1e1, 1e4, log=True))
    ema: float = number(0.95, Range(0.9, 0.99))
    convention: str = "mean"
    title: ClassVar[str] = "Fishr"
    summary: ClassVar[str] = "Makes the spread of the rows' gradients agree everywhere."
    source: ClassVar[str] = "Rame et al. 2021"
    reads_features: ClassVar[bool] = True
    strength: ClassVar[str] = "penalty_weight"
    table_strengths: ClassVar[tuple[float, ...]] = (100.0, 1000.0)
    conventions: ClassVar[tuple[str, ...]] = ("mean", "domainbed", "fishr-paper", "fishr-cmnist")

    def check(self) -> None:
        super().check()
        if not self.ema < 1:
            raise OptionError(
                f"Expected ema of Fishr in [0, 1), got {self.ema}: at 1 no step would count. "
                "Use 0.95, or 0 where every step sees all rows."
            )

    def init(self, n_envs: int, like: Tensor) -> State:
        return torch.zeros(n_envs, 1, 1, dtype=like.dtype, device=like.device)

    def moments(self, loss: Loss, z: Tensor, y: Tensor, h: Any) -> dict[str, Tensor | Outer]:
        delta = loss.output_gradient(z, y)
        inputs = torch.cat([h, torch.ones_like(h[:, :1])], 1)
        return {
            "risk": loss.value(z, y),
            "gradient": Outer(delta, inputs),
            "gradient_square": Outer(delta.square(), inputs.square()),
        }

    def value(self, means: Mapping[str, Tensor], state: State) -> tuple[Terms, State]:
        risks = means["risk"]
        variances = means["gradient_square"] - means["gradient"].square()
        if self.convention == "fishr-paper":
            variances = variances * unbiased(means["mass"])[:, None, None]
        average = self.ema * state + (1 - self.ema) * variances.detach()
        variances = variances + self.ema / (1 - self.ema) * state
        apart = (variances - variances.mean(0)).square().flatten(1)
        paper = self.convention in ("fishr-paper", "fishr-cmnist")
        distances = apart.sum(1) if paper else apart.mean(1)
        penalty = distances.sum() if self.convention == "fishr-cmnist" else distances.mean()
        return Terms(risks.mean() + self.penalty_weight * penalty, risks, penalty), average
