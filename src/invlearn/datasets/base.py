"""What a dataset is: a builder in a registry, and the problem it builds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from invlearn.problem import Problem

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

    `build(seed=..., **options)` returns a `Problem`; equal seeds give equal ones.
    """

    name: str
    summary: str
    source: str
    build: Callable[..., Problem]
    options: Mapping[str, Option] = field(default_factory=dict)
