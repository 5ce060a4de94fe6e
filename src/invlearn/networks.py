"""Networks that a few numbers describe: bounded, built from JSON, their weights checked."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Annotated, Literal, Self, TypeAlias

import safetensors
import torch
from pydantic import BaseModel, ConfigDict, FailFast, Field, model_validator
from torch import Tensor, nn

from invlearn.errors import DataFileError, EnvironmentsError
from invlearn.features import Features, as_rows
from invlearn.kernels import relu
from invlearn.models import MLP, Linear

MAX_PARAMETERS = 10**9
"""A description of more is refused: a file must not be able to ask for terabytes."""

_MAX_ACTIVATIONS = 10**8
"""Values that one image may take in one layer, for the same reason."""

_Width = Annotated[int, Field(ge=1, le=10**5)]
_Side = Annotated[int, Field(ge=8, le=1024)]  # Three halvings leave at least one pixel.
_Filters = Annotated[int, Field(ge=8, le=1024)]


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the network's tensors, known without building it."""
        raise NotImplementedError

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


class ConvNetSpec(_Spec):
    """A small convolutional network: `ConvNet`.

    Attributes
    ----------
    kind : 'convolutional'
    channels : int, at most 64
    height, width : int, 8 to 1024
    filters : tuple of three int, 8 to 1024
        Channels after each of the three stages.
    n_outputs : int

    Raises
    ------
    pydantic.ValidationError
        A number out of its bounds, layers too large, a field too many or too few.

    Examples
    --------
    >>> ConvNetSpec(channels=3, height=28, width=28, n_outputs=1).filters
    (16, 32, 64)
    """

    kind: Literal["convolutional"] = "convolutional"
    channels: Annotated[int, Field(ge=1, le=64)]
    height: _Side
    width: _Side
    filters: Annotated[tuple[_Filters, _Filters, _Filters], Field(strict=False)] = (16, 32, 64)
    n_outputs: _Width

    @property
    def n_features(self) -> int:
        """Values of one image, the width of a flat row."""
        return self.channels * self.height * self.width

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the network's tensors, known without building it."""
        shapes: dict[str, tuple[int, ...]] = {}
        for i, (fan_in, fan_out) in enumerate(pairwise((self.channels, *self.filters))):
            shapes |= {
                f"convolutions.{i}.weight": (fan_out, fan_in, 3, 3),
                f"convolutions.{i}.bias": (fan_out,),
                f"norms.{i}.weight": (fan_out,),
                f"norms.{i}.bias": (fan_out,),
            }
        last = {"last.weight": (self.n_outputs, self.filters[-1]), "last.bias": (self.n_outputs,)}
        return shapes | last

    @model_validator(mode="after")
    def _layers_small_enough(self) -> Self:
        values = max(
            filters * (self.height >> stage) * (self.width >> stage)
            for stage, filters in enumerate(self.filters)
        )
        if values > _MAX_ACTIVATIONS:
            raise ValueError(
                f"expected at most {_MAX_ACTIVATIONS} values in a layer, got {values} for one image"
            )
        return self


NetworkSpec: TypeAlias = Annotated[MLPSpec | ConvNetSpec, Field(discriminator="kind")]
"""A description of any network this library can build."""


class ConvNet(nn.Module):
    """A small convolutional network whose output for a row depends on that row alone.

    Three stages of a 3x3 convolution, group normalization, ReLU and 2x2 max-pooling, the mean
    over what is left of the image, and a linear layer. Groups, not batches, are normalized: a
    batch's statistics would depend on which environments share it. Weights are Kaiming-uniform
    (He et al. 2015, arXiv 1502.01852), biases zero.

    Parameters
    ----------
    spec : ConvNetSpec
    generator : torch.Generator
        Draws the initial weights; the global generator is left alone.

    Examples
    --------
    >>> spec = ConvNetSpec(channels=3, height=16, width=16, n_outputs=2)
    >>> model = ConvNet(spec, generator=torch.Generator().manual_seed(0))
    >>> model(torch.zeros(5, 3 * 16 * 16)).shape
    torch.Size([5, 2])
    """

    def __init__(self, spec: ConvNetSpec, *, generator: torch.Generator) -> None:
        super().__init__()
        self.image_shape = (spec.channels, spec.height, spec.width)
        widths = list(pairwise((spec.channels, *spec.filters)))
        # On no device the layers cannot draw their own weights from the global generator.
        convolutions = [
            nn.Conv2d(fan_in, fan_out, 3, padding=1, device="meta") for fan_in, fan_out in widths
        ]
        last = Linear(spec.filters[-1], spec.n_outputs, device="meta")
        self.convolutions = nn.ModuleList(layer.to_empty(device="cpu") for layer in convolutions)
        self.norms = nn.ModuleList(
            nn.GroupNorm(math.gcd(4, filters), filters) for filters in spec.filters
        )
        self.last = last.to_empty(device="cpu")
        for layer in (*self.convolutions, self.last):
            nn.init.kaiming_uniform_(
                layer.weight,
                nonlinearity="linear" if layer is self.last else "relu",
                generator=generator,
            )
            nn.init.zeros_(layer.bias)

    def forward(self, x: Features) -> Tensor:
        """Outputs [n, n_outputs] of n images, [n, channels, height, width] or flat rows.

        Raises
        ------
        EnvironmentsError
            Rows that are not images of the network's shape.
        """
        dense = as_rows(x).dense()
        shape = tuple(dense.shape[1:])
        if shape not in (self.image_shape, (math.prod(self.image_shape),)):
            channels, height, width = self.image_shape
            raise EnvironmentsError(
                f"Expected images of {channels} channel(s), height {height} and width {width}, "
                f"as such or as flat rows of {channels * height * width}, got rows of shape "
                f"{shape}. Give the network images of the size it was built for."
            )
        h = dense.reshape(len(dense), *self.image_shape)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            h = nn.functional.max_pool2d(relu(norm(convolution(h))), 2)
        out: Tensor = self.last(nn.functional.adaptive_avg_pool2d(h, 1).flatten(1))
        return out


def build(spec: NetworkSpec, generator: torch.Generator) -> MLP | ConvNet:
    """The network of a description, with weights drawn from the generator alone.

    Parameters
    ----------
    spec : MLPSpec or ConvNetSpec
    generator : torch.Generator
        The same seed gives the same weights.

    Examples
    --------
    >>> spec = MLPSpec(n_features=2, hidden=(), n_outputs=1)
    >>> build(spec, torch.Generator().manual_seed(0))(torch.zeros(3, 2)).tolist()
    [[0.0], [0.0], [0.0]]
    """
    if isinstance(spec, ConvNetSpec):
        return ConvNet(spec, generator=generator)
    return MLP(spec.n_features, spec.hidden, spec.n_outputs, generator=generator)


def parse_weights(content: bytes, spec: NetworkSpec) -> dict[str, Tensor]:
    """The weights of a network from the content of a safetensors file, each one checked.

    Parameters
    ----------
    content : bytes
        May come from a stranger: nothing in it is run.
    spec : MLPSpec or ConvNetSpec

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
