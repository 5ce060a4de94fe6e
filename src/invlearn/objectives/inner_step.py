"""meta-IRM's inner step as a function of gradients, its noise and its rate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from invlearn.objectives.meta_irm import MetaIRM

CURVATURE_EVERY = 10
"""Steps between two measurements of the curvature."""

CURVATURE_FLOOR = 0.1
"""Share of the first curvature below which it is not taken to fall."""


def draw_noise(
    rate: float, gradient: Mapping[str, Tensor], generator: torch.Generator | None
) -> dict[str, Tensor] | None:
    """DropGrad's factors 1 + N(0, p / (1 − p)) of a gradient; None at rate 0."""
    if not rate:
        return None
    scale = math.sqrt(rate / (1 - rate))
    factors = {}
    for name, g in gradient.items():
        device = g.device if generator is None else generator.device
        drawn = torch.randn(g.shape, generator=generator, dtype=g.dtype, device=device)
        factors[name] = 1 + scale * drawn.to(g.device)
    return factors


def stepped(
    objective: MetaIRM,
    inner_lr: float | Tensor,
    at: dict[str, Tensor],
    gradient: Mapping[str, Tensor],
    noise: Mapping[str, Tensor] | None,
) -> dict[str, Tensor]:
    """All parameters after an inner step along the gradient of the adapted ones."""
    length = norm(gradient) if objective.rate == "normalized" else None
    end = dict(at)
    for name, g in gradient.items():
        used = g if length is None else g / length
        used = used if noise is None else used * noise[name]
        end[name] = at[name] - inner_lr * used
    return end


def curvature(gradient: Mapping[str, Tensor], product: Mapping[str, Tensor]) -> Tensor:
    """gᵀHg / ‖g‖² of a risk along its own gradient g over some of the parameters, from H g."""
    slope = torch.stack([(g * product[name]).sum() for name, g in gradient.items()]).sum()
    return slope / norm(gradient) ** 2


def renewed_curvature(state: Tensor, measured: Tensor) -> Tensor:
    """The state [..., 3] after a step at which the curvature [...] was measured.

    Where the risk is flat, the rate has to stay finite; where it bends down, its size counts.
    """
    size = measured.to(torch.float64).abs()
    steps, first = state[..., 0], state[..., 2]
    first = torch.where(first > 0, first, size.clamp_min(1e-6))
    last = torch.maximum(size, CURVATURE_FLOOR * first)
    return torch.stack([steps + 1, last, first], -1)


def norm(parameters: Mapping[str, Tensor]) -> Tensor:
    """Euclidean norm of all of them together, at least 1e-12."""
    return (
        torch.stack([g.square().sum() for g in parameters.values()]).sum().sqrt().clamp_min(1e-12)
    )
