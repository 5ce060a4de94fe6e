"""meta-IRM on a batch: both levels as one graph, for a training loop of one's own.

The trainer's engine has the same gradient in bounded memory, by Hessian products.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from invlearn.errors import OptionError
from invlearn.losses import AnyLoss, Loss, get_loss
from invlearn.means import empty
from invlearn.models import batch_norms, call
from invlearn.objectives.batch import BatchRows, Memory, rows_of_batch, shown, width
from invlearn.objectives.inner_step import (
    CURVATURE_EVERY,
    curvature,
    draw_noise,
    renewed_curvature,
    stepped,
)
from invlearn.objectives.own_loop import at_strength, carried

if TYPE_CHECKING:
    from invlearn.objectives.meta_irm import MetaIRM

Parameters = dict[str, Tensor]


class _Risks:
    """Risks of a batch's environments as functions of the parameters, with their graphs."""

    def __init__(self, model: nn.Module, inputs: Tensor, rows: BatchRows, loss: AnyLoss) -> None:
        self.model, self.inputs, self.rows = model, inputs, rows
        self.loss: Loss = get_loss(loss, rows.y)
        self.checked = False

    def of(self, e: int, at: Mapping[str, Tensor], fold: int | None = None) -> Tensor:
        """R_e, or that of the environment's rows in a fold."""
        mine = self.rows.of(e, fold)
        z = call(self.model, at, self.inputs[mine])
        y, weights = self.rows.y[mine], self.rows.weights[mine]
        if not self.checked:
            self.loss.check(self.rows.y, width(z))
            self.checked = True
        if not float(weights.sum()) > 0:
            raise empty(self.rows.names[e])
        z = z.to(torch.float64)
        risk = weights @ self.loss.value(z, y) / weights.sum()
        if not bool(risk.detach().isfinite()):
            self.loss.check_values(z.detach(), y)
        return risk


def meta_total(
    objective: MetaIRM,
    model: nn.Module,
    inputs: Any,
    targets: Any,
    environments: Any,
    *,
    loss: AnyLoss,
    weights: Any = None,
    memory: Memory | None = None,
    strength: float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The objective on a batch, with the graph through its inner steps; see `on_model`."""
    objective = at_strength(objective, strength)
    if not isinstance(inputs, Tensor):
        raise OptionError(
            f"Expected inputs as a tensor [n, ...], of which {objective.title} takes the rows of "
            f"each environment, got {shown(inputs)}. Pass one tensor, and a module that takes it "
            "apart."
        )
    rows = rows_of_batch(
        objective, inputs, targets, environments, weights, memory, generator, what="inputs"
    )
    norms = [name for name in batch_norms(model) if model.get_submodule(name).training]
    if norms:
        raise OptionError(
            f"Layer '{norms[0]}' is a batch norm: its statistics would be those of one environment "
            "in the inner step and of another in the meta-loss. Use group or layer norm, or freeze "
            "its statistics: model.get_submodule(name).eval()."
        )
    theta: Parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    objective.check_parameters(list(theta))
    risks, n_envs = _Risks(model, inputs, rows, loss), len(rows.names)
    state = carried(objective, memory, n_envs, rows.place.device)
    inner, outer = (0, 1) if objective.folds > 1 else (None, None)
    before = [risks.of(e, theta, inner) for e in range(n_envs)]
    first = [_adapted_gradient(objective, risk, theta) for risk in before]
    rate: float | Tensor = objective.inner_lr
    if state is not None:
        state = _measured(state, theta, first)
        rate = rate / state[1]
        if memory is not None:
            memory.state = state
    pairs = objective.draw_pairs(n_envs, generator)
    ends = []
    for e, gradient in enumerate(first):
        at: Parameters = theta
        for k in range(objective.inner_steps):
            if k:
                gradient = _adapted_gradient(objective, risks.of(e, at, inner), at)
            if objective.first_order:
                gradient = {name: g.detach() for name, g in gradient.items()}
            noise = draw_noise(objective.dropgrad, gradient, generator)
            at = stepped(objective, rate, at, gradient, noise)
        ends.append(at)
    losses = torch.stack([risks.of(j, ends[i], outer) for i, j in pairs])
    return objective.value(losses, torch.stack(before).detach(), n_envs).total


def _adapted_gradient(objective: MetaIRM, risk: Tensor, at: Parameters) -> Parameters:
    """A risk's gradient in the parameters that the inner steps change, with its graph."""
    names = objective.adapted(list(at))
    found = torch.autograd.grad(
        risk, [at[name] for name in names], create_graph=True, materialize_grads=True
    )
    return dict(zip(names, found, strict=True))


def _measured(state: Tensor, theta: Parameters, gradients: list[Parameters]) -> Tensor:
    """The state after a batch; the curvature of the risks is measured every so many."""
    if int(state[0]) % CURVATURE_EVERY:
        return torch.cat([state[:1] + 1, state[1:]])
    found = []
    for gradient in gradients:
        along = {name: g.detach() for name, g in gradient.items()}
        slope = torch.stack([(gradient[name] * along[name]).sum() for name in along]).sum()
        leaves = [theta[name] for name in along]
        products = tuple(torch.zeros_like(leaf) for leaf in leaves)
        if slope.requires_grad:  # A risk that is linear in them has no curvature.
            products = torch.autograd.grad(slope, leaves, retain_graph=True, materialize_grads=True)
        found.append(curvature(along, dict(zip(along, products, strict=True))))
    return renewed_curvature(state, torch.stack(found).to(torch.float64).mean(0))
