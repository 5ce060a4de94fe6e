"""An environment's risk as a function of the parameters, summed over micro-batches of its rows.

What holds of a single run's risk and of a stack's: a stack's runs do not touch each other, so the
derivative of the sum over them is every run's own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

Parameters = dict[str, Tensor]
"""Parameters by name, and whatever has their shapes: gradients, directions."""


def slices(start: int, stop: int, size: int | None) -> Iterator[slice]:
    """The rows from one up to another, so many at a time; all at once without a size."""
    size = size or max(stop - start, 1)
    for a in range(start, stop, size):
        yield slice(a, min(a + size, stop))


class SummedRisk(ABC):
    """R_e(θ), the weighted mean loss over one environment's rows: its value and derivatives."""

    @abstractmethod
    def parts(self) -> Iterator[slice]:
        """The environment's rows, so many at a time."""

    @abstractmethod
    def share(self, part: slice, parameters: Parameters) -> Tensor:
        """The part's share of the risk, in float64: a scalar, or one for each run [R]."""

    def value(self, parameters: Parameters) -> Tensor:
        """R_e at these parameters, without a graph."""
        with torch.no_grad():
            return total([self.share(part, parameters) for part in self.parts()])

    def gradient(self, parameters: Parameters) -> tuple[Tensor, Parameters]:
        """R_e and ∇R_e."""
        shares, sums = [], zeros(parameters)
        for part in self.parts():
            leaves = leaves_of(parameters)
            risk = self.share(part, leaves)
            shares.append(risk.detach())
            found = torch.autograd.grad(risk.sum(), [*leaves.values()], materialize_grads=True)
            add(sums, found)
        return total(shares), sums

    def taped_gradient(self, parameters: Parameters, budget: float) -> tuple[Tensor, Tape]:
        """R_e and its gradient, with its graphs if all of them fit into so many bytes."""
        value, gradient = self.gradient(parameters)
        return value, Tape(self, parameters, gradient)

    def hessian_product(
        self, parameters: Parameters, direction: Mapping[str, Tensor]
    ) -> Parameters:
        """H_e v, rows of all parameters; v may leave out parameters, whose part is then zero."""
        sums = zeros(parameters)
        for part in self.parts():
            add(sums, self.product(part, parameters, direction))
        return sums

    def product(
        self, part: slice, parameters: Parameters, direction: Mapping[str, Tensor]
    ) -> tuple[Tensor, ...]:
        """The part's share of H_e v, by reverse mode twice."""
        leaves = leaves_of(parameters)
        along = [leaves[name] for name in direction]
        risk = self.share(part, leaves).sum()
        gradient = torch.autograd.grad(risk, along, create_graph=True, materialize_grads=True)
        slope = [(g * v).sum() for g, v in zip(gradient, direction.values(), strict=True)]
        return torch.autograd.grad(
            torch.stack(slope).sum(), [*leaves.values()], materialize_grads=True
        )


@dataclass
class Tape:
    """A risk's gradient at some parameters, with its micro-batches' graphs or none.

    kept: for the micro-batch that starts at a row, its leaves and its share of the gradient.
    """

    risk: SummedRisk
    parameters: Parameters
    gradient: Parameters
    kept: dict[int, tuple[list[Tensor], tuple[Tensor, ...]]] = field(default_factory=dict)

    def hessian_product(self, direction: Mapping[str, Tensor]) -> Parameters:
        """H_e v, as `SummedRisk.hessian_product`."""
        sums, names = zeros(self.parameters), list(self.parameters)
        for part in self.risk.parts():
            if part.start not in self.kept:
                add(sums, self.risk.product(part, self.parameters, direction))
                continue
            leaves, gradient = self.kept[part.start]
            # A share that does not depend on the parameters has no second derivative.
            pairs = [
                (g, direction[name])
                for name, g in zip(names, gradient, strict=True)
                if name in direction and g.requires_grad
            ]
            if pairs:
                outputs, along = zip(*pairs, strict=True)
                found = torch.autograd.grad(
                    outputs, leaves, along, retain_graph=True, materialize_grads=True
                )
                add(sums, found)
        return sums


def leaves_of(parameters: Mapping[str, Tensor]) -> Parameters:
    """The same numbers as leaves of a new graph."""
    return {name: p.detach().requires_grad_() for name, p in parameters.items()}


def zeros(parameters: Mapping[str, Tensor]) -> Parameters:
    """Zeros of the parameters' shapes."""
    return {name: torch.zeros_like(p) for name, p in parameters.items()}


def add(sums: Parameters, terms: tuple[Tensor, ...]) -> None:
    """Add to every sum its term, in place."""
    for total, term in zip(sums.values(), terms, strict=True):
        total += term


def add_scaled(sums: Parameters, factor: Tensor, terms: Mapping[str, Tensor]) -> None:
    """Add the terms times a number, or one for each run [R], in place."""
    for name, term in terms.items():
        one = factor.to(term.dtype)
        sums[name].addcmul_(term, one.reshape(*one.shape, *[1] * (term.ndim - one.ndim)))


def total(terms: list[Tensor]) -> Tensor:
    """Sum of one or more tensors."""
    return torch.stack(terms).sum(0)
