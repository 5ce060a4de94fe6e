"""Losses in closed form: the value of every row, and its derivative in the outputs.

The dummy gradient of a row is the derivative of its loss when the output is scaled by a
dummy classifier w, taken at w = 1 (Arjovsky et al. 2019, arXiv 1907.02893, section 3.1): the
output times the derivative in it.
Because the environment's dummy gradient is the plain mean of the rows', IRMv1 needs no
double backward.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from invlearn.errors import EnvironmentsError, OptionError, unknown_name
from invlearn.losses.base import Loss


def _one_output(z: Tensor, loss: str) -> Tensor:
    if z.ndim == 2 and z.shape[1] == 1:
        return z[:, 0]
    if z.ndim == 1:
        return z
    raise OptionError(
        f"Expected one output per row for the {loss} loss, got shape {tuple(z.shape)}. "
        "Build the model with n_outputs=1, or use the softmax loss for several classes."
    )


@dataclass(frozen=True)
class Squared(Loss):
    """ℓ = mean over k outputs of (z − y)²; ∂ℓ/∂z = 2 (z − y) / k, one dummy scale.

    Examples
    --------
    >>> Squared().value(torch.tensor([[3.0]]), torch.tensor([1.0]))
    tensor([4.])
    """

    name: ClassVar[str] = "squared"
    kind: ClassVar[Literal["numbers"]] = "numbers"

    def value(self, z: Tensor, y: Tensor) -> Tensor:
        return (z - y.reshape(z.shape)).square().reshape(len(z), -1).mean(1)

    def output_gradient(self, z: Tensor, y: Tensor) -> Tensor:
        return 2 * (z - y.reshape(z.shape)) / (z.shape[1] if z.ndim > 1 else 1)

    def check(self, y: Tensor, n_outputs: int) -> None:
        columns = math.prod(y.shape[1:])
        if not y.is_floating_point() or columns != n_outputs:
            raise EnvironmentsError(
                f"Expected float targets with {n_outputs} column(s) for the squared loss, got "
                f"{y.dtype} with {columns}. Convert the targets, or use 'logistic' or 'softmax' "
                "for classes; give the model an output for each column."
            )

    def constant_risk(self, y: Tensor, weights: Tensor | None = None) -> float:
        w = torch.ones(len(y), device=y.device) if weights is None else weights
        w = w.to(torch.float64)
        rows = y.to(torch.float64).reshape(len(y), -1)
        center = (w @ rows) / w.sum()
        return float((w @ (rows - center).square()).mean() / w.sum())


@dataclass(frozen=True)
class Logistic(Loss):
    """ℓ = log(1 + eᶻ) − y z, y in {0, 1}; ∂ℓ/∂z = σ(z) − y.

    Examples
    --------
    >>> Logistic().value(torch.zeros(1, 1), torch.tensor([1]))
    tensor([0.6931])
    """

    name: ClassVar[str] = "logistic"
    kind: ClassVar[Literal["classes"]] = "classes"

    def value(self, z: Tensor, y: Tensor) -> Tensor:
        z = _one_output(z, self.name)
        return F.binary_cross_entropy_with_logits(z, y.to(z.dtype), reduction="none")

    def output_gradient(self, z: Tensor, y: Tensor) -> Tensor:
        return (_one_output(z, self.name).sigmoid() - y.to(z.dtype)).reshape(z.shape)

    def check(self, y: Tensor, n_outputs: int) -> None:
        if y.ndim != 1 or not bool(((y == 0) | (y == 1)).all()):
            got = f"shape {tuple(y.shape)}" if y.ndim != 1 else f"values {_some(y)}"
            raise EnvironmentsError(
                f"Expected targets 0 and 1 for the logistic loss, got {got}. "
                "Map the two classes to 0 and 1, in one column [n], or use 'softmax' or 'squared'."
            )
        if n_outputs != 1:
            raise OptionError(
                f"Expected one output for the logistic loss, got {n_outputs}. Use 'softmax'."
            )

    def constant_risk(self, y: Tensor, weights: Tensor | None = None) -> float:
        return _entropy(torch.bincount(y.to(torch.int64), weights))

    def errors(self, z: Tensor, y: Tensor) -> Tensor:
        return ((_one_output(z, self.name) > 0) != (y == 1)).to(z.dtype)

    def logits(self, z: Tensor) -> Tensor:
        z = _one_output(z, self.name)
        return torch.stack([torch.zeros_like(z), z], 1)


@dataclass(frozen=True)
class Softmax(Loss):
    """ℓ = log Σ exp z_k − z_y, targets 0 .. k − 1; ∂ℓ/∂z_k = p_k − 1[y = k], p the softmax.

    Parameters
    ----------
    dummy : 'scalar' or 'per-class'
        One dummy scale for all classes (d = Σ_k z_k (p_k − 1[y = k])), or one for each
        (d_k = z_k (p_k − 1[y = k])). Penalty weights are not portable between the two.

    Examples
    --------
    >>> Softmax().value(torch.zeros(1, 2), torch.tensor([0]))
    tensor([0.6931])
    """

    dummy: str = "scalar"
    name: ClassVar[str] = "softmax"
    kind: ClassVar[Literal["classes"]] = "classes"

    def __post_init__(self) -> None:
        if self.dummy not in ("scalar", "per-class"):
            raise unknown_name("dummy", self.dummy, ["scalar", "per-class"])

    def value(self, z: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(z, y, reduction="none")

    def output_gradient(self, z: Tensor, y: Tensor) -> Tensor:
        return z.softmax(1) - F.one_hot(y, z.shape[1]).to(z.dtype)

    def dummy_gradient(self, z: Tensor, y: Tensor) -> Tensor:
        if self.dummy == "scalar":
            return super().dummy_gradient(z, y)
        return z * self.output_gradient(z, y)

    def check(self, y: Tensor, n_outputs: int) -> None:
        if n_outputs < 2:
            # With one output the softmax is constant: labels would be ignored silently.
            raise OptionError(
                f"Expected at least two outputs for the softmax loss, got {n_outputs}. "
                "Use one output per class, or the logistic loss for two classes."
            )
        if y.ndim != 1 or y.is_floating_point() or bool(((y < 0) | (y >= n_outputs)).any()):
            raise EnvironmentsError(
                f"Expected whole-number targets 0 to {n_outputs - 1} for the softmax loss, got "
                f"{_some(y) if y.ndim == 1 else tuple(y.shape)} of type {y.dtype}. "
                "Number the classes from 0, as whole numbers [n], and give the model an output for "
                "each; leave out rows of no class."
            )

    def constant_risk(self, y: Tensor, weights: Tensor | None = None) -> float:
        return _entropy(torch.bincount(y, weights))

    def errors(self, z: Tensor, y: Tensor) -> Tensor:
        return (z.argmax(1) != y).to(z.dtype)

    def outputs_for(self, n_classes: int) -> int:
        return n_classes

    def logits(self, z: Tensor) -> Tensor:
        return z


def _some(y: Tensor) -> str:
    values = torch.unique(y)
    shown = ", ".join(f"{v:g}" for v in values[:5].tolist())
    return shown + (", ..." if len(values) > 5 else "")


def _entropy(counts: Tensor) -> float:
    share = counts[counts > 0].to(torch.float64) / counts.sum()
    return float(-(share * share.log()).sum())
