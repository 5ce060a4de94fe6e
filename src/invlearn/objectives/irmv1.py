"""IRMv1: the dummy classifier must be stationary in every environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from invlearn.errors import unknown_name
from invlearn.losses import Loss
from invlearn.objectives.base import MeanObjective, Outer, Range, State, Terms, number


@dataclass(frozen=True)
class IRMv1(MeanObjective):
    """mean_e [R_e + λ ‖D_e‖²], D_e the gradient of the risk in a dummy scale at 1.

    Parameters
    ----------
    penalty_weight : float
        λ, in units of 1 / risk. The default is the weakest of `table_strengths`: on standardized
        rows risks are of order 1 and dummy gradients, once something is learned, of order 0.1, so
        100 weighs them alike. The published 10⁴ to 10⁵ belong with their schedules, weight 1
        before the anneal step and a rescaled loss after it (`PUBLISHED` and the recipes).
    estimator : 'full' or 'split', optional
        Default: the convention's own, 'split' for 'irm-appendix-d' and 'domainbed', else 'full'.
        'full' squares the mean dummy gradient of the step's rows: exact on all rows, biased
        upwards on a mini-batch. 'split' takes ⟨D(half a), D(half b)⟩ over disjoint random
        halves: unbiased, and possibly negative, which is right.
    convention : 'mean', 'irm-paper', 'irm-appendix-d', 'domainbed' or 'rex-paper'
        How published codes scale it. 'mean', 'irm-paper' and 'domainbed' average risks and
        penalties over environments; 'irm-appendix-d' sums both; 'rex-paper' sums the risks
        and averages the penalties. λ is not portable between them.

    References
    ----------
    Arjovsky, Bottou, Gulrajani, Lopez-Paz: Invariant Risk Minimization, arXiv 1907.02893,
    section 3.1, 3.2 and appendix D.

    Examples
    --------
    >>> import torch
    >>> means = {"risk": torch.ones(2), "dummy_gradient": torch.tensor([[1.0], [3.0]])}
    >>> IRMv1(penalty_weight=2.0).value(means, None)[0].total
    tensor(11.)
    """

    penalty_weight: float = number(100.0, Range(1e2, 1e5, log=True))
    estimator: str = ""
    convention: str = "mean"
    title: ClassVar[str] = "IRMv1"
    summary: ClassVar[str] = (
        "Penalizes environments in which rescaling the prediction would still lower the risk."
    )
    source: ClassVar[str] = "Arjovsky et al. 2019"
    strength: ClassVar[str] = "penalty_weight"
    table_strengths: ClassVar[tuple[float, ...]] = (100.0, 1000.0)
    conventions: ClassVar[tuple[str, ...]] = (
        "mean",
        "irm-paper",
        "irm-appendix-d",
        "domainbed",
        "rex-paper",
    )

    def check(self) -> None:
        super().check()
        if self.estimator not in ("", "full", "split"):
            raise unknown_name("estimator", self.estimator, ["full", "split"])

    @property
    def folds(self) -> int:
        halves = self.convention in ("irm-appendix-d", "domainbed")
        return 2 if self.estimator == "split" or (halves and not self.estimator) else 1

    def moments(self, loss: Loss, z: Tensor, y: Tensor, h: None) -> dict[str, Tensor | Outer]:
        return {"risk": loss.value(z, y), "dummy_gradient": loss.dummy_gradient(z, y)}

    def value(self, means: Mapping[str, Tensor], state: State) -> tuple[Terms, State]:
        d = means["dummy_gradient"]
        if self.folds == 2:
            mass = means["mass"]
            risks = (mass * means["risk"]).sum(1) / mass.sum(1)
            penalties = (d[:, 0] * d[:, 1]).sum(-1)
        else:
            risks = means["risk"]
            penalties = d.square().sum(-1)
        summed = self.convention == "irm-appendix-d"
        penalty = penalties.sum() if summed else penalties.mean()
        risk = risks.sum() if summed or self.convention == "rex-paper" else risks.mean()
        return Terms(risk + self.penalty_weight * penalty, risks, penalty), state
