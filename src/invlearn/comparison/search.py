"""Random search for hyperparameters that reads training environments only.

The test set is never evaluated here, so nothing in the outcome can have been chosen on it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from invlearn.comparison.recipes import Recipe, describe_plan, get_recipe
from invlearn.comparison.requests import SCORES, check_amount, refuse
from invlearn.comparison.runner import Kept, Task, Work, run
from invlearn.comparison.search_scores import best, late_risks, worst_group_score
from invlearn.comparison.search_space import START_OF, draw_plans, search_space
from invlearn.comparison.store import Store
from invlearn.comparison.trials import Trials
from invlearn.datasets import load_benchmark
from invlearn.datasets.base import OptionValue
from invlearn.environments import Environments
from invlearn.errors import OptionError, unknown_name
from invlearn.ground.machine import provenance
from invlearn.methods import Method, Network, Outcome, get_network, trial_seed
from invlearn.problem import Problem


@dataclass(frozen=True)
class SearchTrials:
    """A benchmark's trials less the environments that are to test in, and what a run scores.

    Attributes
    ----------
    trials : Trials
    score : str
    values : {name of a drawn method: {number: value}}
    """

    trials: Trials
    score: str
    values: Mapping[str, Mapping[str, float]]

    def make(self, key: str) -> Problem:
        """Draw a trial's data, and drop its test environments."""
        problem = self.trials.make(key)
        _validation(problem)
        test = replace(problem.test, names=(), rows=(), targets=(), weights=None)
        return replace(problem, test=test)

    def keep(self, problem: Problem, method: Method, outcome: Outcome, store: Store | None) -> Kept:
        """Score a run."""
        assert isinstance(method, Network)
        name, draw = method.name.rsplit("-", 1)
        row: dict[str, Any] = {"method": name, "draw": int(draw), "trial": int(problem.key)}
        if outcome.outputs is None:
            found = late_risks(outcome.curves, method.planned.settings.steps)
        else:
            outputs = self.trials.with_reference(problem, method, outcome.outputs, store)
            found = worst_group_score(outcome.curves, outputs)
        values = self.values[method.name]
        return Kept(Task(method.name, problem.key), {}, {**row, **values, **found})


