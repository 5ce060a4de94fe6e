"""What a comparison measures: which environments are left out, by what metric, and the rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from invlearn.diagnostics.diversity import diversity
from invlearn.diagnostics.effects import feature_effects
from invlearn.diagnostics.findings import Finding, environment_rows
from invlearn.diagnostics.left_out import LeftOut, compare_errors
from invlearn.errors import EnvironmentsError, OptionError, unknown_name
from invlearn.learning.strength import environment_groups
from invlearn.losses import get_loss
from invlearn.metrics import METRICS, Metric, usual_metric
from invlearn.results import MethodInfo
from invlearn.rows.inputs import Inputs
from invlearn.rows.model import labeled_rows, output_scale
from invlearn.rows.source import Source, loss_of

RARE = 0.2
"""Below this share of the rarest class accuracy says little, and classes count alike instead."""

MOST_FOLDS = 10
"""With more environments than this, several are left out at a time."""

Floats = npt.NDArray[np.float64]


def fewer(source: Source, most: int, seed: int) -> Source:
    """At most so many rows, drawn in every environment alike; noted."""
    n = len(source.y)
    if n <= most:
        return source
    rng = np.random.default_rng(seed)
    kept = []
    for name, size in source.sizes.items():
        here = np.flatnonzero(source.environments == name)
        count = max(round(size * most / n), min(size, 10))
        kept.append(rng.choice(here, count, replace=False))
    drawn = source.take(np.sort(np.concatenate(kept)))
    note = f"{len(drawn.y):,} of {n:,} rows were drawn for the comparison (--max-rows)."
    return replace(drawn, notes=(*source.notes, note))


def folds_of(
    source: Source, before: Source, test_environment: str | None, seed: int
) -> list[list[str]]:
    """The environments left out together, in turn; `before` any was set aside.

    Raises
    ------
    EnvironmentsError
        Fewer than three environments, or the one to measure in was set aside.
    UnknownNameError
        The one to measure in is not there.
    """
    names = source.names
    if test_environment is not None and test_environment not in names:
        if test_environment in before.names:
            raise EnvironmentsError(
                f"Expected an environment that can be measured in, '{test_environment}' was set "
                "aside: it has too few rows or one class only. Choose another."
            )
        raise unknown_name("environment", test_environment, names)
    if len(names) < 3:
        raise EnvironmentsError(
            f"Expected at least three environments, one to leave out and two to learn from, got "
            f"{len(names)} ({', '.join(names)}). Is '{source.environment_name}' the column that "
            "says where rows come from?"
        )
    if test_environment is not None:
        return [[test_environment]]
    return environment_groups(names, MOST_FOLDS, seed)


def metric_of(source: Source, wanted: str | None) -> Metric:
    """The metric asked for, or the one that suits the target."""
    kind = get_loss(loss_of(source.target)).kind
    if wanted is not None:
        known = [m.name for m in METRICS.values() if m.of_predictions and kind in m.kinds]
        if wanted in known:
            return METRICS[wanted]
        if wanted not in METRICS:
            raise unknown_name("metric", wanted, known)
        raise OptionError(
            f"Expected the metric {' or '.join(known)} for a {source.target.task}, got "
            f"'{wanted}'. Leave it out."
        )
    if kind == "classes" and np.bincount(source.y).min() / len(source.y) < RARE:
        return METRICS["balanced accuracy"]
    return usual_metric(kind)


def measured(
    source: Source,
    folds: Sequence[Sequence[str]],
    methods: Sequence[MethodInfo],
    predicted: Mapping[tuple[int, str], Sequence[Floats]],
    metric: Metric,
    seed: int,
) -> LeftOut:
    """Every method in every environment left out.

    Parameters
    ----------
    predicted : {(fold, method): list of array [n]}
        Predictions for the fold's rows, sorted by environment, after each training. Errors are
        averaged over trainings; an error of one that failed is NaN.
    """
    errors: dict[str, Floats] = {}
    classes: dict[str, npt.NDArray[np.int64]] = {}
    for number, left_out in enumerate(folds):
        rows = source.of(left_out)
        rows = rows.take(np.argsort(rows.environments, kind="stable"))
        guesses = np.stack([np.stack(predicted[number, method.name]) for method in methods])
        assert metric.of_predictions is not None
        wrong = metric.of_predictions(guesses, rows.y)
        wrong[~np.isfinite(guesses)] = np.nan
        wrong = wrong.mean(1).T
        for name in left_out:
            here = rows.environments == name
            errors[name] = wrong[here]
            classes[name] = rows.y[here]
    return compare_errors(
        {name: errors[name] for name in sorted(errors)},
        methods,
        metric,
        classes=classes if metric.by_class else None,
        seed=seed,
    )


def data_findings(source: Source, inputs: Inputs, seed: int) -> tuple[Finding, ...]:
    """What the rows themselves say, of all environments together; `inputs` as learned from them."""
    if source.frame is None:
        return ()
    loss = get_loss(loss_of(source.target))
    rows = labeled_rows(source, inputs, output_scale(source))
    return (
        feature_effects(rows, loss, inputs.names, seed),
        diversity(environment_rows(rows), loss, rng=np.random.default_rng(seed)),
    )
