"""What a comparison is asked to do, as data and as the command that asks the same."""

from __future__ import annotations

import shlex
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from invlearn.errors import OptionError
from invlearn.rows.request import FitRequest

if TYPE_CHECKING:
    from invlearn.datasets.base import OptionValue
    from invlearn.reports.benchmark import BenchmarkRecord  # noqa: F401  Named in a text below.
    from invlearn.reports.record import OwnRowsRecord  # noqa: F401
    from invlearn.rows.image_table import FeaturesOf

AnyRecord = TypeVar("AnyRecord", covariant=True)

SCORES = ("worst-group", "late-risk")
"""By which a search ranks what it drew: see `search_scores`."""

DEFAULT_METHODS = ("erm", "erm-grayscale", "irmv1", "vrex", "mmrex", "meta-irm")
"""Of a comparison on a benchmark."""


class Request(ABC, Generic[AnyRecord]):
    """What is to be compared, and by its type what kind of record that leaves."""

    trials: int
    trial: int | None
    device: str

    def __post_init__(self) -> None:
        """Keep sequences as tuples and numbers as Python's; OptionError for anything else.

        A text is no sequence here: its letters would be taken for names.
        """
        for name, example in (("methods", "['vrex']"), ("drop", "['age']"), ("hidden", "(16,)")):
            value = getattr(self, name, None)
            if isinstance(value, str) or not isinstance(value, Iterable | None):
                raise OptionError(
                    f"Expected {name} as a sequence, got {value!r}. For instance {example}."
                )
            if value is not None:
                plain = (int(one) if isinstance(one, Integral) else one for one in value)
                object.__setattr__(self, name, tuple(plain))
        for name in ("steps", "trials", "trial", "seed", "max_rows", "similarity"):
            if (value := getattr(self, name, None)) is not None:
                if not isinstance(value, Integral):
                    raise OptionError(f"Expected {name} as a whole number, got {value!r}.")
                object.__setattr__(self, name, int(value))

    @property
    def numbers(self) -> range:
        """Of the trials, from 0 on, or of the one.

        Raises
        ------
        OptionError
            A trial below 0; no trials.
        """
        if self.trials < 1:
            raise OptionError(f"Expected at least one trial, got {self.trials}.")
        if self.trial is None:
            return range(self.trials)
        if self.trial < 0:
            raise OptionError(
                f"Expected the number of one trial, 0 or more, got {self.trial}: the first is 0."
            )
        return range(self.trial, self.trial + 1)

    @property
    @abstractmethod
    def competitors(self) -> Sequence[str]:
        """Names of the methods asked for, or of those that are taken where none are."""

    def trial_words(self) -> list[str]:
        """Those of a command line that say which trials."""
        if self.trial is not None:
            return ["--trial", str(self.trial)]
        return ["--trials", str(self.trials)]

    @abstractmethod
    def command(self) -> str:
        """The command line that makes the same request."""


@dataclass(frozen=True)
class BenchmarkRequest(Request["BenchmarkRecord"]):
    """Methods to be compared on a benchmark.

    Parameters
    ----------
    dataset : str
    methods : sequence of str, optional
        Names of `known_methods`; None takes `DEFAULT_METHODS`, those that need features without
        the shortcut where the dataset has such.
    trials : int
        Runs per method, each with its own data draw, coloring, initial weights.
    seed : int
        Trial t uses a seed derived from (seed, t), the same for every method.
    trial : int, optional
        This one only, counted from 0, whatever `trials` is: with the data, seeds and, to rounding,
        numbers that it has among others.
    recipe : str or Path, optional
        Name of one of the dataset's recipes, or a TOML file of one's own; None takes the first.
    dataset_options : mapping
    hyper : mapping
        {method: {hyperparameter: value}} over the recipe's.
    steps : int, optional
        Instead of the recipe's.
    leave_one_out : bool
        Also train without each training environment in turn, for the rule of that name.
    keep_outputs : bool
        Leave every run's outputs on training and validation rows in the folder 'outputs', for
        rules to be applied later (some 10 MB a run of Colored MNIST).
    similarity : int
        Of so many trials the chosen models are trained again, and their representations compared
        by PWCCA.
    device : str
        'cpu', 'cuda' or 'cuda:1': where the data lie and the models are trained. On a GPU runs of
        one method are trained together.
    precision : 'float32', 'tf32' or 'bf16'
        Of the models' products; see `Settings`.
    """

    dataset: str
    methods: Sequence[str] | None = None
    trials: int = 3
    seed: int = 0
    recipe: str | Path | None = None
    dataset_options: Mapping[str, OptionValue] = field(default_factory=dict)
    hyper: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    steps: int | None = None
    leave_one_out: bool = False
    keep_outputs: bool = False
    similarity: int = 0
    device: str = "cpu"
    precision: str = "float32"
    trial: int | None = None

    @property
    def competitors(self) -> Sequence[str]:
        """The methods asked for, or the default ones."""
        return DEFAULT_METHODS if self.methods is None else self.methods

    def command(self) -> str:
        """The command line that makes the same request."""
        words = ["invlearn", "compare", self.dataset]
        words += [] if self.methods is None else ["--objectives", ",".join(self.methods)]
        words += [*self.trial_words(), "--seed", str(self.seed)]
        words += [] if self.recipe is None else ["--recipe", str(self.recipe)]
        words += [] if self.steps is None else ["--steps", str(self.steps)]
        words += ["--leave-one-out"] if self.leave_one_out else []
        words += ["--keep-outputs"] if self.keep_outputs else []
        words += ["--similarity", str(self.similarity)] if self.similarity else []
        words += [] if self.device == "cpu" else ["--device", self.device]
        words += [] if self.precision == "float32" else ["--precision", self.precision]
        for name, value in self.dataset_options.items():
            words += ["--data", f"{name}={value}"]
        for method, values in self.hyper.items():
            for name, number in values.items():
                words += ["--hyper", f"{method}.{name}={number}"]
        return shlex.join(words)


