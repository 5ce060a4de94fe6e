"""Random search for hyperparameters that reads training environments only.

The test set is never evaluated here, so nothing in the outcome can have been chosen on it.
There are two scores.

'worst-group': the lowest error of the worse-off of the two groups along the steps, on validation
rows (the rule 'lowest worst-group error'), averaged over trials. If the groups are the shortcut's
and nothing else changes, a predictor errs no more than that in any environment; being the
lowest of many steps on the rows it is measured on, the score is optimistic. A setting with a trial
whose groups the environments do not certify, or that never beats a constant, has no score.

'late-risk': a setting's validation risks are averaged over the last quarter of its steps and
over its trials, which evens out the luck of a single step and of a single draw of rows. Among
settings whose averaged risks agree across the environments and clearly beat a constant predictor,
the one with the lowest mean is the best; where none does, the one that comes nearest to agreeing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pandas as pd
from scipy.stats.qmc import LatinHypercube

from invlearn.datasets import load
from invlearn.datasets.base import Benchmark, OptionValue
from invlearn.environments import Environments
from invlearn.errors import OptionError, unknown_name
from invlearn.experiments.methods import get_method
from invlearn.experiments.plans import train_plan, training_sets, trial_seed
from invlearn.experiments.recipes import Plan, get_recipe
from invlearn.experiments.references import shared_reference
from invlearn.experiments.store import Store
from invlearn.ground.machine import provenance, run_all
from invlearn.objectives.base import Objective, Range
from invlearn.selection import lowest_worst_group

SETTINGS_SPACE: dict[str, Range] = {
    "lr": Range(3.5e-4, 3e-3, log=True),
    "l2": Range(1e-5, 3e-3, log=True),
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
    recipe: str
    score: str
    values: tuple[tuple[str, float], ...]

    @property
    def key(self) -> str:
        """A file name for the run."""
        return f"{self.method}-{self.draw}-{self.trial}"


AGREEMENT = 0.004
"""Standard deviation over environments, in units of risk, below which averaged risks agree.

About twice what sampling explains with three trials of 20,000 training and validation rows.
"""

MARGIN = 0.05
"""Share by which the mean risk has to beat the best constant's."""


SCORES = ("worst-group", "late-risk")


def search_space(
    objective: Objective, ranges: Mapping[str, tuple[float, float]] | None = None
) -> dict[str, Range]:
    """Ranges of the settings and of the objective's own hyperparameters; some given by hand."""
    scheduled = bool(objective.strength) and objective.erm_at_zero
    general = {n: r for n, r in SETTINGS_SPACE.items() if scheduled or n != "start"}
    space = {**general, **objective.space}
    for name, (low, high) in (ranges or {}).items():
        if name not in space:
            raise unknown_name("hyperparameter to search", name, space)
        if not 0 <= low < high:
            raise OptionError(f"Expected a range of {name} with 0 <= low < high, got {low}:{high}.")
        space[name] = space[name]._replace(low=low, high=high)
    return space


def draw_plans(
    plan: Plan, draws: int, seed: int, space: Mapping[str, Range]
) -> list[tuple[Plan, dict[str, float]]]:
    """Plans with values from a Latin hypercube over the search space, and those values."""
    out = []
    for point in LatinHypercube(len(space), rng=seed).random(draws):
        values = {n: _at(span, u) for (n, span), u in zip(space.items(), point, strict=True)}
        schedule = plan.settings.schedule
        if "start" in values:
            values["start"] = float(int(values["start"]))
            schedule = replace(schedule, start=int(values["start"]))
        settings = replace(plan.settings, lr=values["lr"], l2=values["l2"], schedule=schedule)
        own = {name: values[name] for name in plan.objective.space}
        objective = plan.objective.with_numbers(own)
        out.append((replace(plan, settings=settings, objective=objective), values))
    return out


