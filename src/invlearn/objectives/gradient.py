"""Objectives of the gradients of several scalars, combined to one that is no total's gradient."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from invlearn.errors import OptionError
from invlearn.objectives.base import Objective, State, Terms, zero


class Scalars(NamedTuple):
    """What a gradient-combining objective differentiates: values [M]; terms for the history."""

    values: Tensor
    terms: Terms


class Combination(NamedTuple):
    """What a gradient-combining objective makes of the scalars' gradients.

    gradient: {name: [...]}, the total's.
    directions: {name: [E, ...]} or None: vectors whose products with each environment's
    Hessian of the risk are added to it.
    terms: for the history.
    """

    gradient: dict[str, Tensor]
    directions: dict[str, Tensor] | None
    terms: Terms


class GradientObjective(Objective):
    """An objective of the gradients, with respect to the parameters, of several scalars."""

    needs: ClassVar[str] = "gradients"

    def scalars(self, means: Mapping[str, Tensor], state: State) -> tuple[Scalars, State]:
        """What is differentiated, from the means as of a `MeanObjective`: here the risks [E]."""
        risks = means["risk"]
        return Scalars(risks, Terms(risks.mean(), risks, zero(risks))), state

    @abstractmethod
    def combine(
        self, scalars: Scalars, gradients: Mapping[str, Tensor], state: State
    ) -> tuple[Combination, State]:
        """The step's gradient from the scalars [M] and their gradients {name: [M, ...]}."""

    def total_of_batch(
        self, means: Mapping[str, Tensor], state: State, parameters: Iterable[Tensor] | None
    ) -> tuple[Tensor, State]:
        given = () if parameters is None else parameters
        leaves = [p for p in given if isinstance(p, Tensor) and p.requires_grad]
        scalars, state = self.scalars(means, state)
        each = [
            torch.autograd.grad(value, leaves, retain_graph=True, allow_unused=True)
            for value in scalars.values.unbind()
            if leaves and value.requires_grad
        ]
        if all(g is None for own in each for g in own):
            got = "none that learns" if not leaves else "outputs without a graph back to them"
            raise OptionError(
                f"{self.title} combines gradients in the parameters, got {got}. Pass "
                "parameters=model.parameters() and that model's outputs, not detached and not of "
                "torch.no_grad()."
            )
        theta = [str(i) for i in range(len(leaves))]
        gradients = {
            name: torch.stack([torch.zeros_like(p) if g[i] is None else g[i] for g in each])
            for i, (name, p) in enumerate(zip(theta, leaves, strict=True))
        }
        terms = Terms(*(term.detach() for term in scalars.terms))
        found = Scalars(scalars.values.detach(), terms)
        made, state = self.combine(found, gradients, state)
        total = [made.gradient[name].to(p.dtype) for name, p in zip(theta, leaves, strict=True)]
        if made.directions is not None:
            along = [made.directions[name] for name in theta]
            products = _hessian_products(means["risk"], leaves, along)
            total = [g + product for g, product in zip(total, products, strict=True)]
        steer: Callable[..., Tensor] = _Steered.apply
        return steer(made.terms.total.detach(), total, *leaves), state


class _Steered(torch.autograd.Function):
    """A total whose way back gives each parameter the gradient that was made for it."""

    @staticmethod
    def forward(ctx: Any, total: Tensor, gradients: Sequence[Tensor], *leaves: Tensor) -> Tensor:
        ctx.save_for_backward(*gradients)
        return total.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, factor: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *(factor.to(g.dtype) * g for g in ctx.saved_tensors)


def _gradient(
    value: Tensor, leaves: Sequence[Tensor], create_graph: bool = False
) -> tuple[Tensor, ...]:
    """Of a scalar, zero in leaves that it does not depend on; the graph is kept."""
    return torch.autograd.grad(
        value, leaves, retain_graph=True, create_graph=create_graph, materialize_grads=True
    )


def _hessian_products(
    risks: Tensor, leaves: Sequence[Tensor], along: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """Σ_e H_e v_e, from the risks [E] and, for each leaf, the v_e [E, ...]."""
    slope = torch.zeros_like(risks[0])
    for e, risk in enumerate(risks.unbind()):
        gradient = _gradient(risk, leaves, create_graph=True)
        for g, v in zip(gradient, along, strict=True):
            slope = slope + (g * v[e].to(g.dtype)).sum()
    if not slope.requires_grad:  # Risks that are linear in them.
        return tuple(torch.zeros_like(leaf) for leaf in leaves)
    return _gradient(slope, leaves)
