"""The trainer of a plan, and runs that end whole or not at all."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from torch import nn

from invlearn.environments import Environments, EvaluationSet
from invlearn.features import width
from invlearn.learning.builders import check_network
from invlearn.learning.plan import Plan
from invlearn.losses import Loss
from invlearn.training import Run, Stopping, Trainer, train_many


def evaluation_sets(train: Environments, validation: Environments | None) -> list[EvaluationSet]:
    """What selection rules may read: training and, if there are some, validation rows."""
    sets = [EvaluationSet.from_environments(train, "train")]
    if validation is not None:
        sets.append(EvaluationSet.from_environments(validation, "validation"))
    return sets


def make_trainer(
    plan: Plan,
    rows: Environments,
    loss: str | Loss,
    n_outputs: int,
    seed: int,
    *,
    evaluations: Sequence[EvaluationSet] = (),
    keep_outputs: bool = False,
    stopping: Stopping | None = None,
    start: nn.Module | None = None,
) -> Trainer:
    """A network that is to be trained by a plan, where the rows lie.

    Parameters
    ----------
    plan : Plan
    rows : Environments
    loss : str or Loss
    n_outputs : int
        Of the network.
    seed : int
        Of its weights, and of the rows drawn.
    evaluations, stopping
        See `Trainer`.
    keep_outputs : bool
        Keep the outputs on training and validation rows, if there are validation rows: no rule
        reads them otherwise.
    start : nn.Module, optional
        Goes on from its weights instead of fresh ones; trained in place.
    """
    plan = plan.resolved(rows.sizes)
    network = plan.network(width(rows.x), n_outputs, seed) if start is None else start
    network = network.to(rows.device).train()
    check_network(network, rows, n_outputs, seed)
    validates = any(data.split == "validation" for data in evaluations)
    return Trainer(
        network,
        rows,
        plan.objective,
        loss,
        settings=plan.settings,
        seed=seed,
        evaluations=evaluations,
        keep_outputs=("train", "validation") if keep_outputs and validates else (),
        stopping=stopping,
    )


def train(
    plan: Plan,
    rows: Environments,
    loss: str | Loss,
    n_outputs: int,
    seed: int,
    *,
    evaluations: Sequence[EvaluationSet] = (),
    keep_outputs: bool = False,
    until: int | None = None,
) -> Run:
    """Train by a plan, up to a step if asked; KeyboardInterrupt on Ctrl-C."""
    trainer = make_trainer(
        plan, rows, loss, n_outputs, seed, evaluations=evaluations, keep_outputs=keep_outputs
    )
    with _quietly():
        return _whole([trainer.run(until=until)])[0]


def train_all(
    trainers: Sequence[Trainer], *, done: Callable[[int, Run], None] = lambda i, run: None
) -> list[Run]:
    """Train several at once where that is faster; KeyboardInterrupt on Ctrl-C."""
    with _quietly():
        return _whole(train_many(trainers, done=done))


@contextmanager
def _quietly() -> Iterator[None]:
    """Without warnings: the runs' messages carry them, with method and trial."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _whole(runs: list[Run]) -> list[Run]:
    if any(run.stop_reason == "interrupted" for run in runs):
        raise KeyboardInterrupt  # What was trained unequally cannot be compared.
    return runs
