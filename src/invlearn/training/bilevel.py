"""meta-IRM's exact gradient: Hessian-vector products instead of a graph of gradients.

With θ_0 = θ and θ_{k+1} = θ_k − α m_k ⊙ ∇R_i(θ_k) for each environment i, the gradient of
F(L), L_ij = R_j(θ_K), starts from c = Σ_j ∂F/∂L_ij ∇R_j(θ_K) and goes back along the stored
parameters: c ← c − α H_i(θ_k) (m_k ⊙ c). Every term is a sum over rows; nothing kept grows
with their number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from invlearn.environments import Environments
from invlearn.errors import DivergenceError, OptionError
from invlearn.losses import Loss
from invlearn.objectives.base import State, Terms
from invlearn.objectives.meta_irm import MetaIRM, MetaIRMHyper
from invlearn.training.derivatives import Parameters, Risk, add_gradient, trainable

CURVATURE_EVERY = 10
"""Steps between two measurements of the curvature."""

CURVATURE_FLOOR = 0.1
"""Share of the first curvature below which it is not taken to fall."""


@dataclass(frozen=True)
class InnerStep:
    """One inner step from θ: what is needed to differentiate it.

    names: of the adapted parameters; noise: DropGrad's factors of them, or None; gradient:
    ∇R_i(θ) over them, kept only where the step is normalised.
    """

    start: Parameters
    names: list[str]
    noise: Parameters | None
    gradient: Parameters | None


def meta_step(
    model: nn.Module,
    loss: Loss,
    objective: MetaIRM,
    inner: Environments,
    outer: Environments,
    hyper: MetaIRMHyper,
    state: State,
    *,
    seed: int,
    micro_batch: int | None,
    memory_budget: int,
) -> tuple[Terms, State]:
    """Evaluate meta-IRM and add its gradient to the parameters' `.grad`.

    Parameters
    ----------
    inner, outer : Environments
        Rows of the inner steps and of the meta-losses; the same object where they are shared.
    seed : int
        Of DropGrad's noise, the pairs drawn and dropout.
    memory_budget : int
        Bytes for one gradient per pair; beyond it they are computed a second time.

    Raises
    ------
    DivergenceError
        A meta-loss or its gradient is not finite, with the environment adapted to.
    """
    generator = torch.Generator().manual_seed(seed)
    theta = trainable(model)
    pairs = objective.draw_pairs(len(inner), generator)

    def risk(rows: Environments, e: int, what: int) -> Risk:
        return Risk(model, loss, rows, e, micro_batch, seed=seed + 7919 * (what + 1))

    first = [risk(inner, i, 0) for i in range(len(inner))]
    risks, starts = zip(*(r.gradient(theta) for r in first), strict=True)
    asked = hyper.inner_lr
    if objective.rate == "curvature":
        if state is None:
            raise OptionError(
                "Expected the state of meta-IRM, which holds the curvature, got None. Pass what "
                "objective.init(n_envs, like) or the step before returned."
            )
        state = _measure_curvature(state, objective, first, theta, starts)
        hyper = hyper._replace(inner_lr=hyper.inner_lr / float(state[1]))
    paths, ends = [], []
    for i in range(len(inner)):
        at, path, gradient = theta, [], starts[i]
        for k in range(objective.inner_steps):
            if k > 0:
                gradient = risk(inner, i, k).gradient(at)[1]
            step, at = _inner_step(objective, hyper, at, gradient, generator)
            path.append(step)
        paths.append(path)
        ends.append(at)

    size = sum(p.numel() * p.element_size() for p in theta.values())
    keep = len(pairs) * size <= memory_budget
    losses, gradients = [], []
    for i, j in pairs:
        outer_risk = risk(outer, j, -1)
        value, gradient = outer_risk.gradient(ends[i]) if keep else (outer_risk.value(ends[i]), {})
        if not bool(torch.isfinite(value)):
            raise DivergenceError(_diverged(inner.names[i], asked))
        losses.append(value)
        gradients.append(gradient)

    meta_losses = torch.stack(losses).requires_grad_()
    terms = objective.value(meta_losses, torch.stack(risks), len(inner), hyper)
    (weights,) = torch.autograd.grad(terms.total, meta_losses)

    total = {name: torch.zeros_like(p) for name, p in theta.items()}
    for i, path in enumerate(paths):
        back = {name: torch.zeros_like(p) for name, p in theta.items()}
        for n, (adapted_to, j) in enumerate(pairs):
            if adapted_to == i:
                gradient = gradients[n] or risk(outer, j, -1).gradient(ends[i])[1]
                for name, g in gradient.items():
                    back[name].add_(g, alpha=float(weights[n]))
        if not objective.first_order:
            for k in reversed(range(objective.inner_steps)):
                direction = _transposed(path[k], back, hyper.inner_lr)
                product = risk(inner, i, k).hessian_product(path[k].start, direction)
                for name, p in product.items():
                    back[name] -= p
        if not all(math.isfinite(float(b.sum())) for b in back.values()):
            raise DivergenceError(_diverged(inner.names[i], asked))
        for name, b in back.items():
            total[name] += b
    add_gradient(model, total)
    return Terms(*(term.detach() for term in terms)), state


def curvature(risk: Risk, names: Sequence[str], theta: Parameters, gradient: Parameters) -> float:
    """gᵀHg / ‖g‖² of a risk along its own gradient over some of the parameters."""
    along = {name: gradient[name] for name in names}
    product = risk.hessian_product(theta, along)
    slope = torch.stack([(g * product[name]).sum() for name, g in along.items()]).sum()
    return float(slope / _norm(along) ** 2)


def _measure_curvature(
    state: Tensor,
    objective: MetaIRM,
    risks: Sequence[Risk],
    theta: Parameters,
    gradients: Sequence[Parameters],
) -> Tensor:
    """The state after a step: steps, curvature (renewed every so many), first curvature."""
    steps, last, first = state.tolist()
    if steps % CURVATURE_EVERY == 0:
        names = objective.adapted(list(theta))
        found = [curvature(r, names, theta, g) for r, g in zip(risks, gradients, strict=True)]
        measured = sum(found) / len(found)
        first = first or max(abs(measured), 1e-6)
        # Where the risk is flat, the rate has to stay finite; where it bends down, its size counts.
        last = max(abs(measured), CURVATURE_FLOOR * first)
    return torch.tensor([steps + 1, last, first], dtype=torch.float64)


def adapt(
    risk: Risk, objective: MetaIRM, hyper: MetaIRMHyper, parameters: Parameters
) -> Parameters:
    """θ' after the inner steps on a risk, without DropGrad's noise: for looking at it.

    Under ``rate="curvature"`` the rate follows this risk's curvature at the parameters.
    """
    hyper = hyper._replace(dropgrad=0.0)
    gradient = risk.gradient(parameters)[1]
    if objective.rate == "curvature":
        found = abs(curvature(risk, objective.adapted(list(parameters)), parameters, gradient))
        hyper = hyper._replace(inner_lr=hyper.inner_lr / max(found, 1e-6))
    at = parameters
    for _ in range(objective.inner_steps):
        at = _inner_step(objective, hyper, at, risk.gradient(at)[1], torch.Generator())[1]
    return at


def _inner_step(
    objective: MetaIRM,
    hyper: MetaIRMHyper,
    at: Parameters,
    gradient: Parameters,
    generator: torch.Generator,
) -> tuple[InnerStep, Parameters]:
    names = objective.adapted(list(at))
    gradient = {name: gradient[name] for name in names}
    noise, used = None, gradient
    if objective.rate == "normalised":
        length = _norm(gradient)
        used = {name: g / length for name, g in gradient.items()}
    if hyper.dropgrad:
        scale = math.sqrt(hyper.dropgrad / (1 - hyper.dropgrad))
        noise = {
            name: 1 + scale * torch.randn(g.shape, generator=generator, dtype=g.dtype).to(g.device)
            for name, g in gradient.items()
        }
        used = {name: g * noise[name] for name, g in used.items()}
    end = at | {name: at[name] - hyper.inner_lr * g for name, g in used.items()}
    return InnerStep(at, names, noise, gradient if objective.rate == "normalised" else None), end


def _transposed(step: InnerStep, back: Parameters, inner_lr: float) -> Parameters:
    """The vector v with Jᵀ c = c − H v, J the derivative of the inner step."""
    v = {name: inner_lr * back[name] for name in step.names}
    if step.noise is not None:
        v = {name: step.noise[name] * vector for name, vector in v.items()}
    if step.gradient is None:
        return v
    length, gradient = _norm(step.gradient), step.gradient
    along = torch.stack([(g * v[name]).sum() for name, g in gradient.items()]).sum() / length**2
    return {name: (v[name] - along * g) / length for name, g in gradient.items()}


def _norm(parameters: Parameters) -> Tensor:
    return (
        torch.stack([g.square().sum() for g in parameters.values()]).sum().sqrt().clamp_min(1e-12)
    )


def _diverged(environment: str, inner_lr: float) -> str:
    return (
        f"adapted to environment '{environment}' with inner_lr={inner_lr:g}, the predictor's loss "
        "or its gradient is not a finite number. Lower inner_lr"
    )
