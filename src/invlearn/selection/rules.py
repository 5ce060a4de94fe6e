"""Rules that read the results table of a run, and what a rule is."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from invlearn.errors import OptionError
from invlearn.outputs import Outputs


class Note(NamedTuple):
    """What a user should know of a choice.

    gist: in a few words; reason: why; numbers: the run's own, that show it; instead: what was
    done.

    Examples
    --------
    >>> str(Note("not identifiable", "both are as frequent", "3 %, 3 %", "'last' chose instead"))
    "not identifiable: both are as frequent (3 %, 3 %); 'last' chose instead"
    """

    gist: str
    reason: str = ""
    numbers: str = ""
    instead: str = ""

    def __str__(self) -> str:
        reason = f": {self.reason}" if self.reason else ""
        numbers = f" ({self.numbers})" if self.numbers else ""
        return f"{self.gist}{reason}{numbers}" + (f"; {self.instead}" if self.instead else "")


class Choice(NamedTuple):
    """What a rule chose.

    step; satisfied: whether the rule's condition held there; statistic: by step, if it has
    one; bound: what the statistic's size has to stay below, by step; note: what the user
    should know; latest: the step after which evaluations count against the choice while a run is
    still under way, if that is another.
    """

    step: int
    satisfied: bool
    statistic: pd.Series | None = None
    bound: pd.Series | None = None
    note: Note | None = None
    latest: int | None = None


@dataclass(frozen=True)
class Rule:
    """A selection rule: `choose(curves, target, outputs)` returns a Choice.

    Attributes
    ----------
    needs : str or None
        The split it reads, beside none ('validation', 'left-out', 'test').
    reads_outputs : bool
        Whether it reads the stored outputs beside the table.
    reads_reference : bool
        Whether those have to hold a reference ERM's.
    oracle : bool
        Whether it reads a test environment.
    min_environments : int
        How many training environments it compares at least.
    statistic : str
        What its statistic is, for a figure's axis; empty if there is none to show.
    """

    name: str
    title: str
    explanation: str
    choose: Callable[[pd.DataFrame, str, Outputs | None], Choice]
    needs: str | None = None
    oracle: bool = False
    reads_outputs: bool = False
    reads_reference: bool = False
    min_environments: int = 1
    statistic: str = ""


def table(curves: pd.DataFrame, split: str, metric: str) -> pd.DataFrame:
    """Steps x environments of one metric of one split."""
    rows = curves[(curves["split"] == split) & (curves["metric"] == metric)]
    if rows.empty:
        raise OptionError(
            f"Expected '{metric}' of split '{split}' in the results, found none. "
            f"This rule cannot choose here: evaluate a '{split}' set during training."
        )
    return rows.pivot(index="step", columns="environment", values="value").sort_index()


def step_of(label: Hashable) -> int:
    """A label of an index of steps, as a number."""
    return int(cast(int, label))


def last_step(curves: pd.DataFrame, target: str = "", outputs: Outputs | None = None) -> Choice:
    """The last evaluated step."""
    own = curves[curves["split"] != "left-out"]
    return Choice(int(own["step"].max()), True)


def lowest_validation_risk(
    curves: pd.DataFrame, target: str = "", outputs: Outputs | None = None
) -> Choice:
    """The step with the lowest mean validation risk over the training environments."""
    risk = mean_table(curves, "validation", "risk")
    return Choice(step_of(risk.idxmin()), True, risk)


def risks_agree(
    curves: pd.DataFrame,
    target: str = "",
    outputs: Outputs | None = None,
    *,
    threshold: float | None = None,
    margin: float = 0.05,
    smoothing: int = 1,
    min_step: int = 1,
    first: bool = False,
) -> Choice:
    """The last step at which the training environments' validation risks agree.

    They agree when their population standard deviation is below the threshold while their
    mean is at least `margin` below the risk of the best constant predictor (a constant
    predictor's risks agree too).

    Parameters
    ----------
    curves : DataFrame
        Of one run.
    target, outputs
        Not read.
    threshold : float, optional
        In units of risk. Default: one standard error, that of a validation risk times
        sqrt((E − 1) / E), taking validation rows as independent. Equal risks pass it about two
        times in three at a single step.
    margin : float
        Share by which the mean risk has to beat the constant predictor's.
    smoothing : int
        Risks are averaged over so many evaluations, up to the current one.
    min_step : int
        Earlier steps are not considered; step 0 is the untrained model.
    first : bool
        Take the first such step instead, as the paper's text may be read. A predictor crosses
        agreement early by chance: use `min_step` with it.

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
    risks = table(curves, "validation", "risk").rolling(smoothing, min_periods=1).mean()
    n_envs = risks.shape[1]
    if n_envs < 2:
        raise OptionError(
            f"Expected at least two training environments whose risks could agree, got {n_envs}. "
            "Use the rule 'lowest-validation-risk'."
        )
    spread = risks.std(axis=1, ddof=0)
    constant = mean_table(curves, "validation", "constant_risk")
    if threshold is None:
        errors = table(curves, "validation", "risk_standard_error")
        bound = np.sqrt((errors**2).mean(axis=1) * (n_envs - 1) / n_envs)
    else:
        bound = pd.Series(threshold, index=risks.index)
    good = (spread < bound) & (risks.mean(axis=1) <= (1 - margin) * constant)
    chosen = risks.index[(good & (risks.index >= min_step)).to_numpy()]
    if not len(chosen):
        return Choice(int(risks.index[-1]), False, spread, bound)
    return Choice(int(chosen[0 if first else -1]), True, spread, bound)


def mean_table(curves: pd.DataFrame, split: str, metric: str) -> pd.Series:
    """Mean over environments of one metric of one split, by step."""
    return table(curves, split, metric).mean(axis=1)


def agreeing_steps(statistic: pd.Series, bound: pd.Series) -> npt.NDArray[np.bool_]:
    """Steps [T] whose statistic lies within its bound, or near it beside a change of sign.

    Of the two evaluations on either side of zero the nearer one counts, if it lies within three
    bounds: a statistic that leaps from side to side agrees nowhere.
    """
    value, limit = np.abs(statistic.to_numpy()), bound.to_numpy()
    near = value < limit
    for t in np.flatnonzero(statistic.to_numpy()[1:] * statistic.to_numpy()[:-1] < 0):
        nearer = t if value[t] < value[t + 1] else t + 1
        near[nearer] |= value[nearer] < 3 * limit[nearer]
    return np.asarray(near)


def leave_one_environment_out(
    curves: pd.DataFrame, target: str = "", outputs: Outputs | None = None
) -> Choice:
    """The step with the lowest mean risk in training environments that were held out in turn.

    Reads the split 'left-out': measurements of runs that trained without that environment.
    """
    held = table(curves, "left-out", "risk").dropna()
    own = set(curves.loc[curves["split"] != "left-out", "step"])
    risk = held[held.index.isin(own)].mean(axis=1) if own else held.mean(axis=1)
    if risk.empty:
        raise OptionError(
            "Expected a step that every left-out run and the run itself reached, found none. "
            "Lower the learning rate or the penalty weight: a run diverged early."
        )
    return Choice(step_of(risk.idxmin()), True, risk)


def oracle(curves: pd.DataFrame, target: str, outputs: Outputs | None = None) -> Choice:
    """The step that is best in the test environment `target`: not available to a user."""
    rows = curves[(curves["split"] == "test") & (curves["environment"] == target)]
    best = rows[rows["metric"] == "accuracy"]
    if best.empty:
        worst = rows[rows["metric"] == "risk"].set_index("step")["value"]
        return Choice(step_of(worst.idxmin()), True, worst)
    accuracy = best.set_index("step")["value"]
    return Choice(step_of(accuracy.idxmax()), True, accuracy)
