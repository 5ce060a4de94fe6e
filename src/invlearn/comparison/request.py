"""What a comparison is asked to do, as data and as words for its record."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from invlearn.datasets.base import OptionValue

DEFAULT_METHODS = ("erm", "erm-grayscale", "irmv1", "vrex", "mmrex", "meta-irm")


@dataclass(frozen=True)
class BenchmarkRequest:
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
