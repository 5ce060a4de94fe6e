"""Random search for hyperparameters that reads training environments only.

The test set is never evaluated here, so nothing in the outcome can have been chosen on it.
The score of a run is the mean validation risk at the step that the rule 'risks agree' chose;
where the rule's condition never held, the run counts as a constant predictor. The setting with
the lowest mean score over its trials is the best.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from invlearn.datasets import load
from invlearn.datasets.base import Benchmark, OptionValue
from invlearn.environments import Environments, EvaluationSet
from invlearn.errors import OptionError
from invlearn.experiments.jobs import run_all, train_plan, trial_seed
from invlearn.experiments.methods import get_method
from invlearn.experiments.provenance import provenance
from invlearn.experiments.recipes import Plan, get_recipe
from invlearn.experiments.store import Store
from invlearn.objectives.base import Range
from invlearn.selection import risks_agree

SETTINGS_SPACE: dict[str, Range] = {
    "lr": Range(5e-4, 3e-3, log=True),
    "l2": Range(1e-5, 1e-3, log=True),
    "start": Range(50, 200),
}
"""Ranges of the training settings; each objective brings those of its own hyperparameters.

They lie within those of the IRM paper's own search on Colored MNIST.
"""


@dataclass(frozen=True)
class Trial:
    """One run of the search: a drawn plan on one data draw."""

    dataset: str
    dataset_options: tuple[tuple[str, OptionValue], ...]
    method: str
    draw: int
    trial: int
    seed: int
    plan: Plan
    values: tuple[tuple[str, float], ...]


def draw_plan(plan: Plan, rng: np.random.Generator) -> tuple[Plan, dict[str, float]]:
    """A plan with values drawn from the search space, and those values."""
    common = {name: _draw(span, rng) for name, span in SETTINGS_SPACE.items()}
    own = {name: _draw(span, rng) for name, span in plan.objective.space.items()}
    schedule = replace(plan.settings.schedule, start=int(common["start"]))
    settings = replace(plan.settings, lr=common["lr"], l2=common["l2"], schedule=schedule)
    values = {**common, "start": float(schedule.start), **own}
    return replace(plan, settings=settings, hyper=plan.hyper._replace(**own)), values


def run_trial(trial: Trial) -> dict[str, Any]:
    """Train on the training rows, measure the validation rows, apply the rule."""
    seed = trial_seed(trial.seed, trial.trial)
    benchmark = load(trial.dataset, seed=seed, **dict(trial.dataset_options))
    validation = EvaluationSet.from_environments(_validation(benchmark), "validation")
    curves, _ = train_plan(trial.plan, benchmark, benchmark.train, [validation], seed)
    choice = risks_agree(curves)
    means = curves[curves["step"] == choice.step].groupby("metric")["value"].mean()
    return {
        "objective": trial.method,
        "draw": trial.draw,
        "trial": trial.trial,
        **dict(trial.values),
        "step": choice.step,
        "satisfied": choice.satisfied,
        "validation_risk": float(means["risk"]),
        "score": float(means["risk" if choice.satisfied else "constant_risk"]),
    }


def search(
    dataset: str,
    methods: Sequence[str],
    out: Path,
    *,
    draws: int = 16,
    trials: int = 2,
    seed: int = 1,
    recipe: str | None = None,
    dataset_options: Mapping[str, OptionValue] | None = None,
    jobs: int = 1,
    command: str = "",
    progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> pd.DataFrame:
    """Draw settings, run them, and write search.csv (a row per run) and search.json (the best).

    Every method sees the same draws of the common settings. Use a seed that no comparison
    uses, so that the trials reported later have other label noise, colors and initial weights.

    Raises
    ------
    InvlearnError
        Anything wrong with the request or the folder, a recipe that is an oracle, a dataset
        without validation rows or with one environment; nothing has been written then.

    Returns
    -------
    DataFrame
        A row per run.
    """
    if draws < 1 or trials < 1 or seed < 0 or jobs < 1 or not methods:
        raise OptionError(
            f"Expected methods, draws, trials and jobs of 1 or more and a seed of 0 or more, got "
            f"{list(methods)}, draws={draws}, trials={trials}, jobs={jobs}, seed={seed}."
        )
    source, clock = provenance(command), time.monotonic()
    chosen = [get_method(name) for name in methods]
    base = get_recipe(dataset, recipe, oracle=False)
    options = dict(dataset_options or {})
    _validation(load(dataset, seed=trial_seed(seed, 0), **options)).require(2, "The search's rule")
    for method in chosen:
        if method.reference:
            raise OptionError(
                f"'{method.name}' is a reference whose features lack the shortcut; there is "
                "nothing to search. Leave it out of --objectives."
            )
    todo = []
    for method in chosen:
        plan, name = base.plan(method), method.name
        for draw in range(draws):
            drawn, values = draw_plan(plan, np.random.default_rng([seed, draw]))
            todo += [
                Trial(
                    dataset,
                    tuple(sorted(options.items())),
                    name,
                    draw,
                    trial,
                    seed,
                    drawn,
                    tuple(values.items()),
                )
                for trial in range(trials)
            ]
    record = {"search": [dataset, list(methods), draws, trials, seed, base.name, options]}
    store = Store.check(out, record, resume=False)
    rows: list[dict[str, Any]] = []

    def done(row: dict[str, Any]) -> None:
        rows.append(row)
        progress(len(rows), len(todo), f"{row['objective']}, draw {row['draw']}")

    run_all(run_trial, todo, processes=jobs, done=done)
    table = pd.DataFrame(rows).sort_values(["objective", "draw", "trial"]).reset_index(drop=True)
    summary = {
        "dataset": dataset,
        "recipe": base.name,
        "options": options,
        "score": "validation risk at the step chosen by risks-agree; a constant's if none was",
        "reads": "training and validation rows of the training environments",
        "draws": draws,
        "trials": trials,
        "seed": seed,
        "best": {name: best(table, name) for name in methods},
        "provenance": source | {"seconds": round(time.monotonic() - clock, 1), "jobs": jobs},
    }
    out.mkdir(parents=True, exist_ok=True)
    store.write("search.csv", table.to_csv(index=False, float_format="%.8g"))
    store.write("search.json", json.dumps(summary, indent=1))
    return table


def _validation(benchmark: Benchmark) -> Environments:
    if benchmark.validation is None:
        raise OptionError(
            f"Expected validation rows to search on, {benchmark.name} with these options has none."
        )
    return benchmark.validation


def best(table: pd.DataFrame, method: str) -> dict[str, float]:
    """The values of the best draw of a method, with its score."""
    own = table[table["objective"] == method].dropna(axis=1, how="all")
    scores = own.groupby("draw")[["score", "satisfied", "validation_risk"]].mean()
    draw = int(cast(int, scores["score"].idxmin()))
    values = own[own["draw"] == draw].iloc[0]
    space = {*SETTINGS_SPACE, *get_method(method).objective.space}
    kept = [column for column in own.columns if column in space]
    return {
        "draw": draw,
        **{name: float(values[name]) for name in kept},
        **{str(name): float(value) for name, value in scores.to_dict("index")[draw].items()},
    }


def _draw(span: Range, rng: np.random.Generator) -> float:
    if span.log:
        return float(np.exp(rng.uniform(np.log(span.low), np.log(span.high))))
    return float(rng.uniform(span.low, span.high))
