"""meta-IRM's exact gradient, by Hessian-vector products.

With θ_0 = θ and θ_{k+1} = θ_k − α m_k ⊙ ∇R_i(θ_k) for each environment i, the gradient of
F(L), L_ij = R_j(θ_K), starts from c = Σ_j ∂F/∂L_ij ∇R_j(θ_K) and goes back along the stored
parameters: c ← c − α H_i(θ_k) (m_k ⊙ c). Every term is a sum over rows; what is kept does not grow
with their number: parameters, gradients, and of the first inner gradients' graphs so many bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from invlearn.environments import Environments
from invlearn.errors import DivergenceError, OptionError
from invlearn.losses import Loss
from invlearn.objectives.base import State, Terms
from invlearn.objectives.meta_irm import MetaIRM
from invlearn.training.derivatives import Parameters, Risk, Tape, add_gradient, trainable

CURVATURE_EVERY = 10
"""Steps between two measurements of the curvature."""

TAPE_BYTES = 64 << 20
"""Bytes of graphs that are kept from the inner steps for their Hessian products, or none are."""

CURVATURE_FLOOR = 0.1
"""Share of the first curvature below which it is not taken to fall."""


@dataclass(frozen=True)
class InnerStep:
    """One inner step from θ: what is needed to differentiate it.

    noise: DropGrad's factors of the adapted parameters, or None; gradient: ∇R_i(θ) over them.
    """

    start: Parameters
    noise: Parameters | None
    gradient: Parameters


def meta_step(
    model: nn.Module,
    loss: Loss,
    objective: MetaIRM,
    inner: Environments,
    outer: Environments,
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
    drawn_from = noise_generator(seed, inner.device, generator)

    def risk(rows: Environments, e: int, what: int) -> Risk:
        return Risk(model, loss, rows, e, micro_batch, seed=seed + 7919 * (what + 1))

    tapes_bytes = 0 if objective.first_order else TAPE_BYTES / len(inner)
    risks, tapes = zip(
        *(risk(inner, i, 0).taped_gradient(theta, tapes_bytes) for i in range(len(inner))),
        strict=True,
    )
    rate = objective.inner_lr
    if objective.rate == "curvature":
        if state is None:
            raise OptionError(
                "Expected the state of meta-IRM, which holds the curvature, got None. Pass what "
                "objective.init(n_envs, like) or the step before returned."
            )
        state = _measure_curvature(state, objective, tapes)
        rate = objective.inner_lr / float(state[1])
    names = objective.adapted(list(theta))
    paths: list[list[InnerStep]] = []
    ends = []
    for i in range(len(inner)):
        at, gradient = theta, tapes[i].gradient
        path: list[InnerStep] = []
        for k in range(objective.inner_steps):
            if k > 0:
                gradient = risk(inner, i, k).gradient(at)[1]
            gradient = {name: gradient[name] for name in names}
            noise = draw_noise(objective.dropgrad, gradient, drawn_from)
            path.append(InnerStep(at, noise, gradient))
            at = stepped(objective, rate, at, gradient, noise)
        paths.append(path)
        ends.append(at)

    size = sum(p.numel() * p.element_size() for p in theta.values())
    keep = len(pairs) * size <= memory_budget
    losses, gradients = [], []
    for i, j in pairs:
        outer_risk = risk(outer, j, -1)
        value, gradient = outer_risk.gradient(ends[i]) if keep else (outer_risk.value(ends[i]), {})
        if not bool(torch.isfinite(value)):
            raise DivergenceError(diverged(inner.names[i], objective.inner_lr))
        losses.append(value)
        gradients.append(gradient)

    meta_losses = torch.stack(losses).requires_grad_()
    terms = objective.value(meta_losses, torch.stack(risks), len(inner))
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
                step = path[k]
                direction = transposed(objective, rate, step.noise, step.gradient, back)
                if k == 0:
                    product = tapes[i].hessian_product(direction)
                else:
                    product = risk(inner, i, k).hessian_product(step.start, direction)
                for name, p in product.items():
                    back[name] -= p
        if not all(math.isfinite(float(b.sum())) for b in back.values()):
            raise DivergenceError(diverged(inner.names[i], objective.inner_lr))
        for name, b in back.items():
            total[name] += b
    add_gradient(model, total)
    return Terms(*(term.detach() for term in terms)), state


def curvature(tape: Tape, names: Sequence[str]) -> float:
    """gᵀHg / ‖g‖² of a risk along its own gradient over some of the parameters."""
    along = {name: tape.gradient[name] for name in names}
    product = tape.hessian_product(along)
    slope = torch.stack([(g * product[name]).sum() for name, g in along.items()]).sum()
    return float(slope / _norm(along) ** 2)


def _measure_curvature(state: Tensor, objective: MetaIRM, tapes: Sequence[Tape]) -> Tensor:
    """The state after a step: steps, curvature (renewed every so many), first curvature."""
    if int(state[0]) % CURVATURE_EVERY:
        return torch.cat([state[:1] + 1, state[1:]])
    names = objective.adapted(list(tapes[0].gradient))
    found = [curvature(tape, names) for tape in tapes]
    return renewed_curvature(state, state.new_tensor(sum(found) / len(found)))


def renewed_curvature(state: Tensor, measured: Tensor) -> Tensor:
    """The state [..., 3] after a step at which the curvature [...] was measured.

    Where the risk is flat, the rate has to stay finite; where it bends down, its size counts.
    """
    size = measured.to(torch.float64).abs()
    steps, first = state[..., 0], state[..., 2]
    first = torch.where(first > 0, first, size.clamp_min(1e-6))
    last = torch.maximum(size, CURVATURE_FLOOR * first)
    return torch.stack([steps + 1, last, first], -1)


def adapt(risk: Risk, objective: MetaIRM, parameters: Parameters) -> Parameters:
    """θ' after the inner steps on a risk, without DropGrad's noise: for looking at it.

    Under ``rate="curvature"`` the rate follows this risk's curvature at the parameters.
    """
    names = objective.adapted(list(parameters))
    rate = objective.inner_lr
    if objective.rate == "curvature":
        found = abs(curvature(risk.taped_gradient(parameters, TAPE_BYTES)[1], names))
        rate /= max(found, 1e-6)
    at = parameters
    for _ in range(objective.inner_steps):
        gradient = risk.gradient(at)[1]
        at = stepped(objective, rate, at, {n: gradient[n] for n in names}, None)
    return at


def noise_generator(seed: int, device: torch.device, on_cpu: torch.Generator) -> torch.Generator:
    """What a step's noise is drawn from: the step's own generator, or one of the device's."""
    return on_cpu if device.type == "cpu" else torch.Generator(device).manual_seed(seed)


