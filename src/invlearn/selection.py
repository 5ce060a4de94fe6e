"""Which step's model to keep: rules over the results table of a run.

A rule reads the measurements of one run (columns environment, split, metric, value, step)
and picks a step. A rule that reads a test environment is an oracle and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import NamedTuple, cast

import numpy as np
import pandas as pd

from invlearn.errors import OptionError, unknown_name


class Choice(NamedTuple):
    """A step, whether the rule's condition held there, and its statistic at every step."""

    step: int
    satisfied: bool
    statistic: pd.Series | None = None


@dataclass(frozen=True)
class Rule:
    """A selection rule: `choose(curves, target)` returns a Choice.

    Attributes
    ----------
    needs : str or None
        The split it reads, beside none ('validation', 'held-out', 'test').
    oracle : bool
        Whether it reads a test environment.
    """

    name: str
    title: str
    explanation: str
    choose: Callable[[pd.DataFrame, str], Choice]
    needs: str | None = None
    oracle: bool = False


def _table(curves: pd.DataFrame, split: str, metric: str) -> pd.DataFrame:
    """Steps x environments of one metric of one split."""
    rows = curves[(curves["split"] == split) & (curves["metric"] == metric)]
    if rows.empty:
        raise OptionError(
            f"Expected '{metric}' of split '{split}' in the results, found none. "
            f"This rule cannot choose here: evaluate a '{split}' set during training."
        )
    return rows.pivot(index="step", columns="environment", values="value").sort_index()


def _step(label: Hashable) -> int:
    return int(cast(int, label))


def last_step(curves: pd.DataFrame, target: str = "") -> Choice:
    """The last evaluated step."""
    own = curves[curves["split"] != "held-out"]
    return Choice(int(own["step"].max()), True)


def lowest_validation_risk(curves: pd.DataFrame, target: str = "") -> Choice:
    """The step with the lowest mean validation risk over the training environments."""
    risk = _table(curves, "validation", "risk").mean(axis=1)
    return Choice(_step(risk.idxmin()), True, risk)


def risks_agree(
    curves: pd.DataFrame,
    target: str = "",
    *,
    threshold: float | None = None,
    margin: float = 0.05,
) -> Choice:
    """The last step at which the training environments' validation risks agree.

    They agree when their population standard deviation is below the threshold while their
    mean is at least `margin` below the risk of the best constant predictor (a constant
    predictor's risks agree too).

    Parameters
    ----------
    curves : DataFrame
        Of one run.
    target : str
        Not read.
    threshold : float, optional
        In units of risk. Default: one standard error, that of a validation risk times
        sqrt((E − 1) / E), taking validation rows as independent. Equal risks pass it about two
        times in three at a single step.
    margin : float
        Share by which the mean risk has to beat the constant predictor's.

    Returns
    -------
    Choice
        With the standard deviations along the steps. If no step qualifies, the last step,
        with ``satisfied=False``.

    Raises
    ------
    OptionError
        Fewer than two environments, or no validation measurements.

    References
    ----------
    The stopping criterion of Bae, Choi, Lee, arXiv 2103.12947, section 3.3.
    """
    risks = _table(curves, "validation", "risk")
    n_envs = risks.shape[1]
    if n_envs < 2:
        raise OptionError(
            f"Expected at least two training environments whose risks could agree, got {n_envs}. "
            "Use the rule 'lowest-validation-risk'."
        )
    spread = risks.std(axis=1, ddof=0)
    constant = _table(curves, "validation", "constant_risk").mean(axis=1)
    if threshold is None:
        errors = _table(curves, "validation", "risk_standard_error")
        bound = np.sqrt((errors**2).mean(axis=1) * (n_envs - 1) / n_envs)
    else:
        bound = pd.Series(threshold, index=risks.index)
    good = (spread < bound) & (risks.mean(axis=1) <= (1 - margin) * constant)
    if not good.any():
        return Choice(int(risks.index[-1]), False, spread)
    return Choice(int(risks.index[good.to_numpy()][-1]), True, spread)


def leave_one_environment_out(curves: pd.DataFrame, target: str = "") -> Choice:
    """The step with the lowest mean risk in training environments that were held out in turn.

    Reads the split 'held-out': measurements of runs that trained without that environment.
    """
    table = _table(curves, "held-out", "risk").dropna()
    own = set(curves.loc[curves["split"] != "held-out", "step"])
    risk = table[table.index.isin(own)].mean(axis=1) if own else table.mean(axis=1)
    if risk.empty:
        raise OptionError(
            "Expected a step that every left-out run and the run itself reached, found none. "
            "Lower the learning rate or the penalty weight: a run diverged early."
        )
    return Choice(_step(risk.idxmin()), True, risk)


def oracle(curves: pd.DataFrame, target: str) -> Choice:
    """The step that is best in the test environment `target`: not available to a user."""
    rows = curves[(curves["split"] == "test") & (curves["environment"] == target)]
    best = rows[rows["metric"] == "accuracy"]
    if best.empty:
        worst = rows[rows["metric"] == "risk"].set_index("step")["value"]
        return Choice(_step(worst.idxmin()), True, worst)
    accuracy = best.set_index("step")["value"]
    return Choice(_step(accuracy.idxmax()), True, accuracy)


RULES: dict[str, Rule] = {
    rule.name: rule
    for rule in (
        Rule(
            "risks-agree",
            "risks agree",
            "The last step at which the validation risks of the training environments differ by "
            "less than one standard error, while clearly beating a constant predictor.",
            risks_agree,
            needs="validation",
        ),
        Rule(
            "last",
            "last step",
            "The model at the end of training.",
            last_step,
        ),
        Rule(
            "lowest-validation-risk",
            "lowest validation risk",
            "The step with the lowest mean risk on held-out rows of the training environments.",
            lowest_validation_risk,
            needs="validation",
        ),
        Rule(
            "leave-one-environment-out",
            "leave one environment out",
            "The step that did best in training environments left out of training in turn.",
            leave_one_environment_out,
            needs="held-out",
        ),
        Rule(
            "oracle",
            "oracle step",
            "The step that is best in the test environment. No user has it; it bounds what any "
            "rule could choose.",
            oracle,
            needs="test",
            oracle=True,
        ),
    )
}


def get_rule(name: str) -> Rule:
    """Look a rule up by name; UnknownNameError for another."""
    if name not in RULES:
        raise unknown_name("selection rule", name, RULES)
    return RULES[name]


def applicable(curves: pd.DataFrame) -> list[Rule]:
    """The rules whose split these measurements hold, in registry order."""
    splits = set(curves["split"])
    shared = curves.loc[curves["split"] == "validation", "environment"].nunique()
    return [
        rule
        for rule in RULES.values()
        if (rule.needs is None or rule.needs in splits)
        and not (rule.name == "risks-agree" and shared < 2)
    ]


def select(
    curves: pd.DataFrame, rule: Rule, target: str, label: str
) -> tuple[pd.DataFrame, Choice]:
    """A run's measurements at the step a rule chooses, with the column 'selection' set."""
    choice = rule.choose(curves, target)
    return curves[curves["step"] == choice.step].assign(selection=label), choice
