"""Several runs as one program: their parameters and rows stacked, their derivatives apart.

A stack of R models is one function of parameters {name: [R, ...]} and rows [R, n, ...]. Its runs
do not touch each other, so the gradient of a sum over them is every run's own.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import vmap

from invlearn.features import ChannelImages, Features
from invlearn.losses import Loss
from invlearn.training.derivatives import Parameters, call, trainable
from invlearn.training.engine import DEFAULT_MICRO_BATCH, Batch
from invlearn.training.means import check_mass
from invlearn.training.streaming import Streamed

_DEVICE_ROWS = 1 << 18
"""Rows of all runs together that are forwarded at a time on a device without a small cache."""


@dataclass(frozen=True)
class StackedRows:
    """The rows of one step of R runs, in one layout.

    Within an environment the rows lie by channel, in cells as large as the largest run's; a
    smaller run's cell is filled up with rows of weight 0.

    Attributes
    ----------
    x : Tensor [R, n, ...]
        Features, or the pixels of `ChannelImages`.
    channel : Tensor [n] or None
        The images' channels, the same in every run.
    y : Tensor [R, n, ...]
    weights : Tensor [R, n], float64
    fold : Tensor [R, n] or None
    offsets : tuple of E + 1 int
    mass : Tensor [R, E]
        Sums of the weights.
    """

    x: Tensor
    channel: Tensor | None
    n_channels: int
    y: Tensor
    weights: Tensor
    fold: Tensor | None
    offsets: tuple[int, ...]
    mass: Tensor

    @classmethod
    def of(cls, batches: Sequence[Batch]) -> StackedRows:
        """Lay out the batches of as many runs, which have equally many environments."""
        first = batches[0].rows
        n_envs, k = len(first), _channels(first.x)
        cells = [_cells(batch, k) for batch in batches]
        counts = torch.stack([torch.bincount(c, minlength=n_envs * k) for c in cells])
        room = counts.max(0).values
        ends = room.cumsum(0)
        n, device = int(ends[-1]), first.x.device
        x, y, weights, fold = [], [], [], []
        for batch, cell, count in zip(batches, cells, counts, strict=True):
            order = cell.argsort(stable=True)
            cell = cell[order]
            within = torch.arange(len(cell)) - (count.cumsum(0) - count)[cell]
            place = (ends - room)[cell] + within
            index = torch.zeros(n, dtype=torch.int64).index_copy(0, place, order)
            there = (
                torch.zeros(n, dtype=torch.float64)
                .index_fill(0, place, 1.0)
                .to(device, non_blocking=True)
            )
            rows, index_there = batch.rows, index.to(device, non_blocking=True)
            pixels = rows.x.pixels if isinstance(rows.x, ChannelImages) else rows.x
            x.append(pixels[index_there])
            y.append(rows.y[index_there])
            if rows.weights is not None:
                there = there * rows.weights[index_there]
            weights.append(there)
            if batch.fold is not None:
                fold.append(batch.fold[index].to(device, non_blocking=True))
        offsets = (0, *ends[k - 1 :: k].tolist())
        stacked = torch.stack(weights)
        channel = torch.repeat_interleave(torch.arange(n_envs * k) % k, room)
        return cls(
            torch.stack(x),
            channel if isinstance(first.x, ChannelImages) else None,
            k,
            torch.stack(y),
            stacked,
            torch.stack(fold) if fold else None,
            offsets,
            _masses(stacked, offsets),
        )

    @property
    def index(self) -> Tensor:
        """Environment number of every row, int64 [n]."""
        sizes = torch.tensor(self.offsets).diff()
        index = torch.repeat_interleave(torch.arange(len(sizes)), sizes)
        return index.to(self.x.device, non_blocking=True)

    def features(self, x: Tensor, part: slice) -> Features:
        """What a model is called with, from one run's share of `x`."""
        if self.channel is None:
            return x
        return ChannelImages(x, self.channel[part], self.n_channels)

    def select(self, keep: Tensor) -> StackedRows:
        """The same rows with a weight of 0 for those not kept, [R, n]."""
        weights = self.weights * keep
        return StackedRows(
            self.x,
            self.channel,
            self.n_channels,
            self.y,
            weights,
            None,
            self.offsets,
            _masses(weights, self.offsets),
        )


def _masses(weights: Tensor, offsets: Sequence[int]) -> Tensor:
    masses = torch.stack([weights[:, a:b].sum(1) for a, b in pairwise(offsets)], 1)
    check_mass(masses)
    return masses


def _channels(x: Features) -> int:
    return x.n_channels if isinstance(x, ChannelImages) else 1


def _cells(batch: Batch, k: int) -> Tensor:
    """Number of every row's cell: environment, then channel."""
    cells = batch.rows.index * k
    return cells + batch.rows.x.channel if isinstance(batch.rows.x, ChannelImages) else cells


