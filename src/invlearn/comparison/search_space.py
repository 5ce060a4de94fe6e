"""What a search draws from: training settings, and each objective's own hyperparameters."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from invlearn.errors import OptionError, unknown_name
from invlearn.learning import Plan
from invlearn.objectives.base import Objective, Range

SETTINGS_SPACE: dict[str, Range] = {
    "lr": Range(3.5e-4, 3e-3, log=True),
    "l2": Range(1e-5, 3e-3, log=True),
    "start": Range(50, 200),
}
"""Ranges of the training settings; each objective brings those of its own hyperparameters.

They lie within those of the IRM paper's own search on Colored MNIST.
"""

START_OF = 400
"""The steps of the shortest run that the range of `start` is for."""


def search_space(
    objective: Objective,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    *,
    share: float = 1.0,
    fixed: Collection[str] = (),
) -> dict[str, Range]:
    """Ranges of the settings and of the objective's own hyperparameters; some given by hand.

    Those that are `fixed` make a method what it is.

    In a run of another length, `share` of the one that the ranges are for, a penalty sets in at
    that share of the steps too, unless their range is given.
    """
    own = {name: span for name, span in objective.space.items() if name not in fixed}
    space = {**SETTINGS_SPACE, **own}
    if not objective.strength or not objective.erm_at_zero:
        space.pop("start")
    elif share != 1:
        low, high = (share * end for end in space["start"][:2])
        space["start"] = space["start"]._replace(low=low, high=high)
    for name, (low, high) in (ranges or {}).items():
        if name not in space:
            raise unknown_name("hyperparameter to search", name, space)
        if not 0 <= low < high or (low == 0 and space[name].log):
            sign = "<" if space[name].log else "<="
            raise OptionError(
                f"Expected a range of {name} with 0 {sign} low < high, got {low}:{high}."
            )
        space[name] = space[name]._replace(low=low, high=high)
    return space


def draw_plans(
    plan: Plan, draws: int, seed: int, space: Mapping[str, Range]
) -> list[tuple[Plan, dict[str, float]]]:
    """Plans with values from a Latin hypercube over the search space, and those values."""
    from scipy.stats.qmc import LatinHypercube

    out = []
    for point in LatinHypercube(len(space), rng=seed).random(draws):
        values = {n: _at(span, u) for (n, span), u in zip(space.items(), point, strict=True)}
        schedule = plan.settings.schedule
        if "start" in values:
            values["start"] = float(int(values["start"]))
            schedule = replace(schedule, start=int(values["start"]))
        settings = replace(plan.settings, lr=values["lr"], l2=values["l2"], schedule=schedule)
        own = {name: values[name] for name in plan.objective.space if name in values}
        objective = plan.objective.with_numbers(own)
        out.append((replace(plan, settings=settings, objective=objective), values))
    return out


def _at(span: Range, u: float) -> float:
    """The value at a fraction u of a range."""
    if span.log:
        return float(span.low * (span.high / span.low) ** u)
    return float(span.low + (span.high - span.low) * u)
