"""A benchmark's side of a comparison: its trials, the methods planned, the rules applied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import pandas as pd

from invlearn.comparison.benchmark_record import describe_method, make_record
from invlearn.comparison.contest import Comparison, Contest, Progress
from invlearn.comparison.recipes import Recipe, get_recipe
from invlearn.comparison.requests import BenchmarkRequest
from invlearn.comparison.runner import Kept, Task
from invlearn.comparison.similarity import Chosen, measure_similarity
from invlearn.comparison.trials import Trials
from invlearn.datasets import DATASETS, load_benchmark
from invlearn.errors import OptionError, unknown_name
from invlearn.features import width
from invlearn.ground.machine import run_all
from invlearn.learning import Plan
from invlearn.methods import Method, Network, Usual, get_method, trial_seed
from invlearn.objectives import OBJECTIVES
from invlearn.problem import Problem
from invlearn.reports import write_report
from invlearn.reports.answer import benchmark_answer
from invlearn.reports.benchmark import BenchmarkRecord
from invlearn.reports.tables import table
from invlearn.selection import RULES
from invlearn.training.many_runs import small_step

TOGETHER = 64
"""Runs of one method that are trained as one at most."""


@dataclass(frozen=True)
class BenchmarkContest(Contest[BenchmarkRecord]):
    """A benchmark's trials.

    Attributes
    ----------
    request : BenchmarkRequest
    recipe : Recipe
    first : Problem
        The first trial.
    """

    request: BenchmarkRequest
    recipe: Recipe
    first: Problem

    def arrange(self, tasks: Sequence[Task], processes: int) -> list[tuple[Task, ...]]:
        """See `arrange`."""
        return arrange(tasks, methods=self.methods, benchmark=self.first, processes=processes)

    def measured(
        self,
        runs: Sequence[Kept],
        provenance: Mapping[str, str | int | float],
        processes: int,
        progress: Progress,
    ) -> Comparison[BenchmarkRecord]:
        """The runs' tables put together, and what the headline rule's says."""
        curves, results, statistics = (
            pd.concat([kept.tables[name] for kept in runs], ignore_index=True)
            for name in ("curves", "results", "statistics")
        )
        applied = {name for kept in runs for name in kept.facts["rules"]}
        rules = [rule for name, rule in RULES.items() if name in applied]
        record = make_record(
            self.request, self.first, self.recipe, self.methods.values(), rules, runs, provenance
        )
        tables = {"statistics.parquet": statistics}
        similarity = self._similarity(results, processes, progress)
        if similarity is not None:
            tables["similarity.csv"] = similarity
        main = table(results, record, record.main_rule(results))
        answer = benchmark_answer(main, record)
        return Comparison(results, curves, record, answer, main.frame(), tables)

    def report(self, made: Comparison[BenchmarkRecord], folder: Path) -> None:
        """Write the page and its figures."""
        others = (made.tables.get(name) for name in ("statistics.parquet", "similarity.csv"))
        write_report(made.results, made.curves, made.record, folder, *others)

    def _similarity(
        self, results: pd.DataFrame, processes: int, progress: Progress
    ) -> pd.DataFrame | None:
        """Train the first trials' chosen models again and compare their representations."""
        first = results["selection"].iloc[0]  # The headline rule's come first.
        steps = results[results["selection"] == first].groupby(["method", "problem"])["step"]
        step = steps.first()
        chosen = [
            Chosen(method, f"{trial:03d}", int(step[method.name, trial]))
            for trial in self.request.numbers[: self.request.similarity]
            for method in self.methods.values()
            if isinstance(method, Network) and method.kind != "reference"
        ]
        if not chosen:
            return None
        tables: list[pd.DataFrame] = []

        def done(table: pd.DataFrame) -> None:
            tables.append(table)
            progress(len(tables), len(chosen), "comparing representations")

        run_all(partial(measure_similarity, self.problems), chosen, processes=processes, done=done)
        return pd.concat(tables).sort_values(["method", "problem", "kind"], kind="stable")


def prepare_benchmark(request: BenchmarkRequest) -> BenchmarkContest:
    """Look up everything the request names; every complaint comes from here.

    Raises
    ------
    OptionError, UnknownNameError, EnvironmentsError
    """
    recipe, methods, first = _resolve(request)
    plans = {name: asdict(describe_method(method)) for name, method in methods.items()}
    trials = Trials(
        request.dataset,
        tuple(sorted(request.dataset_options.items())),
        recipe,
        request.seed,
        request.steps,
        request.device,
        request.precision,
        request.keep_outputs,
    )
    asked = {**asdict(request), "recipe": request.recipe and str(request.recipe)}
    tasks = tuple(Task(name, f"{t:03d}") for t in request.numbers for name in methods)
    plan = {"plans": plans, "recipe": recipe.content, "request": asked}
    return BenchmarkContest(trials, methods, tasks, plan, request, recipe, first)


