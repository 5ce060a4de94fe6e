"""What is learned from, chosen by and measured in: the one shape of data that methods are given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from invlearn.environments import Environments, EvaluationSet
from invlearn.features import Features


@dataclass(frozen=True)
class Problem:
    """Environments to train on, to validate on and to be measured in.

    A trial of a benchmark is one, and so are one's own rows with some environments left out.

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
    key : str
        Names it among a comparison's problems, and in files.
    seed : int
        Of whatever a method draws.
    """

    name: str
    train: Environments
    validation: Environments | None
    test: EvaluationSet
    target: str
    loss: str
    n_outputs: int = 1
    without_shortcut: Callable[[Features], Features] | None = None
    description: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    key: str = ""
    seed: int = 0

    def to(self, device: str) -> Problem:
        """The same with its rows on another device."""
        return replace(
            self,
            train=self.train.to(device),
            validation=None if self.validation is None else self.validation.to(device),
            test=self.test.to(device),
        )


def without_shortcut(problem: Problem) -> Problem:
    """The problem over features that cannot hold the shortcut."""
    view = problem.without_shortcut
    if view is None:
        raise ValueError(f"{problem.name} has no features without the shortcut")
    validation = problem.validation
    return replace(
        problem,
        train=problem.train.with_features(view(problem.train.x)),
        validation=None if validation is None else validation.with_features(view(validation.x)),
        test=problem.test.with_features(view(problem.test.x)),
    )