def draw_noise(
    rate: float, gradient: Mapping[str, Tensor], generator: torch.Generator
) -> Parameters | None:
    """DropGrad's factors 1 + N(0, p / (1 − p)) of a gradient; None at rate 0."""
    if not rate:
        return None
    scale = math.sqrt(rate / (1 - rate))
    return {
        name: 1 + scale * torch.randn(g.shape, generator=generator, dtype=g.dtype, device=g.device)
        for name, g in gradient.items()
    }


def stepped(
    objective: MetaIRM,
    inner_lr: float | Tensor,
    at: Parameters,
    gradient: Mapping[str, Tensor],
    noise: Mapping[str, Tensor] | None,
) -> Parameters:
    """All parameters after an inner step along the gradient of the adapted ones."""
    length = _norm(gradient) if objective.rate == "normalised" else None
    end = dict(at)
    for name, g in gradient.items():
        used = g if length is None else g / length
        used = used if noise is None else used * noise[name]
        end[name] = at[name] - inner_lr * used
    return end


def transposed(
    objective: MetaIRM,
    inner_lr: float | Tensor,
    noise: Mapping[str, Tensor] | None,
    gradient: Mapping[str, Tensor],
    back: Mapping[str, Tensor],
) -> Parameters:
    """The vector v with Jᵀ c = c − H v, J the derivative of the inner step."""
    v = {name: inner_lr * back[name] for name in gradient}
    if noise is not None:
        v = {name: noise[name] * vector for name, vector in v.items()}
    if objective.rate != "normalised":
        return v
    length = _norm(gradient)
    along = torch.stack([(g * v[name]).sum() for name, g in gradient.items()]).sum() / length**2
    return {name: (v[name] - along * g) / length for name, g in gradient.items()}


def _norm(parameters: Mapping[str, Tensor]) -> Tensor:
    return (
        torch.stack([g.square().sum() for g in parameters.values()]).sum().sqrt().clamp_min(1e-12)
    )


def diverged(environment: str, inner_lr: float) -> str:
    """What to say of an inner step that left no finite number."""
    return (
        f"adapted to environment '{environment}' with inner_lr={inner_lr:g}, the predictor's loss "
        "or its gradient is not a finite number. Lower inner_lr"
    )
