"""How much work a model's forward pass is, by its sizes, so that a diagnosis can bound its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from invlearn.evaluation import forward
from invlearn.features import InMemory

PER_OPERATION, PER_VALUE = 3e-11, 1e-9
"""Seconds of a slow core for a multiplication or addition of a product, and for a value written."""


def seconds_of_a_row(model: nn.Module, x: InMemory) -> float:
    """About how long a forward pass takes a core for each of these rows, from sizes alone.

    Nothing is timed: equal models and rows give equal numbers.

    Examples
    --------
    >>> import torch
    >>> seconds_of_a_row(nn.Linear(1000, 10), torch.zeros(4, 1000)) < 1e-5
    True
    """
    values = _Values()  # type: ignore[no-untyped-call]
    with FlopCounterMode(display=False) as products, values:
        forward(model, x)
    # Products of this library's own linear layer are not ones that torch's counter knows.
    weights = 2 * len(x) * sum(p.numel() for p in model.parameters() if p.ndim == 2)
    operations = max(products.get_total_flops(), weights)
    return float(operations * PER_OPERATION + values.count * PER_VALUE) / len(x)


class _Values(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the values that operations write."""

    count = 0

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        self.count += sum(
            part.numel()
            for part in (out if isinstance(out, tuple) else (out,))
            if isinstance(part, Tensor)
        )
        return out


def affordable(most: int, fewest: int, seconds: float, budget: float) -> int:
    """How many rows, each of which takes so many seconds, there is time for."""
    return max(min(most, int(budget / max(seconds, 1e-12))), min(most, fewest))
