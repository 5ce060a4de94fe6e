"""The reference ERM of a trial, whose errors the group rules read: one for all its methods."""

from __future__ import annotations

from functools import lru_cache

from invlearn.comparison.recipes import Recipe
from invlearn.datasets import load_benchmark
from invlearn.datasets.base import DatasetOptions
from invlearn.learning import Plan, evaluation_sets
from invlearn.learning.reference import Reference, reference_outputs
from invlearn.methods import get_network
from invlearn.problem import Problem, without_shortcut


def trial_reference(plan: Plan, benchmark: Problem, seed: int) -> Reference:
    """`reference_outputs` on a benchmark's training and validation rows."""
    return reference_outputs(
        plan,
        benchmark.train,
        benchmark.loss,
        benchmark.n_outputs,
        seed,
        evaluations=evaluation_sets(benchmark.train, benchmark.validation),
    )


@lru_cache(maxsize=64)  # A few bytes a row each.
def shared_reference(
    dataset: str,
    dataset_options: DatasetOptions,
    recipe: Recipe,
    steps: int | None,
    seed: int,
    shortcut_removed: bool,
    device: str = "cpu",
    precision: str = "float32",
) -> Reference:
    """`trial_reference` of a recipe's ERM: runs that share the data share it in a process."""
    benchmark = load_benchmark(dataset, seed=seed, **dict(dataset_options))
    if shortcut_removed:
        benchmark = without_shortcut(benchmark)
    erm = recipe.plan(get_network("erm"), steps=steps)
    return trial_reference(erm.on(device, precision), benchmark.to(device), seed)
