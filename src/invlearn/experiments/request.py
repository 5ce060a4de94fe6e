"""What a comparison is asked to do, as data and as words for its record."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from invlearn.datasets import DATASETS
from invlearn.datasets.base import Benchmark, OptionValue
from invlearn.experiments.recipes import describe_plan
from invlearn.methods import Method, Network
from invlearn.selection import Rule

DEFAULT_METHODS = ("erm", "erm-grayscale", "irmv1", "vrex", "mmrex", "meta-irm")


@dataclass(frozen=True)
class Request:
    """What to compare.

    Parameters
    ----------
    dataset : str
    methods : sequence of str
        Names of `known_methods`.
    trials : int
        Runs per method, each with its own data draw, coloring, initial weights.
    seed : int
        Trial t uses a seed derived from (seed, t), the same for every method.
    recipe : str or None
        Name of one of the dataset's recipes; None takes the first.
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
    methods: Sequence[str] = DEFAULT_METHODS
    trials: int = 3
    seed: int = 0
    recipe: str | None = None
    dataset_options: Mapping[str, OptionValue] = field(default_factory=dict)
    hyper: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    steps: int | None = None
    leave_one_out: bool = False
    keep_outputs: bool = False
    similarity: int = 0
    device: str = "cpu"
    precision: str = "float32"

    def command(self) -> str:
        """The command line that makes the same request."""
        words = ["invlearn", "compare", self.dataset, "--objectives", ",".join(self.methods)]
        words += ["--trials", str(self.trials), "--seed", str(self.seed)]
        words += [] if self.recipe is None else ["--recipe", self.recipe]
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


def overrides(request: Request) -> str:
    """What the request changed in the recipe: the note no longer covers it."""
    given = [f"{m}.{n}={v:g}" for m, own in request.hyper.items() for n, v in own.items()]
    given += [] if request.steps is None else [f"steps={request.steps}"]
    return f" Given by hand instead: {', '.join(given)}." if given else ""


def describe_dataset(request: Request, benchmark: Benchmark) -> dict[str, Any]:
    """The data of a comparison, for its summary."""
    dataset = DATASETS[request.dataset]
    return {
        "name": dataset.name,
        "summary": dataset.summary,
        "source": dataset.source,
        "options": {n: o.default for n, o in dataset.options.items()}
        | dict(request.dataset_options),
        "description": dict(benchmark.description),
        "target": benchmark.target,
        "training_environments": list(benchmark.train.names),
        "test_environments": list(benchmark.test.names),
        "loss": benchmark.loss,
    }


def describe_method(method: Method) -> dict[str, Any]:
    """A method and its plan, for the summary."""
    return {
        "name": method.name,
        "title": method.title,
        "summary": method.summary,
        "source": method.source,
        "reference": method.kind == "reference",
        "hyperparameters": describe_plan(method.planned)
        if isinstance(method, Network)
        else {"settings": "scikit-learn's defaults"},
    }


def describe_rule(rule: Rule) -> dict[str, Any]:
    """A selection rule, for the summary."""
    return {
        "name": rule.name,
        "title": rule.title,
        "explanation": rule.explanation,
        "oracle": rule.oracle,
        "statistic": rule.statistic,
    }
