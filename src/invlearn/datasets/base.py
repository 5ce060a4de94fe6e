"""What a dataset is: a builder in a registry, and the problem it builds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from invlearn.environments import Environments
from invlearn.problem import Problem

Made = Problem | tuple[Environments, Environments | None, Environments]
"""What a dataset's function returns: a `Problem`, or training, validation and test rows."""

OptionValue = str | int | float | bool

DatasetOptions = tuple[tuple[str, OptionValue], ...]
"""Sorted by name, so that equal ones are equal."""


@dataclass(frozen=True)
class Option:
    """One option of a dataset: its default, what it means, and its allowed values if few."""

    default: OptionValue
    help: str
    choices: tuple[OptionValue, ...] = ()


@dataclass(frozen=True)
class Dataset:
    """An entry of the registry.

    `build(seed=..., **options)` returns what `Made` says; equal seeds give equal rows.
    """

    name: str
    summary: str
    source: str
    build: Callable[..., Made]
    options: Mapping[str, Option] = field(default_factory=dict)
