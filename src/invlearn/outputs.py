"""What a run predicted for rows of its training environments, step by step."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from invlearn.errors import OptionError
from invlearn.losses import Loss


@dataclass(frozen=True)
class SplitOutputs:
    """Outputs for the n rows of one split at T evaluated steps.

    Attributes
    ----------
    names : tuple of str
        The environments.
    environment : Tensor [n], int64
        Which of them each row belongs to.
    y : Tensor [n] or [n, k]
        Targets.
    z : Tensor [T, n, k]
        Outputs, in half precision for a classification.
    weights : Tensor [n], or None
        Row weights.
    raised : Tensor [T, n], bool, or None
        Whether a small step down the pooled risk's gradient raises the row's loss.
    reference : Tensor [n, k], or None
        Outputs of a reference ERM.
    """

    names: tuple[str, ...]
    environment: Tensor
    y: Tensor
    z: Tensor
    weights: Tensor | None = None
    raised: Tensor | None = None
    reference: Tensor | None = None

    def errors(self, loss: Loss, z: Tensor) -> Tensor:
        """Errors [n] of outputs [n, k]: 0-1, or squared for a regression, in float64."""
        return loss.errors(z.to(torch.float64), self.y).to(torch.float64)


@dataclass(frozen=True)
class Outputs:
    """A run's outputs at its evaluated steps.

    Attributes
    ----------
    loss : Loss
    steps : tuple of int
    splits : {'train' or 'validation': SplitOutputs}
    """

    loss: Loss
    steps: tuple[int, ...]
    splits: Mapping[str, SplitOutputs]

    def at(self, step: int) -> dict[str, Tensor]:
        """Outputs {split: [n, k]} at one evaluated step: a reference for other runs."""
        if step not in self.steps:
            raise OptionError(
                f"Expected an evaluated step, got {step}. Evaluated: "
                f"{', '.join(str(s) for s in self.steps)}."
            )
        return {name: split.z[self.steps.index(step)] for name, split in self.splits.items()}

    def with_reference(self, reference: Mapping[str, Tensor]) -> Outputs:
        """The same with a reference ERM's outputs {split: [n, k]}."""
        splits = {}
        for name, split in self.splits.items():
            z = reference.get(name)
            if z is None or z.shape != split.z.shape[1:]:
                got = "none" if z is None else f"shape {tuple(z.shape)}"
                raise OptionError(
                    f"Expected a reference's outputs for the split '{name}' of shape "
                    f"{tuple(split.z.shape[1:])}, got {got}. Keep the same splits in both runs."
                )
            splits[name] = replace(split, reference=z.to(split.z.dtype))
        return replace(self, splits=splits)

    def to_bytes(self) -> bytes:
        """As the content of an .npz file (without the loss)."""
        arrays: dict[str, Any] = {"steps": np.asarray(self.steps)}
        for name, split in self.splits.items():
            arrays[f"{name}/names"] = np.asarray(split.names)
            for field in ("environment", "y", "z", "weights", "raised", "reference"):
                value = getattr(split, field)
                if value is not None:
                    arrays[f"{name}/{field}"] = value.numpy()
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes, loss: Loss) -> Outputs:
        """What `to_bytes` wrote."""
        splits: dict[str, dict[str, Any]] = {}
        with np.load(io.BytesIO(content)) as arrays:
            steps = tuple(arrays["steps"].tolist())
            for key in arrays.files:
                if "/" in key:
                    split, field = key.split("/")
                    value = arrays[key]
                    splits.setdefault(split, {})[field] = (
                        tuple(value.tolist()) if field == "names" else torch.from_numpy(value)
                    )
        return cls(loss, steps, {name: SplitOutputs(**fields) for name, fields in splits.items()})
