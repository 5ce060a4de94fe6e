"""A small made-up experiment: four methods, one a reference, one oracle selection rule."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import pytest

from invlearn.reports.benchmark import (
    BenchmarkRecord,
    DatasetInfo,
    RecipeInfo,
    Rule,
    Said,
    Unsatisfied,
)
from invlearn.results import RESULT_COLUMNS, MethodInfo
from invlearn.selection import Note

TRAINING = ["p_e=0.1", "p_e=0.2"]
TESTS = [f"p_e={p / 10:.1f}" for p in range(1, 10)]
TARGET = "p_e=0.9"
STEPS = [0, 50, 100, 150, 200]
LEVELS = {  # accuracy in training, and its end points over p_e = 0.1 to 0.9
    "erm": (0.86, 0.86, 0.18),
    "irmv1": (0.71, 0.72, 0.66),
    "vrex": (0.70, 0.70, 0.50),
    "erm-grayscale": (0.73, 0.73, 0.73),
}


@dataclass
class Experiment:
    """The three inputs of a report."""

    results: pd.DataFrame
    curves: pd.DataFrame
    record: BenchmarkRecord

    def change(self, **changes: Any) -> None:
        """Put other values in the record."""
        self.record = replace(self.record, **changes)

    def change_dataset(self, **changes: Any) -> None:
        self.change(dataset=replace(self.record.dataset, **changes))

    def change_rule(self, **changes: Any) -> None:
        first, *others = self.record.rules
        self.change(rules=(replace(first, **changes), *others))

    def change_title(self, place: int, title: str) -> None:
        methods = list(self.record.methods)
        methods[place] = replace(methods[place], title=title)
        self.change(methods=tuple(methods))

    def tune_on_the_test_environment(self) -> None:
        self.change(recipe=replace(self.record.recipe, oracle=True))


def make(
    levels: dict[str, tuple[float, float, float]] | None = None,
    trials: int = 3,
    regression: bool = False,
) -> Experiment:
    levels = LEVELS if levels is None else levels
    rows = []
    for method, (train, first, last) in levels.items():
        for trial in range(trials):
            for step in STEPS:
                done = 1 - math.exp(-step / 50)
                jitter = 0.01 * (trial - (trials - 1) / 2)

                def value(goal: float, done: float = done, jitter: float = jitter) -> float:
                    return 0.5 + (goal - 0.5) * done + jitter

                for i, name in enumerate(TRAINING):
                    for split in ("train", "validation"):
                        goal = train - 0.02 * i
                        rows.append((method, trial, name, split, "accuracy", value(goal), step))
                        risk = 1 - value(goal)
                        rows.append((method, trial, name, split, "risk", risk, step))
                for i, name in enumerate(TESTS):
                    goal = first + (last - first) * i / (len(TESTS) - 1)
                    rows.append((method, trial, name, "test", "accuracy", value(goal), step))
                    rows.append((method, trial, name, "test", "risk", 1 - value(goal), step))
    columns = ["method", "problem", "environment", "split", "metric", "value", "step"]
    curves = pd.DataFrame(rows, columns=columns)
    if regression:
        curves = curves[curves["metric"] == "risk"].reset_index(drop=True)
    last = curves[curves["step"] == 200].assign(selection="last")
    agree = curves[curves["step"] == 150].assign(selection="risks-agree")
    oracle = curves[curves["step"] == 100].assign(selection="oracle")
    tuned = curves[curves["step"] == 150].assign(selection="last (oracle hyperparameters)")
    results = pd.concat([oracle, last, tuned, agree], ignore_index=True)
    results = results.reindex(columns=list(RESULT_COLUMNS))
    return Experiment(results, curves, record(list(levels), trials, regression))


def record(names: list[str], trials: int, regression: bool) -> BenchmarkRecord:
    titles = {"erm": "ERM", "irmv1": "IRMv1", "vrex": "V-REx", "erm-grayscale": "ERM, grayscale"}
    kinds = {"erm": "usual", "erm-grayscale": "reference"}
    return BenchmarkRecord(
        methods=tuple(
            MethodInfo(
                name,
                titles[name],
                kinds.get(name, "invariant"),
                f"What {titles[name]} does in one sentence.",
                "A paper, 2019",
                {} if name == "erm" else {"penalty_weight": 100.0},
            )
            for name in names
        ),
        dataset=DatasetInfo(
            name="Colored digits",
            summary="Digits whose color goes with the label, differently in every environment.",
            source="made up",
            options={"label_noise": 0.25},
            description={"rows per environment": 1000, "classes": 2},
            target=TARGET,
            training_environments=tuple(TRAINING),
            test_environments=tuple(TESTS),
            loss="squared" if regression else "logistic",
        ),
        rules=(
            Rule(
                "risks-agree",
                "Risks agree",
                "The step at which the validation risks differ least.",
                False,
            ),
            Rule("last", "Last step", "No choice.", False),
            Rule("oracle", "Best target accuracy", "The step that is best in the target.", True),
        ),
        recipe=RecipeInfo("small", False, "A small recipe.", {"steps": 200}),
        headline="risks-agree",
        trials=trials,
        seed=0,
        provenance={
            "command": "invlearn run small --seed 0",
            "version": "0.1.0",
            "torch": "2.13.0",
            "python": "3.11.2",
            "machine": "x86_64, 2 cores",
            "threads": 2,
            "jobs": 1,
            "started": "2025-01-01T00:00:00Z",
            "seconds": 754.2,
        },
    )


@pytest.fixture
def experiment() -> Experiment:
    return make()


@pytest.fixture
def build() -> Callable[..., Experiment]:
    return make


NOTE = Note(
    "not identifiable from these environments",
    "the rows are as frequent in each",
    instead="'last' chose instead",
)


@pytest.fixture
def statistics(experiment) -> pd.DataFrame:
    """What two rules read in the experiment; the headline's crosses zero in IRMv1 and V-REx."""
    rows = []
    for method in LEVELS:
        for trial in range(3):
            for step in STEPS:
                flat = method in {"erm", "erm-grayscale"}
                value = 0.9 if flat else 0.9 - 0.006 * step + 0.01 * trial
                chosen = step == (200 if flat else 150)
                rows.append((method, trial, "risks-agree", step, value, 0.02, chosen))
                rows.append((method, trial, "other", step, 0.5, 0.1, step == 0))
    columns = ["method", "problem", "selection", "step", "value", "bound", "chosen"]
    experiment.change_rule(statistic="error here, less error there")
    experiment.change(
        unsatisfied=(
            Unsatisfied("risks-agree", "erm", (0, 1, 2)),
            Unsatisfied("risks-agree", "vrex", (1,)),
        ),
        said=tuple(
            Said("risks-agree", "erm-grayscale", (t,), NOTE._replace(numbers=f"{27 + t} %"))
            for t in range(3)
        ),
    )
    return pd.DataFrame(rows, columns=columns)


@pytest.fixture
def similarity() -> pd.DataFrame:
    """Similarities of both kinds, of two methods."""
    rows = []
    for method, drop, name in (("irmv1", 0.6, "output"), ("vrex", 0.1, "features")):
        for trial in range(3):
            for e in TRAINING:
                for layer, level in {"layers.0": 0.99, "layers.1": 0.97, "layers.2": 0.55}.items():
                    value = level - 0.03 * trial * (1 - level) - 0.05 * drop
                    rows.append((method, trial, "inner-step", layer, e, value))
            for i, e in enumerate(TESTS[1:], start=1):
                value = 1 - drop * i / 8 - 0.02 * trial
                rows.append((method, trial, "representation", name, e, value))
    columns = ["method", "problem", "kind", "layer", "environment", "value"]
    return pd.DataFrame(rows, columns=columns)
