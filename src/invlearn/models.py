"""Predictors: a linear model and a multilayer perceptron; any nn.Module serves as well."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.func import functional_call

from invlearn.errors import OptionError
from invlearn.features import Features, InMemory
from invlearn.kernels import linear, relu


class Linear(nn.Linear):
    """A linear layer that also takes `ChannelImages`, multiplying only the colored channel."""

    def forward(self, x: InMemory) -> Tensor:
        """Outputs [n, out_features] of n rows."""
        if isinstance(x, Tensor):
            return linear(x.flatten(1), self.weight, self.bias)
        runs = x.runs()
        if not runs or len(runs) > 4 * x.n_channels:
            return linear(x.dense(), self.weight, self.bias)
        p = x.pixels.shape[1]
        parts = [
            linear(x.pixels[start:stop], self.weight[:, c * p : (c + 1) * p], self.bias)
            for start, stop, c in runs
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)


class MLP(nn.Module):
    """A multilayer perceptron with ReLU, Xavier-uniform weights and zero biases.

    The architecture and initialization of the IRM paper's Colored MNIST code
    (Arjovsky et al. 2019, arXiv 1907.02893): hidden layers of one width. With no hidden
    layer it is a linear model.

    Parameters
    ----------
    n_features : int
        Input width (for `ChannelImages`, channels times pixels).
    hidden : sequence of int
        Widths of the hidden layers, ``(390, 390)`` in the IRM code.
    n_outputs : int
        Width of the output.
    generator : torch.Generator, optional
        Draws the initial weights; default: the global one.

    Examples
    --------
    >>> model = MLP(4, (8,), 1, generator=torch.Generator().manual_seed(0))
    >>> model(torch.zeros(5, 4)).shape
    torch.Size([5, 1])
    """

    def __init__(
        self,
        n_features: int,
        hidden: Sequence[int],
        n_outputs: int = 1,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        if min([n_features, n_outputs, *hidden]) < 1:
            raise OptionError(
                f"Expected positive widths, got {n_features} features, hidden {tuple(hidden)}, "
                f"{n_outputs} outputs. Give every layer at least one unit."
            )
        super().__init__()
        widths = [n_features, *hidden, n_outputs]
        layers = []
        for fan_in, fan_out in pairwise(widths):
            layer = Linear(fan_in, fan_out, device="meta").to_empty(device="cpu")
            bound = math.sqrt(6.0 / (fan_in + fan_out))
            with torch.no_grad():
                layer.weight.uniform_(-bound, bound, generator=generator)
                layer.bias.zero_()
            layers.append(layer)
        self.layers = nn.ModuleList(layers)

    def forward(self, x: InMemory) -> Tensor:
        """Outputs [n, n_outputs] of n rows."""
        *hidden, last = self.layers
        h = x
        for layer in hidden:
            h = relu(layer(h))
        out: Tensor = last(h)
        return out


def batch_norms(model: nn.Module) -> list[str]:
    """Names of the layers whose output depends on the other rows of the batch."""
    kinds = (nn.modules.batchnorm._BatchNorm,)
    return [name for name, module in model.named_modules() if isinstance(module, kinds)]


def _names(model: nn.Module) -> dict[str, str]:
    """Every place that holds a trainable parameter, and the name it is known by.

    A module used twice has one place; a parameter tied between two modules has two.
    """
    known = {id(p): n for n, p in model.named_parameters() if p.requires_grad}
    return {
        f"{prefix}.{name}" if prefix else name: known[id(p)]
        for prefix, module in model.named_modules()
        for name, p in module.named_parameters(recurse=False)
        if id(p) in known
    }


def call(model: nn.Module, parameters: Mapping[str, Tensor], x: Features) -> Tensor:
    """Outputs of the model with other parameters."""
    # torch ties by itself, but then swaps a module that is used twice back to the wrong tensor.
    placed = {place: parameters[name] for place, name in _names(model).items()}
    z: Tensor = functional_call(model, placed, (x,), tie_weights=False)
    return z


def trainable(model: nn.Module) -> dict[str, Tensor]:
    """The model's trainable parameters, detached: they follow the model's in-place changes."""
    return {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}
