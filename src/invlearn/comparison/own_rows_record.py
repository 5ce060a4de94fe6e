"""The record of a comparison on one's own rows, and the command that goes on from there."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from invlearn.comparison.folds import Folds
from invlearn.comparison.requests import RowsRequest
from invlearn.comparison.runner import Kept
from invlearn.diagnostics.findings import Finding
from invlearn.diagnostics.left_out import LeftOut
from invlearn.methods import Method, Network
from invlearn.reports.record import Answer, OwnRowsRecord
from invlearn.rows.request import FitRequest
from invlearn.selection import get_rule


def make_record(
    request: RowsRequest,
    folds: Folds,
    methods: Mapping[str, Method],
    runs: Collection[Kept],
    found: LeftOut,
    findings: tuple[Finding, ...],
    columns: Mapping[str, str],
    provenance: Mapping[str, str | int | float],
) -> OwnRowsRecord:
    """Describe a comparison for its report."""
    source, settings = folds.source, _settings(methods, runs, folds, request)
    return OwnRowsRecord(
        methods=tuple(method.info(settings[method.name]) for method in methods.values()),
        trials=len(request.numbers),
        seed=request.seed,
        provenance=provenance,
        title=source.title,
        target=source.target_name,
        environment=source.environment_name,
        task=source.target.task,
        classes=tuple(map(str, source.target.classes)),
        metric=found.metric.name,
        environments=source.sizes,
        folds=folds.left_out,
        overall=found.overall(),
        draws=len(found.draws),
        findings=findings,
        columns=columns,
        notes=(*source.notes, *_said(runs, methods)),
    )


def next_command(
    request: RowsRequest, record: OwnRowsRecord, answer: Answer, methods: Mapping[str, Method]
) -> str:
    """The command that fits what was measured, of the recommended kind, to all of the rows."""
    if not request.command():
        return ""
    # The task as it was recognized; images have none to name.
    task = record.task if request.target else None
    words = ["invlearn", "fit", str(request.rows), *replace(request, task=task).columns()]
    if request.steps != FitRequest.steps:
        words += ["--steps", str(request.steps)]
    if request.select is not None:
        words += ["--early-stopping", request.select]
    # Models of the pooled rows are scikit-learn's; ERM is the nearest here.
    objective, method = "erm-pooled", methods[answer.recommended]
    if isinstance(method, Network):
        objective = method.like or method.name
        if (strength := method.objective.strength) in method.hyper:
            words += ["--penalty-weight", f"{method.hyper[strength]:g}"]
    words += ["--objective", objective]
    return shlex.join([*words, "--output", "model"])


def _settings(
    methods: Mapping[str, Method],
    kept: Collection[Kept],
    folds: Folds,
    request: RowsRequest,
) -> dict[str, dict[str, str]]:
    out: dict[str, dict[str, str]] = {}
    for method in methods.values():
        if not isinstance(method, Network):
            out[method.name] = dict(method.settings)
            continue
        out[method.name] = {
            "hidden layers": ", ".join(map(str, request.hidden)) or "none",
            "steps": str(request.steps),
        }
        own = [one for one in kept if one.task.method == method.name]
        if strength := method.objective.strength:

            def weight(one: Kept, method: Network = method, strength: str = strength) -> str:
                left_out = folds.left_out[folds.parts(one.task.problem)[0]]
                default = len(folds.source.names) - len(left_out) < 3
                value = one.facts["chosen"][strength]
                if not method.planned.choose_strength:
                    return f"{value:g}"
                return f"{value:g}{' (default)' if default else ''}" if value else "0 (ERM)"

            out[method.name][strength.replace("_", " ")] = _by_fold(own, folds, weight)
        if request.select is not None:
            out[method.name]["step by"] = get_rule(request.select).title
            out[method.name]["step"] = _by_fold(
                own, folds, lambda one: str(one.facts["chosen"].get("step", "none"))
            )
    return out


def _by_fold(kept: Collection[Kept], folds: Folds, text: Callable[[Kept], str]) -> str:
    """What was chosen, for each training on each fold."""
    parts: dict[int, list[str]] = {}
    for one in kept:
        parts.setdefault(folds.parts(one.task.problem)[0], []).append(text(one))
    return "; ".join(
        f"{', '.join(parts[number])} without {some(left_out)}"
        for number, left_out in enumerate(folds.left_out)
    )


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


def some(names: Sequence[str]) -> str:
    """Name environments that were left out together, at most one of them."""
    if len(names) == 1:
        return names[0]
    return f"{names[0]} and {len(names) - 1} {'other' if len(names) == 2 else 'others'}"
