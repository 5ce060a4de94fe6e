"""Any loss: a function of one's own or torch's; its derivatives come from `torch.func.grad`."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from invlearn.errors import OptionError
from invlearn.losses.base import Kind, Loss
from invlearn.losses.closed_form import Logistic, Softmax, Squared

Function = Callable[..., Tensor]
"""``function(outputs, targets)``, an `nn.Module` for instance."""

_CLOSED_FORMS: dict[Any, Loss] = {
    F.cross_entropy: Softmax(),
    nn.CrossEntropyLoss: Softmax(),
    F.binary_cross_entropy_with_logits: Logistic(),
    nn.BCEWithLogitsLoss: Logistic(),
    F.mse_loss: Squared(),
    nn.MSELoss: Squared(),
}
"""Losses of torch's that are, as long as no option of theirs is set, these."""

_ALIKE = _CLOSED_FORMS | dict.fromkeys(
    (F.huber_loss, F.smooth_l1_loss, F.l1_loss, nn.HuberLoss, nn.SmoothL1Loss, nn.L1Loss),
    Squared(),
)
"""Whose targets, outputs and predictions torch's losses share."""


@dataclass(frozen=True)
class Custom(Loss):
    """Any loss of rows, from a function of outputs [n, k] and targets [n] or [n, k].

    Parameters
    ----------
    function : callable
        ``function(outputs, targets)`` gives every row's loss [n], or [n, k] to be averaged over the
        outputs. If it takes a `reduction`, as torch's do, 'none' is asked for, whatever a module
        was made with, and targets come in the outputs' shape where they are as many numbers. Class
        weights multiply the rows' losses, and a risk is their plain mean; rows that `ignore_index`
        names are 0 in it. Outputs come in float64; a module's own tensors are copied and brought
        to it.
    like : Loss, optional
        Whose targets and outputs it has, so that accuracies, probabilities and a check of the
        targets are to be had: ``Softmax()`` with a logit per class, ``Logistic()`` with one for two
        classes, ``Squared()`` for numbers.

    Raises
    ------
    OptionError
        What it is like is no `Loss`, or a module that takes a reduction has parameters to learn.

    Examples
    --------
    >>> absolute = Custom(lambda z, y: (z[:, 0] - y).abs())
    >>> absolute.value(torch.tensor([[3.0]]), torch.tensor([1.0]))
    tensor([2.])
    """

    function: Function
    like: Loss | None = None
    name: ClassVar[str] = "custom"

    def __post_init__(self) -> None:
        if not isinstance(self.like, Loss | None):
            raise OptionError(
                f"Expected the loss that '{self.called}' is like as a Loss, got {self.like!r}. "
                "Look it up: like=get_loss('softmax')."
            )
        object.__setattr__(self, "_rows", _of_rows(self.function))

    @property
    def called(self) -> str:
        own = self.function.func if isinstance(self.function, partial) else self.function
        return str(getattr(own, "__name__", type(own).__name__))

    @property
    def kind(self) -> Kind:
        return "unknown" if self.like is None else self.like.kind

    def value(self, z: Tensor, y: Tensor) -> Tensor:
        """Loss of every row, [n].

        Raises
        ------
        OptionError
            What the function gives is not one number for a row, or it fails.
        """
        y = y.to(z.dtype) if y.is_floating_point() else y
        function: Function = self._rows  # type: ignore[attr-defined]
        if function is not self.function and y.numel() == z.numel():
            y = y.to(z.dtype).reshape(z.shape)
        given = f"outputs {_shape(z)} of {z.dtype} and targets {_shape(y)} of {y.dtype}"
        try:
            rows = function(z, y)
        except (IndexError, RuntimeError, TypeError, ValueError) as error:
            raise OptionError(
                f"Expected a loss of {given}, the function '{self.called}' fails on them: "
                f"{(str(error).strip() or type(error).__name__).splitlines()[0].rstrip('.')}. Mend "
                "it, or what it is given; tensors of its own have to be of the outputs' type."
            ) from error
        if not isinstance(rows, Tensor) or rows.shape not in ((len(z),), z.shape):
            got = f"shape {_shape(rows)}" if isinstance(rows, Tensor) else f"a {_kind(rows)}"
            remedy = "Return the rows' losses, not their mean: reduction='none' for torch's own."
            if isinstance(rows, Tensor) and rows.ndim > 1:  # Broadcast.
                remedy = "Bring targets to the outputs' shape first: y.reshape(z.shape)."
            raise OptionError(
                f"Expected one loss per row, shape ({len(z)},), from '{self.called}' on "
                f"{given}, got {got}. {remedy}"
            )
        return rows.reshape(len(z), -1).mean(1)

    def output_gradient(self, z: Tensor, y: Tensor) -> Tensor:
        rows: Tensor = torch.func.grad(lambda z: self.value(z, y).sum())(z)
        return rows

    def check(self, y: Tensor, n_outputs: int) -> None:
        """That of the loss which it is like; without one nothing is known of the targets."""
        if self.like is not None:
            self.like.check(y, n_outputs)

    def constant_risk(self, y: Tensor, weights: Tensor | None = None) -> float:
        """Unknown for a custom loss: infinity, so that any finite risk counts as better."""
        return float("inf")

    def errors(self, z: Tensor, y: Tensor) -> Tensor:
        return super().errors(z, y) if self.like is None else self.like.errors(z, y)

    def outputs_for(self, n_classes: int) -> int:
        return 1 if self.like is None else self.like.outputs_for(n_classes)

    def logits(self, z: Tensor) -> Tensor:
        return super().logits(z) if self.like is None else self.like.logits(z)


