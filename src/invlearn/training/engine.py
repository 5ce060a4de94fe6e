"""One exact step: means over rows, a small function of them, and its gradient back to the rows.

The predictor runs over micro-batches of rows that stay in cache. Its outputs (a few numbers a
row) are gathered and cut off from their graphs; on them the objective is evaluated whole and
differentiated; the resulting weights go back through each micro-batch's graph. Value and
gradient are those of the whole batch however it is cut, up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from invlearn.environments import Environments
from invlearn.errors import OptionError
from invlearn.features import ChannelImages
from invlearn.losses import Loss
from invlearn.models import batch_norms
from invlearn.objectives.base import GradientObjective, MeanObjective, Objective, State, Terms
from invlearn.training.means import environment_means

DEFAULT_MICRO_BATCH = 2500
"""Rows whose activations (a few hundred units wide) stay in a core's cache."""


@dataclass(frozen=True)
class Batch:
    """The rows of one step; `fold` [n] numbers their random halves where one is asked for."""

    rows: Environments
    fold: Tensor | None = None


class Engine:
    """Computes an objective and its gradient over a batch of environments.

    Parameters
    ----------
    model : nn.Module
        Maps n rows of features to outputs [n, k]. Gradients are added to its parameters'.
    loss : Loss
    objective : Objective
    micro_batch : int or None, optional
        Rows forwarded at a time; None forwards all rows at once. Default: 2,500, or None
        for a model with batch norm, whose statistics depend on the rows it sees together.
    memory_budget : int, optional
        Bytes of activations to keep for the backward pass; micro-batches beyond it are
        recomputed. Default 2 GiB.

    Raises
    ------
    OptionError
        Batch norm together with micro-batches, or with an objective that forwards the
        environments one by one.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        objective: Objective,
        *,
        micro_batch: int | str | None = "auto",
        memory_budget: int = 2 << 30,
    ) -> None:
        norms = batch_norms(model)
        if micro_batch == "auto":
            micro_batch = None if norms else DEFAULT_MICRO_BATCH
        if isinstance(micro_batch, str) or (micro_batch is not None and micro_batch < 1):
            raise OptionError(
                f"Expected micro_batch of 1 or more, None or 'auto', got {micro_batch!r}."
            )
        apart = isinstance(objective, GradientObjective)
        if norms and (micro_batch is not None or apart):
            how = f"{objective.title} forwards" if apart else "micro-batches forward"
            raise OptionError(
                f"Layer '{norms[0]}' is a batch norm: its statistics would change because {how} "
                "only some rows at a time. Use group or layer norm"
                + ("." if apart else ", or micro_batch=None.")
            )
        self.model = model
        self.loss = loss
        self.objective = objective
        self.micro_batch = micro_batch
        self.memory_budget = memory_budget
        self._row_bytes: float | None = None

    def step(self, batch: Batch, hyper: Any, state: State) -> tuple[Terms, State]:
        """Evaluate the objective on the batch and add its gradient to the parameters' `.grad`.

        Returns
        -------
        (Terms, State)
            Detached terms, and the objective's state after the step.

        Raises
        ------
        OptionError
            A batch without the folds that the objective asks for, or weights that sum to 0.
        """
        if isinstance(self.objective, GradientObjective):
            return self._gradient_step(self.objective, batch, hyper, state)
        if isinstance(self.objective, MeanObjective):
            return self._mean_step(self.objective, batch, hyper, state)
        raise OptionError(
            f"Expected a MeanObjective or a GradientObjective, got {type(self.objective)}."
        )

    def _mean_step(
        self, objective: MeanObjective, batch: Batch, hyper: Any, state: State
    ) -> tuple[Terms, State]:
        rows = batch.rows
        graphs = list(self._outputs(rows))
        z = torch.cat([graph.detach() for graph in graphs]).requires_grad_()
        moments = objective.moments(self.loss, z.to(torch.float64), rows.y)
        n_envs, folds = len(rows), objective.folds
        segment = rows.index.to(z.device)
        if folds > 1:
            if batch.fold is None:
                raise OptionError(f"{objective.title} asks for {folds} folds; the batch has none.")
            segment = segment * folds + batch.fold.to(z.device)
        means = environment_means(moments, segment, n_envs * folds, rows.weights)
        if folds > 1:
            means = {name: m.reshape(n_envs, folds, *m.shape[1:]) for name, m in means.items()}
        terms, state = objective.value(means, hyper, state)
        (grad_z,) = torch.autograd.grad(terms.total, z)
        if bool(torch.isfinite(terms.total)):
            start = 0
            for graph in graphs:
                torch.autograd.backward(graph, grad_z[start : start + len(graph)])
                start += len(graph)
        return Terms(*(term.detach() for term in terms)), state

    def _outputs(self, rows: Environments) -> Iterator[Tensor]:
        """Outputs of each micro-batch, with their graphs while the budget lasts."""
        kept = 0.0
        for part in self._slices(0, rows.n_rows):
            x = rows.x[part]
            if self._row_bytes is None:
                out, self._row_bytes = _measured(self.model, x)
                kept += self._row_bytes * len(x)
                yield out
                continue
            kept += self._row_bytes * len(x)
            if kept <= self.memory_budget or self.micro_batch is None:
                yield self.model(x)
            else:
                yield checkpoint(self.model, x, use_reentrant=False)

    def _slices(self, start: int, stop: int) -> Iterator[slice]:
        size = self.micro_batch or max(stop - start, 1)
        for a in range(start, stop, size):
            yield slice(a, min(a + size, stop))

    def _gradient_step(
        self, objective: GradientObjective, batch: Batch, hyper: Any, state: State
    ) -> tuple[Terms, State]:
        rows = batch.rows
        params = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        names, leaves = list(params), list(params.values())
        risks, gradients = [], []
        for start, stop in zip(rows.offsets, rows.offsets[1:], strict=False):
            total = [torch.zeros_like(p) for p in leaves]
            risk = torch.zeros((), dtype=torch.float64)
            for x, y, w in self._weighted(rows, start, stop):
                value = (w * self.loss.value(self.model(x), y)).sum()
                risk = risk + value.detach().to(torch.float64)
                grads = torch.autograd.grad(value, leaves, materialize_grads=True)
                for t, g in zip(total, grads, strict=True):
                    t += g
            risks.append(risk)
            gradients.append(total)
        stacked = {name: torch.stack([g[i] for g in gradients]) for i, name in enumerate(names)}
        combination, state = objective.combine(torch.stack(risks), stacked, hyper, state)
        for name, p in params.items():
            weights = combination.weights.to(p.dtype)
            gradient = torch.tensordot(weights, stacked[name], dims=1)
            p.grad = gradient if p.grad is None else p.grad + gradient
        if combination.directions is not None:
            for e in range(len(rows)):
                direction = {name: v[e] for name, v in combination.directions.items()}
                for name, product in self.hessian_product(rows, e, direction).items():
                    grad = params[name].grad
                    if grad is not None:
                        grad += product
        return Terms(*(term.detach() for term in combination.terms)), state

    def hessian_product(
        self, rows: Environments, e: int, direction: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """H_e v: the Hessian of environment e's risk times a direction, streamed over rows.

        Reverse over reverse inside each micro-batch, so its graph of gradients stays small.
        """
        params = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        leaves = list(params.values())
        total = {name: torch.zeros_like(p) for name, p in params.items()}
        for x, y, w in self._weighted(rows, rows.offsets[e], rows.offsets[e + 1]):
            risk = (w * self.loss.value(self.model(x), y)).sum()
            gradient = torch.autograd.grad(risk, leaves, create_graph=True, materialize_grads=True)
            along = sum(
                ((g * direction[name]).sum() for name, g in zip(params, gradient, strict=True)),
                torch.zeros((), dtype=risk.dtype, device=risk.device),
            )
            product = torch.autograd.grad(along, leaves, materialize_grads=True)
            for name, p in zip(params, product, strict=True):
                total[name] += p
        return total

    def _weighted(
        self, rows: Environments, start: int, stop: int
    ) -> Iterator[tuple[Any, Tensor, Tensor]]:
        """Micro-batches of one environment with row weights that sum to 1 over it."""
        x0 = rows.x
        if rows.weights is None:
            w = torch.full((stop - start,), 1 / (stop - start), dtype=x0.dtype, device=x0.device)
        else:
            w = rows.weights[start:stop] / rows.weights[start:stop].sum()
        for part in self._slices(start, stop):
            yield x0[part], rows.y[part], w[part.start - start : part.stop - start]


def _measured(model: nn.Module, x: Any) -> tuple[Tensor, float]:
    """Outputs of x, and the bytes a row that their graph holds beside parameters and x."""
    own = [x.pixels if isinstance(x, ChannelImages) else x, *model.parameters()]
    seen: dict[int, int] = {tensor.untyped_storage().data_ptr(): 0 for tensor in own}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        seen.setdefault(storage.data_ptr(), storage.nbytes())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = model(x)
    return out, sum(seen.values()) / len(x)
