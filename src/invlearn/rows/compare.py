"""Methods compared on a user's rows, each environment left out in turn."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch

from invlearn.diagnostics.diversity import diversity
from invlearn.diagnostics.effects import feature_effects
from invlearn.diagnostics.findings import Finding, environment_rows
from invlearn.diagnostics.held_out import METRICS, Contender, HeldOut, compare_errors
from invlearn.environments import Environments
from invlearn.errors import EnvironmentsError, OptionError, unknown_name
from invlearn.estimators.strength import environment_groups
from invlearn.experiments.processes import cores, run_all
from invlearn.losses import get_loss
from invlearn.objectives import get_objective
from invlearn.rows.contenders import DEFAULT, POOLED, contenders, estimator
from invlearn.rows.inputs import Make
from invlearn.rows.source import Source, set_aside
from invlearn.training.settings import check_device

RARE = 0.2
"""Below this share of the rarest class accuracy says little, and classes count alike instead."""

MOST_FOLDS = 10
"""With more environments than this, several are left out at a time."""

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
    hidden: tuple[int, ...] = (16,)
    steps: int = 200
    max_rows: int = 100_000
    seed: int = 0
    device: str = "cpu"


@dataclass(frozen=True)
class Trained:
    """What one method did on one fold: predictions for the rows left out, and how it was set."""

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
    found : HeldOut
    findings : tuple of Finding
        About the rows themselves.
    settings : {method: {what: text}}
    notes : tuple of str
    columns : {column: kind}
    seconds : float
    """

    source: Source
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
    source = _fewer(set_aside(source), request)
    folds = _folds(source, request)
    metric = METRICS[_metric(source, request)]
    work = []
    columns: dict[str, str] = {}
    for number, left_out in enumerate(folds):
        inside = source.of([name for name in source.names if name not in left_out])
        if task == "classification" and len(np.unique(inside.y)) < 2:
            raise EnvironmentsError(
                f"Expected two classes without environment '{left_out[0]}', got one: it cannot be "
                "left out. Drop it or merge it with another."
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
    found = _measured(source, folds, methods, done, metric.name, request.seed)
    everything = source.learn_inputs()
    if source.frame is not None:
        columns = everything.columns
    return RowsComparison(
        source,
        found,
        _findings(source, request.seed),
        _settings(methods, done, folds, request),
        (*source.notes, *_said(done, methods)),
        columns,
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
        setting = f"{weight:g}" if weight else "0 (ERM)"
    said = tuple(dict.fromkeys(str(w.message) for w in caught if network))
    predicted = np.asarray(model.predict(job.left_out), dtype=np.float64)
    return Trained(job.fold, job.method, predicted, setting, said)


def _fewer(source: Source, request: RowsRequest) -> Source:
    """At most so many rows, drawn in every environment alike."""
    n = len(source.y)
    if n <= request.max_rows:
        return source
    rng = np.random.default_rng(request.seed)
    kept = []
    for name, size in source.sizes.items():
        here = np.flatnonzero(source.environments == name)
        count = max(round(size * request.max_rows / n), min(size, 10))
        kept.append(rng.choice(here, count, replace=False))
    drawn = source.take(np.sort(np.concatenate(kept)))
    note = f"{len(drawn.y):,} of {n:,} rows were drawn for the comparison (--max-rows)."
    return replace(drawn, notes=(*source.notes, note))


def _folds(source: Source, request: RowsRequest) -> list[list[str]]:
    names = source.names
    if request.test_environment is not None:
        if request.test_environment not in names:
            raise unknown_name("environment", request.test_environment, names)
        folds = [[request.test_environment]]
    else:
        folds = environment_groups(names, MOST_FOLDS, request.seed)
    if len(names) < 3:
        raise EnvironmentsError(
            f"Expected at least three environments, one to leave out and two to learn from, got "
            f"{len(names)} ({', '.join(names)}). Is '{source.environment_name}' the column that "
            "says where rows come from?"
        )
    return folds


def _metric(source: Source, request: RowsRequest) -> str:
    if source.target.task == "regression":
        if request.metric not in (None, "RMSE"):
            raise OptionError(f"Expected metric RMSE of a regression, got '{request.metric}'.")
        return "RMSE"
    if request.metric is not None:
        known = ("accuracy", "balanced accuracy")
        if request.metric not in known:
            raise unknown_name("metric", request.metric, known)
        return request.metric
    share = np.bincount(source.y).min() / len(source.y)
    return "balanced accuracy" if share < RARE else "accuracy"


def _measured(
    source: Source,
    folds: Sequence[Sequence[str]],
    methods: Sequence[Contender],
    done: Sequence[Trained],
    metric: str,
    seed: int,
) -> HeldOut:
    """Errors of every row left out, by environment."""
    errors: dict[str, Floats] = {}
    shares: dict[str, Floats] = {}
    by_place = {(trained.fold, trained.method): trained.predicted for trained in done}
    for number, left_out in enumerate(folds):
        rows = source.of(left_out)
        predicted = np.stack([by_place[number, method.name] for method in methods], axis=1)
        truth = rows.y[:, None]
        wrong = predicted != truth if metric != "RMSE" else np.square(predicted - truth)
        for name in left_out:
            here = rows.environments == name
            errors[name] = wrong[here].astype(np.float64)
            shares[name] = np.ones(int(here.sum()))
            if metric == "balanced accuracy":
                shares[name] = 1 / np.bincount(rows.y[here])[rows.y[here]]
    ordered = sorted(errors)
    return compare_errors(
        {name: errors[name] for name in ordered},
        {name: shares[name] for name in ordered},
        methods,
        METRICS[metric],
        seed=seed,
    )


def _findings(source: Source, seed: int) -> tuple[Finding, ...]:
    """What the rows themselves say, of all environments together."""
    if source.frame is None:
        return ()
    inputs = source.learn_inputs()
    y = source.y
    loss = get_loss("squared")
    if source.target.task == "classification":
        loss = get_loss("logistic" if len(source.target.classes) == 2 else "softmax")
    else:
        y = ((y - y.mean()) / (y.std() or 1.0)).astype(np.float32)
    rows = Environments.from_arrays(
        torch.as_tensor(source.matrix(inputs)), torch.as_tensor(y), source.environments
    )
    return (
        feature_effects(rows, loss, inputs.names, seed),
        diversity(environment_rows(rows), loss, rng=np.random.default_rng(seed)),
    )


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
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} others"
