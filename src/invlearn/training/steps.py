"""A step of an objective of means or of gradients, for a single run and for a stack alike.

The objective is a small function of sums over rows. Those are taken in the forward pass, the
function is differentiated in the sums, and what comes out is sent back through the rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from invlearn.objectives.base import MeanObjective, Objective, State, Terms
from invlearn.objectives.gradient import GradientObjective
from invlearn.training.risks import Parameters
from invlearn.training.runs import Runs
from invlearn.training.streaming import Outputs


class Made(NamedTuple):
    """A step of the runs.

    terms, state: detached, one entry a run along their first dimension if there are several;
    gradient {name: [*shape, ...]}: without parameters that have no part in the outputs;
    errors: what went wrong, by run.
    """

    terms: Terms
    state: State
    gradient: Parameters
    errors: dict[int, str]


class Statistics:
    """The means over each environment's rows that an objective asks for, and the way back.

    Where it reads outputs alone, a few numbers a row, those of all rows are gathered and the
    moments are computed once. Features are not gathered: their moments are summed micro-batch
    by micro-batch, and computed again on the way back.

    Attributes
    ----------
    means : {name: Tensor [*cells, ...]}
        Sums of the row weights among them as 'mass'.
    """

    def __init__(self, runs: Runs, objective: Objective) -> None:
        self.runs, self.objective, self.front = runs, objective, len(runs.shape)
        features = objective.reads_features
        self.outputs: Tensor | None = None
        self.found: dict[str, Tensor] = {}
        self.streamed = runs.forward(
            self._add if features else self._gather,
            features=features,
            apart=objective.needs == "gradients",
        )
        if self.outputs is not None:
            self.found = self._sums((self.outputs.requires_grad_(),), slice(0, runs.offsets[-1]))
        self.sums = {name: s.detach().requires_grad_() for name, s in self.found.items()}
        mass = runs.mass()
        n = mass.ndim
        divisor = mass if runs.group is None else mass.where(mass > 0, 1.0)
        self.means = {"mass": mass} | {
            name: s / divisor.reshape(*mass.shape, *[1] * (s.ndim - n))
            for name, s in self.sums.items()
            if name != "environment_risk"
        }
        if runs.group is not None:
            ones = torch.ones_like(runs.weights).flatten()
            weights = runs.environment_sums(ones, slice(0, runs.offsets[-1]))
            self.means["environment_risk"] = self.found["environment_risk"] / weights

    def _sums(self, outputs: Outputs, part: slice) -> dict[str, Tensor]:
        z, *h = (tensor.to(torch.float64).flatten(0, self.front) for tensor in outputs)
        y = _rows(self.runs.y, self.front, part).flatten(0, self.front)
        moments = self.objective.moments(self.runs.loss, z, y, h[0] if h else None)
        return self.runs.sums(moments, part)

    def _gather(self, part: slice, outputs: Outputs) -> None:
        (z,) = outputs
        if self.outputs is None:
            # In one place from the start: small outputs between freed blocks break them up.
            shape = list(z.shape)
            shape[self.front] = self.runs.offsets[-1]
            self.outputs = z.new_empty(shape)
        _rows(self.outputs, self.front, part).copy_(z)

    def _add(self, part: slice, outputs: Outputs) -> None:
        with torch.no_grad():
            for name, found in self._sums(outputs, part).items():
                before = self.found.get(name)
                self.found[name] = found if before is None else before.add_(found)

    def gradients(self, scalars: Sequence[Tensor]) -> list[dict[str, Tensor]]:
        """{name: gradient in the parameters} of each of some scalars of the means; once."""
        along = [self._along(scalar) for scalar in scalars]
        live = self._live(along)
        whole = None
        if self.outputs is not None:
            whole = [self._back(self.found, own, self.outputs) for own in along]

        def cotangents(part: slice, outputs: Outputs) -> Mapping[int, Outputs]:
            there = self.runs.environments_of(part)
            wanted = [m for m in range(len(along)) if any(live[m][e] for e in there)]
            if whole is not None:
                return {m: (_rows(whole[m][0], self.front, part),) for m in wanted}
            leaves = tuple(t.detach().requires_grad_() for t in outputs)
            sums = self._sums(leaves, part)
            return {m: self._back(sums, along[m], *leaves) for m in wanted}

        names, leaves = zip(*self.runs.leaves.items(), strict=True)
        found = self.streamed.gradients(leaves, cotangents, len(along))
        return [
            {name: g for name, g in zip(names, own, strict=True) if g is not None} for own in found
        ]

    def _along(self, scalar: Tensor) -> dict[str, Tensor]:
        """The scalar's derivative in those sums on which it depends."""
        found = torch.autograd.grad(
            scalar, [*self.sums.values()], retain_graph=True, allow_unused=True
        )
        return {name: g for name, g in zip(self.sums, found, strict=True) if g is not None}

    def _back(
        self, sums: Mapping[str, Tensor], along: Mapping[str, Tensor], *leaves: Tensor
    ) -> Outputs:
        """The derivative in the leaves of some sums of theirs."""
        return torch.autograd.grad(
            [sums[name] for name in along],
            leaves,
            [*along.values()],
            retain_graph=True,
            materialize_grads=True,
        )

    def _live(self, along: Sequence[Mapping[str, Tensor]]) -> list[list[bool]]:
        """Whether a scalar depends on an environment's rows: with several, it may not.

        Micro-batches on which it does not are left out of its way back.
        """
        if len(along) == 1 or self.runs.group is not None:
            return [[True] * self.runs.n_envs] * len(along)
        n = self.runs.n_envs
        rows = [
            torch.stack(
                [(g.movedim(self.front, 0) != 0).reshape(n, -1).any(1) for g in own.values()]
            )
            for own in along
        ]
        live: list[list[bool]] = torch.stack([found.any(0) for found in rows]).tolist()
        return live