@dataclass(frozen=True)
class RowsRequest(Request["OwnRowsRecord"]):
    """Methods to be compared on one's own rows, each environment left out in turn.

    Parameters
    ----------
    rows : path or DataFrame
        A table, in a file or in memory (of pandas or polars), or a folder of images
        root/environment/class/*.
    target, environment : str
        Columns of the table; images need neither.
    methods : sequence of str
        Beside what one would use anyway.
    task : 'classification' or 'regression', optional
        Instead of the one recognized.
    drop : sequence of str
        Columns to leave out.
    test_environment : str, optional
        Leave out this one only, instead of each in turn.
    metric : str, optional
        'accuracy' or 'balanced accuracy' of a classification. Default: accuracy, or balanced
        accuracy where the rarest class has less than a fifth of the rows.
    hidden : tuple of int
        Widths of the networks' hidden layers (for tables).
    steps : int
    max_rows : int
        More than these are drawn from, each environment in proportion.
    select : str, optional
        A rule that reads training environments, by which every network's step is chosen on a fifth
        of their rows; without it the last step's is taken, trained on all of them.
    trials : int
        Trainings of each method on each fold, with seeds of their own; errors are averaged.
    seed : int
    device : str
    features : path or callable, optional
        Columns that images have instead of their pixels; see `invlearn.image_table`.
    trial : int, optional
        The training of this number only, counted from 0, whatever `trials` is.
    """

    rows: Any
    target: str | None = None
    environment: str | None = None
    methods: Sequence[str] = ("erm-pooled", "irmv1", "vrex", "meta-irm")
    task: str | None = None
    drop: Sequence[str] = ()
    test_environment: str | None = None
    metric: str | None = None
    hidden: tuple[int, ...] = FitRequest.hidden
    steps: int = FitRequest.steps
    max_rows: int = 100_000
    select: str | None = None
    trials: int = 1
    seed: int = 0
    device: str = "cpu"
    features: FeaturesOf | None = None
    trial: int | None = None

    @property
    def competitors(self) -> Sequence[str]:
        """The methods asked for."""
        return self.methods

    def command(self) -> str:
        """The command line that makes the same request; empty for rows in memory."""
        if not isinstance(self.rows, str | Path) or callable(self.features):
            return ""
        rows = f"./{self.rows}" if str(self.rows).startswith("-") else str(self.rows)
        words = ["invlearn", "compare", rows, *self.columns()]
        words += ["--objectives", ",".join(self.methods)]
        words += [*self.trial_words(), "--seed", str(self.seed)]
        for name in ("test_environment", "metric", "steps", "max_rows", "select", "device"):
            if (value := getattr(self, name)) != getattr(RowsRequest, name):
                words += [f"--{name.replace('_', '-')}", str(value)]
        return shlex.join(words)

    def columns(self) -> list[str]:
        """Words of a command line that say how the rows are read, and how wide networks are."""
        words = []
        for name in ("target", "environment", "task"):
            if value := getattr(self, name):
                words += [f"--{name}", value]
        for name in self.drop:
            words += ["--drop", name]
        if self.features is not None:
            words += ["--features", str(self.features)]
        if self.hidden != FitRequest.hidden:
            words += ["--hidden", ",".join(map(str, self.hidden))]
        return words


MANY = 10_000
"""Runs beyond which somebody has to say that they are meant."""


def refuse(text: str) -> bool:
    """Do not agree to so many runs."""
    return False


def check_amount(runs: int, what: str, at_a_time: int, agree: Callable[[str], bool]) -> None:
    """Ask before very many runs are laid out.

    Parameters
    ----------
    runs : int
    what : str
        What makes them so many.
    at_a_time : int
    agree : callable
        Given a text that says how many there are, and how long they take; True to go on.

    Raises
    ------
    OptionError
        It did not agree.
    """
    if runs <= MANY:
        return
    hours = runs / at_a_time / 3600
    long = f"{hours:,.0f} hours" if hours < 100 else f"{hours / 24:,.0f} days"
    text = f"{runs:,} runs ({what}): at a second each, {at_a_time} at a time, some {long}"
    if not agree(text):
        raise OptionError(
            f"Expected no more than {MANY:,} runs unless they are agreed to, got {text}. Ask for "
            "fewer, or add --yes (agree= in Python)."
        )
