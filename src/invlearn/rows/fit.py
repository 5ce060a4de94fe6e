"""Models fitted to a user's rows, in memory or from a Parquet file larger than it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from invlearn.environments import Environments
from invlearn.errors import EnvironmentsError
from invlearn.ground.machine import check_device
from invlearn.learning import EarlyStopping, Fitted, MakeNetwork, Plan, fit, standard_plan
from invlearn.learning.builders import Drawn
from invlearn.learning.plan import Layers
from invlearn.losses import Loss, get_loss
from invlearn.model_record import ModelRecord, OutputScale
from invlearn.networks import MLPSpec
from invlearn.objectives import get_objective
from invlearn.rows.inputs import ImageInputs, Inputs, Make, TableInputs
from invlearn.rows.model import RowsModel, labeled_rows, output_scale
from invlearn.rows.request import FitRequest
from invlearn.rows.source import Source, loss_of
from invlearn.rows.streamed import stream_parquet
from invlearn.rows.usable import set_aside
from invlearn.tables import Target


def estimator_seed(seed: int) -> int:
    """The seed that an estimator with this `random_state` trains with."""
    return int(np.random.RandomState(seed).randint(2**31 - 1))


def fit_rows(
    source: Source,
    request: FitRequest,
    *,
    provenance: Mapping[str, str] | None = None,
    progress: bool = False,
) -> tuple[RowsModel, list[str]]:
    """Fit a model to all rows of all environments but those of few rows or a single class.

    Parameters
    ----------
    source : Source
    request : FitRequest
    provenance : mapping of str, optional
        Where it comes from, to be kept with the model.
    progress : bool
        Show how far training is: a bar on a terminal, elsewhere a line now and then.

    Returns
    -------
    (RowsModel, list of str)
        And what there is to know: warnings of the training, the strength chosen.

    Raises
    ------
    EnvironmentsError, OptionError, UnknownNameError
    """
    source = set_aside(source)
    inputs, target = source.learn_inputs(), source.target
    spec = _network(inputs, request.hidden, target)
    plan, notes = _plan(request, Drawn(Make(spec)), source.names)
    output = output_scale(source)
    found, said = _learn(
        plan,
        labeled_rows(source, inputs, output),
        get_loss(loss_of(target)),
        spec.n_outputs,
        seed=estimator_seed(request.seed),
        progress=progress,
    )
    names = (source.target_name, source.environment_name)
    model = _model(found, request, names, inputs, target, spec, output, provenance)
    return model, [*source.notes, *notes, *said]


def fit_streamed(
    path: str | Path,
    request: FitRequest,
    *,
    target: str,
    environment: str,
    task: str | None = None,
    drop: Sequence[str] = (),
    provenance: Mapping[str, str] | None = None,
    progress: bool = False,
) -> tuple[RowsModel, list[str]]:
    """The same from a Parquet file that need not fit in memory.

    Columns are learned from a sample, and strengths chosen on the held-out rows, at most 20,000 of
    each environment; `early_stopping` reads these too. Other parameters are `fit_rows`'s and
    `stream_parquet`'s.
    """
    _plan(request, Layers(request.hidden), ())  # Before the work of encoding.
    with stream_parquet(
        path, target=target, environment=environment, task=task, drop=drop, seed=request.seed
    ) as rows:
        spec = _network(rows.inputs, request.hidden, rows.target)
        plan, notes = _plan(request, Drawn(Make(spec)), rows.train.names)
        found, said = _learn(
            plan,
            rows.train,
            get_loss(loss_of(rows.target)),
            spec.n_outputs,
            seed=request.seed,
            validation=rows.validation,
            progress=progress,
        )
        held = f"{rows.validation.n_rows:,} rows were held out, not trained on."
        output = OutputScale(center=rows.target_location, scale=rows.target_scale)
        names = (target, environment)
        model = _model(found, request, names, rows.inputs, rows.target, spec, output, provenance)
        return model, [*rows.notes, held, *notes, *said]


def _network(inputs: Inputs, hidden: tuple[int, ...], target: Target) -> MLPSpec:
    return inputs.network(hidden, len(target.classes) if len(target.classes) > 2 else 1)


def _learn(
    plan: Plan, rows: Environments, loss: Loss, n_outputs: int, **options: Any
) -> tuple[Fitted, list[str]]:
    """The fitted network, what the training warned of, and the strength that was used.

    EnvironmentsError for a training that diverged at once.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = fit(plan, rows, loss, n_outputs, **options)
    history, strength = found.run.history, plan.objective.strength
    if history.empty or not math.isfinite(float(history["total"].iloc[-1])):
        raise EnvironmentsError(
            "The training left the finite numbers. Lower --penalty-weight, or look for columns "
            "with extreme values."
        )
    said = list(dict.fromkeys(str(warning.message) for warning in caught))
    if strength:
        numbers = found.objective.numbers
        words = f"{numbers[strength]:g}" if strength in numbers else "0, that is ERM"
        chosen = " (chosen by leaving environments out)" if plan.choose_strength else ""
        said.append(f"{strength.replace('_', ' ').capitalize()}: {words}{chosen}.")
    return found, said


def _model(
    found: Fitted,
    request: FitRequest,
    names: tuple[str, str],
    inputs: Inputs,
    target: Target,
    spec: MLPSpec,
    output: OutputScale,
    provenance: Mapping[str, str] | None,
) -> RowsModel:
    """The fitted network with all that is kept beside it; `names` of target and environment."""
    record = ModelRecord(
        network=spec,
        encoder=inputs.encoder.to_json() if isinstance(inputs, TableInputs) else None,
        images=inputs.image if isinstance(inputs, ImageInputs) else None,
        target=target.to_json(),
        output=output,
        objective=request.objective,
        loss=loss_of(target),
        training={
            "target_column": names[0],
            "environment_column": names[1],
            "steps": found.run.steps,
            "seed": request.seed,
            "stop_reason": found.run.stop_reason,
            "hyper": {name: float(value) for name, value in found.objective.numbers.items()},
        },
        environments=found.environments,
        provenance=dict(provenance or {}),
    )
    return RowsModel(found.network.cpu(), inputs, target, output, record)


def _plan(
    request: FitRequest, network: MakeNetwork, environments: Sequence[str]
) -> tuple[Plan, list[str]]:
    """What is asked for, for rows of these environments, and what to say about that."""
    check_device(request.device)
    strength, notes, objective = request.penalty_weight, [], get_objective(request.objective)
    if strength == "auto" and objective.strength and len(environments) < 3:
        strength = None
        notes = [
            f"With {len(environments)} environments the penalty weight cannot be chosen by "
            "leaving one out; the default was taken."
        ]
    rule = request.early_stopping if isinstance(request.early_stopping, str) else "auto"
    plan = standard_plan(
        request.objective,
        network,
        strength=strength,
        steps=request.steps,
        early_stopping=EarlyStopping(rule) if request.early_stopping else None,
        device=request.device,
    )
    return plan, notes
