"""What an objective is: a small pure function of per-environment means over rows."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from numbers import Real
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor

from invlearn.errors import OptionError, unknown_name
from invlearn.losses import Loss
from invlearn.objectives import own_loop

State = Any
"""Whatever an objective carries from step to step: a tensor, or None."""


class Terms(NamedTuple):
    """What an objective says of one step.

    total: scalar to be minimized; risks [E]; penalty: scalar, before its weight.
    """

    total: Tensor
    risks: Tensor
    penalty: Tensor


class Range(NamedTuple):
    """A search range, drawn from uniformly (in the logarithm if `log`)."""

    low: float
    high: float
    log: bool = False


class Outer(NamedTuple):
    """Per-row products left ⊗ right [n, p, q], never formed.

    Their weighted sum over rows is leftᵀ diag(w) right, one product of matrices.
    left: [n, p]; right: [n, q].
    """

    left: Tensor
    right: Tensor


def number(default: float, search: Range) -> Any:
    """Declare a hyperparameter: a field whose number a schedule, a search or a stack replaces."""
    return field(default=default, metadata={"search": search})


@dataclass(frozen=True)
class Objective(ABC):
    """Base of all objectives; frozen, stateless, knows no model and no optimizer.

    Subclasses set the class attributes below and declare dataclass fields: hyperparameters
    with `number`, anything else is a static option. Formulas read ``self.penalty_weight``; a
    schedule or a stack of runs hands them a copy made by `bound`.

    Attributes
    ----------
    title, summary, source : str
        For tables and reports.
    needs : 'means', 'gradients' or 'inner steps'
        What the engine has to provide.
    reads_features : bool
        Whether `moments` reads the classifier's inputs beside the outputs.
    shapes_features : bool
        Whether it penalizes features as such, which without trainable layers before the classifier
        would be a constant.
    min_environments : int
        How many training environments it needs.
    conventions : tuple of str
        Published codes' scalings that it knows, if it has an option ``convention``.
    strength : str
        The hyperparameter that says how much invariance counts against the risk, and that
        schedules drive; empty if there is none.
    erm_at_zero : bool
        Whether it is ERM at strength 0, so that training may start without it.
    table_strengths : tuple of float
        Candidates for the strength, weak to strong, where inputs and targets are standardized.
    folds : int
        Into how many random disjoint parts each environment's rows are cut at every step.
    """

    title: ClassVar[str]
    summary: ClassVar[str]
    source: ClassVar[str]
    needs: ClassVar[str]
    reads_features: ClassVar[bool] = False
    shapes_features: ClassVar[bool] = False
    min_environments: ClassVar[int] = 2
    conventions: ClassVar[tuple[str, ...]] = ("mean",)
    strength: ClassVar[str] = ""
    erm_at_zero: ClassVar[bool] = True
    table_strengths: ClassVar[tuple[float, ...]] = ()

    begin = own_loop.begin
    on_batch = own_loop.on_batch
    on_model = own_loop.on_model

    def __post_init__(self) -> None:
        self.check()

    @property
    def folds(self) -> int:
        """One part: the rows are not cut."""
        return 1

    @property
    def reads_groups(self) -> bool:
        """Whether its means are those of groups of rows [G], not of environments.

        Those of a group that has no rows in a step are 0, and so is its 'mass'; the environments'
        risks come as 'environment_risk' [E].
        """
        return False

    @property
    def space(self) -> dict[str, Range]:
        """Search range of each hyperparameter."""
        return {f.name: f.metadata["search"] for f in fields(self) if "search" in f.metadata}

    @property
    def numbers(self) -> dict[str, float]:
        """The hyperparameters by name."""
        return {name: getattr(self, name) for name in self.space}

    def bound(self, values: Mapping[str, Any]) -> Self:
        """A copy with these numbers, unchecked: they may be tensors."""
        other = copy.copy(self)
        for name, value in values.items():
            object.__setattr__(other, name, value)
        return other

    def with_numbers(self, values: Mapping[str, float]) -> Self:
        """A copy with these hyperparameters, checked.

        Raises
        ------
        OptionError, UnknownNameError
            A number outside its domain, or a name that is none of a hyperparameter.
        """
        for name in values:
            if name not in self.space:
                raise unknown_name(f"hyperparameter of {self.title}", name, self.space)
        return replace(self, **values)

    def static(self) -> Self:
        """A copy with every number at its default: what objectives of one stack share."""
        return self.bound({f.name: f.default for f in fields(self) if "search" in f.metadata})

    def init(self, n_envs: int, like: Tensor) -> State:
        """State before the first step (on `like`'s device and type); None for most."""
        return None

    def strengths(self, n_envs: int) -> tuple[float, ...]:
        """Candidates for the strength with so many environments, weak to strong."""
        return self.table_strengths

    def check_parameters(self, names: Sequence[str]) -> None:
        """Raise OptionError for a model whose trainable parameters, by name, do not suit."""
        if not names:
            raise OptionError("Expected a model with trainable parameters, got none.")

    def gradients_held(self, n_envs: int) -> int | None:
        """Gradients that a step holds beside its own; None: it draws what no stack can share."""
        return 0

    def moments(self, loss: Loss, z: Tensor, y: Tensor, h: Any) -> dict[str, Tensor | Outer]:
        """Per-row quantities whose means the objective asks for; 'risk' is always there.

        Parameters
        ----------
        z : Tensor [n, k], float64
            Outputs.
        y : Tensor [n, ...]
        h : Tensor [n, d], float64, or None
            The classifier's inputs, if `reads_features`.

        Returns
        -------
        {name: Tensor [n, ...] or Outer}
        """
        return {"risk": loss.value(z, y)}

    def total_of_batch(
        self, means: Mapping[str, Tensor], state: State, parameters: Iterable[Tensor] | None
    ) -> tuple[Tensor, State]:
        """What `on_batch` returns, from a batch's means, and the state after it."""
        raise OptionError(
            f"{self.title} takes steps with the model itself: a batch's outputs are not enough. "
            "Use on_model(model, inputs, targets, environments, loss=...)."
        )

    def check(self) -> None:
        """Raise OptionError for options or hyperparameters outside their domain."""
        for name, value in self.numbers.items():
            if not isinstance(value, Real) or not 0 <= value < math.inf:
                raise OptionError(
                    f"Expected {name} of {self.title} to be a finite number, 0 or more, "
                    f"got {value!r}. A negative weight would reward what the method penalizes."
                )
        convention = getattr(self, "convention", self.conventions[0])
        if convention not in self.conventions:
            raise unknown_name("convention", convention, self.conventions)


class MeanObjective(Objective):
    """An objective of per-environment means: the engine computes the means, exactly.

    Where there are folds, the means come as [E, folds, ...].
    """

    needs: ClassVar[str] = "means"

    @abstractmethod
    def value(self, means: Mapping[str, Tensor], state: State) -> tuple[Terms, State]:
        """Objective from the means {name: [E, ...]}, and the state after this step.

        Sums of the row weights are among them as 'mass'.
        """

    def total_of_batch(
        self, means: Mapping[str, Tensor], state: State, parameters: Iterable[Tensor] | None
    ) -> tuple[Tensor, State]:
        terms, state = self.value(means, state)
        return terms.total, state


def zero(like: Tensor) -> Tensor:
    """A scalar zero of the same type and device."""
    return torch.zeros((), dtype=like.dtype, device=like.device)