def of_function(
    function: Function, targets: Tensor | None = None, like: Loss | None = None
) -> Loss:
    """The loss that a function, or a module of torch's, is.

    Parameters
    ----------
    function : callable
        See `Custom`. Torch's cross entropies and squared error without options are the closed forms
        of the same value.
    targets : Tensor, optional
        In several columns, or between 0 and 1, they are no classes to be told apart: labels of
        which several may hold, or probabilities.
    like : Loss, optional
        What a function that torch does not have is like.

    Raises
    ------
    OptionError
        A class instead of an instance.
    """
    if isinstance(function, type):
        raise OptionError(
            f"Expected a loss, got the class {function.__name__}. Call it: {function.__name__}()."
        )
    own = function.func if isinstance(function, partial) else function
    known = type(own) if isinstance(own, nn.Module) else own
    found = _ALIKE.get(known)
    if found is not None and targets is not None and not _over_classes(found, targets):
        return Custom(function)
    if known in _CLOSED_FORMS and own is function and not _options(function):
        return _CLOSED_FORMS[known]
    return Custom(function, like if found is None else found)


def _over_classes(found: Loss, targets: Tensor) -> bool:
    """Whether targets are what a loss over classes tells apart; of numbers any are."""
    if found.kind != "classes":
        return True
    shares = found == Logistic() and bool(((targets > 0) & (targets < 1)).any())
    return targets.ndim == 1 and not shares


def _options(function: Function) -> bool:
    """Whether an option of a module of torch's is set that changes its value of a row."""
    if not isinstance(function, nn.Module):
        return False
    fresh = type(function)()
    names = [n for n in vars(fresh) if not n.startswith("_") and n not in ("reduction", "training")]
    same = all(vars(function).get(name) == vars(fresh)[name] for name in names)
    return not same or any(True for _ in function.buffers())


def _of_rows(function: Function) -> Function:
    """The function that gives every row's loss: itself, unless it takes a reduction."""
    if isinstance(function, nn.Module):
        if not hasattr(function, "reduction"):
            return function
        if any(p.requires_grad for p in function.parameters()):
            raise OptionError(
                f"Expected a loss without parameters of its own to learn, got a "
                f"{_kind(function)}: it is copied to be asked for every row's loss, and the copy's "
                "would not be learned. Let it have no `reduction`, and give the rows' losses."
            )
        module = copy.deepcopy(function).double()
        vars(module)["reduction"] = "none"
        return module
    try:
        reduces = "reduction" in inspect.signature(function).parameters
    except (TypeError, ValueError):  # Something built in.
        reduces = False
    return partial(function, reduction="none") if reduces else function


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))


def _kind(value: object) -> str:
    return type(value).__name__
