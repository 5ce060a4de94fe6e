"""MM-REx: minimize the worst risk over extrapolated mixtures of the environments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from invlearn.errors import OptionError
from invlearn.objectives.base import MeanObjective, Range, State, Terms, number


def penalty_weight(lambda_min: float, n_envs: int) -> float:
    """The penalty weight 1 − E λ_min of the paper's λ_min (at most 1 / E; negative extrapolates).

    Raises
    ------
    OptionError
        λ_min above 1 / E.

    Examples
    --------
    >>> penalty_weight(-10.0, 2)
    21.0
    """
    if not lambda_min <= 1 / n_envs:
        raise OptionError(
            f"Expected lambda_min of at most 1/E = {1 / n_envs:g}, got {lambda_min}. "
            "0 takes the worst environment, negative values extrapolate."
        )
    return 1 - n_envs * lambda_min


@dataclass(frozen=True)
class MMREx(MeanObjective):
    """(1 − E λ_min) max_e R_e + λ_min Σ_e R_e, for any number of environments.

    Written as mean_e R_e + β (max_e R_e − mean_e R_e) with β = 1 − E λ_min, the same
    number: β = 0 is ERM, β = 1 the worst environment, more extrapolates.

    Parameters
    ----------
    penalty_weight : float
        β = 1 − E λ_min, without unit; above 1 it extrapolates. The default is the weakest of
        `table_strengths`: differences of risks are weighed as they are, not squared, so it takes
        less than V-REx's. The published 10⁴ belongs with its schedule (``PUBLISHED["rex-paper"]``
        and the recipes).
    convention : 'mean' or 'rex-paper'
        'rex-paper' is that paper's code for two environments, R_1 + R_2 + β |R_1 − R_2|,
        which is twice the above with the same β = 1 − 2 λ_min; with more environments, E
        times the above.

    References
    ----------
    Krueger et al., arXiv 2003.00688, section 3.1.

    Examples
    --------
    >>> import torch
    >>> means = {"risk": torch.tensor([1.0, 3.0])}
    >>> MMREx(penalty_weight=1.0).value(means, None)[0].total
    tensor(3.)
    """

    penalty_weight: float = number(10.0, Range(1.0, 1e3, log=True))
    convention: str = "mean"
    title: ClassVar[str] = "MM-REx"
    summary: ClassVar[str] = "Minimizes the worst risk over mixtures that extrapolate."
    source: ClassVar[str] = "Krueger et al. 2020"
    strength: ClassVar[str] = "penalty_weight"
    table_strengths: ClassVar[tuple[float, ...]] = (10.0, 100.0)
    conventions: ClassVar[tuple[str, ...]] = ("mean", "rex-paper")

    def value(self, means: Mapping[str, Tensor], state: State) -> tuple[Terms, State]:
        risks = means["risk"]
        scale = len(risks) if self.convention == "rex-paper" else 1
        penalty = scale * (risks.max() - risks.mean())
        total = scale * risks.mean() + self.penalty_weight * penalty
        return Terms(total, risks, penalty), state
