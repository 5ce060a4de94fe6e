"""meta-IRM's exact gradient, by Hessian-vector products.

With θ_0 = θ and θ_{k+1} = θ_k − α m_k ⊙ ∇R_i(θ_k) for each environment i, the gradient of
F(L), L_ij = R_j(θ_K), starts from c = Σ_j ∂F/∂L_ij ∇R_j(θ_K) and goes back along the stored
parameters: c ← c − α H_i(θ_k) (m_k ⊙ c). Every term is a sum over rows; what is kept does not grow
with their number: parameters, gradients, and of the first inner gradients' graphs so many bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from invlearn.errors import OptionError
from invlearn.objectives.base import State, Terms
from invlearn.objectives.inner_step import CURVATURE_EVERY, curvature, renewed_curvature, stepped
from invlearn.objectives.meta_irm import MetaIRM
from invlearn.training.derivatives import Risk
from invlearn.training.inner_steps import InnerSteps
from invlearn.training.risks import Parameters, Tape, add, add_scaled, zeros
from invlearn.training.runs import Runs
from invlearn.training.steps import Made

TAPE_BYTES = 64 << 20
"""Bytes of graphs that are kept from the inner steps for their Hessian products, or none are."""


def meta_step(runs: Runs, objective: MetaIRM, state: State) -> Made:
    """Evaluate meta-IRM and its gradient, of a single run or of a stack.

    Returns
    -------
    Made
        With an error for a run in which a meta-loss or its gradient is not finite, which names
        the environment adapted to.
    """
    runs.mass()  # Complains of weights that sum to 0.
    theta, n_envs = runs.parameters, runs.n_envs
    inner, outer = (0, 1) if objective.folds > 1 else (None, None)
    budget = 0 if objective.first_order else TAPE_BYTES / n_envs
    risks, tapes = zip(
        *(runs.risk(i, inner, 1).taped_gradient(theta, budget) for i in range(n_envs)), strict=True
    )
    rate = torch.as_tensor(runs.numbers["inner_lr"], dtype=torch.float64, device=runs.device)
    if objective.rate == "curvature":
        if state is None:
            raise OptionError(
                "Expected the state of meta-IRM, which holds the curvature, got None. Pass what "
                "objective.init(n_envs, like) or the step before returned."
            )
        state = _measure_curvature(runs, state, objective, tapes)
        rate = rate / state[..., 1]
    rate = rate.to(next(iter(theta.values())).dtype)
    on_cpu = [torch.Generator().manual_seed(batch.seed) for batch in runs.batches]
    pairs = objective.draw_pairs(n_envs, on_cpu[0])  # Those of a stack are all: none is drawn.
    generators = [
        own if runs.device.type == "cpu" else torch.Generator(runs.device).manual_seed(batch.seed)
        for batch, own in zip(runs.batches, on_cpu, strict=True)
    ]
    steps = InnerSteps(runs, objective, rate, inner, generators)
    paths, ends = zip(*(steps.on(i, tape) for i, tape in enumerate(tapes)), strict=True)
    keep = runs.holds(len(pairs))
    found = []
    for i, j in pairs:
        risk = runs.risk(j, outer)
        found.append(risk.gradient(ends[i]) if keep else (risk.value(ends[i]), None))
    losses = torch.stack([value for value, _ in found], -1).requires_grad_()

    def objective_of(losses: Tensor, risks: Tensor, numbers: Any) -> Terms:
        return objective.bound(numbers).value(losses, risks, n_envs)

    terms = runs.each(objective_of, losses, torch.stack(risks, -1), runs.numbers)
    (weights,) = torch.autograd.grad(terms.total.sum(), losses)
    total, sums = zeros(theta), []
    for i, path in enumerate(paths):
        back = zeros(theta)
        for w, (adapted_to, j), (_, gradient) in zip(weights.unbind(-1), pairs, found, strict=True):
            if adapted_to == i:
                add_scaled(back, w, gradient or runs.risk(j, outer).gradient(ends[i])[1])
        if not objective.first_order:
            steps.back(path, back)
        each = [b.reshape(*runs.shape, -1).sum(-1) for b in back.values()]
        sums.append(torch.stack(each).sum(0))
        add(total, tuple(back.values()))
    made = Made(Terms(*(term.detach() for term in terms)), state, total, {})
    # A loss that is not finite spoils all gradients: the losses are asked first.
    looked_at = torch.cat([losses.detach(), torch.stack(sums, -1)], -1).isfinite()
    return _checked(runs, made, looked_at, [i for i, _ in pairs] + list(range(n_envs)))


def _checked(runs: Runs, made: Made, finite: Tensor, behind: Sequence[int]) -> Made:
    """The step, with what to say of the first of its numbers that is not finite.

    finite [*shape, numbers]; behind: the environment adapted to.
    """
    if runs.device.type != "cpu":  # Said without a look at the device: it would wait.
        total = made.terms.total.where(finite.all(-1), torch.nan)
        return made._replace(terms=made.terms._replace(total=total))
    for r, own in enumerate(finite.reshape(-1, len(behind)).tolist()):
        if not all(own):
            name = runs.batches[r].rows.names[behind[own.index(False)]]
            made.errors[r] = diverged(name, runs.own[r]["inner_lr"])
    return made


def _measure_curvature(
    runs: Runs, state: Tensor, objective: MetaIRM, tapes: Sequence[Tape]
) -> Tensor:
    """The state after a step: steps, curvature (renewed every so many), first curvature."""
    steps = int(state.flatten()[0]) if runs.steps_made is None else runs.steps_made
    if steps % CURVATURE_EVERY:
        return torch.cat([state[..., :1] + 1, state[..., 1:]], -1)
    found = []
    for tape in tapes:
        along = {name: tape.gradient[name] for name in objective.adapted(list(tape.gradient))}
        found.append(runs.each(curvature, along, tape.hessian_product(along)))
    return renewed_curvature(state, torch.stack(found).to(torch.float64).mean(0))


def adapt(risk: Risk, objective: MetaIRM, parameters: Parameters) -> Parameters:
    """θ' after the inner steps on a risk, without DropGrad's noise: for looking at it.

    Under ``rate="curvature"`` the rate follows this risk's curvature at the parameters.
    """
    names = objective.adapted(list(parameters))
    rate = objective.inner_lr
    if objective.rate == "curvature":
        tape = risk.taped_gradient(parameters, TAPE_BYTES)[1]
        along = {name: tape.gradient[name] for name in names}
        found = abs(float(curvature(along, tape.hessian_product(along))))
        rate /= max(found, 1e-6)
    at = parameters
    for _ in range(objective.inner_steps):
        gradient = risk.gradient(at)[1]
        at = stepped(objective, rate, at, {n: gradient[n] for n in names}, None)
    return at


def diverged(environment: str, inner_lr: float) -> str:
    """What to say of an inner step that left no finite number."""
    return (
        f"adapted to environment '{environment}' with inner_lr={inner_lr:g}, the predictor's loss "
        "or its gradient is not a finite number. Lower inner_lr"
    )
