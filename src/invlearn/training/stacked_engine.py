"""One exact step of several runs at once: `Engine` over a stack, for every kind of objective."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import vmap

from invlearn.losses import Loss
from invlearn.objectives.base import GradientObjective, MeanObjective, Objective, Terms
from invlearn.objectives.meta_irm import MetaIRM
from invlearn.training.bilevel import (
    CURVATURE_EVERY,
    diverged,
    draw_noise,
    noise_generator,
    renewed_curvature,
    stepped,
    transposed,
)
from invlearn.training.derivatives import Parameters
from invlearn.training.engine import Batch
from invlearn.training.means import environment_means
from invlearn.training.stack import Stack, StackedRisk, StackedRows, flat


class Made(NamedTuple):
    """A step of R runs.

    terms, states: one entry a run along their first dimension (states None where the objective
    has none); gradient {name: [R, ...]}; errors: what went wrong, by run.
    """

    terms: Terms
    states: Tensor | None
    gradient: Parameters
    errors: dict[int, str]


class StackedEngine:
    """Computes an objective and its gradient in every run of a stack.

    Parameters
    ----------
    stack : Stack
    loss : Loss
    objective : Objective
        The same in every run; hyperparameters may differ.
    """

    def __init__(self, stack: Stack, loss: Loss, objective: Objective) -> None:
        self.stack = stack
        self.loss = loss
        self.objective = objective
        self._steps: int | None = None
        self._rows: tuple[tuple[int, ...], list[Batch], StackedRows] | None = None

    def step(
        self,
        batches: Sequence[Batch],
        states: Sequence[Any],
        numbers: Sequence[Mapping[str, float]],
    ) -> Made:
        """Evaluate the objective and its gradient on every run's batch, with its numbers."""
        rows = self._layout(batches)
        device = rows.x.device
        every = {
            name: torch.tensor([own[name] for own in numbers], dtype=torch.float64).to(
                device, non_blocking=True
            )
            for name in numbers[0]
        }
        state = None if states[0] is None else torch.stack(list(states)).to(device)
        objective: Any = self.objective
        if objective.needs == "inner steps":
            return self._meta_step(objective, rows, batches, numbers, every, state)
        if objective.needs == "gradients":
            return self._gradient_step(objective, rows, every, state)
        return self._mean_step(objective, rows, every, state)

    def _layout(self, batches: Sequence[Batch]) -> StackedRows:
        """The batches' rows; those of full batches, which stay the same, are laid out once."""
        key = tuple(id(batch.rows.y) for batch in batches)
        if self._rows is not None and self._rows[0] == key and batches[0].fold is None:
            return self._rows[2]
        rows = StackedRows.of(batches)
        self._rows = key, list(batches), rows  # The batches too, or an id might come again.
        return rows

    def _mean_step(
        self, objective: MeanObjective, rows: StackedRows, numbers: Any, state: Tensor | None
    ) -> Made:
        leaves = {n: p.detach().requires_grad_() for n, p in self.stack.parameters.items()}
        streamed = self.stack.forward(leaves, rows)
        z = streamed.outputs.requires_grad_()
        n_runs, n_envs, folds = len(z), len(rows.offsets) - 1, objective.folds
        run = torch.arange(n_runs, device=z.device)[:, None]
        segment = run * n_envs + rows.index
        if folds > 1:
            assert rows.fold is not None
            segment = segment * folds + rows.fold
        means = environment_means(
            objective.moments(self.loss, *flat(z, rows.y), None),
            segment.flatten(),
            n_runs * n_envs * folds,
            rows.weights.flatten(),
        )
        shape = (n_runs, n_envs) + ((folds,) if folds > 1 else ())
        means = {name: m.reshape(*shape, *m.shape[1:]) for name, m in means.items()}

        def value(means: Any, numbers: Any, state: Any) -> Any:
            terms, new = objective.bound(numbers).value(means, state)
            return tuple(terms) + (() if new is None else (new,))

        total, risks, penalty, *new = vmap(value, in_dims=(0, 0, None if state is None else 0))(
            means, numbers, state
        )
        (grad_z,) = torch.autograd.grad(total.sum(), z)
        streamed.backward(grad_z)
        gradient = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in leaves.items()}
        terms = Terms(total.detach(), risks.detach(), penalty.detach())
        return Made(terms, new[0].detach() if new else None, gradient, {})

    def _risks(self, rows: StackedRows) -> list[StackedRisk]:
        n_envs = len(rows.offsets) - 1
        return [StackedRisk(self.stack, self.loss, rows, e) for e in range(n_envs)]

    def _gradient_step(
        self, objective: GradientObjective, rows: StackedRows, numbers: Any, state: Tensor | None
    ) -> Made:
        theta = self.stack.parameters
        risks = self._risks(rows)
        found = [risk.gradient(theta) for risk in risks]
        values = torch.stack([value for value, _ in found], 1)
        gradients = {name: torch.stack([g[name] for _, g in found], 1) for name in theta}

        def combine(values: Any, gradients: Any, numbers: Any, state: Any) -> Any:
            own = objective.bound(numbers)
            scalars, state = own.scalars({"risk": values}, state)
            combination, new = own.combine(scalars, gradients, state)
            out = tuple(combination.terms), combination.gradient, combination.directions or {}
            return out + (() if new is None else (new,))

        terms, total, directions, *new = vmap(
            combine, in_dims=(0, 0, 0, None if state is None else 0)
        )(values, gradients, numbers, state)
        if directions:
            for e, risk in enumerate(risks):
                direction = {name: v[:, e].to(theta[name].dtype) for name, v in directions.items()}
                for name, product in risk.hessian_product(theta, direction).items():
                    total[name] = total[name] + product
        return Made(Terms(*terms), new[0] if new else None, total, {})

    def _meta_step(
        self,
        objective: MetaIRM,
        rows: StackedRows,
        batches: Sequence[Batch],
        numbers: Sequence[Mapping[str, float]],
        every: Mapping[str, Tensor],
        state: Tensor | None,
    ) -> Made:
        theta, n_envs = self.stack.parameters, len(rows.offsets) - 1
        on_cpu = [torch.Generator().manual_seed(batch.seed) for batch in batches]
        generators = [
            noise_generator(batch.seed, rows.x.device, own)
            for batch, own in zip(batches, on_cpu, strict=True)
        ]
        inner = outer = self._risks(rows)
        if objective.folds > 1:
            assert rows.fold is not None
            inner, outer = (self._risks(rows.select(rows.fold == fold)) for fold in range(2))
        names = objective.adapted(list(theta))
        risks, starts = zip(*(risk.gradient(theta) for risk in inner), strict=True)
        rate = every["inner_lr"]
        if state is not None:
            state = self._curvature(state, inner, names, starts)
            rate = rate / state[:, 1]
        rate = rate.to(next(iter(theta.values())).dtype)
        dropgrad = [own["dropgrad"] for own in numbers]

        def advance(rate: Tensor, at: Any, gradient: Any, noise: Any) -> Parameters:
            return stepped(objective, rate, at, gradient, noise)

        def go_back(rate: Tensor, noise: Any, gradient: Any, back: Any) -> Parameters:
            return transposed(objective, rate, noise, gradient, back)

        paths, ends = [], []
        for i in range(n_envs):
            at, gradient, path = theta, starts[i], []
            for k in range(objective.inner_steps):
                if k > 0:
                    gradient = inner[i].gradient(at)[1]
                gradient = {name: gradient[name] for name in names}
                noise = _noise(dropgrad, gradient, generators)
                path.append((at, noise, gradient))
                noisy = None if noise is None else 0
                at = vmap(advance, in_dims=(0, 0, 0, noisy))(rate, at, gradient, noise)
            paths.append(path)
            ends.append(at)

        pairs = objective.draw_pairs(n_envs, on_cpu[0])  # All of them: nothing is drawn.
        found = [outer[j].gradient(ends[i]) for i, j in pairs]
        losses = torch.stack([value for value, _ in found], 1).requires_grad_()
        terms = vmap(
            lambda losses, risks, own: tuple(objective.bound(own).value(losses, risks, n_envs))
        )(losses, torch.stack(risks, 1), dict(every))
        (weights,) = torch.autograd.grad(terms[0].sum(), losses)
        suspect = torch.full_like(every["inner_lr"], -1)
        for (i, _), value in zip(pairs, losses.detach().unbind(1), strict=True):
            suspect = torch.where((suspect < 0) & ~value.isfinite(), float(i), suspect)

        total = {name: torch.zeros_like(p) for name, p in theta.items()}
        for i, path in enumerate(paths):
            back = {name: torch.zeros_like(p) for name, p in theta.items()}
            for n, (adapted_to, _) in enumerate(pairs):
                if adapted_to == i:
                    for name, g in found[n][1].items():
                        w = weights[:, n].to(g.dtype)
                        back[name] += g * w.reshape(-1, *[1] * (g.ndim - 1))
            for at, noise, gradient in () if objective.first_order else reversed(path):
                noisy = None if noise is None else 0
                direction = vmap(go_back, in_dims=(0, noisy, 0, 0))(rate, noise, gradient, back)
                for name, product in inner[i].hessian_product(at, direction).items():
                    back[name] -= product
            sums = torch.stack([b.flatten(1).sum(1) for b in back.values()]).sum(0)
            suspect = torch.where((suspect < 0) & ~sums.isfinite(), float(i), suspect)
            for name, b in back.items():
                total[name] += b
        kept = Terms(*(term.detach() for term in terms))
        if suspect.device.type != "cpu":  # Said without a look at the device: it would wait.
            bad = suspect >= 0
            return Made(kept._replace(total=kept.total.where(~bad, torch.nan)), state, total, {})
        errors = {
            r: diverged(batches[r].rows.names[int(e)], numbers[r]["inner_lr"])
            for r, e in enumerate(suspect.tolist())
            if e >= 0
        }
        return Made(kept, state, total, errors)

    def _curvature(
        self,
        state: Tensor,
        risks: Sequence[StackedRisk],
        names: Sequence[str],
        gradients: Sequence[Parameters],
    ) -> Tensor:
        """The states after a step; the runs' steps are the same."""
        steps = int(state[0, 0]) if self._steps is None else self._steps  # One look at a device.
        self._steps = steps + 1
        if steps % CURVATURE_EVERY:
            return torch.cat([state[:, :1] + 1, state[:, 1:]], 1)
        measured = torch.zeros_like(state[:, 0])
        for risk, gradient in zip(risks, gradients, strict=True):
            along = {name: gradient[name] for name in names}
            product = risk.hessian_product(self.stack.parameters, along)
            slope = torch.stack([(g * product[n]).flatten(1).sum(1) for n, g in along.items()])
            square = torch.stack([g.square().flatten(1).sum(1) for g in along.values()]).sum(0)
            measured += slope.sum(0) / square.sqrt().clamp_min(1e-12) ** 2 / len(risks)
        return renewed_curvature(state, measured)


def _noise(
    rates: Sequence[float], gradient: Parameters, generators: Sequence[torch.Generator]
) -> Parameters | None:
    """Every run's DropGrad factors, each from its own generator."""
    if not any(rates):
        return None
    drawn = [
        draw_noise(rate, {name: g[r] for name, g in gradient.items()}, generator)
        or {name: torch.ones_like(g[r]) for name, g in gradient.items()}
        for r, (rate, generator) in enumerate(zip(rates, generators, strict=True))
    ]
    return {name: torch.stack([one[name] for one in drawn]) for name in gradient}
