"""What a dataset is: a builder in a registry, and the benchmark it builds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from invlearn.environments import Environments, EvaluationSet
from invlearn.features import Features

OptionValue = str | int | float | bool

DatasetOptions = tuple[tuple[str, OptionValue], ...]
"""Sorted by name, so that equal ones are equal."""


@dataclass(frozen=True)
class Benchmark:
    """Environments to train on, to validate on and to be judged in.

    Attributes
    ----------
    name : str
    train, validation : Environments
        The same environment names; disjoint rows. Validation rows come from the training
        environments only; None where a protocol leaves none.
    test : EvaluationSet
        Environments nobody trained on (and the training ones again, on fresh rows).
    target : str
        The test environment that is the headline: the one an 'oracle' would look at.
    loss : str
        Name of the loss ('logistic', 'softmax', 'squared').
    n_outputs : int
        Width of the predictor's output.
    without_shortcut : callable, optional
        Features with the shortcut removed, for the reference model that cannot use it.
    description : dict
        What every result must say about the data: protocol, sizes, which set is the test.
    """

    name: str
    train: Environments
    validation: Environments | None
    test: EvaluationSet
    target: str
    loss: str
    n_outputs: int = 1
    without_shortcut: Callable[[Features], Features] | None = None
    description: Mapping[str, OptionValue] = field(default_factory=dict)

    def to(self, device: str) -> Benchmark:
        """The same with its rows on another device."""
        return replace(
            self,
            train=self.train.to(device),
            validation=None if self.validation is None else self.validation.to(device),
            test=self.test.to(device),
        )


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


@dataclass(frozen=True)
class Option:
    """One option of a dataset: its default, what it means, and its allowed values if few."""

    default: OptionValue
    help: str
    choices: tuple[OptionValue, ...] = ()


@dataclass(frozen=True)
class Dataset:
    """An entry of the registry.

    `build(seed=..., **options)` returns a `Benchmark`; equal seeds give equal benchmarks.
    """

    name: str
    summary: str
    source: str
    build: Callable[..., Benchmark]
    options: Mapping[str, Option] = field(default_factory=dict)
