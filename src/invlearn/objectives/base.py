"""What an objective is: a small pure function of per-environment means over rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from invlearn.errors import OptionError, unknown_name
from invlearn.losses import Loss

State = Any
"""Whatever an objective carries from step to step: a tensor, or None."""


class Terms(NamedTuple):
    """What an objective says of one step.

    total: scalar to be minimised; risks [E]; penalty: scalar, before its weight.
    """

    total: Tensor
    risks: Tensor
    penalty: Tensor


class Range(NamedTuple):
    """A search range, drawn from uniformly (in the logarithm if `log`)."""

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True)
class Objective(ABC):
    """Base of all objectives; frozen, stateless, knows no model and no optimizer.

    Subclasses set the class attributes below and may add static options as dataclass
    fields. Numbers live in the subclass's ``Hyper`` (a NamedTuple with defaults), so that
    a schedule can replace them at every step.

    Attributes
    ----------
    title, summary, source : str
        For tables and reports.
    Hyper : NamedTuple class
        Hyperparameters with defaults; ``Hyper()`` works.
    space : dict
        Search range of each hyperparameter.
    min_environments : int
        How many training environments it needs.
    folds : int
        Into how many random disjoint parts each environment's rows are cut at every step.
    strength : str
        The hyperparameter that says how much invariance counts against the risk; empty if
        there is none.
    table_strengths : tuple of float
        Candidates for it, weak to strong, where inputs and targets are standardized.
    """

    title: ClassVar[str]
    summary: ClassVar[str]
    source: ClassVar[str]
    Hyper: ClassVar[Any]
    space: ClassVar[Mapping[str, Range]] = {}
    min_environments: ClassVar[int] = 2
    conventions: ClassVar[tuple[str, ...]] = ("mean",)
    strength: ClassVar[str] = ""
    table_strengths: ClassVar[tuple[float, ...]] = ()

    @property
    def folds(self) -> int:
        """One part: the rows are not cut."""
        return 1

    def init(self, n_envs: int, like: Tensor) -> State:
        """State before the first step (on `like`'s device and type); None for most."""
        return None

    def strengths(self, n_envs: int) -> tuple[float, ...]:
        """Candidates for the strength with so many environments, weak to strong."""
        return self.table_strengths

    def check(self, hyper: Any) -> None:
        """Raise OptionError for hyperparameters outside their domain."""
        for name, value in hyper._asdict().items():
            if not value >= 0 or value == float("inf"):
                raise OptionError(
                    f"Expected {name} of {self.title} to be a finite number, 0 or more, "
                    f"got {value}. A negative weight would reward what the method penalises."
                )

    def _check_convention(self, convention: str) -> None:
        if convention not in self.conventions:
            raise unknown_name("convention", convention, self.conventions)


class MeanObjective(Objective):
    """An objective of per-environment means: the engine computes the means, exactly.

    Where there are folds, the means come as [E, folds, ...].
    """

    def moments(self, loss: Loss, z: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Per-row quantities [n, ...] whose means `value` asks for; 'risk' is always there."""
        return {"risk": loss.value(z, y)}

    @abstractmethod
    def value(self, means: Mapping[str, Tensor], hyper: Any, state: State) -> tuple[Terms, State]:
        """Objective from the means {name: [E, ...]}, and the state after this step."""


class Combination(NamedTuple):
    """What a gradient-combining objective makes of the environments' gradients.

    terms: as `Terms`.
    weights [E]: coefficient of each environment's gradient in the total's.
    directions: {name: [E, ...]} or None: vectors whose products with each environment's
    Hessian are added to the total's gradient.
    """

    terms: Terms
    weights: Tensor
    directions: dict[str, Tensor] | None


class GradientObjective(Objective):
    """An objective of the environments' gradients with respect to the parameters."""

    @abstractmethod
    def combine(
        self, risks: Tensor, gradients: Mapping[str, Tensor], hyper: Any, state: State
    ) -> tuple[Combination, State]:
        """Total and its gradient's ingredients from risks [E] and gradients {name: [E, ...]}."""


def zero(like: Tensor) -> Tensor:
    """A scalar zero of the same type and device."""
    return torch.zeros((), dtype=like.dtype, device=like.device)
