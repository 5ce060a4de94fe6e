"""IB-ERM and IB-IRM: features that vary as little as the risk allows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from invlearn.losses import Loss
from invlearn.objectives.base import MeanObjective, Outer, Range, State, Terms, number


def unbiased(mass: Tensor) -> Tensor:
    """Factor n / (n − 1) that makes a variance over n rows unbiased; 1 for a single row.

    With row weights n is their sum: weights count rows.

    Examples
    --------
    >>> unbiased(torch.tensor([1.0, 3.0]))
    tensor([1.0000, 1.5000])
    """
    several = mass > 1
    return torch.where(several, mass / torch.where(several, mass - 1, 1.0), 1.0)


def feature_variances(means: Mapping[str, Tensor], convention: str) -> Tensor:
    """Mean variance of the features inside each environment [E], or of all rows together [1]."""
    first, second, mass = means["feature"], means["feature_square"], means["mass"]
    if convention == "ib-paper":
        share = (mass / mass.sum())[:, None]
        first, second = (share * first).sum(0)[None], (share * second).sum(0)[None]
        mass = mass.sum()[None]
    variances = (second - first.square()).mean(1)
    return variances if convention == "mean" else variances * unbiased(mass)


@dataclass(frozen=True)
class IBERM(MeanObjective):
    """mean_e [R_e + γ mean_j Var_e(h_j)], h the classifier's inputs.

    Among predictors of equal risk it takes the one whose features carry least: a feature that
    repeats what others say is dropped. A model without a hidden layer has its rows as features,
    whose variance nothing can change: it is refused.

    Parameters
    ----------
    penalty_weight : float
        γ, in units of risk / feature². The classifier's weights are free to grow as features
        shrink, so γ decides together with weight decay and the number of steps. On standardized
        rows 1 to 10 shrinks features to a tenth; DomainBed's default is 100.
    convention : 'mean', 'domainbed' or 'ib-paper'
        'mean' takes the population's variance inside each environment, averaged over features
        and environments; 'domainbed' the same with n − 1, as the authors' code for anti-causal
        Colored MNIST. 'ib-paper' is their code for the covariate-shift one: the variance (n − 1)
        and the risk of the rows of all environments together. Their linear tests take the outputs'
        variance instead of the features'.

    References
    ----------
    Ahuja, Caballero, Zhang, Gagnon-Audet, Bengio, Mitliagkas, Rish: Invariance Principle Meets
    Information Bottleneck for Out-of-Distribution Generalization, arXiv 2106.06607.

    Examples
    --------
    >>> means = {"risk": torch.ones(2), "mass": torch.full((2,), 10.0)}
    >>> means |= {"feature": torch.ones(2, 1), "feature_square": torch.full((2, 1), 3.0)}
    >>> IBERM(penalty_weight=2.0).value(means, None)[0].total
    tensor(5.)
    """

    penalty_weight: float = number(1.0, Range(1e-1, 1e3, log=True))
    convention: str = "mean"
    title: ClassVar[str] = "IB-ERM"
    summary: ClassVar[str] = "Keeps the features' variance low: what is not needed is not carried."
    source: ClassVar[str] = "Ahuja et al. 2021"
    reads_features: ClassVar[bool] = True
    shapes_features: ClassVar[bool] = True
    min_environments: ClassVar[int] = 1
    strength: ClassVar[str] = "penalty_weight"
    table_strengths: ClassVar[tuple[float, ...]] = (1.0, 10.0)
    conventions: ClassVar[tuple[str, ...]] = ("mean", "domainbed", "ib-paper")

    def moments(self, loss: Loss, z: Tensor, y: Tensor, h: Any) -> dict[str, Tensor | Outer]:
        return {"risk": loss.value(z, y), "feature": h, "feature_square": h.square()}

    def value(self, means: Mapping[str, Tensor], state: State) -> tuple[Terms, State]:
        risks, mass = means["risk"], means["mass"]
        penalty = feature_variances(means, self.convention).mean()
        pooled = self.convention == "ib-paper"
        risk = (mass * risks).sum() / mass.sum() if pooled else risks.mean()
        return Terms(risk + self.penalty_weight * penalty, risks, penalty), state


@dataclass(frozen=True)
class IBIRM(MeanObjective):
    """mean_e [R_e + λ (‖D_e‖² + ν mean_j Var_e(h_j))], h the classifier's inputs.

    IRMv1 (D_e is the gradient of the risk in a dummy scale) and the information bottleneck. The
    paper's γ is λ ν: one strength drives both penalties, as the published codes let both set in
    late. A model without a hidden layer, with which it would be IRMv1, is refused.

    Parameters
    ----------
    penalty_weight : float
        λ, in units of 1 / risk, as IRMv1's.
    bottleneck : float
        ν, the features' variance against the squared dummy gradient. With DomainBed's defaults it
        is 1, at which a network on standardized rows ends as a constant.
    convention : 'mean', 'domainbed' or 'ib-paper'
        'mean' squares the mean dummy gradient and takes the population's variance inside each
        environment. 'domainbed' multiplies the dummy gradients of two disjoint random halves,
        which is unbiased and may be negative, and divides the variance by n − 1. 'ib-paper' is
        the authors' code for covariate-shift Colored MNIST: the halves, and the variance (n − 1)
        of the rows of all environments together; for the anti-causal one they take the 'mean'
        with n − 1. Their linear tests weigh the risk by 1 − λ and take the outputs' variance.

    References
    ----------
    Ahuja, Caballero, Zhang, Gagnon-Audet, Bengio, Mitliagkas, Rish: Invariance Principle Meets
    Information Bottleneck for Out-of-Distribution Generalization, arXiv 2106.06607.

    Examples
    --------
    >>> means = {"risk": torch.ones(2), "mass": torch.full((2,), 10.0)}
    >>> means |= {"feature": torch.ones(2, 1), "feature_square": torch.full((2, 1), 3.0)}
    >>> means["dummy_gradient"] = torch.tensor([[1.0], [3.0]])
    >>> IBIRM(penalty_weight=2.0, bottleneck=0.5).value(means, None)[0].total
    tensor(13.)
    """

    penalty_weight: float = number(100.0, Range(1e0, 1e4, log=True))
    bottleneck: float = number(1e-3, Range(1e-4, 1.0, log=True))
    convention: str = "mean"
    title: ClassVar[str] = "IB-IRM"
    summary: ClassVar[str] = "IRMv1 with features that vary no more than the risk needs."
    source: ClassVar[str] = "Ahuja et al. 2021"
    reads_features: ClassVar[bool] = True
    shapes_features: ClassVar[bool] = True
    strength: ClassVar[str] = "penalty_weight"
    table_strengths: ClassVar[tuple[float, ...]] = (100.0, 1000.0)
    conventions: ClassVar[tuple[str, ...]] = ("mean", "domainbed", "ib-paper")

    @property
    def folds(self) -> int:
        return 1 if self.convention == "mean" else 2

    def moments(self, loss: Loss, z: Tensor, y: Tensor, h: Any) -> dict[str, Tensor | Outer]:
        return {
            "risk": loss.value(z, y),
            "dummy_gradient": loss.dummy_gradient(z, y),
            "feature": h,
            "feature_square": h.square(),
        }

    def value(self, means: Mapping[str, Tensor], state: State) -> tuple[Terms, State]:
        d = means["dummy_gradient"]
        if self.folds == 2:
            invariance = (d[:, 0] * d[:, 1]).sum(-1).mean()
            means = whole(means)
        else:
            invariance = d.square().sum(-1).mean()
        risks = means["risk"]
        variance = feature_variances(means, self.convention).mean()
        penalty = invariance + self.bottleneck * variance
        return Terms(risks.mean() + self.penalty_weight * penalty, risks, penalty), state


def whole(means: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Means [E, ...] of environments from those of their folds [E, folds, ...].

    Examples
    --------
    >>> means = {"risk": torch.tensor([[1.0, 4.0]]), "mass": torch.tensor([[2.0, 1.0]])}
    >>> whole(means)
    {'risk': tensor([2.]), 'mass': tensor([3.])}
    """
    mass = means["mass"]
    out = {}
    for name, fold_means in means.items():
        weight = mass.reshape(*mass.shape, *(1,) * (fold_means.ndim - 2))
        out[name] = (weight * fold_means).sum(1) / weight.sum(1)
    return {**out, "mass": mass.sum(1)}