def run_trial(trial: Trial) -> dict[str, Any]:
    """Train on the training rows, measure training and validation rows, score."""
    seed = trial_seed(trial.seed, trial.trial)
    benchmark = load(trial.dataset, seed=seed, **dict(trial.dataset_options))
    _validation(benchmark)
    sets = training_sets(benchmark)
    groups = trial.score == "worst-group"
    run = train_plan(trial.plan, benchmark, benchmark.train, sets, seed, keep_outputs=groups)
    row = {"objective": trial.method, "draw": trial.draw, "trial": trial.trial} | dict(trial.values)
    if groups:
        assert run.outputs is not None
        reference = shared_reference(
            trial.dataset, trial.dataset_options, trial.recipe, None, seed, False
        )
        outputs = run.outputs.with_reference(reference)
        choice = lowest_worst_group(run.curves, "", outputs)
        found = choice.statistic if choice.satisfied else None
        score = None if found is None else float(found[choice.step])
        return row | {"step": choice.step, "score": score}
    curves = run.curves[run.curves["split"] == "validation"]
    late = curves[curves["step"] > 0.75 * trial.plan.settings.steps]
    if late.empty:  # The run diverged: it counts as no better than a constant.
        late = curves[curves["step"] == 0].assign(value=float("inf"))
    risks = late[late["metric"] == "risk"].groupby("environment", sort=False)["value"].mean()
    constant = float(curves.loc[curves["metric"] == "constant_risk", "value"].mean())
    return row | {"constant_risk": constant} | {f"risk {n}": float(r) for n, r in risks.items()}


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
    chosen = [get_method(name) for name in dict.fromkeys(methods)]
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
        plan, name = base.plan(method, steps=steps), method.name
        space = search_space(plan.objective, ranges)
        for draw, (drawn, values) in enumerate(draw_plans(plan, draws, seed, space)):
            todo += [
                Trial(
                    dataset,
                    tuple(sorted(options.items())),
                    name,
                    draw,
                    trial,
                    seed,
                    drawn,
                    base.name,
                    score,
                    tuple(values.items()),
                )
                for trial in range(trials)
            ]
    record = {
        "search": [
            dataset,
            list(methods),
            draws,
            trials,
            seed,
            base.name,
            options,
            score,
            dict(ranges or {}),
        ],
        "plans": {method.name: base.plan(method, steps=steps).describe() for method in chosen},
    }
    store = Store.check(out, record, resume=resume)
    store.begin(record)
    rows = [row for trial in todo if (row := store.load_row(trial.key)) is not None]
    missing = [trial for trial in todo if store.load_row(trial.key) is None]

    def done(row: dict[str, Any]) -> None:
        rows.append(row)
        store.save_row(f"{row['objective']}-{row['draw']}-{row['trial']}", row)
        progress(len(rows), len(todo), f"{row['objective']}, draw {row['draw']}")

    run_all(run_trial, missing, processes=jobs, done=done)
    table = pd.DataFrame(rows).sort_values(["objective", "draw", "trial"]).reset_index(drop=True)
    summary = {
        "dataset": dataset,
        "recipe": base.name,
        "options": options,
        "score": score,
        "ranges_by_hand": dict(ranges or {}),
        "reads": "training and validation rows of the training environments",
        "draws": draws,
        "trials": trials,
        "seed": seed,
        "settings_before_drawing": record["plans"],
        "best": {method.name: best(table, method.name, score) for method in chosen},
        "provenance": source | {"seconds": round(time.monotonic() - clock, 1), "jobs": jobs},
    }
    store.write("search.csv", table.to_csv(index=False, float_format="%.8g"))
    store.write("search.json", json.dumps(summary, indent=1))
    store.finish()
    return table


def _validation(benchmark: Benchmark) -> Environments:
    if benchmark.validation is None:
        raise OptionError(
            f"Expected validation rows to search on, {benchmark.name} with these options has none."
        )
    return benchmark.validation


def best(table: pd.DataFrame, method: str, score: str) -> dict[str, float]:
    """The values of a method's best draw, and what it scored; empty if none can be scored."""
    own = table[table["objective"] == method]
    space = search_space(get_method(method).objective)
    if score == "worst-group":
        # A draw with a trial that has no score has none.
        means = own.groupby("draw")["score"].agg(lambda column: column.mean(skipna=False))
        if means.isna().all():
            return {}
        scores, number = means.to_frame(), int(cast(int, means.idxmin()))
    else:
        scores, number = _late_scores(own)
    values = own[own["draw"] == number].iloc[0]
    return {
        "draw": number,
        **{name: float(values[name]) for name in space},
        **{str(name): float(value) for name, value in scores.to_dict("index")[number].items()},
    }


def _late_scores(own: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Mean risk, spread and whether the risks agree, by draw; and the best draw."""
    environments = [c for c in own.columns if c.startswith("risk ") and own[c].notna().any()]
    means = own.groupby("draw")[[*environments, "constant_risk"]].mean()
    scores = pd.DataFrame(
        {
            "validation_risk": means[environments].mean(axis=1),
            "spread": means[environments].std(axis=1, ddof=0),
        }
    )
    beats = scores["validation_risk"] <= (1 - MARGIN) * means["constant_risk"]
    scores["agrees"] = (beats & (scores["spread"] < AGREEMENT)).astype(float)
    if scores["agrees"].any():
        draw = scores.loc[scores["agrees"] > 0, "validation_risk"].idxmin()
    else:
        draw = scores.loc[beats if beats.any() else beats.index, "spread"].idxmin()
    return scores, int(cast(int, draw))


def _at(span: Range, u: float) -> float:
    """The value at a fraction u of a range."""
    if span.log:
        return float(span.low * (span.high / span.low) ** u)
    return float(span.low + (span.high - span.low) * u)
