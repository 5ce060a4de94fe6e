"""The side of one's own rows in a comparison: folds, the methods planned, what was measured."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from invlearn.comparison.contest import Comparison, Contest, Progress
from invlearn.comparison.folds import Folds
from invlearn.comparison.measure import data_findings, fewer, folds_of, measured, metric_of
from invlearn.comparison.own_rows_record import make_record, next_command, some
from invlearn.comparison.requests import RowsRequest
from invlearn.comparison.runner import Kept, Task
from invlearn.errors import EnvironmentsError, OptionError
from invlearn.learning import EarlyStopping, standard_plan
from invlearn.learning.builders import Drawn
from invlearn.methods import Method, Network, Usual, get_method, trial_seed
from invlearn.metrics import Metric
from invlearn.reports.own_rows import write_own_rows
from invlearn.reports.own_rows_answer import overview, own_rows_answer
from invlearn.reports.record import OwnRowsRecord
from invlearn.results import CURVE_COLUMNS
from invlearn.rows.inputs import Inputs, Make
from invlearn.rows.source import Source, read_rows
from invlearn.rows.usable import set_aside
from invlearn.training import Stopping

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class RowsContest(Contest[OwnRowsRecord]):
    """One's own rows, some environments left out at a time.

    Attributes
    ----------
    request : RowsRequest
    folds : Folds
    inputs : Inputs
        How the rows become numbers, learned from all of them.
    metric : Metric
    """

    request: RowsRequest
    folds: Folds
    inputs: Inputs
    metric: Metric

    def measured(
        self,
        runs: Sequence[Kept],
        provenance: Mapping[str, str | int | float],
        processes: int,
        progress: Progress,
    ) -> Comparison[OwnRowsRecord]:
        """Every method in every environment left out, and what the rows themselves say."""
        request, folds, source = self.request, self.folds, self.folds.source
        predicted: dict[tuple[int, str], list[Floats]] = {}
        for one in runs:
            place = folds.parts(one.task.problem)[0], one.task.method
            values = one.tables["predicted"]["predicted"].to_numpy(float)
            predicted.setdefault(place, []).append(values)
        infos = [method.info({}) for method in self.methods.values()]
        found = measured(source, folds.left_out, infos, predicted, self.metric, request.seed)
        curves, steps = _selected(runs, folds)
        findings = data_findings(source, self.inputs, request.seed)
        record = make_record(
            request, folds, self.methods, runs, found, findings, self.inputs.columns, provenance
        )
        answer = own_rows_answer(record)
        record = replace(record, next_command=next_command(request, record, answer, self.methods))
        table = found.table(problems(folds.left_out, folds.seeds))
        cells = list(zip(table["method"], table["environment"], strict=True))
        table = table.assign(
            step=pd.array([steps.get(cell) for cell in cells], dtype="Int64"),
            selection=[
                str(request.select) if "step by" in record.method(name).settings else "last"
                for name, _ in cells
            ],
        )
        return Comparison(table, curves, record, answer, overview(record))

    def report(self, made: Comparison[OwnRowsRecord], folder: Path) -> None:
        """Write the page and its figures."""
        write_own_rows(made.record, made.results, folder)


def prepare_rows(request: RowsRequest) -> RowsContest:
    """Read the rows, and plan what is asked for.

    Nothing is chosen on the environment left out: columns are encoded and penalty strengths
    chosen on the others alone, by leaving each of those out in turn.

    Raises
    ------
    EnvironmentsError
        Fewer than three environments that can be measured in.
    DataFileError, OptionError, UnknownNameError
        Rows that cannot be read, options outside their domain, misspelled names.
    """
    _check(request)
    read = read_rows(
        request.rows,
        target=request.target,
        environment=request.environment,
        task=request.task,
        drop=request.drop,
        features=request.features,
        most_rows=request.max_rows,
        seed=request.seed,
    )
    drawn = fewer(read, request.max_rows, request.seed)
    source = set_aside(drawn)
    left_out = folds_of(source, drawn, request.test_environment, request.seed)
    metric = metric_of(source, request.metric)
    for names in left_out:
        rest = ~np.isin(source.environments, list(names))
        if source.target.task == "classification" and len(np.unique(source.y[rest])) < 2:
            raise EnvironmentsError(
                f"Expected two classes without {some(names)}, got one. Merge environments, or "
                "leave out others with --test-environment."
            )
    # The first is `seed` itself, with which a model is fitted too.
    seeds = [trial_seed(request.seed, n) if n else request.seed for n in request.numbers]
    folds, inputs = Folds.learn(source, left_out, seeds), source.learn_inputs()
    methods = _competing(request, source, folds.inputs[0])
    # Fold by fold, so that each is encoded once; in it the longest first, so that no core waits
    # for one of them at the end.
    order = sorted(methods, key=lambda name: name != "meta-irm")
    # The rows' checksum is of features too.
    names = [f.name for f in fields(request) if f.name not in ("rows", "features")]
    asked = {name: getattr(request, name) for name in names}
    return RowsContest(
        folds,
        methods,
        tuple(Task(name, key) for key in folds.keys for name in order),
        {"rows": folds.checksum, "request": asked},
        request,
        folds,
        inputs,
        metric,
    )


def _check(request: RowsRequest) -> None:
    """Refuse what can be seen to be wrong before any work."""
    if request.steps < 1 or request.max_rows < 100:
        raise OptionError(
            f"Expected steps of 1 or more and max_rows of 100 or more, got {request.steps} and "
            f"{request.max_rows}."
        )
    if not 0 <= request.seed < 2**32:
        raise OptionError(f"Expected a seed of 0 to 2**32 - 1, got {request.seed}.")
    if request.select is not None:
        Stopping(request.select, reference={})
    for name in request.methods:
        get_method(name)  # Before the work of encoding.


def _competing(request: RowsRequest, source: Source, inputs: Inputs) -> dict[str, Method]:
    """What one would use anyway, then networks trained with each objective.

    Boosting is left out for images, whose pixels are no columns.
    """
    classifies = source.target.task == "classification"
    linear = "Logistic regression" if classifies else "Ridge regression"
    usual = ["linear"] if source.frame is None else ["linear", "boosting"]
    methods = {name: get_method(name) for name in (*usual, *request.methods)}
    methods["linear"] = replace(methods["linear"], title=linear)
    if all(method.kind == "usual" for method in methods.values()):
        raise OptionError(
            "Expected at least one objective besides ERM to compare with it, got "
            f"{', '.join(request.methods) or 'none'}. For instance vrex."
        )
    classes = len(source.target.classes)
    network = Drawn(Make(inputs.network(request.hidden, classes if classes > 2 else 1)))
    for name, method in methods.items():
        if method.kind == "reference":
            raise OptionError(
                f"Expected methods for rows of your own, got '{name}', which needs features "
                "without the shortcut. Leave it out of --objectives."
            )
        if isinstance(method, Usual):
            method.model(classifies, request.seed)  # Refused before any work.
        if isinstance(method, Network):
            given = method.objective.strength in method.hyper
            plan = standard_plan(
                method.objective,
                network,
                strength=None if given else "auto",
                hyper=method.hyper,
                steps=request.steps,
                early_stopping=None if request.select is None else EarlyStopping(request.select),
                device=request.device,
            )
            methods[name] = replace(method, plan=plan, keep_outputs=False)
    return methods


def _selected(
    kept: Collection[Kept], folds: Folds
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
