"""How much invariance should count: chosen by leaving training environments out in turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from invlearn.environments import Environments, EvaluationSet
from invlearn.evaluation import evaluate
from invlearn.learning.plan import Plan
from invlearn.learning.runs import make_trainer, train_all
from invlearn.losses import Loss

MOST_GROUPS = 5
"""With more environments than this, several are left out at a time."""


@dataclass(frozen=True)
class Strength:
    """A chosen strength and what it was chosen by.

    Attributes
    ----------
    value : float or None
        None where pooled training (ERM) was never worse.
    scores : DataFrame
        A row per candidate and environment left out: strength (0 is ERM; as it would be for all
        environments), environment, risk.
    """

    value: float | None
    scores: pd.DataFrame

    def applied_to(self, plan: Plan) -> Plan:
        """The plan with this strength, or as ERM where that was chosen."""
        return plan.as_erm() if self.value is None else plan.with_strength(self.value)


def choose_strength(
    plan: Plan, environments: Environments, loss: Loss, n_outputs: int, seed: int
) -> Strength:
    """The strength whose worst risk in environments left out of training in turn is lowest.

    With more than five environments they are left out in five groups.
    The worst, not the mean: where a shortcut is reliable in most environments the mean rewards
    its use, and only the environment in which it is weakest tells what it costs.
    ERM takes part as strength 0. No environment but the training ones is read.

    Parameters
    ----------
    plan, loss, n_outputs, seed
        See `fit`; the plan's objective has a strength. Early stopping is left out of these runs.
    environments : Environments
        Training rows of at least three environments, two of them left for every run.

    Raises
    ------
    EnvironmentsError
        Fewer than three environments.

    Examples
    --------
    >>> from invlearn.learning.plan import Layers, standard_plan
    >>> from invlearn.losses import get_loss
    >>> x, y = [[-1.0], [1.0]] * 6, [0, 1] * 6
    >>> rows = Environments.from_arrays(x, y, list("aaaabbbbcccc"))
    >>> plan = standard_plan("vrex", Layers(()), strength="auto", steps=5)
    >>> chosen = choose_strength(plan, rows, get_loss("logistic"), 1, seed=0)
    >>> sorted(set(chosen.scores["environment"]))
    ['a', 'b', 'c']
    """
    environments.require(3, "Choosing the strength by leaving environments out")
    settings = replace(plan.settings, evaluate_every=plan.settings.steps)
    plan = replace(plan, early_stopping=None, settings=settings)
    objective = plan.objective
    labels = (0.0, *objective.strengths(len(environments)))
    jobs, trainers = [], []
    for out in environment_groups(environments.names, MOST_GROUPS, seed):
        kept = environments.select([name for name in environments.names if name not in out])
        kept = kept.to(plan.device)
        # What counts as strong may depend on how many environments there are.
        candidates = map(plan.with_strength, objective.strengths(len(kept)))
        for label, candidate in zip(labels, (plan.as_erm(), *candidates), strict=True):
            trainers.append(make_trainer(candidate, kept, loss, n_outputs, seed))
            jobs.append((label, out))
    rows = []
    # A candidate that collapses or diverges is not chosen: its risk says so.
    for (strength, out), run in zip(jobs, train_all(trainers), strict=True):
        left_out = EvaluationSet.from_environments(environments.select(out), "left-out")
        for found in evaluate(run.model, [left_out.to(plan.device)], loss):
            if found.metric == "risk":
                risk = found.value if run.stop_reason != "diverged" else float("inf")
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
