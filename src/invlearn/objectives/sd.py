"""SD: large outputs cost, so that no single feature can explain all the targets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from invlearn.losses import Loss
from invlearn.objectives.base import MeanObjective, Outer, Range, State, Terms, number


@dataclass(frozen=True)
class SD(MeanObjective):
    """mean_e [R_e + λ mean z²], spectral decoupling.

    A large output of one feature makes the loss's derivative small, and with it what the other
    features can still learn; the penalty keeps outputs small instead. No environment is compared
    with another, so one is enough.

    Parameters
    ----------
    penalty_weight : float
        λ, in units of risk / output². Under the logistic loss the best output for rows of one
        class is 2.8 at 0.01, 1.2 at 0.1 and 0.4 at 0.5; under the squared loss, the mean target
        divided by 1 + λ.
    convention : 'mean', 'domainbed' or 'sd-paper'
        'mean' and 'domainbed' take the mean of z² over rows and outputs, as the authors' code
        (of one output) does. 'sd-paper' is the paper's formula, λ/2 ‖z‖², summed over outputs.
        The authors' code for Colored MNIST, once its penalty has set in, multiplies the risk by λ
        as well: it is this objective at λ = 1 in other units.

    References
    ----------
    Pezeshki, Kaba, Bengio, Courville, Precup, Lajoie: Gradient Starvation: A Learning
    Proclivity in Neural Networks, arXiv 2011.09468.

    Examples
    --------
    >>> import torch
    >>> means = {"risk": torch.tensor([1.0, 3.0]), "output_square": torch.tensor([2.0, 4.0])}
    >>> SD(penalty_weight=2.0).value(means, None)[0].total
    tensor(8.)
    """

    penalty_weight: float = number(0.1, Range(1e-3, 1.0, log=True))
    convention: str = "mean"
    title: ClassVar[str] = "SD"
    summary: ClassVar[str] = "Penalizes large outputs, so that one feature does not starve others."
    source: ClassVar[str] = "Pezeshki et al. 2020"
    min_environments: ClassVar[int] = 1
    strength: ClassVar[str] = "penalty_weight"
    table_strengths: ClassVar[tuple[float, ...]] = (0.1, 0.5)
    conventions: ClassVar[tuple[str, ...]] = ("mean", "domainbed", "sd-paper")

    def moments(self, loss: Loss, z: Tensor, y: Tensor, h: Any) -> dict[str, Tensor | Outer]:
        square = z.square().reshape(len(z), -1)
        paper = self.convention == "sd-paper"
        size = square.sum(1) / 2 if paper else square.mean(1)
        return {"risk": loss.value(z, y), "output_square": size}

    def value(self, means: Mapping[str, Tensor], state: State) -> tuple[Terms, State]:
        risks, penalty = means["risk"], means["output_square"].mean()
        return Terms(risks.mean() + self.penalty_weight * penalty, risks, penalty), state
