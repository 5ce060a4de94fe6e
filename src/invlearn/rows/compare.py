"""Methods compared on a user's rows, each environment left out in turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from invlearn.comparison.runner import Kept, Task, Work, run
from invlearn.comparison.store import Store
from invlearn.diagnostics.findings import Finding
from invlearn.diagnostics.left_out import LeftOut
from invlearn.errors import EnvironmentsError
from invlearn.ground.machine import cores
from invlearn.methods import Method, Network
from invlearn.results import CURVE_COLUMNS
from invlearn.rows.folds import Folds
from invlearn.rows.measure import data_findings, fewer, folds_of, measured, metric_of
from invlearn.rows.request import RowsRequest, check, competing
from invlearn.rows.source import Source, set_aside
from invlearn.selection import get_rule

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class RowsComparison:
    """A comparison's outcome.

    Attributes
    ----------
    source : Source
        The rows that took part.
    folds : tuple of tuple of str
        The environments left out together.
    found : LeftOut
    findings : tuple of Finding
        About the rows themselves.
    settings : {method: {what: text}}
    curves : DataFrame
        What was measured along the trainings of which a rule chose the step: `CURVE_COLUMNS`.
    steps : {(method, environment): step}
        That a rule chose, where there was one training.
    notes : tuple of str
    columns : {column: kind}
    seconds : float
    """

    source: Source
    folds: tuple[tuple[str, ...], ...]
    found: LeftOut
    findings: tuple[Finding, ...]
    settings: dict[str, dict[str, str]]
    curves: pd.DataFrame
    steps: dict[tuple[str, str], int]
    notes: tuple[str, ...]
    columns: dict[str, str]
    seconds: float

    def table(self, request: RowsRequest) -> pd.DataFrame:
        """The results, of `RESULT_COLUMNS`."""
        table = self.found.table(problems(self.folds, request.seeds))
        trained = {name for name, said in self.settings.items() if "step by" in said}
        cells = list(zip(table["method"], table["environment"], strict=True))
        return table.assign(
            step=pd.array([self.steps.get(cell) for cell in cells], dtype="Int64"),
            selection=[str(request.select) if name in trained else "last" for name, _ in cells],
        )


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
        Options outside their domain, misspelled names.
    """
    started = time.monotonic()
    check(request, jobs)
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
    methods = competing(request, source, folds.inputs[0])
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
    shown = [method.info({}) for method in methods.values()]
    return RowsComparison(
        source,
        folds.left_out,
        measured(source, left_out, shown, predicted, metric, request.seed),
        data_findings(source, inputs, request.seed),
        _settings(methods, kept.values(), folds, request),
        *_selected(kept.values(), folds, request),
        (*source.notes, *_said(kept.values(), methods)),
        inputs.columns,
        time.monotonic() - started,
    )


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
        f"{', '.join(parts[number])} without {_some(left_out)}"
        for number, left_out in enumerate(folds.left_out)
    )


def _selected(
    kept: Collection[Kept], folds: Folds, request: RowsRequest
) -> tuple[pd.DataFrame, dict[tuple[str, str], int]]:
    """The curves of the trainings of which a rule chose the step, and the steps."""
    chosen = [one for one in kept if "step" in one.facts["chosen"]]
    if not chosen:
        return pd.DataFrame(columns=list(CURVE_COLUMNS)), {}
    curves, steps = [], {}
    for one in chosen:
        fold, seed = folds.parts(one.task.problem)
        left_out = folds.left_out[fold]
        problem = problems([left_out], [folds.seeds[seed]])[left_out[0]]
        curves.append(one.tables["curves"].assign(problem=problem))
        if len(folds.seeds) == 1:
            for name in left_out:
                steps[one.task.method, name] = int(one.facts["chosen"]["step"])
    return pd.concat(curves, ignore_index=True)[list(CURVE_COLUMNS)], steps


def problems(folds: Sequence[Sequence[str]], seeds: Sequence[int]) -> dict[str, str]:
    """Name the problem in which each environment was left out.

    Examples
    --------
    >>> problems([["north"], ["south", "west"]], [0])["west"]
    'without south and west, seed 0'
    """
    by = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
    return {
        name: f"without {' and '.join(left_out)}, {by}" for left_out in folds for name in left_out
    }


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
