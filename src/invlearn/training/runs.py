"""What a step's formulas are written over: a single run, or several at once.

A stack of R runs has one dimension more, in front: parameters {name: [R, ...]}, means [R, E, ...].
The formulas are the same; `Runs.each` maps an objective's functions, which know nothing of it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from invlearn.classifier import with_inputs
from invlearn.environments import Environments
from invlearn.features import as_rows
from invlearn.losses import Loss
from invlearn.means import empty, replayed, segment_sums
from invlearn.models import trainable
from invlearn.objectives.base import Objective, Outer
from invlearn.training.batch import Batch, n_means
from invlearn.training.derivatives import Risk
from invlearn.training.risks import Parameters, SummedRisk, slices
from invlearn.training.streaming import Outputs, Streamed


class Runs(ABC):
    """The rows and the model of a step, of one run or of R.

    Attributes
    ----------
    shape : tuple
        What stands in front of everything: () or (R,).
    loss : Loss
    folds : int
        Parts of each environment's rows, of which means are taken apart.
    n_means : int
        How many means are taken of a run's rows: E, or G over groups.
    batches : sequence of Batch
        Every run's.
    numbers : mapping
        The objective's hyperparameters: floats, or tensors [R].
    own : sequence of mapping
        Every run's hyperparameters, as floats.
    offsets : tuple of E + 1 int
    y : Tensor [*shape, n, ...]
    index : Tensor [n]
        Environment number of every row.
    weights, fold, group : Tensor [R, n]
        Of the rows, R = 1 for a single run; fold and group are None where they are not read.
    leaves : {name: Tensor [*shape, ...]}
        The parameters, as leaves of a graph.
    steps_made : int or None
        As counted by an objective's state, where that would have to be fetched from a device.
    """

    shape: tuple[int, ...]
    loss: Loss
    folds: int
    n_means: int
    batches: Sequence[Batch]
    numbers: Mapping[str, Any]
    own: Sequence[Mapping[str, float]]
    offsets: tuple[int, ...]
    y: Tensor
    index: Tensor
    weights: Tensor
    fold: Tensor | None
    group: Tensor | None
    leaves: Parameters
    steps_made: int | None = None

    @abstractmethod
    def each(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """``function(*arguments)`` for every run; None is the same argument for all."""

    @abstractmethod
    def forward(
        self, look: Callable[[slice, Outputs], None], *, features: bool, apart: bool
    ) -> Streamed:
        """Forward all rows, with features if asked for, in parts of one environment if `apart`."""

    @abstractmethod
    def risk(self, e: int, fold: int | None = None, draw: int = 0) -> SummedRisk:
        """R_e over the environment's rows, or those of a fold; draw: which random numbers."""

    @abstractmethod
    def holds(self, gradients: int) -> bool:
        """Whether so many gradients may be held at once."""

    @property
    def n_envs(self) -> int:
        """How many environments there are."""
        return len(self.offsets) - 1

    @property
    def device(self) -> torch.device:
        """Where it is computed."""
        return self.weights.device

    @property
    def parameters(self) -> Parameters:
        """The parameters, detached."""
        return {name: p.detach() for name, p in self.leaves.items()}

    @cached_property
    def segment(self) -> Tensor:
        """Number of every row's mean, [R, n]: run, environment or group, fold."""
        run = torch.arange(len(self.weights), device=self.device)[:, None]
        segment = run * self.n_means + (self.index if self.group is None else self.group)
        if self.folds == 1:
            return segment
        assert self.fold is not None  # Looked at by the engine.
        return segment * self.folds + self.fold

    @property
    def cells(self) -> tuple[int, ...]:
        """Shape of the means: runs, environments or groups, folds."""
        return (*self.shape, self.n_means, *([self.folds] if self.folds > 1 else []))

    def mass(self) -> Tensor:
        """Sums of the row weights [*cells]; OptionError where an environment's is 0."""
        mass = self._segment_sums(torch.ones_like(self.weights).flatten(), slice(None))
        # On a device the look would wait for it; the objective is NaN there, and training says so.
        looked_at = self.group is None and mass.device.type == "cpu"
        if looked_at and bool((mass <= 0).any()):
            cell = int(torch.nonzero(mass <= 0)[0])
            run, e = divmod(cell // self.folds, self.n_envs)
            raise empty(self.batches[run].rows.names[e])
        return mass.reshape(self.cells)

    def sums(self, moments: Mapping[str, Tensor | Outer], part: slice) -> dict[str, Tensor]:
        """Weighted sums {name: [*cells, ...]} of a part's per-row moments, in float64."""
        out = {}
        for name, rows in moments.items():
            if isinstance(rows, Outer):
                found = self._products(rows, part)
            else:
                found = self._segment_sums(rows, part)
            out[name] = found.reshape(*self.cells, *found.shape[1:])
        if self.group is not None:
            risks = moments["risk"]
            assert isinstance(risks, Tensor)
            out["environment_risk"] = self.environment_sums(risks.detach(), part)
        return out

    def environment_sums(self, rows: Tensor, part: slice) -> Tensor:
        """Weighted sums [*shape, E] of a part's numbers [R * m], one a row."""
        run = torch.arange(len(self.weights), device=self.device)[:, None]
        segment = (run * self.n_envs + self.index)[:, part].flatten()
        n, weights = len(self.weights) * self.n_envs, self.weights[:, part].flatten()
        return segment_sums(rows, segment, n, weights).reshape(*self.shape, self.n_envs)

    def _segment_sums(self, rows: Tensor, part: slice) -> Tensor:
        segment, weights = self.segment[:, part].flatten(), self.weights[:, part].flatten()
        return segment_sums(rows, segment, math.prod(self.cells), weights)

    def _products(self, rows: Outer, part: slice) -> Tensor:
        """leftᵀ diag(w) right of every segment.

        A part's rows of an environment lie together; a group's do not, so for each all are taken.
        """
        weights = self.weights[:, part]
        shape = weights.shape
        left, right = (side.to(torch.float64).reshape(*shape, -1) for side in rows)
        fold = None if self.fold is None else self.fold[:, part]
        out = []
        bounds = [min(max(offset - part.start, 0), shape[1]) for offset in self.offsets]
        for i in range(self.n_means):
            a, b = bounds[i : i + 2] if self.group is None else (0, shape[1])
            for k in range(self.folds):
                w = weights[:, a:b]
                w = w if self.group is None else w * (self.group[:, part] == i)
                w = w if self.folds == 1 or fold is None else w * (fold[:, a:b] == k)
                out.append((left[:, a:b] * w[..., None]).mT @ right[:, a:b])
        return torch.stack(out, 1).flatten(0, 1)

    def environments_of(self, part: slice) -> list[int]:
        """Environments that a part's rows belong to."""
        bounds = enumerate(pairwise(self.offsets))
        return [e for e, (a, b) in bounds if a < part.stop and b > part.start]

    def parts(self, size: int | None, apart: bool) -> Iterator[slice]:
        """All rows, so many at a time, those of different environments in different parts."""
        for a, b in pairwise(self.offsets if apart else (0, self.offsets[-1])):
            yield from slices(a, b, size)


class OneRun(Runs):
    """A single run: a model and the rows of its step."""

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        batch: Batch,
        numbers: Mapping[str, Any],
        *,
        objective: Objective,
        micro_batch: int | None,
        memory_budget: int,
        row_bytes: float | None,
        classifier: str | None,
    ) -> None:
        rows = batch.rows
        self.model, self.loss, self.batches = model, loss, [batch]
        self.folds, self.n_means = objective.folds, n_means(objective, rows)
        self.numbers, self.own = numbers, [numbers]
        self.shape, self.offsets, self.y = (), rows.offsets, rows.y
        device = rows.y.device
        self.index = rows.index.to(device)
        ones = torch.ones(rows.n_rows, dtype=torch.float64, device=device)
        weights = ones if rows.weights is None else rows.weights.to(torch.float64)
        self.weights = weights[None]
        self.fold = None if batch.fold is None else batch.fold.to(device)[None]
        groups = rows.groups if objective.reads_groups else None
        self.group = None if groups is None else groups[None]
        self.leaves = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.micro_batch, self.memory_budget = micro_batch, memory_budget
        self.row_bytes, self.classifier = row_bytes, classifier
        self._sides: dict[int, Environments] = {}

    def each(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """``function(*arguments)``."""
        return function(*arguments)

    def forward(
        self, look: Callable[[slice, Outputs], None], *, features: bool, apart: bool
    ) -> Streamed:
        """Forward all rows; parts of one environment draw dropout as its `Risk` does."""
        (batch,) = self.batches
        x = batch.rows.x

        def run(part: slice) -> Outputs:
            with replayed(batch.seed + part.start) if apart else nullcontext():
                if not features:
                    return (self.model(x[part]),)
                assert self.classifier is not None
                return with_inputs(self.model, self.classifier, lambda: self.model(x[part]))

        streamed = Streamed(
            run,
            list(self.parts(self.micro_batch, apart)),
            look,
            budget=math.inf if self.micro_batch is None else self.memory_budget,
            row_bytes=self.row_bytes,
            own=[as_rows(x).values, *self.leaves.values()],
        )
        self.row_bytes = streamed.row_bytes
        return streamed

    def risk(self, e: int, fold: int | None = None, draw: int = 0) -> Risk:
        """R_e of the model."""
        (batch,) = self.batches
        if fold is not None and fold not in self._sides:
            self._sides[fold] = batch.part(fold)
        rows = batch.rows if fold is None else self._sides[fold]
        return Risk(self.model, self.loss, rows, e, self.micro_batch, batch.seed + 7919 * draw)

    def holds(self, gradients: int) -> bool:
        """Whether so many gradients fit the memory budget."""
        size = sum(p.numel() * p.element_size() for p in trainable(self.model).values())
        return gradients * size <= self.memory_budget
