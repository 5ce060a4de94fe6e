"""Random search for hyperparameters that reads training environments only.

The test set is never evaluated here, so nothing in the outcome can have been chosen on it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from invlearn.compare.store import Store
from invlearn.datasets import load
from invlearn.datasets.base import Benchmark, DatasetOptions, OptionValue
from invlearn.environments import Environments
from invlearn.errors import OptionError, unknown_name
from invlearn.experiments.recipes import describe_plan, get_recipe
from invlearn.experiments.references import shared_reference
from invlearn.experiments.search_scores import SCORES, best, late_risks, worst_group_score
from invlearn.experiments.search_space import draw_plans, search_space
from invlearn.ground.machine import provenance, run_all
from invlearn.learning import Plan, evaluation_sets, train
from invlearn.methods import Network, get_network, trial_seed


@dataclass(frozen=True)
class Trial:
    """One run of the search: a drawn plan on one data draw."""

    dataset: str
    dataset_options: DatasetOptions
    method: str
    draw: int
    trial: int
    seed: int
    plan: Plan
    recipe: str
    score: str
    values: tuple[tuple[str, float], ...]

    @property
    def key(self) -> str:
        """A file name for the run."""
        return f"{self.method}-{self.draw}-{self.trial}"


def run_trial(trial: Trial) -> dict[str, Any]:
    """Train on the training rows, measure training and validation rows, score."""
    seed = trial_seed(trial.seed, trial.trial)
    benchmark = load(trial.dataset, seed=seed, **dict(trial.dataset_options))
    groups = trial.score == "worst-group"
    run = train(
        trial.plan,
        benchmark.train,
        benchmark.loss,
        benchmark.n_outputs,
        seed,
        evaluations=evaluation_sets(benchmark.train, _validation(benchmark)),
        keep_outputs=groups,
    )
    row = {"method": trial.method, "draw": trial.draw, "trial": trial.trial} | dict(trial.values)
    if not groups:
        return row | late_risks(run, trial.plan.settings.steps)
    reference = shared_reference(
        trial.dataset, trial.dataset_options, trial.recipe, None, seed, False
    )
    return row | worst_group_score(run, reference)


def search(
    dataset: str,
    methods: Sequence[str],
    out: Path,
    *,
    draws: int = 10,
    trials: int = 3,
    seed: int = 1,
    recipe: str | None = None,
    dataset_options: Mapping[str, OptionValue] | None = None,
    score: str = SCORES[0],
    steps: int | None = None,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    jobs: int = 1,
    resume: bool = False,
    command: str = "",
    progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> pd.DataFrame:
    """Draw settings, run them, and write search.csv (a row per run) and search.json (the best).

    Use a seed that no comparison uses, so that the trials reported later have other label noise,
    colors and initial weights. `steps` takes the place of the recipe's.

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
    if score not in SCORES:
        raise unknown_name("score", score, SCORES)
    source, clock = provenance(command), time.monotonic()
    chosen = _searchable(methods)
    base, options = get_recipe(dataset, recipe, oracle=False), dict(dataset_options or {})
    _validation(load(dataset, seed=trial_seed(seed, 0), **options)).require(2, "The search's rule")
    plans = {method.name: base.plan(method, steps=steps) for method in chosen}
    fixed = tuple(sorted(options.items()))
    todo = [
        Trial(
            dataset, fixed, name, draw, trial, seed, drawn, base.name, score, tuple(values.items())
        )
        for name, plan in plans.items()
        for draw, (drawn, values) in enumerate(
            draw_plans(plan, draws, seed, search_space(plan.objective, ranges))
        )
        for trial in range(trials)
    ]
    by_hand = dict(ranges or {})
    asked = [dataset, list(methods), draws, trials, seed, base.name, options, score, by_hand]
    described = {name: describe_plan(plan) for name, plan in plans.items()}
    record = {"search": asked, "plans": described}
    store = Store.check(out, resume=resume)
    store.begin(record)
    table = _run(todo, store, jobs, progress)
    summary = {
        "dataset": dataset,
        "recipe": base.name,
        "options": options,
        "score": score,
        "ranges_by_hand": by_hand,
        "reads": "training and validation rows of the training environments",
        "draws": draws,
        "trials": trials,
        "seed": seed,
        "settings_before_drawing": described,
        "best": {name: best(table, name, score) for name in plans},
        "provenance": source | {"seconds": round(time.monotonic() - clock, 1), "jobs": jobs},
    }
    store.write("search.csv", table.to_csv(index=False, float_format="%.8g"))
    store.write("search.json", json.dumps(summary, indent=1))
    store.finish()
    return table


def _run(
    todo: Sequence[Trial], store: Store, jobs: int, progress: Callable[[int, int, str], None]
) -> pd.DataFrame:
    """The rows of all trials, of which some may be there already."""
    rows = [row for trial in todo if (row := store.load_row(trial.key)) is not None]
    missing = [trial for trial in todo if store.load_row(trial.key) is None]

    def done(row: dict[str, Any]) -> None:
        rows.append(row)
        store.save_row(f"{row['method']}-{row['draw']}-{row['trial']}", row)
        progress(len(rows), len(todo), f"{row['method']}, draw {row['draw']}")

    run_all(run_trial, missing, processes=jobs, done=done)
    return pd.DataFrame(rows).sort_values(["method", "draw", "trial"]).reset_index(drop=True)


def _searchable(names: Sequence[str]) -> list[Network]:
    methods = [get_network(name) for name in dict.fromkeys(names)]
    for method in methods:
        if method.kind == "reference":
            raise OptionError(
                f"'{method.name}' is a reference whose features lack the shortcut; there is "
                "nothing to search. Leave it out of --objectives."
            )
    return methods


def _validation(benchmark: Benchmark) -> Environments:
    if benchmark.validation is None:
        raise OptionError(
            f"Expected validation rows to search on, {benchmark.name} with these options has none."
        )
    return benchmark.validation
