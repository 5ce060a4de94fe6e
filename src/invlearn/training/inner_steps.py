"""meta-IRM's inner steps: θ_{k+1} = θ_k − α m_k ⊙ ∇R_i(θ_k), and the way back through them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from invlearn.objectives.inner_step import draw_noise, norm, stepped
from invlearn.objectives.meta_irm import MetaIRM
from invlearn.training.risks import Parameters, Tape
from invlearn.training.runs import Runs


@dataclass(frozen=True)
class InnerStep:
    """One inner step: what is needed to differentiate it.

    noise: DropGrad's factors of the adapted parameters, or None; gradient: ∇R_i(θ) over them;
    product: v ↦ H_i v where it was made.
    """

    noise: Parameters | None
    gradient: Parameters
    product: Callable[[Parameters], Parameters]


@dataclass(frozen=True)
class InnerSteps:
    """The inner steps that a step makes in its environments.

    rate: α, a scalar or one for each run [R]; fold: whose rows they are made on, or None;
    generators: every run's, of the noise.
    """

    runs: Runs
    objective: MetaIRM
    rate: Tensor
    fold: int | None
    generators: Sequence[torch.Generator]

    def on(self, i: int, tape: Tape) -> tuple[list[InnerStep], Parameters]:
        """Those on an environment, whose gradient at θ is on a tape, and where they end."""

        def advance(rate: Tensor, at: Any, gradient: Any, noise: Any) -> Parameters:
            return stepped(self.objective, rate, at, gradient, noise)

        at, gradient, product = self.runs.parameters, tape.gradient, tape.hessian_product
        names = self.objective.adapted(list(at))
        path: list[InnerStep] = []
        for k in range(self.objective.inner_steps):
            if k > 0:
                risk = self.runs.risk(i, self.fold, k + 1)
                gradient, product = risk.gradient(at)[1], partial(risk.hessian_product, at)
            gradient = {name: gradient[name] for name in names}
            noise = self._noise(gradient)
            path.append(InnerStep(noise, gradient, product))
            at = self.runs.each(advance, self.rate, at, gradient, noise)
        return path, at

    def back(self, path: Sequence[InnerStep], vector: Parameters) -> None:
        """Take a vector back through the steps, in place: c ← c − α H (m ⊙ c) for each."""

        def direction_of(rate: Tensor, noise: Any, gradient: Any, vector: Any) -> Parameters:
            return transposed(self.objective, rate, noise, gradient, vector)

        for step in reversed(path):
            direction = self.runs.each(direction_of, self.rate, step.noise, step.gradient, vector)
            for name, product in step.product(direction).items():
                vector[name] -= product

    def _noise(self, gradient: Parameters) -> Parameters | None:
        """Every run's DropGrad factors, each from its own generator."""
        rates = [own["dropgrad"] for own in self.runs.own]
        if not self.runs.shape:
            return draw_noise(rates[0], gradient, self.generators[0])
        if not any(rates):
            return None
        drawn = [
            draw_noise(rate, {name: g[r] for name, g in gradient.items()}, generator)
            or {name: torch.ones_like(g[r]) for name, g in gradient.items()}
            for r, (rate, generator) in enumerate(zip(rates, self.generators, strict=True))
        ]
        return {name: torch.stack([one[name] for one in drawn]) for name in gradient}


def transposed(
    objective: MetaIRM,
    inner_lr: float | Tensor,
    noise: Mapping[str, Tensor] | None,
    gradient: Mapping[str, Tensor],
    back: Mapping[str, Tensor],
) -> Parameters:
    """The vector v with Jᵀ c = c − H v, J the derivative of the inner step."""
    v = {name: inner_lr * back[name] for name in gradient}
    if noise is not None:
        v = {name: noise[name] * vector for name, vector in v.items()}
    if objective.rate != "normalized":
        return v
    length = norm(gradient)
    along = torch.stack([(g * v[name]).sum() for name, g in gradient.items()]).sum() / length**2
    return {name: (v[name] - along * g) / length for name, g in gradient.items()}
