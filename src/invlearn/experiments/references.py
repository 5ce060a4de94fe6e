"""The reference ERM of a trial, whose errors the group rules read: one for all its methods."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

from torch import Tensor

from invlearn.datasets import load
from invlearn.datasets.base import Benchmark
from invlearn.experiments.methods import get_method
from invlearn.experiments.plans import DatasetOptions, train_plan, training_sets, without_shortcut
from invlearn.experiments.recipes import Plan, get_recipe
from invlearn.outputs import Outputs
from invlearn.selection import reference_step

Reference = Mapping[str, Tensor]
"""Outputs {'train' or 'validation': [n, k]}."""


def reference_settings(plan: Plan) -> Plan:
    """A reference's plan: an ERM's, for half of its steps."""
    return replace(plan, settings=replace(plan.settings, steps=max(plan.settings.steps // 2, 1)))


def reference_outputs(plan: Plan, benchmark: Benchmark, seed: int) -> Reference:
    """Outputs of a reference ERM on training and validation rows.

    It is trained for half of its plan's steps and taken where its errors depend most on the
    environment: a quick predictor that leans on whatever predicts.
    """
    sets = training_sets(benchmark)
    short = reference_settings(plan)
    run = train_plan(short, benchmark, benchmark.train, sets, seed, keep_outputs=True)
    assert run.outputs is not None
    return _chosen(run.outputs)


def reference_within(plan: Plan, run: Plan, outputs: Outputs) -> Reference | None:
    """The same read from a whole run of that ERM, if the run is one and was measured alike."""
    half = reference_settings(plan).settings.steps
    if run != plan or half not in outputs.steps:
        return None
    count = outputs.steps.index(half) + 1
    splits = {
        name: replace(
            split,
            z=split.z[:count],
            raised=None if split.raised is None else split.raised[:count],
        )
        for name, split in outputs.splits.items()
    }
    return _chosen(Outputs(outputs.loss, outputs.steps[:count], splits))


def _chosen(outputs: Outputs) -> Reference:
    found = outputs.at(reference_step(outputs))
    return {split: z.clone() for split, z in found.items()}  # Not a view of every step's.


@lru_cache(maxsize=64)  # A few bytes a row each.
def shared_reference(
    dataset: str,
    dataset_options: DatasetOptions,
    recipe: str,
    steps: int | None,
    seed: int,
    shortcut_removed: bool,
    device: str = "cpu",
    precision: str = "float32",
) -> Reference:
    """`reference_outputs` of a recipe's ERM: runs that share the data share it in a process."""
    benchmark = load(dataset, seed=seed, **dict(dataset_options))
    if shortcut_removed:
        benchmark = without_shortcut(benchmark)
    erm = get_recipe(dataset, recipe).plan(get_method("erm"), steps=steps).on(precision)
    return reference_outputs(erm, benchmark.to(device), seed)
