"""An environment's risk as a function of the parameters: value, gradient, Hessian products.

All are sums over rows, so they stream over micro-batches and hold one micro-batch's graph, or, on a
tape, as many as its budget allows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TypeVar
from weakref import WeakKeyDictionary

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor, nn
from torch.func import functional_call

from invlearn.environments import Environments
from invlearn.errors import OptionError
from invlearn.features import ChannelImages, Features
from invlearn.kernels import tangent_of, with_tangent
from invlearn.losses import Loss
from invlearn.training.means import replayed

T = TypeVar("T")

Parameters = dict[str, Tensor]
"""Parameters by name, and whatever has their shapes: gradients, directions."""


_CHECKED_ROWS = 64
"""Rows on which the two ways to a Hessian product are compared."""

_FORWARD_SERVES: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()
"""For each model seen: whether forward mode gives its Hessian products."""

_TAPE_ROW_BYTES: WeakKeyDictionary[nn.Module, float] = WeakKeyDictionary()
"""For each model seen: bytes that the graphs of a row's gradient hold."""


def _names(model: nn.Module) -> dict[str, str]:
    """Every place that holds a trainable parameter, and the name it is known by.

    A module used twice has one place; a parameter tied between two modules has two.
    """
    known = {id(p): n for n, p in model.named_parameters() if p.requires_grad}
    return {
        f"{prefix}.{name}" if prefix else name: known[id(p)]
        for prefix, module in model.named_modules()
        for name, p in module.named_parameters(recurse=False)
        if id(p) in known
    }


def call(model: nn.Module, parameters: Mapping[str, Tensor], x: Features) -> Tensor:
    """Outputs of the model with other parameters."""
    # torch ties by itself, but then swaps a module that is used twice back to the wrong tensor.
    placed = {place: parameters[name] for place, name in _names(model).items()}
    z: Tensor = functional_call(model, placed, (x,), tie_weights=False)
    return z


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

    def __post_init__(self) -> None:
        start, stop = self.rows.offsets[self.environment : self.environment + 2]
        if self.rows.weights is not None and not float(self.rows.weights[start:stop].sum()) > 0:
            raise OptionError(
                "Expected a positive sum of row weights in every mean of a step, got 0 in "
                f"environment '{self.rows.names[self.environment]}'. Raise batch_size, or drop "
                "rows of weight 0."
            )

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

    def taped_gradient(self, parameters: Parameters, budget: float) -> tuple[Tensor, Tape]:
        """R_e and its gradient, with its graphs if all of them fit into so many bytes.

        A Hessian product from kept graphs needs no forward pass of its own.
        """
        tape = Tape(self, parameters, _zeros(parameters))
        total = torch.zeros((), dtype=torch.float64)
        start, stop = self.rows.offsets[self.environment : self.environment + 2]
        row_bytes = _TAPE_ROW_BYTES.get(self.model)
        keep = budget > 0 and (row_bytes is None or row_bytes * (stop - start) <= budget)
        for part in self._parts():
            leaves = _leaves(parameters)

            def compute(
                leaves: Parameters = leaves, part: slice = part, keep: bool = keep
            ) -> tuple[Tensor, tuple[Tensor, ...]]:
                risk = self._share(part, self._outputs(part, leaves))
                along = [*leaves.values()]
                return risk.detach(), torch.autograd.grad(
                    risk, along, create_graph=keep, materialize_grads=True
                )

            if row_bytes is None and keep:
                own = [_pixels(self.rows.x), *parameters.values()]
                (risk, gradient), held = graph_bytes(compute, own)
                row_bytes = _TAPE_ROW_BYTES[self.model] = held / (part.stop - part.start)
                keep = row_bytes * (stop - start) <= budget
            else:
                risk, gradient = compute()
            if keep:
                tape.kept[part.start] = [*leaves.values()], gradient
            total = total + risk
            _add(tape.gradient, tuple(g.detach() for g in gradient))
        return total, tape

    def hessian_product(
        self, parameters: Parameters, direction: Mapping[str, Tensor]
    ) -> Parameters:
        """H_e v, rows of all parameters; v may leave out parameters, whose part is then zero.

        The gradient of the directional derivative Σ ⟨∇_z ℓ, ż⟩, whose ż comes from forward
        mode: no graph of gradients is built but over the outputs. Some operations have no
        forward-mode derivative in torch, or one that cannot be differentiated again, or one
        whose derivative is wrong (layer norm's takes its mean and deviation as constants); so
        the first product of a model is computed both ways, and where they differ, reverse mode
        is used twice from then on.
        """
        sums = _zeros(parameters)
        for part in self._parts():
            _add(sums, self._product(part, parameters, direction))
        return sums

    def _product(
        self, part: slice, parameters: Parameters, direction: Mapping[str, Tensor]
    ) -> tuple[Tensor, ...]:
        """The part's share of H_e v, by the cheaper of the ways that serve."""
        if self.model not in _FORWARD_SERVES:
            serves = self._forward_serves(part, parameters, direction)
            if serves is not None:
                _FORWARD_SERVES[self.model] = serves
        forward = _FORWARD_SERVES.get(self.model, False)
        product = self._forward_then_reverse if forward else self._reverse_twice
        return product(part, parameters, direction)

    def _forward_serves(
        self, part: slice, parameters: Parameters, direction: Mapping[str, Tensor]
    ) -> bool | None:
        few = slice(part.start, min(part.stop, part.start + _CHECKED_ROWS))
        try:
            got = self._forward_then_reverse(few, parameters, direction)
        except RuntimeError:
            return False
        wanted = self._reverse_twice(few, parameters, direction)
        size = torch.stack([w.norm() for w in wanted]).norm()
        apart = torch.stack([(g - w).norm() for g, w in zip(got, wanted, strict=True)]).norm()
        if not bool(size > 0):
            return None  # Nothing to tell by; the next product will.
        exact = 1e-3 if size.dtype != torch.float64 else 1e-8
        return bool(apart <= exact * size)

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
            return call(self.model, parameters, x)

    def _share(self, part: slice, z: Tensor) -> Tensor:
        """The part's share of the risk, from its outputs."""
        losses = self.loss.value(z.to(torch.float64), self.rows.y[part])
        start, stop = self.rows.offsets[self.environment : self.environment + 2]
        if self.rows.weights is None:
            return losses.sum() / (stop - start)
        weights = self.rows.weights.to(torch.float64)
        return weights[part] @ losses / weights[start:stop].sum()


