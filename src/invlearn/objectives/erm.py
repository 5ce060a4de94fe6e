"""Empirical risk minimization: what everyone does, and the baseline to beat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from invlearn.errors import unknown_name
from invlearn.objectives.base import MeanObjective, State, Terms, zero


@dataclass(frozen=True)
class ERM(MeanObjective):
    """mean_e R_e, every environment counting alike; or the mean over all rows, pooled.

    Parameters
    ----------
    over : 'environments' or 'rows'
        What the risk is averaged over. With equal sizes the two agree.

    References
    ----------
    Vapnik, Statistical Learning Theory, 1998.

    Examples
    --------
    >>> import torch
    >>> means = {"risk": torch.tensor([1.0, 3.0])}
    >>> ERM().value(means, None)[0].total
    tensor(2.)
    """

    over: str = "environments"
    title: ClassVar[str] = "ERM"
    summary: ClassVar[str] = (
        "Minimizes the average error and uses whatever predicts, shortcuts too."
    )
    source: ClassVar[str] = "Vapnik 1998"
    min_environments: ClassVar[int] = 1

    def check(self) -> None:
        super().check()
        if self.over not in ("environments", "rows"):
            raise unknown_name("average", self.over, ["environments", "rows"])

    def value(self, means: Mapping[str, Tensor], state: State) -> tuple[Terms, State]:
        risks = means["risk"]
        if self.over == "rows":
            share = means["mass"] / means["mass"].sum()
            return Terms((share * risks).sum(), risks, zero(risks)), state
        return Terms(risks.mean(), risks, zero(risks)), state
