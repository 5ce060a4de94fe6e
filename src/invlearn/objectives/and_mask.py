"""AND-mask: a parameter moves only where the environments agree in which direction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from invlearn.errors import OptionError
from invlearn.objectives.base import Range, State, number, zero
from invlearn.objectives.gradient import Combination, GradientObjective, Scalars


def agreement_of(gradients: Tensor) -> Tensor:
    """|mean_e sign(∇R_e)| of gradients [E, ...]: 1 where all environments agree.

    Examples
    --------
    >>> import torch
    >>> agreement_of(torch.tensor([[1.0, 1.0], [2.0, -3.0]]))
    tensor([1., 0.])
    """
    return gradients.sign().mean(0).abs()


def masked(
    scalars: Scalars, gradients: Mapping[str, Tensor], masks: Mapping[str, Tensor], rescale: bool
) -> Combination:
    """The mean gradient times masks in [0, 1]; what they take away is the terms' penalty.

    With `rescale` each parameter's gradient is divided by its mask's mean, so that a mask changes
    its direction but not its order of magnitude.
    """
    total, kept, size = {}, zero(scalars.values), 0
    for name, g in gradients.items():
        mask = masks[name].to(g.dtype)
        kept, size = kept + mask.sum(), size + mask.numel()
        total[name] = mask * g.mean(0)
        if rescale:
            total[name] = total[name] / (mask.mean() + 1e-10)
    return Combination(total, None, scalars.terms._replace(penalty=1 - kept / size))


@dataclass(frozen=True)
class ANDMask(GradientObjective):
    """m ⊙ mean_e ∇R_e, with m = 1 where |mean_e sign(∇R_e)| ≥ τ and 0 elsewhere.

    What is followed is no gradient of a total: the terms' total is the mean risk, their penalty
    the share of parameters that the mask holds still. Optimizers that divide by the gradients'
    size (Adam) follow small agreeing gradients as far as large ones, and weight decay moves masked
    parameters too.

    Parameters
    ----------
    agreement : float
        τ in [0, 1]: with E environments of which k agree, |mean sign| is (2k − E) / E, so with
        two or three environments a mask knows agreement of all or no mask at all. 0 is ERM.
        The default is the weakest of `table_strengths`; 1 asks for agreement of all.
    convention : 'mean', 'and-mask-code' or 'domainbed'
        'mean' is the formula above, the paper's. The authors' code and DomainBed divide each
        parameter tensor's gradient by the share of it that is kept. A third code in use
        (the linear unit tests of arXiv 2102.10867) asks for more than τ, which at τ = 1 keeps
        nothing.

    References
    ----------
    Parascandolo, Neitz, Orvieto, Gresele, Schoelkopf: Learning explanations that are hard to
    vary, arXiv 2009.00329.

    Examples
    --------
    >>> import torch
    >>> objective, gradients = ANDMask(), {"w": torch.tensor([[1.0, 1.0], [3.0, -1.0]])}
    >>> scalars, _ = objective.scalars({"risk": torch.ones(2)}, None)
    >>> objective.combine(scalars, gradients, None)[0].gradient
    {'w': tensor([2., 0.])}
    """

    agreement: float = number(0.5, Range(0.5, 1.0))
    convention: str = "mean"
    title: ClassVar[str] = "AND-mask"
    summary: ClassVar[str] = "Moves a parameter only where all environments' gradients agree."
    source: ClassVar[str] = "Parascandolo et al. 2020"
    strength: ClassVar[str] = "agreement"
    table_strengths: ClassVar[tuple[float, ...]] = (0.5, 1.0)
    conventions: ClassVar[tuple[str, ...]] = ("mean", "and-mask-code", "domainbed")

    def check(self) -> None:
        super().check()
        if not self.agreement <= 1:
            raise OptionError(
                f"Expected agreement of AND-mask between 0 and 1, got {self.agreement}. "
                "1 asks that all environments agree, 0 asks nothing."
            )

    def combine(
        self, scalars: Scalars, gradients: Mapping[str, Tensor], state: State
    ) -> tuple[Combination, State]:
        # A mean of signs in float32 may miss a share such as 0.8 by rounding.
        masks = {name: agreement_of(g) >= self.agreement - 1e-6 for name, g in gradients.items()}
        return masked(scalars, gradients, masks, self.convention != "mean"), state
