"""CORAL: features must have the same means and covariances in every environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from invlearn.losses import Loss
from invlearn.objectives.base import MeanObjective, Outer, Range, State, Terms, number
from invlearn.objectives.ib_irm import unbiased


@dataclass(frozen=True)
class CORAL(MeanObjective):
    """mean_e R_e + γ mean_{e<f} [‖μ_e − μ_f‖² / d + ‖C_e − C_f‖² / d²].

    μ_e [d] and C_e [d, d] are mean and covariance of the classifier's inputs h in environment e.
    Written with deviations from the environments' mean, of which the pairs' mean is 2 E / (E − 1)
    times the mean, so its cost grows with environments, not with pairs. A model without a hidden
    layer has its rows as features, which nothing can match: it is refused.

    Parameters
    ----------
    penalty_weight : float
        γ, in units of risk / feature² (of the means) and risk / feature⁴ (of the covariances).
        On standardized rows the features of a trained network differ by some 1e-3, so less than
        10 is not felt; DomainBed, for images, draws it from 0.1 to 10.
    convention : 'mean', 'domainbed' or 'coral-paper'
        'mean' is the formula above with the population's covariances; 'domainbed' the same with
        n − 1. 'coral-paper' matches covariances (n − 1) alone, ‖C_e − C_f‖² / 4 d²; that paper
        has one source and one target, here the mean over pairs of environments is taken.

    References
    ----------
    Sun, Saenko: Deep CORAL: Correlation Alignment for Deep Domain Adaptation, arXiv 1607.01719,
    equations 1 to 3; for several training environments: Gulrajani, Lopez-Paz: In Search of Lost
    Domain Generalization, arXiv 2007.01434.

    Examples
    --------
    >>> import torch
    >>> means = {"risk": torch.ones(2), "mass": torch.full((2,), 10.0)}
    >>> means |= {"feature": torch.tensor([[0.0], [1.0]])}
    >>> means["feature_product"] = torch.tensor([[[1.0]], [[4.0]]])
    >>> CORAL(penalty_weight=2.0).value(means, None)[0].total
    tensor(11.)
    """

    penalty_weight: float = number(10.0, Range(1e-1, 1e3, log=True))
    convention: str = "mean"
    title: ClassVar[str] = "CORAL"
    summary: ClassVar[str] = "Makes the features' means and covariances agree everywhere."
    source: ClassVar[str] = "Sun & Saenko 2016"
    reads_features: ClassVar[bool] = True
    shapes_features: ClassVar[bool] = True
    strength: ClassVar[str] = "penalty_weight"
    table_strengths: ClassVar[tuple[float, ...]] = (10.0, 100.0)
    conventions: ClassVar[tuple[str, ...]] = ("mean", "domainbed", "coral-paper")

    def moments(self, loss: Loss, z: Tensor, y: Tensor, h: Any) -> dict[str, Tensor | Outer]:
        return {"risk": loss.value(z, y), "feature": h, "feature_product": Outer(h, h)}

    def value(self, means: Mapping[str, Tensor], state: State) -> tuple[Terms, State]:
        risks, centre = means["risk"], means["feature"]
        covariance = means["feature_product"] - centre[:, :, None] * centre[:, None, :]
        if self.convention != "mean":
            covariance = covariance * unbiased(means["mass"])[:, None, None]
        penalty = _apart(covariance)
        penalty = penalty / 4 if self.convention == "coral-paper" else penalty + _apart(centre)
        return Terms(risks.mean() + self.penalty_weight * penalty, risks, penalty), state


def _apart(values: Tensor) -> Tensor:
    """Mean over pairs of environments of the mean squared difference of values [E, ...]."""
    n = len(values)
    deviation = (values - values.mean(0)).square()
    return deviation.reshape(n, -1).mean(1).sum() * (2 / max(n - 1, 1))
