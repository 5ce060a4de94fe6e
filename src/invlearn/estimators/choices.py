"""What a fit chose where its parameters left the choice, as a small table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from invlearn.learning import Fitted, Plan
from invlearn.tables.messages import one_line

_SHOWN_ENVIRONMENTS = 6


def choices(estimator: Any, plan: Plan, found: Fitted) -> pd.DataFrame:
    """What `estimator.choices_` holds."""
    sizes = found.environments
    run, settings = found.run, plan.resolved(tuple(sizes.values())).settings
    said = {"objective": found.objective.title}
    strength = plan.objective.strength
    if strength:
        how = "given"
        if plan.choose_strength:
            how = "chosen by leaving environments out"
        elif "strength" in plan.auto:
            how = "the default"
        number = found.objective.numbers.get(strength, 0.0)
        said[strength.replace("_", " ")] = f"{number:g} ({how})"
    said["steps"] = f"{run.steps:,} of {settings.steps:,} ({run.stop_reason})"
    stopping, trained = plan.early_stopping, 1.0
    if stopping is not None and run.choice is not None:
        rule, trained = stopping.resolved(len(sizes)).rule, 1 - stopping.validation_fraction
        kept = "" if run.choice.satisfied else ", which no step satisfied"
        said["step kept"] = f"{run.choice.step:,} (by the rule '{rule}'{kept})"
    batch = settings.batch_size
    passes = [run.steps * min((batch or n) / (n * trained), 1.0) for n in sizes.values()]
    rows = "all rows" if batch is None else f"{batch:,} rows"
    said["epochs"] = f"{_range(passes)} ({rows} of every environment in a step)"
    listed = [f"{one_line(name)[:40]}: {n:,}" for name, n in sizes.items()]
    more = len(listed) - _SHOWN_ENVIRONMENTS
    said["environments"] = f"{len(listed)} ({', '.join(listed[:_SHOWN_ENVIRONMENTS])}" + (
        f" and {more} more)" if more > 0 else " rows)"
    )
    return choices_table(said)


def choices_table(said: Mapping[str, str]) -> pd.DataFrame:
    """As a table with one column, 'chosen'."""
    return pd.DataFrame({"chosen": dict(said)})


def _range(values: list[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:,.3g}" if low == high else f"{low:,.3g} to {high:,.3g}"
