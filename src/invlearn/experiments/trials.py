"""A trial of a benchmark: its seed, and its data without the shortcut."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from invlearn.datasets.base import Benchmark

DatasetOptions = tuple[tuple[str, str | int | float | bool], ...]


def trial_seed(seed: int, trial: int) -> int:
    """Seed of a trial's data, coloring, initial weights and batches."""
    return int(np.random.SeedSequence([seed, trial]).generate_state(1)[0])


def without_shortcut(benchmark: Benchmark) -> Benchmark:
    """The benchmark over features that cannot hold the shortcut."""
    view = benchmark.without_shortcut
    if view is None:
        raise ValueError(f"{benchmark.name} has no features without the shortcut")
    validation = benchmark.validation
    return replace(
        benchmark,
        train=benchmark.train.with_features(view(benchmark.train.x)),
        validation=None if validation is None else validation.with_features(view(validation.x)),
        test=benchmark.test.with_features(view(benchmark.test.x)),
    )
