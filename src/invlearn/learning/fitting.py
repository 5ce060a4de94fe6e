"""From a plan and rows of environments to a trained network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from torch import nn

from invlearn.environments import Environments, EvaluationSet
from invlearn.ground.machine import check_device
from invlearn.learning.plan import Plan
from invlearn.learning.reference import reference_outputs
from invlearn.learning.runs import evaluation_sets, make_trainer
from invlearn.learning.strength import choose_strength
from invlearn.losses import Loss
from invlearn.objectives.base import Objective
from invlearn.selection import get_rule
from invlearn.training import Run, Stopping, Trainer
from invlearn.training.settings import drawn_positions

MEASURED_ROWS = 50_000
"""Training rows of an environment that early stopping measures; of more, so many are drawn."""


@dataclass(frozen=True)
class Fitted:
    """A trained network and how it came about.

    Attributes
    ----------
    network : nn.Module
    objective : Objective
        With the numbers it was trained with; ERM where that was the best strength.
    run : Run
        Of the network's training. With early stopping the network may be that of an earlier step
        than the last.
    scores : DataFrame
        Of the strengths that were compared, see `Strength`; empty if none were.
    environments : dict of str to int
        Rows of each environment, after preparation.
    """

    network: nn.Module
    objective: Objective
    run: Run
    scores: pd.DataFrame
    environments: dict[str, int]


def fit(
    plan: Plan,
    rows: Environments,
    loss: Loss,
    n_outputs: int,
    *,
    seed: int,
    start: nn.Module | None = None,
    validation: Environments | None = None,
    progress: bool = False,
    keep_interrupted: bool = False,
) -> Fitted:
    """Prepare the rows, choose the strength, train; each where the plan says so.

    Parameters
    ----------
    plan : Plan
    rows : Environments
        Training rows, on the CPU.
    loss : Loss
    n_outputs : int
        Of the network.
    seed : int
    start : nn.Module, optional
        Goes on from its weights instead of fresh ones; trained in place.
    validation : Environments, optional
        Rows of the same environments that were held out, to choose the strength on and to stop by;
        default: all of the rows, and a share of them.
    progress : bool
        Show how far training is: a bar on a terminal, elsewhere a line now and then.
    keep_interrupted : bool
        After Ctrl-C in the training itself return what it learned, if it made a step.

    Raises
    ------
    OptionError, EnvironmentsError, UnknownNameError
        As `Trainer`, `choose_strength` and the preparation; also for a device this machine lacks.
    KeyboardInterrupt
        On Ctrl-C, unless kept.

    Examples
    --------
    >>> from invlearn.learning.plan import Layers, standard_plan
    >>> from invlearn.losses import get_loss
    >>> rows = Environments.from_arrays([[-1.0], [1.0], [-2.0], [2.0]], [0, 1, 0, 1], list("aabb"))
    >>> plan = standard_plan("vrex", Layers(()), strength=1.0, steps=20)
    >>> fit(plan, rows, get_loss("logistic"), 1, seed=0).run.steps
    20
    """
    found = ready(plan, rows, loss, n_outputs, seed=seed, validation=validation, start=start)
    run = found.trainer.run(progress=progress)
    if run.stop_reason == "interrupted" and not (keep_interrupted and run.steps):
        raise KeyboardInterrupt
    run.model.eval()
    return Fitted(run.model, found.trainer.objective, run, found.scores, found.environments)


@dataclass(frozen=True)
class Ready:
    """A trainer of prepared rows; scores, environments as in `Fitted`."""

    trainer: Trainer
    scores: pd.DataFrame
    environments: dict[str, int]


def ready(
    plan: Plan,
    rows: Environments,
    loss: Loss,
    n_outputs: int,
    *,
    seed: int,
    validation: Environments | None = None,
    start: nn.Module | None = None,
    tests: Sequence[EvaluationSet] | None = None,
    keep_outputs: bool = False,
) -> Ready:
    """All of `fit` but the training, so that several may be trained at once.

    With `tests`, the training and validation rows and these are measured along the run; no
    choice reads them. `keep_outputs` is `make_trainer`'s.
    """
    check_device(plan.device)
    if plan.preparation is not None:
        rows = plan.preparation.prepare(rows, plan, loss, n_outputs, seed)
    environments = dict(zip(rows.names, rows.sizes, strict=True))
    scores = pd.DataFrame()
    if plan.choose_strength:
        chosen = choose_strength(
            plan, rows if validation is None else validation, loss, n_outputs, seed
        )
        plan, scores = chosen.applied_to(plan), chosen.scores
    evaluations, stopping = [], None
    if plan.early_stopping is not None:
        how = plan.early_stopping.resolved(len(rows))
        rule = get_rule(how.rule)
        rows.require(rule.min_environments, f"Early stopping by '{rule.name}'")
        if validation is None:
            rows, validation = rows.split(how.validation_fraction, seed=seed)
        rows, validation = rows.to(plan.device), validation.to(plan.device)
        evaluations = evaluation_sets(_measured(rows), validation)
        reference = None
        if rule.reads_reference:
            reference = reference_outputs(
                plan, rows, loss, n_outputs, seed, evaluations=evaluations
            )
        stopping = Stopping(rule, patience=how.patience, reference=reference)
    elif tests is not None:
        validation = None if validation is None else validation.to(plan.device)
        evaluations = evaluation_sets(rows.to(plan.device), validation)
    trainer = make_trainer(
        plan,
        rows.to(plan.device),
        loss,
        n_outputs,
        seed,
        evaluations=[*evaluations, *(tests or ())],
        keep_outputs=keep_outputs,
        stopping=stopping,
        start=start,
    )
    return Ready(trainer, scores, environments)


def _measured(rows: Environments) -> Environments:
    """What is measured of the training rows: of large environments a sample."""
    if max(rows.sizes) <= MEASURED_ROWS:
        return rows
    generator = torch.Generator().manual_seed(0)
    return rows.take(
        [drawn_positions(size, min(size, MEASURED_ROWS), generator) for size in rows.sizes]
    )
