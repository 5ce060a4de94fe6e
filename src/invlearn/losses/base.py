"""What a loss is: the value of every row, and its derivative in the outputs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import torch
from torch import Tensor

from invlearn.errors import OptionError

Kind = Literal["classes", "numbers", "unknown"]
"""What a loss's targets are."""


class Loss(ABC):
    """A per-row loss ℓ(z, y) over outputs z [n, k].

    Attributes
    ----------
    name : str
    kind : 'classes', 'numbers' or 'unknown'
        What its targets are.
    """

    name: ClassVar[str]

    @property
    def called(self) -> str:
        """What it is called in messages."""
        return self.name

    @property
    @abstractmethod
    def kind(self) -> Kind:
        """What its targets are."""

    @abstractmethod
    def value(self, z: Tensor, y: Tensor) -> Tensor:
        """Loss of every row, [n]."""

    @abstractmethod
    def output_gradient(self, z: Tensor, y: Tensor) -> Tensor:
        """Derivative of every row's loss in its outputs, [n, k]; differentiable itself."""

    @abstractmethod
    def check(self, y: Tensor, n_outputs: int) -> None:
        """Raise EnvironmentsError unless the targets are of this loss's kind."""

    def check_values(self, z: Tensor, y: Tensor) -> None:
        """Raise OptionError where its value for finite outputs is not a finite number."""
        with torch.no_grad():
            values = self.value(z, y)
        wrong = ~values.isfinite() & z.reshape(len(z), -1).isfinite().all(1)
        if bool(wrong.any()):
            i = int(wrong.nonzero()[0])
            raise OptionError(
                f"Expected finite losses from '{self.called}', got {float(values[i])} in row {i}, "
                f"for the output {z[i].tolist()} and the target {y[i].tolist()}. Mend the function "
                "there, or leave out targets that it is not made for."
            )

    @abstractmethod
    def constant_risk(self, y: Tensor, weights: Tensor | None = None) -> float:
        """Risk of the best constant predictor on these targets, rows weighted if asked."""

    def dummy_gradient(self, z: Tensor, y: Tensor) -> Tensor:
        """Derivative of every row's loss in the dummy scale(s) at 1, [n, dummies]."""
        return (z * self.output_gradient(z, y)).reshape(len(z), -1).sum(1, keepdim=True)

    def errors(self, z: Tensor, y: Tensor) -> Tensor:
        """0-1 error of every row, [n]; of numbers the squared error, else the loss."""
        return self.value(z, y)

    def outputs_for(self, n_classes: int) -> int:
        """Outputs of a network for so many classes; for numbers one."""
        return 1

    def logits(self, z: Tensor) -> Tensor:
        """One logit per class, [n, classes]; OptionError where the targets are no classes."""
        raise OptionError(
            f"Expected a loss over classes, got '{self.name}': its outputs are no probabilities. "
            "Use 'logistic' or 'softmax'."
        )

    def probabilities(self, z: Tensor) -> Tensor:
        """Probability of each class, [n, classes]; OptionError as `logits`."""
        return self.logits(z).softmax(1)