def search(
    dataset: str,
    methods: Sequence[str],
    out: Path,
    *,
    draws: int = 10,
    trials: int = 3,
    seed: int = 1,
    recipe: str | Path | None = None,
    dataset_options: Mapping[str, OptionValue] | None = None,
    score: str = SCORES[0],
    steps: int | None = None,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    jobs: int = 1,
    resume: bool = False,
    command: str = "",
    progress: Callable[[int, int, str], None] = lambda done, total, what: None,
    agree: Callable[[str], bool] = refuse,
) -> pd.DataFrame:
    """Draw settings, run them, and write search.csv (a row per run) and search.json (the best).

    Use a seed that no comparison uses, so that the trials reported later have other label noise,
    colors and initial weights. `steps` takes the place of the recipe's, whose schedules follow it;
    `agree` is asked before more than 10,000 runs.

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
    chosen = _searchable(methods, draws, trials, seed, jobs, score)
    _check_amount(chosen, draws, trials, jobs, agree)
    source, clock = provenance(command), time.monotonic()
    base, options = get_recipe(dataset, recipe, oracle=False), dict(dataset_options or {})
    chosen = [_planned(method, base, steps, score) for method in chosen]
    _validation(load_benchmark(dataset, seed=trial_seed(seed, 0), **options)).require(
        2, "The search's rule"
    )
    asked = {
        "dataset": dataset,
        **{"recipe": base.name, "recipe_note": base.note},
        "options": options,
        "score": score,
        "ranges_by_hand": dict(ranges or {}),
        "reads": "training and validation rows of the training environments",
        "draws": draws,
        "trials": trials,
        "seed": seed,
        "settings_before_drawing": {m.name: describe_plan(m.planned) for m in chosen},
    }
    drawn, values = _drawn(chosen, base, draws, seed, ranges)
    store = Store.check(out, resume=resume)
    store.begin({**asked, "recipe": base.content})
    problems = Trials(dataset, tuple(sorted(options.items())), base, seed, steps)
    runs, _ = run(
        Work(SearchTrials(problems, score, values), drawn, store),
        [Task(name, str(trial)) for name in drawn for trial in range(trials)],
        processes=jobs,
        progress=progress,
    )
    table = pd.DataFrame([kept.facts for kept in runs.values()])
    table = table.sort_values(["method", "draw", "trial"], ignore_index=True)
    summary = asked | {
        "warnings": _warnings(runs.values()),
        "best": {method.name: best(table, method.name, score) for method in chosen},
        "provenance": source | {"seconds": round(time.monotonic() - clock, 1), "jobs": jobs},
    }
    store.write("search.csv", table.to_csv(index=False, float_format="%.8g"))
    store.write("search.json", json.dumps(summary, indent=1))
    store.finish()
    return table


def _planned(method: Network, recipe: Recipe, steps: int | None, score: str) -> Network:
    plan = recipe.plan(method, steps=steps)
    return replace(method, plan=plan, keep_outputs=score == "worst-group")


def _check_amount(
    methods: Sequence[Network], draws: int, trials: int, jobs: int, agree: Callable[[str], bool]
) -> None:
    what = f"{draws:,} draws, {trials:,} trials, {len(methods)} methods"
    check_amount(draws * trials * len(methods), what, jobs, agree)


def _warnings(runs: Iterable[Kept]) -> list[dict[str, Any]]:
    """What the runs warned of, each once for a method with the draws in which it came."""
    found: dict[tuple[str, str], list[int]] = {}
    for one in runs:
        for text in one.messages:
            # What follows the first sentence has numbers of the run's own.
            key = str(one.facts["method"]), text.split(":")[0].split(". ")[0].rstrip(".")
            found.setdefault(key, []).append(int(one.facts["draw"]))
    return [
        {"method": method, "warning": text, "runs": len(draws), "draws": sorted(set(draws))}
        for (method, text), draws in found.items()
    ]


def _drawn(
    methods: Sequence[Network],
    recipe: Recipe,
    draws: int,
    seed: int,
    ranges: Mapping[str, tuple[float, float]] | None,
) -> tuple[dict[str, Network], dict[str, dict[str, float]]]:
    """Each draw of each method as a method of its own, and what was drawn, by its name."""
    drawn, values = {}, {}
    for method in methods:
        share = method.planned.settings.steps / max(recipe.plan(method).settings.steps, START_OF)
        space = search_space(method.planned.objective, ranges, share=share, fixed=method.hyper)
        for draw, (plan, numbers) in enumerate(draw_plans(method.planned, draws, seed, space)):
            name, title = f"{method.name}-{draw}", f"{method.title}, draw {draw}"
            drawn[name] = replace(method, name=name, title=title, plan=plan)
            values[name] = numbers
    return drawn, values


def _searchable(
    names: Sequence[str], draws: int, trials: int, seed: int, jobs: int, score: str
) -> list[Network]:
    """The methods by name, once what is asked of them was looked at."""
    if draws < 1 or trials < 1 or seed < 0 or jobs < 1 or not names:
        raise OptionError(
            f"Expected methods, draws, trials and jobs of 1 or more and a seed of 0 or more, got "
            f"{list(names)}, draws={draws}, trials={trials}, jobs={jobs}, seed={seed}."
        )
    if score not in SCORES:
        raise unknown_name("score", score, SCORES)
    methods = [get_network(name) for name in dict.fromkeys(names)]
    for method in methods:
        if method.kind == "reference":
            raise OptionError(
                f"'{method.name}' is a reference whose features lack the shortcut; there is "
                "nothing to search. Leave it out of --objectives."
            )
    return methods


def _validation(benchmark: Problem) -> Environments:
    if benchmark.validation is None:
        raise OptionError(
            f"Expected validation rows to search on, {benchmark.name} with these options has none."
        )
    return benchmark.validation
