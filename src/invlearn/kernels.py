"""The linear layer on this CPU: the same numbers from the faster of two libraries.

With AVX-512, torch's default library for float32 products takes a slow path on processors
that are not of its own make, while oneDNN, which torch also carries, does not (more than
twice as fast on such a machine; see docs/architecture.md). The choice depends on the
processor's abilities alone, never on a timing, so that reruns stay bit-identical.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.autograd.forward_ad as forward_ad
import torch.nn.functional as F
from torch import Tensor

_MIN_ROWS = 64
"""Below this many rows a product's overhead outweighs its arithmetic."""

_MID_ROWS = 1500
"""Rows from which a transposed copy of an operand no longer stays in the nearest cache."""


def _find() -> bool:
    return (
        torch.backends.cpu.get_cpu_capability() == "AVX512"
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


ONEDNN: bool = _find()
"""Whether float32 products on this CPU go through oneDNN."""


def _product(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """``a @ b.T + bias`` for float32; oneDNN wants packed operands or plain transposes."""
    out: Tensor = torch.ops.mkldnn._linear_pointwise(_packed(a), _packed(b), bias, "none", [], "")
    return out


def _transposed_product(a: Tensor, b: Tensor) -> Tensor:
    """``a.T @ b``; oneDNN copies its transposed first operand, so the narrower one goes there.

    From some thousand rows on, that copy costs more than torch's own product, which in turn is
    slow only for operands far larger than a cache.
    """
    if _MID_ROWS < len(a) <= 8 * _MID_ROWS:
        return a.t() @ b
    if b.shape[1] < a.shape[1]:
        return _product(b.t(), a.t()).t()
    return _product(a.t(), b.t())


def _packed(matrix: Tensor) -> Tensor:
    return matrix if matrix.is_contiguous() or matrix.t().is_contiguous() else matrix.contiguous()


class _Linear(torch.autograd.Function):
    """``x @ weight.T + bias`` whose three products run in oneDNN."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad = grad.contiguous()
        if torch.is_grad_enabled():  # Differentiated again: products that have a derivative.
            return (
                _Linear.apply(grad, weight.t(), None) if ctx.needs_input_grad[0] else None,  # type: ignore[no-untyped-call]
                _WeightGradient.apply(grad, x) if ctx.needs_input_grad[1] else None,  # type: ignore[no-untyped-call]
                grad.sum(0) if ctx.needs_input_grad[2] else None,
            )
        return (
            _product(grad, weight.t()) if ctx.needs_input_grad[0] else None,
            _transposed_product(grad, x) if ctx.needs_input_grad[1] else None,
            grad.sum(0) if ctx.needs_input_grad[2] else None,
        )


class _WeightGradient(torch.autograd.Function):
    """``grad.T @ x``, whose derivatives come out with rows as long as a layer's."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(grad, x)
        return _transposed_product(grad, x)

    @staticmethod
    def backward(ctx: Any, along: Tensor) -> tuple[Tensor | None, Tensor | None]:
        grad, x = ctx.saved_tensors
        along = along.contiguous()
        if torch.is_grad_enabled():
            return x @ along.t(), grad @ along
        return (
            _product(x, along) if ctx.needs_input_grad[0] else None,
            _product(grad, along.t()) if ctx.needs_input_grad[1] else None,
        )


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x @ weight.T + bias`` [n, out], as `torch.nn.functional.linear`.

    Function transforms (vmap, jvp), autocast, other types and other devices take torch's own path.
    Forward-mode derivatives (dual tensors) stay on this one.
    """
    if (
        not ONEDNN
        or x.dtype != torch.float32
        or weight.dtype != torch.float32
        or x.device.type != "cpu"
        or x.ndim != 2
        or len(x) < _MIN_ROWS
        or weight.shape[0] == 1
        or weight.shape[1] == 0
        or torch.is_autocast_enabled("cpu")
        or torch._C._functorch.peek_interpreter_stack() is not None
    ):
        return F.linear(x, weight, bias)
    (x, x_dot), (weight, weight_dot) = tangent_of(x), tangent_of(weight)
    bias, bias_dot = (None, None) if bias is None else tangent_of(bias)
    out: Tensor = _Linear.apply(x, weight, bias)  # type: ignore[no-untyped-call]
    tangents = []
    if weight_dot is not None:
        tangents.append(_Linear.apply(x, weight_dot, bias_dot))  # type: ignore[no-untyped-call]
    elif bias_dot is not None:
        tangents.append(bias_dot.expand_as(out))
    if x_dot is not None:
        tangents.append(_Linear.apply(x_dot, weight, None))  # type: ignore[no-untyped-call]
    if not tangents:
        return out
    return with_tangent(out, tangents[0] if len(tangents) == 1 else tangents[0] + tangents[1])


def relu(x: Tensor) -> Tensor:
    """max(x, 0), in place; a dual number's is not, because torch would copy it several times."""
    value, tangent = tangent_of(x)
    if tangent is None:
        return value.relu_()
    out = value.relu()
    return with_tangent(out, torch.ops.aten.threshold_backward(tangent, out.detach(), 0))


def with_tangent(tensor: Tensor, tangent: Tensor) -> Tensor:
    """The tensor as a dual number of torch's forward mode."""
    dual: Tensor = forward_ad.make_dual(tensor, tangent)  # type: ignore[no-untyped-call]
    return dual


def tangent_of(tensor: Tensor) -> tuple[Tensor, Tensor | None]:
    """A dual number's value and tangent; no tangent for an ordinary tensor."""
    value, tangent = forward_ad.unpack_dual(tensor)  # type: ignore[no-untyped-call]
    return value, tangent
