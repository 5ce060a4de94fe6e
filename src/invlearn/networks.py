"""Networks that a few numbers describe: bounded, built from JSON, their weights checked."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Annotated, Literal, Self

import safetensors
import torch
from pydantic import BaseModel, ConfigDict, FailFast, Field, model_validator
from torch import Tensor

from invlearn.errors import DataFileError
from invlearn.models import MLP

MAX_PARAMETERS = 10**9
"""A description of more is refused: a file must not be able to ask for terabytes."""

_Width = Annotated[int, Field(ge=1, le=10**5)]


class MLPSpec(BaseModel):
    """A multilayer perceptron: `invlearn.models.MLP`.

    Attributes
    ----------
    kind : 'mlp'
    n_features : int, at most 10^6
    hidden : tuple of at most 64 int
        Widths of the hidden layers; none for a linear model.
    n_outputs : int

    Raises
    ------
    pydantic.ValidationError
        A number out of its bounds, more than 10^9 parameters, a field too many or too few.

    Examples
    --------
    >>> MLPSpec(n_features=4, hidden=(8,), n_outputs=1).n_parameters
    49
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    kind: Literal["mlp"] = "mlp"
    n_features: Annotated[int, Field(ge=1, le=10**6)]
    hidden: Annotated[tuple[_Width, ...], Field(strict=False, max_length=64), FailFast()]
    n_outputs: _Width

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the network's tensors, known without building it."""
        shapes: dict[str, tuple[int, ...]] = {}
        widths = (self.n_features, *self.hidden, self.n_outputs)
        for i, (fan_in, fan_out) in enumerate(pairwise(widths)):
            shapes |= {f"layers.{i}.weight": (fan_out, fan_in), f"layers.{i}.bias": (fan_out,)}
        return shapes

    @property
    def n_parameters(self) -> int:
        """How many numbers the network holds."""
        return sum(math.prod(shape) for shape in self.shapes().values())

    @model_validator(mode="after")
    def _small_enough(self) -> Self:
        if self.n_parameters > MAX_PARAMETERS:
            raise ValueError(
                f"expected at most {MAX_PARAMETERS} parameters, got {self.n_parameters}"
            )
        return self


def build(spec: MLPSpec, generator: torch.Generator) -> MLP:
    """The network of a description, with weights drawn from the generator alone.

    Parameters
    ----------
    spec : MLPSpec
    generator : torch.Generator
        The same seed gives the same weights.

    Examples
    --------
    >>> spec = MLPSpec(n_features=2, hidden=(), n_outputs=1)
    >>> build(spec, torch.Generator().manual_seed(0))(torch.zeros(3, 2)).tolist()
    [[0.0], [0.0], [0.0]]
    """
    return MLP(spec.n_features, spec.hidden, spec.n_outputs, generator=generator)


def parse_weights(content: bytes, spec: MLPSpec) -> dict[str, Tensor]:
    """The weights of a network from the content of a safetensors file, each one checked.

    Parameters
    ----------
    content : bytes
        May come from a stranger: nothing in it is run.
    spec : MLPSpec

    Returns
    -------
    dict of Tensor
        What the network's ``load_state_dict`` takes.

    Raises
    ------
    DataFileError
        Not safetensors, or tensors missing, unknown, of another shape or type, or not finite.
    """
    try:
        found = dict(safetensors.deserialize(content))  # type: ignore[no-untyped-call]
    except safetensors.SafetensorError as error:
        raise DataFileError(f"Expected safetensors, got: {str(error)[:200]!r}.") from error
    shapes = spec.shapes()
    for what, names in (("lack", shapes.keys() - found), ("have unknown", found.keys() - shapes)):
        if names:
            listed = ", ".join(repr(name[:80]) for name in sorted(names)[:3])
            raise DataFileError(
                f"Expected {len(shapes)} tensors, got {len(found)} that {what} {listed}."
            )
    weights = {}
    for name, shape in shapes.items():
        tensor = found[name]
        if tensor["dtype"] != "F32" or tuple(tensor["shape"]) != shape:
            raise DataFileError(
                f"Expected tensor '{name}' of type F32 and shape {shape}, got {tensor['dtype']} "
                f"and {tuple(tensor['shape'])}."
            )
        weights[name] = torch.frombuffer(tensor["data"], dtype=torch.float32).reshape(shape)
        if not torch.isfinite(weights[name]).all():
            raise DataFileError(f"Expected finite numbers, tensor '{name}' has NaN or infinity.")
    return weights
