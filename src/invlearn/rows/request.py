"""What a fit on one's own rows is asked to do."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FitRequest:
    """How a model is fitted to a user's rows; see `InvariantClassifier` for the parameters.

    The defaults are those of comparisons, so that what is fitted is what was measured.
    `penalty_weight` 'auto' falls back to the objective's own with fewer than three environments.
    """

    objective: str = "vrex"
    penalty_weight: float | str | None = "auto"
    hidden: tuple[int, ...] = (16,)
    steps: int = 200
    early_stopping: bool | str = False
    seed: int = 0
    device: str = "cpu"
