"""SAND-mask: a parameter moves the further, the better the environments' gradients agree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from invlearn.errors import OptionError
from invlearn.objectives.and_mask import agreement_of, masked
from invlearn.objectives.base import Range, State, number
from invlearn.objectives.gradient import Combination, GradientObjective, Scalars


@dataclass(frozen=True)
class SANDMask(GradientObjective):
    """m ⊙ mean_e ∇R_e, m = max(0, tanh(κ (|mean_e sign(∇R_e)| − τ) / Var_e(∇R_e))).

    Var is the sample variance over environments, so gradients have to agree in size as well as in
    sign. Each parameter tensor's gradient is divided by its mask's mean, or small masks would stop
    all learning. What is followed is no gradient of a total: the terms' total is the mean risk,
    their penalty what the masks take away, on average over parameters.

    Parameters
    ----------
    agreement : float
        τ in [0, 1). At 1, DomainBed's default, no mask is above 0 and nothing is ever learned, so
        it is refused.
    sharpness : float
        κ, in units of squared gradient: where Var is far below it the mask is that of AND-mask,
        where it is far above, the mask is proportional to 1 / Var. On standardized rows variances
        soon are 1e-4 and less, so the default is 1e-5; DomainBed's 10 is AND-mask there.
        Equal gradients (Var = 0) have the mask 1 above τ and 0 elsewhere, the limit; DomainBed
        has NaN at τ, which it replaces by 1e-17.

    References
    ----------
    Shahtalebi, Gagnon-Audet, Laleh, Faramarzi, Ahuja, Rish: SAND-mask: An Enhanced Gradient
    Masking Strategy for the Discovery of Invariances in Domain Generalization, arXiv 2106.02266.

    Examples
    --------
    >>> objective = SANDMask(sharpness=1.0)
    >>> gradients = {"w": torch.tensor([[1.0, 1.0], [3.0, -1.0]])}
    >>> scalars, _ = objective.scalars({"risk": torch.ones(2)}, None)
    >>> objective.combine(scalars, gradients, None)[0].gradient
    {'w': tensor([4., 0.])}
    """

    agreement: float = number(0.5, Range(0.0, 0.95))
    sharpness: float = number(1e-5, Range(1e-7, 1e3, log=True))
    title: ClassVar[str] = "SAND-mask"
    summary: ClassVar[str] = "Moves parameters by how well the environments' gradients agree."
    source: ClassVar[str] = "Shahtalebi et al. 2021"
    strength: ClassVar[str] = "agreement"
    erm_at_zero: ClassVar[bool] = False
    table_strengths: ClassVar[tuple[float, ...]] = (0.5, 0.9)

    def check(self) -> None:
        super().check()
        if not self.agreement < 1:
            raise OptionError(
                f"Expected agreement of SAND-mask in [0, 1), got {self.agreement}: at 1 no mask is "
                "above 0 and nothing is learned. Use 0.5."
            )

    def combine(
        self, scalars: Scalars, gradients: Mapping[str, Tensor], state: State
    ) -> tuple[Combination, State]:
        masks = {name: self._mask(g) for name, g in gradients.items()}
        return masked(scalars, gradients, masks, rescale=True), state

    def _mask(self, g: Tensor) -> Tensor:
        excess = agreement_of(g) - self.agreement
        # Equal gradients have no variance: their quotient is infinite, and its tanh 1.
        return torch.where(excess > 0, torch.tanh(self.sharpness * excess / g.var(0)), 0.0)