def _resolve(request: BenchmarkRequest) -> tuple[Recipe, dict[str, Method], Problem]:
    if request.similarity < 0:
        raise OptionError(
            f"Expected to compare representations in 0 or more trials, got {request.similarity}."
        )
    if request.similarity and request.device != "cpu":
        raise OptionError(
            f"Expected the device 'cpu' for comparing representations, got '{request.device}': the "
            "chosen models are trained again, and elsewhere they would not be the same ones. Leave "
            "out --similarity or --device."
        )
    if request.seed < 0:
        raise OptionError(f"Expected a seed of 0 or more, got {request.seed}.")
    if request.methods is not None and not request.methods:
        raise OptionError("Expected at least one method, got none. Try --objectives erm,irmv1.")
    dataset = DATASETS.find(request.dataset)
    methods = {name: get_method(name) for name in request.competitors}
    for name in request.hyper:
        if name not in methods:
            raise unknown_name("method in a hyperparameter", name, methods)
        if not isinstance(methods[name], Network):
            raise OptionError(
                "Expected hyperparameters of a method that trains a network, got some of "
                f"'{name}'. Set them where its model is made."
            )
    for name in request.dataset_options:
        if name not in dataset.options:
            raise unknown_name(f"option of {request.dataset}", name, dataset.options)
    recipe = get_recipe(request.dataset, request.recipe)
    seed = trial_seed(request.seed, request.numbers[0])
    first = load_benchmark(request.dataset, seed=seed, **request.dataset_options)
    if request.methods is None and first.without_shortcut is None:
        methods = {n: method for n, method in methods.items() if method.kind != "reference"}
    for name, method in methods.items():
        if isinstance(method, Usual):
            method.table(first)
            method.model(first.loss != "squared", seed)
        if isinstance(method, Network):
            methods[name] = _planned(method, recipe, request)
            _check_environments(method, request, first)
    return recipe, methods, first


def _planned(method: Network, recipe: Recipe, request: BenchmarkRequest) -> Network:
    plan = recipe.plan(method, steps=request.steps, hyper=request.hyper.get(method.name))
    plan = plan.on(request.device, request.precision)
    return replace(method, plan=plan, leave_one_out=request.leave_one_out)


def _check_environments(method: Network, request: BenchmarkRequest, benchmark: Problem) -> None:
    left_out = 1 if request.leave_one_out else 0
    needed = method.objective.min_environments
    if len(benchmark.train) - left_out < needed:
        purpose = method.title + (" with an environment left out" if left_out else "")
        benchmark.train.require(needed + left_out, purpose)
    if method.kind == "reference" and benchmark.without_shortcut is None:
        raise OptionError(
            f"'{method.name}' needs features without the shortcut; {benchmark.name} with "
            "these options has none. Leave it out of --objectives."
        )


def arrange(
    tasks: Sequence[Task], *, methods: Mapping[str, Method], benchmark: Problem, processes: int
) -> list[tuple[Task, ...]]:
    """Tasks in the units that are run as one, the units in the order in which they begin.

    First those that leave references for others; then long ones, so that the cores end together.
    Small runs of one method, and all of one method's on a GPU, are one unit, or one a process.
    """
    units: list[tuple[tuple[bool, float], tuple[Task, ...]]] = []
    for name in dict.fromkeys(task.method for task in tasks):
        own, method = [task for task in tasks if task.method == name], methods[name]
        size, length, leaves = 1, 0, False
        if isinstance(method, Network):
            plan = method.planned
            parameters = count_parameters(plan, benchmark)
            length = plan.settings.steps * parameters
            leaves = method.objective == OBJECTIVES["erm"]
            if plan.device != "cpu":
                size = TOGETHER
            elif small_step(benchmark.train.sizes, plan.settings.batch_size, parameters):
                size = min(-(-len(own) // processes), TOGETHER)
        parts = [tuple(own[a : a + size]) for a in range(0, len(own), size)]
        units += [((not leaves, -len(part) * length), part) for part in parts]
    return [part for _, part in sorted(units, key=lambda unit: unit[0])]


def count_parameters(plan: Plan, benchmark: Problem) -> int:
    """Numbers that the plan's model holds."""
    model = plan.network(width(benchmark.train.x), benchmark.n_outputs, 0)
    return sum(p.numel() for p in model.parameters())
