"""How alike two representations are, and the representations of a model's layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from invlearn.errors import EnvironmentsError, OptionError, unknown_name
from invlearn.evaluation import batches, evaluating
from invlearn.features import Features, as_rows

# Float32 layers leave rounding noise of some 1e-6 of the largest singular value.
TOLERANCE = 1e-5


def pwcca(a: Tensor | np.ndarray[Any, Any], b: Tensor | np.ndarray[Any, Any]) -> float:
    r"""Projection-weighted canonical correlation of two representations of the same rows.

    .. math:: \sum_{i=1}^{c} \alpha_i \rho_i, \qquad
        \alpha_i = \frac{\tilde\alpha_i}{\sum_k \tilde\alpha_k}, \qquad
        \tilde\alpha_i = \sum_j |\langle h_i, a_j \rangle|

    with the canonical correlations ρ_i, the canonical vectors h_i [n] of a (of length 1),
    its units' centred activations a_j [n], and c the smaller of the two ranks. Directions
    with a singular value below 1e-5 of the largest are noise and left out, so dead or
    repeated units do no harm.

    Parameters
    ----------
    a : Tensor or array [n, p]
        Activations of p units on n rows; they give the weights.
    b : Tensor or array [n, q]
        Activations of q units on the same rows, in the same order.

    Returns
    -------
    float
        Between 0 and 1.

    Raises
    ------
    OptionError
        Not two matrices of equally many rows, fewer than two rows, values that are not
        finite, activations that are the same on every row, or no more rows than the two
        ranks together: then some correlations are 1 whatever the activations.

    Notes
    -----
    It is 1 where b is an invertible linear map of a, and also where one representation
    contains the other, since only c correlations count. Mapping b linearly changes nothing;
    mapping a changes the weights, and swapping a and b does too. Where several correlations
    are equal their vectors, and so their weights, are settled only up to a rotation.

    Independent representations of k units each do not give 0 but about 0.85 √(k / n): use
    many more rows than units.

    References
    ----------
    Morcos, Raghu, Bengio (2018), arXiv 1806.05759.

    Examples
    --------
    >>> a = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
    >>> round(pwcca(a, 2 * a[:, [2, 0, 1]] + 5), 6)
    1.0
    """
    a, b = _matrix("a", a), _matrix("b", b)
    if len(a) != len(b):
        raise OptionError(
            f"Expected activations on the same rows, got {len(a)} rows in a and {len(b)} in b. "
            "Run both models on the same rows, in the same order."
        )
    basis_a, scaled = _whiten("a", a)
    basis_b, _ = _whiten("b", b)
    ranks = basis_a.shape[1] + basis_b.shape[1]
    if len(a) <= ranks:
        raise OptionError(
            f"Expected more rows than the ranks of both activations together, got {len(a)} rows "
            f"and ranks {basis_a.shape[1]} + {basis_b.shape[1]}: some correlations would be 1 "
            "whatever the activations. Take many more rows than units."
        )
    directions, correlations, _ = torch.linalg.svd(basis_a.T @ basis_b, full_matrices=False)
    weights = (directions.T @ scaled).abs().sum(1)
    return float((weights @ correlations.clamp(0, 1) / weights.sum()).clamp(0, 1))


def activations(
    model: nn.Module,
    x: Features,
    *,
    parameters: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Representation [n, units] of n rows at every layer, in forward order.

    A layer is a module that has parameters and no modules inside. What it represents is
    what it passes on: the input of the next layer, hence after the nonlinearity between
    them; the last layer's is its output. Evaluation mode, no graphs; nothing of the model
    is changed. Layers are taken to run one after the other; those that did not run are
    left out.

    Parameters
    ----------
    model : nn.Module
    x : Tensor [n, ...] or ChannelImages of n rows
    parameters : mapping of name to Tensor, optional
        Used in place of the model's parameters of these names.

    Returns
    -------
    dict of str to Tensor
        By the module's name; 'model' where the model itself is the one layer.

    Raises
    ------
    EnvironmentsError
        No rows.
    OptionError
        A model without layers, or a layer that runs twice.
    UnknownNameError
        The model has no parameter of a given name.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 1))
    >>> {name: tuple(rows.shape) for name, rows in activations(model, torch.ones(5, 4)).items()}
    {'0': (5, 3), '2': (5, 1)}
    """
    parts = list(_layer_by_layer(model, x, parameters))
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def representation(
    model: nn.Module, x: Features, parameters: Mapping[str, Tensor] | None = None
) -> Tensor:
    """Feature vectors [n, units] that the classifier reads: the input of the last layer.

    Arguments and errors are those of `activations`. For a model of one layer these are the
    rows themselves.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 1))
    >>> representation(model, torch.ones(5, 4)).shape
    torch.Size([5, 3])
    """
    read = []
    for found in _layer_by_layer(model, x, parameters):
        if len(found) == 1:
            return as_rows(x).dense().reshape(len(x), -1)
        read.append(list(found.values())[-2])
    return torch.cat(read)