@dataclass
class Tape:
    """A risk's gradient at some parameters, with its micro-batches' graphs or none.

    kept: for the micro-batch that starts at a row, its leaves and its share of the gradient.
    """

    risk: Risk
    parameters: Parameters
    gradient: Parameters
    kept: dict[int, tuple[list[Tensor], tuple[Tensor, ...]]] = field(default_factory=dict)

    def hessian_product(self, direction: Mapping[str, Tensor]) -> Parameters:
        """H_e v, as `Risk.hessian_product`."""
        sums, names = _zeros(self.parameters), list(self.parameters)
        for part in self.risk._parts():
            if part.start not in self.kept:
                _add(sums, self.risk._product(part, self.parameters, direction))
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
                _add(
                    sums,
                    torch.autograd.grad(
                        outputs, leaves, along, retain_graph=True, materialize_grads=True
                    ),
                )
        return sums


def graph_bytes(compute: Callable[[], T], own: Iterable[Tensor]) -> tuple[T, int]:
    """What is computed, and the bytes that its graph holds beside tensors that are there anyway."""
    seen: dict[int, int] = {tensor.untyped_storage().data_ptr(): 0 for tensor in own}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        seen.setdefault(storage.data_ptr(), storage.nbytes())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = compute()
    return out, sum(seen.values())


def _pixels(x: Features) -> Tensor:
    return x.pixels if isinstance(x, ChannelImages) else x


def _leaves(parameters: Parameters) -> Parameters:
    return {name: p.detach().requires_grad_() for name, p in parameters.items()}


def _zeros(parameters: Parameters) -> Parameters:
    return {name: torch.zeros_like(p) for name, p in parameters.items()}


def _add(sums: Parameters, terms: tuple[Tensor, ...]) -> None:
    for total, term in zip(sums.values(), terms, strict=True):
        total += term