class Stack:
    """The models of R runs as one function of stacked parameters.

    While a stack lasts, the models' parameters are views of its own, so that whatever reads or
    writes a model reads or writes the stack. `release` gives a model its own memory again.

    Parameters
    ----------
    models : sequence of nn.Module
        Alike but for the values of their parameters; without buffers and frozen parameters.
    micro_batch : int, None or 'auto'
        Rows of one run that are forwarded at a time.
    memory_budget : int
        Bytes of activations to keep for the backward pass, of all runs together.
    """

    def __init__(
        self, models: Sequence[nn.Module], *, micro_batch: int | str | None, memory_budget: int
    ) -> None:
        self.models = list(models)
        self.parameters = stacked_parameters(models)
        for r, model in enumerate(models):
            for name, p in model.named_parameters():
                p.data = self.parameters[name][r]
        rows = micro_batch if isinstance(micro_batch, int) else 1 << 62
        if micro_batch == "auto":
            on_cpu = next(iter(self.parameters.values())).device.type == "cpu"
            rows = max((DEFAULT_MICRO_BATCH if on_cpu else _DEVICE_ROWS) // len(models), 64)
        self.rows_at_a_time = rows
        self.memory_budget = memory_budget
        self._row_bytes: float | None = None

    @classmethod
    def borrowing(cls, models: Sequence[nn.Module]) -> Stack:
        """A stack of copies of the models' parameters, which stay as they are: to try it."""
        stack = cls([copy.deepcopy(models[0])], micro_batch=None, memory_budget=1 << 62)
        stack.parameters = stacked_parameters(models)
        return stack

    def release(self, r: int) -> None:
        """Give a model parameters of its own."""
        for p in self.models[r].parameters():
            p.data = p.data.clone()
            p.grad = None

    def outputs(self, parameters: Mapping[str, Tensor], rows: StackedRows, part: slice) -> Tensor:
        """Outputs [R, m, k] of some of the rows."""

        def one(theta: Parameters, x: Tensor) -> Tensor:
            z = call(self.models[0], theta, rows.features(x, part))
            return z[:, None] if z.ndim == 1 else z

        z: Tensor = vmap(one)(dict(parameters), rows.x[:, part])
        return z

    def forward(self, parameters: Parameters, rows: StackedRows) -> Streamed:
        """Outputs [R, n, k] of all rows, and the way back through them."""
        streamed = Streamed(
            lambda part: self.outputs(parameters, rows, part),
            list(self.parts(0, rows.offsets[-1])),
            dim=1,
            budget=self.memory_budget,
            row_bytes=self._row_bytes,
            own=[rows.x, *parameters.values()],
        )
        self._row_bytes = streamed.row_bytes
        return streamed

    def parts(self, start: int, stop: int) -> Iterator[slice]:
        """The rows, so many at a time."""
        for a in range(start, stop, self.rows_at_a_time):
            yield slice(a, min(a + self.rows_at_a_time, stop))


def stacked_parameters(models: Sequence[nn.Module]) -> Parameters:
    """Copies {name: [R, ...]} of the parameters of R models."""
    parts = [trainable(model) for model in models]
    return {name: torch.stack([part[name] for part in parts]) for name in parts[0]}


@dataclass(frozen=True)
class StackedRisk:
    """R_e(θ) of one environment in every run: `Risk` of [R] runs."""

    stack: Stack
    loss: Loss
    rows: StackedRows
    environment: int

    def gradient(self, parameters: Parameters) -> tuple[Tensor, Parameters]:
        """R_e [R] and ∇R_e {name: [R, ...]}."""
        total: Any = 0
        sums = {name: torch.zeros_like(p) for name, p in parameters.items()}
        for part in self._parts():
            leaves = {name: p.detach().requires_grad_() for name, p in parameters.items()}
            risk = self._share(part, leaves)
            total = total + risk.detach()
            found = torch.autograd.grad(risk.sum(), [*leaves.values()], materialize_grads=True)
            for name, g in zip(sums, found, strict=True):
                sums[name] += g
        return total, sums

    def hessian_product(
        self, parameters: Parameters, direction: Mapping[str, Tensor]
    ) -> Parameters:
        """H_e v, by reverse mode twice in each micro-batch."""
        sums = {name: torch.zeros_like(p) for name, p in parameters.items()}
        for part in self._parts():
            leaves = {name: p.detach().requires_grad_() for name, p in parameters.items()}
            along = [leaves[name] for name in direction]
            risk = self._share(part, leaves).sum()
            gradient = torch.autograd.grad(risk, along, create_graph=True, materialize_grads=True)
            slope = sum_of((g * v).sum() for g, v in zip(gradient, direction.values(), strict=True))
            found = torch.autograd.grad(slope, [*leaves.values()], materialize_grads=True)
            for name, g in zip(sums, found, strict=True):
                sums[name] += g
        return sums

    def _parts(self) -> Iterator[slice]:
        start, stop = self.rows.offsets[self.environment : self.environment + 2]
        return self.stack.parts(start, stop)

    def _share(self, part: slice, parameters: Parameters) -> Tensor:
        rows = self.rows
        z = self.stack.outputs(parameters, rows, part)
        losses = self.loss.value(*flat(z, rows.y[:, part])).reshape(z.shape[:2])
        return (rows.weights[:, part] * losses).sum(1) / rows.mass[:, self.environment]


def flat(z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs (in float64) and targets of all runs' rows, one after another."""
    return z.to(torch.float64).flatten(0, 1), y.flatten(0, 1)


def sum_of(terms: Iterator[Tensor]) -> Tensor:
    """Sum of one or more tensors."""
    total = next(terms)
    for term in terms:
        total = total + term
    return total
