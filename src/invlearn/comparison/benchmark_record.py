"""The record of a comparison on a benchmark, made from what was asked and what the runs said."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from invlearn.comparison.recipes import Recipe, describe_plan
from invlearn.comparison.requests import BenchmarkRequest
from invlearn.comparison.runner import Kept
from invlearn.datasets import DATASETS
from invlearn.methods import Method, Network, trial_seed
from invlearn.problem import Problem
from invlearn.reports import benchmark as shown
from invlearn.results import MethodInfo
from invlearn.selection import Note, Rule


def make_record(
    request: BenchmarkRequest,
    benchmark: Problem,
    recipe: Recipe,
    methods: Iterable[Method],
    rules: Sequence[Rule],
    runs: Sequence[Kept],
    provenance: Mapping[str, str | int | float],
) -> shown.BenchmarkRecord:
    """Describe a comparison for its report; the first rule is the headline's."""
    unsatisfied: dict[tuple[str, str], list[int]] = {}
    said: dict[tuple[str, str, Note], list[int]] = {}
    for run in runs:
        method, problem = run.task.method, int(run.task.problem)
        for label in run.facts["unsatisfied"]:
            unsatisfied.setdefault((label, method), []).append(problem)
        for label, note in run.facts["notes"].items():
            said.setdefault((label, method, Note(*note)), []).append(problem)
    return shown.BenchmarkRecord(
        methods=tuple(map(describe_method, methods)),
        trials=len(request.numbers),
        seed=request.seed,
        provenance=provenance,
        dataset=_dataset(request, benchmark),
        recipe=shown.RecipeInfo(
            recipe.name,
            recipe.oracle,
            recipe.note + _overrides(request),
            recipe.common,
            recipe.notice,
        ),
        rules=tuple(
            shown.Rule(rule.name, rule.title, rule.explanation, rule.oracle, rule.statistic)
            for rule in rules
        ),
        headline=rules[0].name,
        seeds=tuple(trial_seed(request.seed, trial) for trial in request.numbers),
        unsatisfied=tuple(
            shown.Unsatisfied(label, method, tuple(problems))
            for (label, method), problems in unsatisfied.items()
        ),
        said=tuple(
            shown.Said(label, method, tuple(problems), note)
            for (label, method, note), problems in said.items()
        ),
        warnings=tuple(
            shown.Warned(run.task.method, int(run.task.problem), text)
            for run in runs
            for text in run.messages
        ),
    )


def describe_method(method: Method) -> MethodInfo:
    """A method and how it is set."""
    if isinstance(method, Network):
        return method.info(describe_plan(method.planned))
    return method.info(method.settings)


def _dataset(request: BenchmarkRequest, benchmark: Problem) -> shown.DatasetInfo:
    dataset = DATASETS[request.dataset]
    options = {name: option.default for name, option in dataset.options.items()}
    return shown.DatasetInfo(
        dataset.name,
        dataset.summary,
        dataset.source,
        options | dict(request.dataset_options),
        dict(benchmark.description),
        benchmark.target,
        benchmark.train.names,
        benchmark.test.names,
        benchmark.loss,
    )


def _overrides(request: BenchmarkRequest) -> str:
    """What the request changed in the recipe: the note no longer covers it."""
    given = [f"{m}.{n}={v:g}" for m, own in request.hyper.items() for n, v in own.items()]
    given += [] if request.steps is None else [f"steps={request.steps}"]
    return f" Given by hand instead: {', '.join(given)}." if given else ""