def _layer_by_layer(
    model: nn.Module, x: Features, parameters: Mapping[str, Tensor] | None
) -> Iterator[dict[str, Tensor]]:
    """What every layer passes on of some rows, then of the next."""
    if len(x) == 0:
        raise EnvironmentsError("Expected at least one row, got none. Pass rows to run on.")
    called = model
    if parameters is not None:
        known = dict(model.named_parameters())
        for name in parameters:
            if name not in known:
                raise unknown_name("parameter", name, known)
        called = _WithParameters(model, parameters)
    for part in batches(x):
        yield _passed_on(model, called, part)


class _WithParameters(nn.Module):
    """A model that is called with other parameters than its own."""

    def __init__(self, model: nn.Module, replaced: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.model = model
        self.replaced = dict(replaced)

    def forward(self, x: Features) -> Any:
        return functional_call(self.model, self.replaced, (x,))


def _passed_on(model: nn.Module, called: nn.Module, x: Features) -> dict[str, Tensor]:
    """What each layer of `model` passes on while `called` runs once."""
    inputs: dict[str, Any] = {}
    output: Any = None

    def recorder(name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def record(module: nn.Module, args: tuple[Any, ...], out: Any) -> None:
            nonlocal output
            if name in inputs:
                raise OptionError(
                    f"Expected every layer to run once, got '{name}' twice. "
                    "Give each of its places a layer of its own."
                )
            # Copies: a later operation in place, like relu_, would change what is kept.
            inputs[name] = args[0].clone() if isinstance(args[0], Tensor) else args[0]
            output = out.clone() if isinstance(out, Tensor) else out

        return record

    handles = [
        module.register_forward_hook(recorder(name or "model"))
        for name, module in model.named_modules()
        if not any(module.children()) and any(True for _ in module.parameters())
    ]
    try:
        with evaluating(called), torch.no_grad():
            called(x)
    finally:
        for handle in handles:
            handle.remove()
    if not inputs:
        raise OptionError(
            "Expected a model with at least one layer that has parameters, got none that ran. "
            "Pass a model made of modules such as nn.Linear."
        )
    names = list(inputs)
    found = {name: inputs[following] for name, following in pairwise(names)}
    found[names[-1]] = output
    return {name: rows.reshape(len(x), -1) for name, rows in found.items()}


def _matrix(name: str, values: Tensor | np.ndarray[Any, Any]) -> Tensor:
    """Take activations as a float64 matrix on the CPU."""
    if isinstance(values, Tensor):
        rows = values.detach().to("cpu", torch.float64)
    else:
        rows = torch.from_numpy(np.array(values, dtype=np.float64))
    if rows.ndim != 2 or rows.shape[0] < 2 or rows.shape[1] < 1:
        raise OptionError(
            f"Expected {name} as a matrix [rows, units] of at least two rows and one unit, got "
            f"shape {tuple(rows.shape)}. Flatten what each row has; one row has no correlation."
        )
    if not bool(rows.isfinite().all()):
        raise OptionError(
            f"Expected finite activations, got NaN or infinity in {name}. "
            "Look for a run that diverged."
        )
    return rows


def _whiten(name: str, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Orthonormal basis [n, rank] of the centred units, and the units in it [rank, units]."""
    # Without the first row, constant units are exactly zero, not rounding noise.
    shifted = rows - rows[0]
    u, s, vt = torch.linalg.svd(shifted - shifted.mean(0), full_matrices=False)
    if s[0] == 0:
        raise OptionError(
            f"Expected activations that vary over the rows, got constant ones in {name}. "
            "Look for a layer whose units are all dead."
        )
    kept = s > TOLERANCE * s[0]
    return u[:, kept], s[kept, None] * vt[kept]
