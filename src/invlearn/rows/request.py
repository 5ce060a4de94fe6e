"""What a comparison on one's own rows is asked to do, and the methods that it means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from invlearn import defaults
from invlearn.errors import OptionError
from invlearn.ground.machine import check_device
from invlearn.learning import EarlyStopping, standard_plan
from invlearn.learning.builders import Drawn
from invlearn.methods import Method, Network, get_method, trial_seed
from invlearn.rows.inputs import Inputs, Make
from invlearn.rows.source import Source
from invlearn.training import Stopping

DEFAULT_OBJECTIVES = ("erm-pooled", "irmv1", "vrex", "meta-irm")


@dataclass(frozen=True)
class RowsRequest:
    """What is to be compared.

    Parameters
    ----------
    objectives : sequence of str
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
    """

    objectives: Sequence[str] = DEFAULT_OBJECTIVES
    test_environment: str | None = None
    metric: str | None = None
    hidden: tuple[int, ...] = defaults.HIDDEN
    steps: int = defaults.STEPS
    max_rows: int = defaults.MAX_ROWS
    select: str | None = None
    trials: int = 1
    seed: int = 0
    device: str = "cpu"

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of the trainings; the first is `seed` itself, with which a model is fitted too."""
        return (self.seed, *(trial_seed(self.seed, trial) for trial in range(1, self.trials)))


def check(request: RowsRequest, jobs: int | None) -> None:
    """Refuse what can be seen to be wrong before any work.

    Raises
    ------
    OptionError, UnknownNameError
        Options outside their domain, misspelled names.
    """
    check_device(request.device)
    if jobs is not None and jobs < 1:
        raise OptionError(f"Expected jobs of 1 or more, got {jobs}.")
    if request.steps < 1 or request.max_rows < 100 or request.trials < 1:
        raise OptionError(
            f"Expected steps of 1 or more, trials of 1 or more and max_rows of 100 or more, got "
            f"{request.steps}, {request.trials} and {request.max_rows}."
        )
    if request.select is not None:
        Stopping(request.select, reference={})
    for name in request.objectives:
        get_method(name)  # Before the work of encoding.


def competing(request: RowsRequest, source: Source, inputs: Inputs) -> dict[str, Method]:
    """What one would use anyway, then networks trained with each objective.

    Boosting is left out for images, whose pixels are no columns.
    """
    classifies = source.target.task == "classification"
    linear = "Logistic regression" if classifies else "Ridge regression"
    usual = ["linear"] if source.frame is None else ["linear", "boosting"]
    methods = {name: get_method(name) for name in (*usual, *request.objectives)}
    methods["linear"] = replace(methods["linear"], title=linear)
    if all(method.kind == "usual" for method in methods.values()):
        raise OptionError(
            "Expected at least one objective besides ERM to compare with it, got "
            f"{', '.join(request.objectives) or 'none'}. For instance vrex."
        )
    classes = len(source.target.classes)
    network = Drawn(Make(inputs.network(request.hidden, classes if classes > 2 else 1)))
    for name, method in methods.items():
        if method.kind == "reference":
            raise OptionError(
                f"Expected methods for rows of your own, got '{name}', which needs features "
                "without the shortcut. Leave it out of --objectives."
            )
        if isinstance(method, Network):
            given = method.objective.strength in method.hyper
            plan = standard_plan(
                method.objective,
                network,
                strength=None if given else "auto",
                numbers=method.hyper,
                steps=request.steps,
                early_stopping=None if request.select is None else EarlyStopping(request.select),
                device=request.device,
            )
            methods[name] = replace(method, plan=plan, keep_outputs=False)
    return methods
