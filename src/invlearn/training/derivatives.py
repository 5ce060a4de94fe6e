"""An environment's risk as a function of the parameters: value, gradient, Hessian products.

All are sums over rows, so they stream over micro-batches and hold one micro-batch's graph.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor, nn
from torch.func import functional_call

from invlearn.environments import Environments
from invlearn.features import Features
from invlearn.kernels import tangent_of, with_tangent
from invlearn.losses import Loss
from invlearn.training.means import replayed

Parameters = dict[str, Tensor]
"""Parameters by name, and whatever has their shapes: gradients, directions."""


def trainable(model: nn.Module) -> Parameters:
    """The model's trainable parameters, detached: they follow the model's in-place changes."""
    return {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}


def add_gradient(model: nn.Module, gradient: Mapping[str, Tensor]) -> None:
    """Add a gradient to the `.grad` of the model's parameters."""
    for name, p in model.named_parameters():
        if name in gradient:
            p.grad = gradient[name] if p.grad is None else p.grad + gradient[name]


@dataclass(frozen=True)
class Risk:
    """R_e(θ), the weighted mean loss over one environment's rows.

    Attributes
    ----------
    rows : Environments
    environment : int
    micro_batch : int or None
        Rows at a time.
    seed : int or None
        Of the random numbers drawn inside the model (dropout): with a seed every call draws
        the same ones for the same rows, so that value, gradient and Hessian are those of one
        function. None draws from the global generator.
    """

    model: nn.Module
    loss: Loss
    rows: Environments
    environment: int
    micro_batch: int | None = None
    seed: int | None = None

    def value(self, parameters: Parameters) -> Tensor:
        """R_e at these parameters: a scalar in float64, without a graph."""
        total = torch.zeros((), dtype=torch.float64)
        with torch.no_grad():
            for part in self._parts():
                total = total + self._share(part, self._outputs(part, parameters))
        return total

    def gradient(self, parameters: Parameters) -> tuple[Tensor, Parameters]:
        """R_e and ∇R_e."""
        total, sums = torch.zeros((), dtype=torch.float64), _zeros(parameters)
        for part in self._parts():
            leaves = _leaves(parameters)
            risk = self._share(part, self._outputs(part, leaves))
            total = total + risk.detach()
            _add(sums, torch.autograd.grad(risk, [*leaves.values()], materialize_grads=True))
        return total, sums

    def hessian_product(
        self, parameters: Parameters, direction: Mapping[str, Tensor]
    ) -> Parameters:
        """H_e v, rows of all parameters; v may leave out parameters, whose part is then zero.

        The gradient of the directional derivative Σ ⟨∇_z ℓ, ż⟩, whose ż comes from forward
        mode: no graph of gradients is built but over the outputs. Where the model has an
        operation whose forward-mode derivative torch lacks, or cannot differentiate again,
        reverse mode is used twice.
        """
        sums = _zeros(parameters)
        for part in self._parts():
            try:
                product = self._forward_then_reverse(part, parameters, direction)
            except RuntimeError:
                product = self._reverse_twice(part, parameters, direction)
            _add(sums, product)
        return sums

    def _forward_then_reverse(
        self, part: slice, parameters: Parameters, direction: Mapping[str, Tensor]
    ) -> tuple[Tensor, ...]:
        leaves = _leaves(parameters)
        # Left before it is differentiated, or every operation would carry tangents on.
        with forward_ad.dual_level():
            dual = {
                n: with_tangent(p, direction[n]) if n in direction else p for n, p in leaves.items()
            }
            z, z_dot = tangent_of(self._outputs(part, dual))
        if z_dot is None:
            return tuple(_zeros(parameters).values())
        (grad_z,) = torch.autograd.grad(self._share(part, z), z, create_graph=True)
        slope = (grad_z * z_dot).sum()
        return torch.autograd.grad(slope, [*leaves.values()], materialize_grads=True)

    def _reverse_twice(
        self, part: slice, parameters: Parameters, direction: Mapping[str, Tensor]
    ) -> tuple[Tensor, ...]:
        leaves = _leaves(parameters)
        risk = self._share(part, self._outputs(part, leaves))
        along = [leaves[name] for name in direction]
        gradient = torch.autograd.grad(risk, along, create_graph=True, materialize_grads=True)
        slope = [(g * v).sum() for g, v in zip(gradient, direction.values(), strict=True)]
        return torch.autograd.grad(
            torch.stack(slope).sum(), [*leaves.values()], materialize_grads=True
        )

    def _parts(self) -> Iterator[slice]:
        start, stop = self.rows.offsets[self.environment : self.environment + 2]
        size = self.micro_batch or max(stop - start, 1)
        for a in range(start, stop, size):
            yield slice(a, min(a + size, stop))

    def _outputs(self, part: slice, parameters: Parameters) -> Tensor:
        x: Features = self.rows.x[part]
        with nullcontext() if self.seed is None else replayed(self.seed + part.start):
            z: Tensor = functional_call(self.model, parameters, (x,))
        return z

    def _share(self, part: slice, z: Tensor) -> Tensor:
        """The part's share of the risk, from its outputs."""
        losses = self.loss.value(z.to(torch.float64), self.rows.y[part])
        start, stop = self.rows.offsets[self.environment : self.environment + 2]
        if self.rows.weights is None:
            return losses.sum() / (stop - start)
        weights = self.rows.weights.to(torch.float64)
        return weights[part] @ losses / weights[start:stop].sum()


def _leaves(parameters: Parameters) -> Parameters:
    return {name: p.detach().requires_grad_() for name, p in parameters.items()}


def _zeros(parameters: Parameters) -> Parameters:
    return {name: torch.zeros_like(p) for name, p in parameters.items()}


def _add(sums: Parameters, terms: tuple[Tensor, ...]) -> None:
    for total, term in zip(sums.values(), terms, strict=True):
        total += term
