"""A single run's risk: its graphs taped while they fit, its Hessian products by forward mode."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor, nn

from invlearn.environments import Environments
from invlearn.features import Features, as_rows
from invlearn.kernels import tangent_of, with_tangent
from invlearn.losses import Loss
from invlearn.means import empty, replayed
from invlearn.models import call
from invlearn.training.risks import Parameters, SummedRisk, Tape, add, leaves_of, slices, zeros
from invlearn.training.streaming import graph_bytes

_CHECKED_ROWS = 64
"""Rows on which the two ways to a Hessian product are compared."""

_FORWARD_SERVES: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()
"""For each model seen: whether forward mode gives its Hessian products."""

_TAPE_ROW_BYTES: WeakKeyDictionary[nn.Module, float] = WeakKeyDictionary()
"""For each model seen: bytes that the graphs of a row's gradient hold."""


def add_gradient(model: nn.Module, gradient: Mapping[str, Tensor]) -> None:
    """Add a gradient to the `.grad` of the model's parameters."""
    for name, p in model.named_parameters():
        if name in gradient:
            p.grad = gradient[name] if p.grad is None else p.grad + gradient[name]


@dataclass(frozen=True)
class Risk(SummedRisk):
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

    def __post_init__(self) -> None:
        start, stop = self.rows.offsets[self.environment : self.environment + 2]
        if self.rows.weights is not None and not float(self.rows.weights[start:stop].sum()) > 0:
            raise empty(self.rows.names[self.environment])

    def taped_gradient(self, parameters: Parameters, budget: float) -> tuple[Tensor, Tape]:
        """R_e and its gradient, with its graphs if all of them fit into so many bytes.

        A Hessian product from kept graphs needs no forward pass of its own.
        """
        tape = Tape(self, parameters, zeros(parameters))
        total = torch.zeros((), dtype=torch.float64)
        start, stop = self.rows.offsets[self.environment : self.environment + 2]
        row_bytes = _TAPE_ROW_BYTES.get(self.model)
        keep = budget > 0 and (row_bytes is None or row_bytes * (stop - start) <= budget)
        for part in self.parts():
            leaves = leaves_of(parameters)

            def compute(
                leaves: Parameters = leaves, part: slice = part, keep: bool = keep
            ) -> tuple[Tensor, tuple[Tensor, ...]]:
                risk = self.share(part, leaves)
                along = [*leaves.values()]
                return risk.detach(), torch.autograd.grad(
                    risk, along, create_graph=keep, materialize_grads=True
                )

            if row_bytes is None and keep:
                own = [as_rows(self.rows.x).values, *parameters.values()]
                (risk, gradient), held = graph_bytes(compute, own)
                row_bytes = _TAPE_ROW_BYTES[self.model] = held / (part.stop - part.start)
                keep = row_bytes * (stop - start) <= budget
            else:
                risk, gradient = compute()
            if keep:
                tape.kept[part.start] = [*leaves.values()], gradient
            total = total + risk
            add(tape.gradient, tuple(g.detach() for g in gradient))
        return total, tape

    def product(
        self, part: slice, parameters: Parameters, direction: Mapping[str, Tensor]
    ) -> tuple[Tensor, ...]:
        """The part's share of H_e v, by the cheaper of the ways that serve.

        The gradient of the directional derivative Σ ⟨∇_z ℓ, ż⟩, whose ż comes from forward
        mode: no graph of gradients is built but over the outputs. Some operations have no
        forward-mode derivative in torch, or one that cannot be differentiated again, or one
        whose derivative is wrong (layer norm's takes its mean and deviation as constants); so
        the first product of a model is computed both ways, and where they differ, reverse mode
        is used twice from then on.
        """
        if self.model not in _FORWARD_SERVES:
            serves = self._forward_serves(part, parameters, direction)
            if serves is not None:
                _FORWARD_SERVES[self.model] = serves
        forward = _FORWARD_SERVES.get(self.model, False)
        product = self._forward_then_reverse if forward else super().product
        return product(part, parameters, direction)

    def _forward_serves(
        self, part: slice, parameters: Parameters, direction: Mapping[str, Tensor]
    ) -> bool | None:
        few = slice(part.start, min(part.stop, part.start + _CHECKED_ROWS))
        try:
            got = self._forward_then_reverse(few, parameters, direction)
        except RuntimeError:
            return False
        wanted = super().product(few, parameters, direction)
        size = torch.stack([w.norm() for w in wanted]).norm()
        apart = torch.stack([(g - w).norm() for g, w in zip(got, wanted, strict=True)]).norm()
        if not bool(size > 0):
            return None  # Nothing to tell by; the next product will.
        exact = 1e-3 if size.dtype != torch.float64 else 1e-8
        return bool(apart <= exact * size)

    def _forward_then_reverse(
        self, part: slice, parameters: Parameters, direction: Mapping[str, Tensor]
    ) -> tuple[Tensor, ...]:
        leaves = leaves_of(parameters)
        # Left before it is differentiated, or every operation would carry tangents on.
        with forward_ad.dual_level():
            dual = {
                n: with_tangent(p, direction[n]) if n in direction else p for n, p in leaves.items()
            }
            z, z_dot = tangent_of(self._outputs(part, dual))
        if z_dot is None:
            return tuple(zeros(parameters).values())
        (grad_z,) = torch.autograd.grad(self._mean(part, z), z, create_graph=True)
        slope = (grad_z * z_dot).sum()
        return torch.autograd.grad(slope, [*leaves.values()], materialize_grads=True)

    def parts(self) -> Iterator[slice]:
        """The environment's rows, so many at a time."""
        start, stop = self.rows.offsets[self.environment : self.environment + 2]
        return slices(start, stop, self.micro_batch)

    def _outputs(self, part: slice, parameters: Parameters) -> Tensor:
        x: Features = self.rows.x[part]
        with nullcontext() if self.seed is None else replayed(self.seed + part.start):
            return call(self.model, parameters, x)

    def share(self, part: slice, parameters: Parameters) -> Tensor:
        """The part's share of the risk: a scalar in float64."""
        return self._mean(part, self._outputs(part, parameters))

    def _mean(self, part: slice, z: Tensor) -> Tensor:
        """The part's share of the risk, from its outputs."""
        losses = self.loss.value(z.to(torch.float64), self.rows.y[part])
        start, stop = self.rows.offsets[self.environment : self.environment + 2]
        if self.rows.weights is None:
            return losses.sum() / (stop - start)
        weights = self.rows.weights.to(torch.float64)
        return weights[part] @ losses / weights[start:stop].sum()
