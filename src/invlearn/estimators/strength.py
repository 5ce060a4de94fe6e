"""How much invariance should count: chosen by leaving training environments out in turn."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch

from invlearn.environments import Environments, EvaluationSet
from invlearn.errors import OptionError
from invlearn.estimators.fitting import MakeNetwork, Recipe, fitted
from invlearn.evaluation import evaluate
from invlearn.losses import Loss
from invlearn.objectives import get_objective
from invlearn.training import train_together

MOST_GROUPS = 5
"""With more environments than this, several are left out at a time."""


@dataclass(frozen=True)
class Strength:
    """A chosen strength and what it was chosen by.

    Attributes
    ----------
    value : float or None
        None where the objective has no strength, or pooled training (ERM) was never worse.
    scores : DataFrame
        A row per candidate and environment left out: strength (0 is ERM; as it would be for all
        environments), environment, risk.
    """

    value: float | None
    scores: pd.DataFrame

    def applied_to(self, recipe: Recipe) -> Recipe:
        """The recipe with this strength, or as ERM where that was chosen."""
        if self.value is None:
            return replace(recipe, objective="erm", strength=None, hyper={})
        return replace(recipe, strength=self.value)


def choose_strength(
    recipe: Recipe,
    make_network: MakeNetwork,
    environments: Environments,
    loss: Loss,
    *,
    seed: int,
) -> Strength:
    """The strength whose worst risk in environments left out of training in turn is lowest.

    With more than five environments they are left out in five groups.
    The worst, not the mean: where a shortcut is reliable in most environments the mean rewards
    its use, and only the environment in which it is weakest tells what it costs.
    ERM takes part as strength 0. No environment but the training ones is read.

    Parameters
    ----------
    recipe, make_network, loss, seed
        See `fit_network`. Early stopping is left out of these runs.
    environments : Environments
        Training rows of at least three environments, two of them left for every run.

    Raises
    ------
    EnvironmentsError
        Fewer than three environments.
    OptionError
        The strength is given in the recipe's hyperparameters.

    Examples
    --------
    >>> from invlearn.losses import get_loss
    >>> from invlearn.models import MLP
    >>> x, y = [[-1.0], [1.0]] * 6, [0, 1] * 6
    >>> rows = Environments.from_arrays(x, y, list("aaaabbbbcccc"))
    >>> make = lambda generator: MLP(1, (), generator=generator)
    >>> logistic = get_loss("logistic")
    >>> chosen = choose_strength(Recipe("vrex", steps=5), make, rows, logistic, seed=0)
    >>> sorted(set(chosen.scores["environment"]))
    ['a', 'b', 'c']
    """
    environments.require(3, "Choosing the strength by leaving environments out")
    recipe = replace(recipe, early_stopping=False)
    objective = get_objective(recipe.objective)
    if not objective.strength:
        return Strength(None, pd.DataFrame(columns=["strength", "environment", "risk"]))
    if objective.strength in recipe.hyper:
        raise OptionError(
            f"Expected {objective.strength} either chosen from the data or given, got both. "
            "Leave it out of hyper."
        )
    erm = replace(recipe, objective="erm", strength=None, hyper={})
    labels = (0.0, *objective.strengths(len(environments)))
    jobs, trainers = [], []
    for out in environment_groups(environments.names, MOST_GROUPS, seed):
        kept = environments.select([name for name in environments.names if name not in out])
        # What counts as strong may depend on how many environments there are.
        strengths = objective.strengths(len(kept))
        candidates = [erm, *(replace(recipe, strength=strength) for strength in strengths)]
        for label, candidate in zip(labels, candidates, strict=True):
            network = make_network(torch.Generator().manual_seed(seed)).to(recipe.device)
            trainers.append(candidate.trainer(network, kept.to(recipe.device), loss, seed))
            jobs.append((label, out))
    with warnings.catch_warnings():
        # A candidate that collapses or diverges is not chosen: its risk says so.
        warnings.simplefilter("ignore", UserWarning)
        runs = train_together(trainers)
    if any(run.reason == "interrupted" for run in runs):
        raise KeyboardInterrupt  # Candidates of unequal training are no choice.
    rows = []
    for (strength, out), trainer, run in zip(jobs, trainers, runs, strict=True):
        left_out = EvaluationSet.from_environments(environments.select(out), "held-out")
        network = fitted(run, trainer.objective).network
        for found in evaluate(network, [left_out.to(recipe.device)], loss):
            if found.metric == "risk":
                risk = found.value if run.reason != "diverged" else float("inf")
                rows.append({"strength": strength, "environment": found.environment, "risk": risk})
    scores = pd.DataFrame(rows)
    worst = scores.groupby("strength")["risk"].max()
    best = float(worst.index[int(worst.to_numpy().argmin())])  # The smallest of equals.
    return Strength(best or None, scores)


def environment_groups(names: Sequence[str], most: int, seed: int) -> list[list[str]]:
    """Every environment by itself, or all of them in so many random groups of nearly equal size.

    Examples
    --------
    >>> environment_groups(["a", "b"], 5, 0)
    [['a'], ['b']]
    >>> [len(group) for group in environment_groups(list("abcdefg"), 3, 0)]
    [3, 2, 2]
    """
    if len(names) <= most:
        return [[name] for name in names]
    order = np.random.default_rng(seed).permutation(len(names))
    return [sorted(names[i] for i in order[start::most]) for start in range(most)]
