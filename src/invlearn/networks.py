"""Networks that a few numbers describe: bounded, built from JSON, their weights checked."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Annotated, Literal, Self, TypeAlias

import safetensors
import torch
from pydantic import BaseModel, ConfigDict, FailFast, Field, model_validator
from torch import Tensor, nn

from invlearn.errors import DataFileError, OptionError
from invlearn.models import MLP

MAX_PARAMETERS = 10**9
"""A description of more is refused: a file must not be able to ask for terabytes."""

_Width = Annotated[int, Field(ge=1, le=10**5)]


_Size = Annotated[int, Field(ge=0, le=MAX_PARAMETERS)]
_Name = Annotated[str, Field(max_length=500)]
_TypeName = Literal["F32", "F64", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL"]
_TYPES: dict[_TypeName, torch.dtype] = {
    "F32": torch.float32, "F64": torch.float64, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the network's tensors, known without building it."""
        raise NotImplementedError

    def types(self) -> dict[str, _TypeName]:
        """The tensors' types as safetensors names them: single precision."""
        return dict.fromkeys(self.shapes(), "F32")

    @property
    def n_parameters(self) -> int:
        """How many numbers the network holds."""
        return sum(math.prod(shape) for shape in self.shapes().values())

    @property
    def n_bytes(self) -> int:
        """How much its tensors take."""
        types, shapes = self.types(), self.shapes()
        return sum(_TYPES[types[name]].itemsize * math.prod(shapes[name]) for name in shapes)

    @model_validator(mode="after")
    def _small_enough(self) -> Self:
        if self.n_parameters > MAX_PARAMETERS:
            raise ValueError(
                f"expected at most {MAX_PARAMETERS} parameters, got {self.n_parameters}"
            )
        return self


class MLPSpec(_Spec):
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


class TensorSpec(BaseModel):
    """Shape and type of one tensor."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    shape: Annotated[tuple[_Size, ...], Field(strict=False, max_length=8), FailFast()]
    type: _TypeName


class OwnSpec(_Spec):
    """A network of a user's own class: its tensors alone, for no file holds its code.

    Attributes
    ----------
    kind : 'own'
    n_features, n_outputs : int
        What its builder is handed.
    tensors : dict of at most 10,000 TensorSpec

    Raises
    ------
    pydantic.ValidationError
        As `MLPSpec`.

    Examples
    --------
    >>> OwnSpec.of(nn.Linear(2, 1), n_features=2, n_outputs=1).n_parameters
    3
    """

    kind: Literal["own"] = "own"
    n_features: Annotated[int, Field(ge=1, le=10**9)]
    n_outputs: _Width
    tensors: Annotated[dict[_Name, TensorSpec], Field(max_length=10_000)]

    @classmethod
    def of(cls, network: nn.Module, *, n_features: int, n_outputs: int) -> OwnSpec:
        """The description of a network; OptionError for a state that is no tensors."""
        names: dict[torch.dtype, _TypeName] = {dtype: name for name, dtype in _TYPES.items()}
        tensors = {}
        for name, value in network.state_dict().items():
            if not isinstance(value, Tensor) or value.dtype not in names:
                raise OptionError(
                    f"Expected a network whose state is tensors of numbers, got "
                    f"{getattr(value, 'dtype', type(value).__name__)} in '{name}'. Keep it out of "
                    "the state_dict."
                )
            tensors[name] = TensorSpec(shape=tuple(value.shape), type=names[value.dtype])
        return cls(n_features=n_features, n_outputs=n_outputs, tensors=tensors)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the network's tensors."""
        return {name: tensor.shape for name, tensor in self.tensors.items()}

    def types(self) -> dict[str, _TypeName]:
        """The tensors' types as safetensors names them."""
        return {name: tensor.type for name, tensor in self.tensors.items()}


NetworkSpec: TypeAlias = Annotated[MLPSpec | OwnSpec, Field(discriminator="kind")]
"""A description of any network that is kept."""


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


def parse_weights(content: bytes, spec: NetworkSpec) -> dict[str, Tensor]:
    """The weights of a network from the content of a safetensors file, each one checked.

    Parameters
    ----------
    content : bytes
        May come from a stranger: nothing in it is run.
    spec : NetworkSpec

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
    shapes, types = spec.shapes(), spec.types()
    for what, names in (("lack", shapes.keys() - found), ("have unknown", found.keys() - shapes)):
        if names:
            listed = ", ".join(repr(name[:80]) for name in sorted(names)[:3])
            raise DataFileError(
                f"Expected {len(shapes)} tensors, got {len(found)} that {what} {listed}."
            )
    weights = {}
    for name, shape in shapes.items():
        tensor = found[name]
        if tensor["dtype"] != types[name] or tuple(tensor["shape"]) != shape:
            raise DataFileError(
                f"Expected tensor '{name}' of type {types[name]} and shape {shape}, got "
                f"{tensor['dtype']} and {tuple(tensor['shape'])}."
            )
        dtype = _TYPES[types[name]]
        if math.prod(shape) == 0:  # torch reads no empty buffer.
            weights[name] = torch.empty(shape, dtype=dtype)
            continue
        weights[name] = torch.frombuffer(tensor["data"], dtype=dtype).reshape(shape)
        if not torch.isfinite(weights[name]).all():
            raise DataFileError(f"Expected finite numbers, tensor '{name}' has NaN or infinity.")
    return weights
