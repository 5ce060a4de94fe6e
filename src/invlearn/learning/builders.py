"""Networks of any making: what builds one, with weights that a seed settles."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from invlearn.environments import Environments
from invlearn.errors import InvlearnError, OptionError
from invlearn.evaluation import forward
from invlearn.features import as_rows
from invlearn.means import random_states, replayed, restored, seeded_generator

Builder = nn.Module | Callable[..., nn.Module]
"""A function or a Module class that makes a network, or the network to start from."""

_WEIGHTS = 4  # Stream of random numbers of what a builder draws from the global generators.


@dataclass(frozen=True)
class Drawn:
    """Makes what a builder makes, the same for the same seed.

    Parameters
    ----------
    make : function, Module class or Module
        A function or class is handed n_features, n_outputs and generator: by these names, else in
        this order, as many as it needs. torch's global generators are seeded while it runs, and
        put back. A Module is copied, its weights kept as they are.

    Raises
    ------
    OptionError
        When called: a builder that needs anything else, or makes no Module.

    Examples
    --------
    >>> linear = Drawn(nn.Linear)
    >>> bool((linear(3, 1, seed=0).weight == linear(3, 1, seed=0).weight).all())
    True
    """

    make: Builder

    def __call__(self, n_features: int, n_outputs: int, seed: int) -> nn.Module:
        """A network, which no other call shares."""
        if isinstance(self.make, nn.Module):
            return copy.deepcopy(self.make)
        generator = torch.Generator().manual_seed(seed)
        offered = {"n_features": n_features, "n_outputs": n_outputs, "generator": generator}
        arguments, named = _arguments(self.make, offered)
        with _seeded(seed):
            network = self.make(*arguments, **named)
        if not isinstance(network, nn.Module):
            raise OptionError(
                f"Expected a torch.nn.Module from {_name(self.make)}, got "
                f"{type(network).__name__}. Return the network."
            )
        return copy.deepcopy(network)  # It may return the same one every time.


def check_network(network: nn.Module, rows: Environments, n_outputs: int, seed: int) -> None:
    """Refuse a network that does not make so many outputs of these rows.

    Layers that learn their width from the first rows they see draw their weights here.

    Raises
    ------
    OptionError
        Parameters of another type than the rows, a failure on two rows, outputs of another shape.
    """
    x = rows.x[:2]
    learned = [p.dtype for p in network.parameters() if p.requires_grad]
    if learned and learned[0] != x.dtype:
        raise OptionError(
            f"Expected a network of the rows' type {x.dtype}, got {learned[0]}. Convert it: "
            f"network.{'double' if x.dtype == torch.float64 else 'float'}()."
        )
    try:
        with _seeded(seed):
            z = forward(network, x)
    except InvlearnError:
        raise
    except Exception as error:  # Whatever a stranger's network raises.
        said, shape = str(error).strip().removesuffix("."), tuple(as_rows(x).row_shape)
        raise OptionError(
            f"Expected a network that takes rows of shape {shape}, this one fails on two of them: "
            f"{said}. Build it for such rows."
        ) from error
    shape = tuple(z.shape)
    if shape not in {(len(x), n_outputs), (len(x),) if n_outputs == 1 else None}:
        many = n_outputs > 1
        raise OptionError(
            f"Expected {n_outputs} output{'s, one per class' if many else ''} for every row, got "
            f"shape {shape} for {len(x)} rows. Give the last layer the n_outputs that the builder "
            f"is handed{'' if many else '; for two classes that is one, the log-odds'}."
        )


def _arguments(
    make: Callable[..., nn.Module], offered: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What a builder is called with: positional arguments and named ones."""
    try:
        signature = inspect.signature(make)
    except (TypeError, ValueError):  # Some builtins have none.
        return tuple(offered.values()), {}
    rest = [value for name, value in offered.items() if name not in signature.parameters]
    bound = inspect.BoundArguments(signature, {})
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_POSITIONAL:
            bound.arguments[name], rest = tuple(rest), []
        elif name in offered:
            bound.arguments[name] = offered[name]
        elif parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD:
            if not rest or parameter.kind is parameter.KEYWORD_ONLY:
                raise OptionError(
                    "Expected a network builder that needs n_features, n_outputs and generator or "
                    f"fewer of them, got {_name(make)}{signature}. Fix the others: "
                    f"functools.partial({_name(make)}, {name}=...)."
                )
            bound.arguments[name] = rest.pop(0)
    return bound.args, bound.kwargs


def _name(make: Any) -> str:
    return str(getattr(make, "__qualname__", type(make).__name__)).rsplit(".", 1)[-1]


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Inside, torch's global generators start from a seed; afterwards they are as they were."""
    with restored(random_states()), replayed(seeded_generator(seed, _WEIGHTS).initial_seed()):
        yield
