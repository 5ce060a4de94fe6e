"""How a network is learned from rows of environments: said once, for every way of asking."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from torch import nn

from invlearn.environments import Environments
from invlearn.errors import OptionError, unknown_name
from invlearn.losses import Loss
from invlearn.means import seeded_generator
from invlearn.models import MLP
from invlearn.objectives import get_objective
from invlearn.objectives.base import Objective
from invlearn.selection import get_rule
from invlearn.training import PenaltySchedule, Settings
from invlearn.training.checks import check_schedule

MakeNetwork = Callable[[int, int, int], nn.Module]
"""``network(n_features, n_outputs, seed) -> nn.Module``, with fresh weights."""

FULL_BATCH_ROWS = 2000
"""Environments up to this size go into every step whole, larger ones with half as many rows.

A squared mini-batch statistic is biased upwards, so penalties prefer whole environments.
"""

WARM_UP = 0.2
"""Share of the steps made with ERM before a penalty sets in, where that is left to the rows."""

AUTO = ("batch_size", "strength", "warm_up")

EVALUATIONS = 50
"""Along a run that may stop early."""


@dataclass(frozen=True)
class Layers:
    """Makes an `MLP` with these hidden layers."""

    hidden: tuple[int, ...]

    def __call__(self, n_features: int, n_outputs: int, seed: int) -> nn.Module:
        """A network with fresh weights."""
        return MLP(n_features, self.hidden, n_outputs, generator=seeded_generator(seed, 1))


class Preparation(Protocol):
    """A stage before training that may relabel the rows' environments or reweight rows.

    Frozen and stateless, as an objective. Examples: environments inferred from a reference's
    mistakes (EIIL), rows that a reference gets wrong counted several times (JTT).
    """

    def prepare(
        self, rows: Environments, plan: Plan, loss: Loss, n_outputs: int, seed: int
    ) -> Environments:
        """The rows to train on; `plan` is the one that they are prepared for."""


@dataclass(frozen=True)
class EarlyStopping:
    """How a run stops before its last step.

    Parameters
    ----------
    rule : str
        A selection rule that reads training environments only. 'auto' is 'lowest-worst-group', or
        with a single environment 'lowest-validation-risk'.
    patience : int
        Evaluations without a new choice before it stops.
    validation_fraction : float in (0, 1)
        Rows of every environment held out to stop by, where none are given.
    """

    rule: str = "auto"
    patience: int = 10
    validation_fraction: float = 0.2

    def __post_init__(self) -> None:
        if self.rule != "auto":
            get_rule(self.rule)

    def resolved(self, n_envs: int) -> EarlyStopping:
        """The same with a rule for so many environments."""
        if self.rule != "auto":
            return self
        return replace(self, rule="lowest-worst-group" if n_envs > 1 else "lowest-validation-risk")


@dataclass(frozen=True)
class Plan:
    """How a network is learned from rows of environments.

    Parameters
    ----------
    objective : Objective
        With its numbers.
    network : callable
        ``network(n_features, n_outputs, seed) -> nn.Module`` with fresh weights.
    settings : Settings
    auto : set of 'batch_size', 'strength', 'warm_up'
        What `resolved` reads from the rows instead: a batch size that takes environments of up to
        2,000 rows whole; the weakest of ``objective.strengths``; a fifth of the steps without
        penalty, for objectives that are ERM without it, after which the optimizer is reset.
    early_stopping : EarlyStopping, optional
        Without it the last step's network is taken.
    choose_strength : bool
        Choose the strength by leaving environments out in turn, see `choose_strength`.
    preparation : Preparation, optional
        What happens to the rows first.
    device : str

    Raises
    ------
    OptionError, UnknownNameError
        A penalty that never sets in; a setting that is not read from rows.
    """

    objective: Objective
    network: MakeNetwork
    settings: Settings = field(default_factory=Settings)
    auto: frozenset[str] = frozenset()
    early_stopping: EarlyStopping | None = None
    choose_strength: bool = False
    preparation: Preparation | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name in self.auto:
            if name not in AUTO:
                raise unknown_name("setting read from the rows", name, AUTO)
        check_schedule(self.objective, self.settings)

    def resolved(self, sizes: Sequence[int]) -> Plan:
        """The same with nothing left to the rows, for environments of these sizes."""
        objective, settings, stopping = self.objective, self.settings, self.early_stopping
        if "strength" in self.auto and objective.strength:
            weakest = objective.strengths(len(sizes))[0]
            objective = objective.with_numbers({objective.strength: weakest})
        if "batch_size" in self.auto:
            whole = max(sizes) <= FULL_BATCH_ROWS
            settings = replace(settings, batch_size=None if whole else FULL_BATCH_ROWS // 2)
        if "warm_up" in self.auto:
            # Without a weight that waits there is nothing to reset the optimizer for.
            waits = objective.strength and objective.erm_at_zero
            start = round(WARM_UP * settings.steps) if waits else 0
            schedule = PenaltySchedule("step", start=start, at_anneal="reset-optimizer")
            settings = replace(settings, schedule=schedule if start else PenaltySchedule())
        return replace(
            self,
            objective=objective,
            settings=settings,
            auto=frozenset(),
            early_stopping=None if stopping is None else stopping.resolved(len(sizes)),
        )

    def with_strength(self, strength: float) -> Plan:
        """The same with the objective's strength given."""
        objective = self.objective.with_numbers({self.objective.strength: strength})
        return replace(
            self, objective=objective, auto=self.auto - {"strength"}, choose_strength=False
        )

    def as_erm(self) -> Plan:
        """The same with ERM instead of its objective."""
        return replace(self, objective=get_objective("erm"), choose_strength=False)

    def on(self, device: str, precision: str) -> Plan:
        """The same on a device, with products of a precision."""
        return replace(self, device=device, settings=replace(self.settings, precision=precision))


