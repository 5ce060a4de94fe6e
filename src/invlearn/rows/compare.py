"""Methods compared on a user's rows, each environment left out in turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import numpy.typing as npt

from invlearn.compare.runner import Kept, Task, Work, run
from invlearn.compare.store import Store
from invlearn.diagnostics.findings import Finding
from invlearn.diagnostics.held_out import Contender, HeldOut
from invlearn.errors import EnvironmentsError, OptionError
from invlearn.ground.machine import check_device, cores
from invlearn.learning import standard_plan
from invlearn.learning.plan import Drawn
from invlearn.methods import Method, Network, get_method, trial_seed
from invlearn.rows.fit import FitRequest
from invlearn.rows.folds import Folds
from invlearn.rows.inputs import Inputs, Make
from invlearn.rows.measure import data_findings, fewer, folds_of, measured, metric_of
from invlearn.rows.source import Source, set_aside

Floats = npt.NDArray[np.float64]

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
    trials : int
        Trainings of each method on each fold, with seeds of their own; errors are averaged.
    seed : int
    device : str
    """

    objectives: Sequence[str] = DEFAULT_OBJECTIVES
    test_environment: str | None = None
    metric: str | None = None
    hidden: tuple[int, ...] = FitRequest.hidden
    steps: int = FitRequest.steps
    max_rows: int = 100_000
    trials: int = 1
    seed: int = 0
    device: str = "cpu"

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of the trainings; the first is `seed` itself, with which a model is fitted too."""
        return (self.seed, *(trial_seed(self.seed, trial) for trial in range(1, self.trials)))


@dataclass(frozen=True)
class RowsComparison:
    """A comparison's outcome.

    Attributes
    ----------
    source : Source
        The rows that took part.
    folds : tuple of tuple of str
        The environments left out together.
    found : HeldOut
    findings : tuple of Finding
        About the rows themselves.
    settings : {method: {what: text}}
    notes : tuple of str
    columns : {column: kind}
    seconds : float
    """

    source: Source
    folds: tuple[tuple[str, ...], ...]
    found: HeldOut
    findings: tuple[Finding, ...]
    settings: dict[str, dict[str, str]]
    notes: tuple[str, ...]
    columns: dict[str, str]
    seconds: float


def compare_rows(
    source: Source,
    request: RowsRequest,
    *,
    store: Store | None = None,
    jobs: int | None = None,
    progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> RowsComparison:
    """Train every method on all environments but one, and measure it in that one.

    Nothing is chosen on the environment left out: columns are encoded and penalty strengths
    chosen on the others alone, by leaving each of those out in turn.

    Parameters
    ----------
    source : Source
    request : RowsRequest
    store : Store, optional
        Where finished trainings are kept, and are looked for.
    jobs : int, optional
        Trainings at a time; default one per core.
    progress : callable
        ``progress(done, total, what)``.

    Raises
    ------
    EnvironmentsError
        Fewer than three environments that can be measured in.
    OptionError, UnknownNameError
        Options outside their domain, misspelt names.
    """
    started = time.monotonic()
    _check(request, jobs)
    task = source.target.task
    drawn = fewer(source, request.max_rows, request.seed)
    source = set_aside(drawn)
    left_out = folds_of(source, drawn, request.test_environment, request.seed)
    metric = metric_of(source, request.metric)
    for names in left_out:
        rest = ~np.isin(source.environments, list(names))
        if task == "classification" and len(np.unique(source.y[rest])) < 2:
            raise EnvironmentsError(
                f"Expected two classes without {_some(names)}, got one. Merge environments, or "
                "leave out others with --test-environment."
            )
    folds, inputs = Folds.learn(source, left_out, request.seeds), source.learn_inputs()
    methods = _methods(request, source, folds.inputs[0])
    if store is not None:
        store.begin({"rows": folds.checksum, "request": asdict(request)})
    # Fold by fold, so that each is encoded once; in it the longest first, so that no core waits
    # for one of them at the end.
    order = sorted(methods, key=lambda name: name != "meta-irm")
    kept, _ = run(
        Work(folds, methods, store),
        [Task(name, key) for key in folds.keys for name in order],
        processes=cores() if jobs is None else jobs,
        progress=progress,
    )
    predicted: dict[tuple[int, str], list[Floats]] = {}
    for one in kept.values():
        place = folds.parts(one.task.problem)[0], one.task.method
        predicted.setdefault(place, []).append(one.tables["predicted"]["predicted"].to_numpy(float))
    competitors = tuple(Contender(m.name, m.title, m.kind, m.summary) for m in methods.values())
    return RowsComparison(
        source,
        folds.left_out,
        measured(source, left_out, competitors, predicted, metric, request.seed),
        data_findings(source, inputs, request.seed),
        _settings(methods, kept.values(), folds, request),
        (*source.notes, *_said(kept.values(), methods)),
        inputs.columns,
        time.monotonic() - started,
    )


def _check(request: RowsRequest, jobs: int | None) -> None:
    check_device(request.device)
    if jobs is not None and jobs < 1:
        raise OptionError(f"Expected jobs of 1 or more, got {jobs}.")
    if request.steps < 1 or request.max_rows < 100 or request.trials < 1:
        raise OptionError(
            f"Expected steps of 1 or more, trials of 1 or more and max_rows of 100 or more, got "
            f"{request.steps}, {request.trials} and {request.max_rows}."
        )
    for name in request.objectives:
        get_method(name)  # Before the work of encoding.


def _methods(request: RowsRequest, source: Source, inputs: Inputs) -> dict[str, Method]:
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
                device=request.device,
            )
            methods[name] = replace(method, plan=plan)
    return methods


def _settings(
    methods: Mapping[str, Method],
    kept: Collection[Kept],
    folds: Folds,
    request: RowsRequest,
) -> dict[str, dict[str, str]]:
    out: dict[str, dict[str, str]] = {}
    for method in methods.values():
        if not isinstance(method, Network):
            out[method.name] = {"settings": "scikit-learn's defaults"}
            continue
        out[method.name] = {
            "hidden layers": ", ".join(map(str, request.hidden)) or "none",
            "steps": str(request.steps),
        }
        if strength := method.objective.strength:
            chosen: dict[int, list[str]] = {}
            for one in kept:
                if one.task.method == method.name:
                    fold = folds.parts(one.task.problem)[0]
                    default = len(folds.source.names) - len(folds.left_out[fold]) < 3
                    weight = one.facts["chosen"][strength]
                    text = f"{weight:g}{' (default)' if default else ''}" if weight else "0 (ERM)"
                    chosen.setdefault(fold, []).append(text)
            out[method.name][strength.replace("_", " ")] = "; ".join(
                f"{', '.join(chosen[number])} without {_some(left_out)}"
                for number, left_out in enumerate(folds.left_out)
            )
    return out


def _said(kept: Collection[Kept], methods: Mapping[str, Method]) -> list[str]:
    """Warnings of the trainings, each once with how often it came."""
    count: dict[tuple[str, str], int] = {}
    for one in kept:
        # What differs from fold to fold is numbers; one example is enough.
        for message in dict.fromkeys(text.rstrip(".").split(":")[0] for text in one.messages):
            key = (one.task.method, message)
            count[key] = count.get(key, 0) + 1
    return [
        f"{methods[method].title}, {n} of the trainings: {message}."
        for (method, message), n in count.items()
    ]


def _some(names: Sequence[str]) -> str:
    if len(names) == 1:
        return names[0]
    return f"{names[0]} and {len(names) - 1} {'other' if len(names) == 2 else 'others'}"
