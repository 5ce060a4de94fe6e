"""From rows of environments to a trained network, with defaults that need no tuning."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import pandas as pd
import torch
from torch import nn

from invlearn.environments import Environments, EvaluationSet
from invlearn.errors import OptionError, unknown_name
from invlearn.ground.machine import check_device
from invlearn.losses import Loss
from invlearn.objectives import get_objective
from invlearn.objectives.base import Objective
from invlearn.selection import Choice, get_rule, reference_step
from invlearn.training import PenaltySchedule, Run, Settings, Stopping, Trainer
from invlearn.training.settings import drawn_positions

MakeNetwork = Callable[[torch.Generator], nn.Module]

FULL_BATCH_ROWS = 2000
"""Environments up to this size go into every step whole, larger ones with half as many rows.

A squared mini-batch statistic is biased upwards, so penalties prefer whole environments.
"""

MEASURED_ROWS = 50_000
"""Training rows of an environment that early stopping measures; of more, so many are drawn."""

DEFAULT_STOPPING = "lowest-worst-group"


@dataclass(frozen=True)
class Recipe:
    """How a network is fitted to environments.

    Parameters
    ----------
    objective : str or Objective
    strength : float, or None
        How much invariance counts: the objective's `strength` hyperparameter, V-REx's
        ``penalty_weight`` or meta-IRM's ``std_weight``. None takes the weakest of
        ``objective.strengths``.
    hyper : mapping
        Any of the objective's hyperparameters by name; wins over `strength`.
    steps : int
    batch_size : int, None or 'auto'
        Rows of each environment in a step; None takes all; 'auto' all of environments of up to
        2,000 rows, else 1,000.
    lr : float
    l2 : float
        Coefficient of ‖θ‖².
    averaging : float
        Of the parameters over steps, see `Settings`.
    warm_up : float in [0, 1)
        Share of the steps made with ERM before a penalty sets in; the optimizer is then reset.
        Objectives that do not become ERM by a weight of 0 are trained as they are from the start.
    early_stopping : bool or str
        A rule that reads training environments only, or True for 'lowest-worst-group' (with a
        single environment: 'lowest-validation-risk').
    patience : int
        Evaluations, of which there are 50, without a new choice before it stops.
    validation_fraction : float in (0, 1)
        Rows of every environment held out for early stopping; without it all are trained on.
    device : str
    """

    objective: str | Objective = "vrex"
    strength: float | None = None
    hyper: Mapping[str, float] = field(default_factory=dict)
    steps: int = 500
    batch_size: int | str | None = "auto"
    lr: float = 0.01
    l2: float = 1e-4
    averaging: float = 0.95
    warm_up: float = 0.2
    early_stopping: bool | str = False
    patience: int = 10
    validation_fraction: float = 0.2
    device: str = "cpu"

    def __post_init__(self) -> None:
        if not 0 <= self.warm_up < 1:
            raise OptionError(f"Expected warm_up of 0 or more and below 1, got {self.warm_up}.")
        if isinstance(self.early_stopping, str):
            get_rule(self.early_stopping)

    def objective_for(self, n_envs: int) -> Objective:
        """The objective with its hyperparameters for so many environments."""
        objective = get_objective(self.objective)
        numbers = dict(self.hyper)
        if objective.strength:
            chosen = objective.strengths(n_envs)[0] if self.strength is None else self.strength
            numbers = {objective.strength: float(chosen)} | numbers
        return objective.with_numbers(numbers)

    def settings_for(self, environments: Environments) -> Settings:
        """The trainer's settings."""
        batch_size = self.batch_size
        if isinstance(batch_size, str):
            if batch_size != "auto":
                raise unknown_name("batch size", batch_size, ["auto"])
            whole = max(environments.sizes) <= FULL_BATCH_ROWS
            batch_size = None if whole else FULL_BATCH_ROWS // 2
        # Without a weight that waits there is nothing to reset the optimizer for.
        objective = get_objective(self.objective)
        penalised = objective.strength and objective.erm_at_zero
        start = round(self.warm_up * self.steps) if penalised else 0
        schedule = PenaltySchedule("step", start=start, before=0.0, at_anneal="reset-optimizer")
        return Settings(
            steps=self.steps,
            batch_size=batch_size,
            lr=self.lr,
            l2=self.l2,
            averaging=self.averaging,
            schedule=schedule if start else PenaltySchedule(),
            evaluate_every=max(self.steps // 50, 1) if self.early_stopping else self.steps,
        )

    def trainer(
        self,
        network: nn.Module,
        environments: Environments,
        loss: Loss,
        seed: int,
        validation: Environments | None = None,
        stopping: Stopping | None = None,
    ) -> Trainer:
        """A trainer of this recipe; rows and network have to be on one device already."""
        sets = [] if validation is None else _sets(environments, validation)
        reads = stopping is not None and stopping.get().reads_outputs
        return Trainer(
            network,
            environments,
            self.objective_for(len(environments)),
            loss,
            settings=self.settings_for(environments),
            seed=seed,
            evaluations=sets,
            keep_outputs=("train", "validation") if reads else (),
            stopping=stopping,
        )


@dataclass(frozen=True)
class Fitted:
    """A fitted network and how it came about.

    Attributes
    ----------
    network : nn.Module
    history : DataFrame
        As `Run.history`: a row per step.
    curves : DataFrame
        As `Run.curves`; empty without early stopping.
    steps : int
        Updates made; with early stopping the network may be that of an earlier one.
    reason : str
        As `Run.reason`.
    choice : Choice or None
        What the stopping rule chose.
    hyper : dict
        The objective's hyperparameters.
    """

    network: nn.Module
    history: pd.DataFrame
    curves: pd.DataFrame
    steps: int
    reason: str
    choice: Choice | None
    hyper: dict[str, float]


def fit_network(
    recipe: Recipe,
    make_network: MakeNetwork,
    environments: Environments,
    loss: Loss,
    *,
    seed: int,
    start: nn.Module | None = None,
    validation: Environments | None = None,
    progress: bool = False,
) -> Fitted:
    """Fit a network to environments.

    Parameters
    ----------
    recipe : Recipe
    make_network : callable
        ``make_network(generator) -> nn.Module`` with fresh weights from the generator.
    environments : Environments
        Training rows, on the CPU.
    loss : Loss
    seed : int
    start : nn.Module, optional
        Goes on from its weights instead of fresh ones; trained in place.
    validation : Environments, optional
        Rows to stop by, of the same environments; default: `validation_fraction` of each.
    progress : bool
        Show a progress bar on a terminal.

    Raises
    ------
    OptionError, EnvironmentsError, UnknownNameError
        As `Trainer`; also for a device this machine lacks.

    Examples
    --------
    >>> from invlearn.losses import get_loss
    >>> from invlearn.models import MLP
    >>> rows = Environments.from_arrays([[-1.0], [1.0], [-2.0], [2.0]], [0, 1, 0, 1], list("aabb"))
    >>> recipe = Recipe("vrex", strength=1.0, steps=20)
    >>> make = lambda generator: MLP(1, (), generator=generator)
    >>> fit_network(recipe, make, rows, get_loss("logistic"), seed=0).steps
    20
    """
    check_device(recipe.device)
    network = _fresh(make_network, seed) if start is None else start
    stopping_rule = _rule(recipe, environments)
    if stopping_rule and validation is None:
        environments, validation = environments.split(recipe.validation_fraction, seed=seed)
    environments = environments.to(recipe.device)
    validation = None if validation is None else validation.to(recipe.device)
    network = network.to(recipe.device)
    stopping = None
    if stopping_rule and validation is not None:
        reference = None
        if get_rule(stopping_rule).reads_reference:
            reference = _reference(recipe, make_network, environments, validation, loss, seed)
        stopping = Stopping(stopping_rule, patience=recipe.patience, reference=reference)
    trainer = recipe.trainer(
        network, environments, loss, seed, validation if stopping else None, stopping
    )
    run = trainer.run(progress=progress)
    return fitted(run, trainer.objective)


def fitted(run: Run, objective: Objective) -> Fitted:
    """What a run leaves, with the plain network where it was averaged."""
    network = getattr(run.model, "module", run.model)
    network.eval()
    return Fitted(
        network, run.history, run.curves, run.steps, run.reason, run.choice, objective.numbers
    )


def _rule(recipe: Recipe, environments: Environments) -> str:
    """The stopping rule's name; empty for none."""
    if not recipe.early_stopping:
        return ""
    several = len(environments) > 1
    if isinstance(recipe.early_stopping, str):
        rule = get_rule(recipe.early_stopping)
        environments.require(rule.min_environments, f"Early stopping by '{rule.name}'")
        return rule.name
    return DEFAULT_STOPPING if several else "lowest-validation-risk"


def _reference(
    recipe: Recipe,
    make_network: MakeNetwork,
    environments: Environments,
    validation: Environments,
    loss: Loss,
    seed: int,
) -> Mapping[str, torch.Tensor]:
    """Outputs of a quick ERM at the step where its errors depend most on the environment."""
    erm = replace(recipe, objective="erm", hyper={}, strength=None)
    settings = erm.settings_for(environments)
    with warnings.catch_warnings():
        # It is no result: what it fails at is what the rule wants to know.
        warnings.simplefilter("ignore", UserWarning)
        run = Trainer(
            _fresh(make_network, seed).to(recipe.device),
            environments,
            "erm",
            loss,
            settings=settings,
            seed=seed,
            evaluations=_sets(environments, validation),
            keep_outputs=("train", "validation"),
        ).run()
    assert run.outputs is not None
    return run.outputs.at(reference_step(run.outputs))


def _fresh(make_network: MakeNetwork, seed: int) -> nn.Module:
    return make_network(torch.Generator().manual_seed(seed))


def _sets(train: Environments, validation: Environments) -> list[EvaluationSet]:
    """What is measured along a run: of large environments a sample of the training rows."""
    if max(train.sizes) > MEASURED_ROWS:
        generator = torch.Generator().manual_seed(0)
        train = train.take(
            [drawn_positions(size, min(size, MEASURED_ROWS), generator) for size in train.sizes]
        )
    return [
        EvaluationSet.from_environments(train, "train"),
        EvaluationSet.from_environments(validation, "validation"),
    ]