def standard_plan(
    objective: str | Objective,
    network: MakeNetwork,
    *,
    strength: float | str | None = None,
    hyper: Mapping[str, Any] | None = None,
    steps: int = 500,
    batch_size: int | str | None = "auto",
    lr: float = 0.01,
    l2: float = 1e-4,
    early_stopping: EarlyStopping | None = None,
    preparation: Preparation | None = None,
    device: str = "cpu",
) -> Plan:
    """A plan for standardized rows whose defaults need no tuning.

    Parameters
    ----------
    objective : str or Objective
    network : callable
        See `Plan`.
    strength : float, 'auto' or None
        How much invariance counts: the objective's `strength`, V-REx's ``penalty_weight`` or
        meta-IRM's ``std_weight``. None takes the weakest of ``objective.strengths`` for an
        objective's name, and leaves an objective its own; 'auto' chooses it from the data.
    hyper : mapping
        The objective's hyperparameters and other options by name; wins over `strength`.
    steps, batch_size, lr, l2
        See `Settings`; 'auto' takes all rows of environments of up to 2,000, else 1,000.
    early_stopping, preparation, device
        See `Plan`.

    Raises
    ------
    OptionError, UnknownNameError
        Options outside their domain, misspelled names, a strength where there is none or that is
        both given and to be chosen.

    Examples
    --------
    >>> plan = standard_plan("vrex", Layers((8,)), steps=100).resolved([300, 200])
    >>> plan.objective.numbers, plan.settings.batch_size, plan.settings.schedule.start
    ({'penalty_weight': 100.0}, None, 20)
    """
    found, given = get_objective(objective), dict(hyper or {})
    name = found.strength
    if isinstance(strength, str) and strength != "auto":
        raise unknown_name("penalty weight", strength, ["auto"])
    if isinstance(batch_size, str) and batch_size != "auto":
        raise unknown_name("batch size", batch_size, ["auto"])
    if isinstance(strength, str) and name in given:
        raise OptionError(
            f"Expected {name} either chosen from the data or given, got both. Leave it out of "
            "hyper."
        )
    if strength is not None and strength != "auto" and not name:
        raise OptionError(
            f"Expected no penalty weight for {found.title}, which has no penalty, got {strength}. "
            "Leave it out."
        )
    auto = {"warm_up"} | ({"batch_size"} if batch_size == "auto" else set())
    if strength is None and isinstance(objective, str) and name not in given:
        auto.add("strength")
    if isinstance(strength, int | float):
        given = {name: float(strength)} | given
    settings = Settings(
        steps=steps,
        batch_size=None if isinstance(batch_size, str) else batch_size,
        lr=lr,
        l2=l2,
        averaging=0.95,
        evaluate_every=steps if early_stopping is None else max(steps // EVALUATIONS, 1),
    )
    return Plan(
        get_objective(found, given),
        network,
        settings,
        frozenset(auto),
        early_stopping,
        strength == "auto" and bool(name),
        preparation,
        device,
    )
