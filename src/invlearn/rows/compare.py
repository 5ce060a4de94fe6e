"""Methods compared on a user's rows, each environment left out in turn."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from invlearn.diagnostics.findings import Finding
from invlearn.diagnostics.held_out import Contender, HeldOut
from invlearn.errors import EnvironmentsError, OptionError
from invlearn.ground.machine import check_device, cores, run_all
from invlearn.objectives import get_objective
from invlearn.rows.contenders import DEFAULT, POOLED, contenders, estimator
from invlearn.rows.fit import FitRequest
from invlearn.rows.inputs import Make
from invlearn.rows.measure import data_findings, fewer, folds_of, measured, metric_of
from invlearn.rows.source import Source, set_aside

Floats = npt.NDArray[np.float64]


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
    seed : int
    device : str
    """

    objectives: Sequence[str] = DEFAULT
    test_environment: str | None = None
    metric: str | None = None
    hidden: tuple[int, ...] = FitRequest.hidden
    steps: int = FitRequest.steps
    max_rows: int = 100_000
    seed: int = 0
    device: str = "cpu"


@dataclass(frozen=True)
class Trained:
    """What one method did on one fold: predictions for the rows left out (NaN if it diverged)."""

    fold: int
    method: str
    predicted: Floats
    setting: str
    warnings: tuple[str, ...]


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


@dataclass(frozen=True)
class _Job:
    fold: int
    method: str
    task: str
    make: Make
    x: npt.NDArray[np.float32]
    y: npt.NDArray[np.float64] | npt.NDArray[np.int64]
    environments: npt.NDArray[np.str_]
    left_out: npt.NDArray[np.float32]
    request: RowsRequest = field(repr=False)


def compare_rows(
    source: Source,
    request: RowsRequest,
    *,
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
    check_device(request.device)
    if jobs is not None and jobs < 1:
        raise OptionError(f"Expected jobs of 1 or more, got {jobs}.")
    if request.steps < 1 or request.max_rows < 100:
        raise OptionError(
            f"Expected steps of 1 or more and max_rows of 100 or more, got {request.steps} and "
            f"{request.max_rows}."
        )
    task, images = source.target.task, source.pixels is not None
    methods = contenders(request.objectives, task, images=images)
    if all(method.kind == "usual" for method in methods):
        raise OptionError(
            "Expected at least one objective besides ERM to compare with it, got "
            f"{', '.join(request.objectives) or 'none'}. For instance vrex."
        )
    drawn = fewer(source, request.max_rows, request.seed)
    source = set_aside(drawn)
    folds = folds_of(source, drawn, request.test_environment, request.seed)
    metric = metric_of(source, request.metric)
    work = []
    for number, left_out in enumerate(folds):
        inside = source.of([name for name in source.names if name not in left_out])
        if task == "classification" and len(np.unique(inside.y)) < 2:
            raise EnvironmentsError(
                f"Expected two classes without {_some(left_out)}, got one. Merge environments, or "
                "leave out others with --test-environment."
            )
        inputs = inside.learn_inputs()
        make = Make(inputs.network(request.hidden, 1))
        x, tested = inside.matrix(inputs), source.of(left_out).matrix(inputs)
        work += [
            _Job(number, method.name, task, make, x, inside.y, inside.environments, tested, request)
            for method in methods
        ]
    # The longest first, so that no core waits for one of them at the end.
    work.sort(key=lambda job: job.method != "meta-irm")
    done: list[Trained] = []

    def ended(trained: Trained) -> None:
        done.append(trained)
        title = next(m.title for m in methods if m.name == trained.method)
        progress(len(done), len(work), title)

    progress(0, len(work), "training")
    run_all(_train, work, processes=cores() if jobs is None else jobs, done=ended)
    predicted = {(trained.fold, trained.method): trained.predicted for trained in done}
    return RowsComparison(
        source,
        tuple(map(tuple, folds)),
        measured(source, folds, methods, predicted, metric, request.seed),
        data_findings(source, request.seed),
        _settings(methods, done, folds, request),
        (*source.notes, *_said(done, methods)),
        source.learn_inputs().columns,
        time.monotonic() - started,
    )


def _train(job: _Job) -> Trained:
    """Fit one method without a fold and predict it."""
    request = job.request
    several = len(np.unique(job.environments)) >= 3
    model = estimator(
        job.method,
        job.task,
        make=job.make,
        steps=request.steps,
        seed=request.seed,
        auto=several,
        device=request.device,
    )
    network = job.method not in ("linear", "boosting")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if network:
            model.fit(job.x, job.y, environments=job.environments)
        else:
            model.fit(job.x, job.y)
    setting = ""
    if network and get_objective(job.method).strength:
        weight = model.penalty_weight_
        chosen = "" if several else " (default)"
        setting = f"{weight:g}{chosen}" if weight else "0 (ERM)"
    said = tuple(dict.fromkeys(str(w.message).rstrip(".") for w in caught))
    predicted = np.asarray(model.predict(job.left_out), dtype=np.float64)
    if network and model.stop_reason_ == "interrupted":
        raise KeyboardInterrupt
    if network and model.stop_reason_ == "diverged":
        predicted[:] = np.nan
    return Trained(job.fold, job.method, predicted, setting, said)


def _settings(
    methods: Sequence[Contender],
    done: Sequence[Trained],
    folds: Sequence[Sequence[str]],
    request: RowsRequest,
) -> dict[str, dict[str, str]]:
    out: dict[str, dict[str, str]] = {}
    for method in methods:
        if method.name in ("linear", "boosting"):
            out[method.name] = {"settings": "scikit-learn's defaults"}
            continue
        out[method.name] = {
            "hidden layers": ", ".join(map(str, request.hidden)) or "none",
            "steps": str(request.steps),
        }
        if method.name in POOLED:
            continue
        objective = get_objective(method.name)
        if objective.strength:
            chosen = {
                trained.fold: trained.setting for trained in done if trained.method == method.name
            }
            out[method.name][objective.strength.replace("_", " ")] = "; ".join(
                f"{chosen[number]} without {_some(left_out)}"
                for number, left_out in enumerate(folds)
            )
    return out


def _said(done: Sequence[Trained], methods: Sequence[Contender]) -> list[str]:
    """Warnings of the trainings, each once with how often it came."""
    count: dict[tuple[str, str], int] = {}
    titles = {method.name: method.title for method in methods}
    for trained in done:
        for message in trained.warnings:
            # What differs from fold to fold is numbers; one example is enough.
            key = (trained.method, message.split(":")[0])
            count[key] = count.get(key, 0) + 1
    return [
        f"{titles[method]}, {n} of the trainings: {message}."
        for (method, message), n in count.items()
    ]


def _some(names: Sequence[str]) -> str:
    if len(names) == 1:
        return names[0]
    return f"{names[0]} and {len(names) - 1} {'other' if len(names) == 2 else 'others'}"