def mean_step(runs: Runs, objective: MeanObjective, state: State) -> Made:
    """Evaluate an objective of means, and its gradient."""
    statistics = Statistics(runs, objective)

    def value(means: Any, numbers: Any, state: State) -> Any:
        return _present(objective.bound(numbers).value(means, state))

    terms, *new = runs.each(value, statistics.means, runs.numbers, state)
    (gradient,) = statistics.gradients([terms.total.sum()])
    return Made(_detached(terms), new[0].detach() if new else None, gradient, {})


def gradient_step(runs: Runs, objective: GradientObjective, state: State) -> Made:
    """Evaluate an objective of gradients."""
    statistics, front = Statistics(runs, objective), len(runs.shape)

    def scalars(means: Any, numbers: Any, state: State) -> Any:
        return _present(objective.bound(numbers).scalars(means, state))

    found, *new = runs.each(scalars, statistics.means, runs.numbers, state)
    state = new[0].detach() if new else None
    theta = runs.parameters
    each = statistics.gradients([value.sum() for value in found.values.unbind(-1)])
    gradients = {
        name: torch.stack([g[name] if name in g else torch.zeros_like(p) for g in each], front)
        for name, p in theta.items()
    }
    found = type(found)(found.values.detach(), _detached(found.terms))

    def combine(scalars: Any, gradients: Any, numbers: Any, state: State) -> Any:
        made, new = objective.bound(numbers).combine(scalars, gradients, state)
        return _present(((made.terms, made.gradient, made.directions or {}), new))

    (terms, total, directions), *new = runs.each(combine, found, gradients, runs.numbers, state)
    total = {name: g.to(theta[name].dtype) for name, g in total.items()}
    for e in range(runs.n_envs) if directions else ():
        along = {name: v.select(front, e).to(theta[name].dtype) for name, v in directions.items()}
        for name, product in runs.risk(e).hessian_product(theta, along).items():
            total[name] = total[name] + product
    return Made(_detached(terms), new[0].detach() if new else None, total, {})


def _rows(tensor: Tensor, dimension: int, part: slice) -> Tensor:
    return tensor.narrow(dimension, part.start, part.stop - part.start)


def _detached(terms: Terms) -> Terms:
    return Terms(*(term.detach() for term in terms))


def _present(pair: tuple[Any, State]) -> tuple[Any, ...]:
    """Without the state if there is none: vmap returns tensors only."""
    return pair if pair[1] is not None else pair[:1]
