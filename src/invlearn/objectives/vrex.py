"""V-REx: the risks must be equal, enforced through their variance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from invlearn.objectives.base import MeanObjective, Range, State, Terms, number


@dataclass(frozen=True)
class VREx(MeanObjective):
    """mean_e R_e + β Var_e(R_e), the population variance.

    Parameters
    ----------
    penalty_weight : float
        β, in units of 1 / risk. The default is the weakest of `table_strengths`: on standardized
        rows risks are of order 1 and their differences of order 0.1, so 100 weighs them alike.
        The published 10⁴ belongs with its schedule, weight 1 before step 100 and a rescaled loss
        after it (``PUBLISHED["rex-paper"]`` and the recipes).
    convention : 'mean', 'domainbed' or 'rex-paper'
        'mean' and 'domainbed' are the formula above. 'rex-paper' is that paper's code: the
        sum of the risks plus β (R_1 − R_2)², which for two environments is 4 Var; with more
        it is β Σ_{e<f} (R_e − R_f)² = β E² Var.

    References
    ----------
    Krueger et al.: Out-of-Distribution Generalization via Risk Extrapolation,
    arXiv 2003.00688.

    Examples
    --------
    >>> import torch
    >>> means = {"risk": torch.tensor([1.0, 3.0])}
    >>> VREx(penalty_weight=2.0).value(means, None)[0].total
    tensor(4.)
    """

    penalty_weight: float = number(100.0, Range(1e2, 1e5, log=True))
    convention: str = "mean"
    title: ClassVar[str] = "V-REx"
    summary: ClassVar[str] = "Penalizes the variance of the environments' risks."
    source: ClassVar[str] = "Krueger et al. 2020"
    strength: ClassVar[str] = "penalty_weight"
    table_strengths: ClassVar[tuple[float, ...]] = (100.0, 1000.0)
    conventions: ClassVar[tuple[str, ...]] = ("mean", "domainbed", "rex-paper")

    def value(self, means: Mapping[str, Tensor], state: State) -> tuple[Terms, State]:
        risks = means["risk"]
        variance = (risks - risks.mean()).square().mean()
        if self.convention == "rex-paper":
            penalty = len(risks) ** 2 * variance
            return Terms(risks.sum() + self.penalty_weight * penalty, risks, penalty), state
        return Terms(risks.mean() + self.penalty_weight * variance, risks, variance), state
