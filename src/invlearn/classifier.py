"""The layer whose inputs an objective reads as features: the classifier, or one by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from invlearn.errors import OptionError, unknown_name
from invlearn.features import as_rows


def classifier_of(model: nn.Module, name: str = "") -> str:
    """The name of the module whose inputs are the features.

    Parameters
    ----------
    model : nn.Module
    name : str
        As `nn.Module.named_modules` gives it; empty for the linear layer that holds the last
        trainable parameter. The model itself, if it is that layer, has the name ''.

    Raises
    ------
    OptionError
        The last trainable parameter belongs to no linear layer.
    UnknownNameError
        A name that no module has.

    Examples
    --------
    >>> classifier_of(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 1)))
    '2'
    """
    modules = dict(model.named_modules())
    if name:
        if name not in modules:
            raise unknown_name("module to read features from", name, [n for n in modules if n])
        return name
    last = [n for n, p in model.named_parameters() if p.requires_grad][-1]
    found = last.rpartition(".")[0]
    if not isinstance(modules[found], nn.Linear):
        kind = type(modules[found]).__name__
        raise OptionError(
            "Expected a linear layer at the end of the model, whose inputs are the features that "
            f"the objective reads; the last trainable parameter is '{last}', of a {kind}. Name the "
            "layer, features='name' (in Settings, or of on_model), one of "
            f"{', '.join(repr(n) for n in modules if n) or 'none'}."
        )
    return found


def check_features_learned(model: nn.Module, classifier: str, title: str) -> None:
    """Raise OptionError for a model that has no trainable layer before its classifier."""
    own = {id(p) for p in model.get_submodule(classifier).parameters()}
    if all(id(p) in own for p in model.parameters() if p.requires_grad):
        raise OptionError(
            f"Expected a trainable layer before the classifier, whose outputs {title} penalizes, "
            "got none: the features are the rows themselves, which training cannot change. Give "
            "the network a hidden layer."
        )


def with_inputs(model: nn.Module, name: str, call: Callable[[], Tensor]) -> tuple[Tensor, Tensor]:
    """Outputs of a call of the model, and the inputs [n, d] of one of its modules in it.

    Raises
    ------
    OptionError
        The module did not run, or more than once.
    """
    seen: list[Tensor] = []

    def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        h = inputs[0]
        h = as_rows(h).dense()
        seen.append(h.reshape(len(h), -1))

    handle = model.get_submodule(name).register_forward_pre_hook(hook)
    try:
        z = call()
    finally:
        handle.remove()
    if len(seen) != 1:
        raise OptionError(
            f"Expected the layer '{name}', whose inputs are the features, to run once in a forward "
            f"pass, it ran {len(seen)} times. Name another, features='name' (in Settings, or of "
            "on_model)."
        )
    return z, seen[0]
