"""Losses: the value of every row and its derivative in the outputs; by name, or any function."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from invlearn.errors import OptionError, unknown_name
from invlearn.losses.base import Loss
from invlearn.losses.closed_form import Logistic, Softmax, Squared
from invlearn.losses.custom import Custom, Function, of_function

LOSSES: dict[str, Loss] = {
    "squared": Squared(),
    "logistic": Logistic(),
    "softmax": Softmax(),
    "softmax-per-class": Softmax(dummy="per-class"),
}

AnyLoss = str | Loss | Function
"""How a loss may be asked for: `get_loss`."""


def get_loss(loss: AnyLoss, targets: Tensor | None = None, *, like: Loss | None = None) -> Loss:
    """A loss by its name, from torch's own, or from any function of outputs and targets.

    Parameters
    ----------
    loss : str, Loss or callable
        A name of `LOSSES`; an instance passes through; `torch.nn.functional.cross_entropy`,
        ``torch.nn.BCEWithLogitsLoss()``, ``torch.nn.HuberLoss()`` and the like; or
        ``function(outputs [n, k], targets)``, which gives every row's loss [n], see `Custom`.
    targets : Tensor, optional
        What it is asked of: a cross entropy of targets with several columns is not over classes.
    like : Loss, optional
        Whose targets a function has that torch does not know.

    Raises
    ------
    UnknownNameError
        A name that no loss has, with the nearest.
    OptionError
        Neither of these.

    Examples
    --------
    >>> import torch
    >>> get_loss(torch.nn.functional.cross_entropy)
    Softmax(dummy='scalar')
    >>> huber = get_loss(torch.nn.HuberLoss(delta=2.0))
    >>> huber.value(torch.tensor([[0.0], [5.0]]).double(), torch.tensor([1.0, 1.0]))
    tensor([0.5000, 6.0000], dtype=torch.float64)
    """
    if like is not None and isinstance(loss, Custom) and loss.like is None:
        return replace(loss, like=like)
    if isinstance(loss, Loss):
        return loss
    if isinstance(loss, str):
        if loss not in LOSSES:
            raise unknown_name("loss", loss, LOSSES)
        return LOSSES[loss]
    if not callable(loss):
        raise OptionError(
            f"Expected a loss as a name ({', '.join(LOSSES)}), a Loss or a function of outputs and "
            f"targets, got {loss!r}."
        )
    return of_function(loss, targets, like)


__all__ = [
    "LOSSES",
    "AnyLoss",
    "Custom",
    "Logistic",
    "Loss",
    "Softmax",
    "Squared",
    "get_loss",
]
