"""Models fitted to a user's rows, in memory or from a Parquet file larger than it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from invlearn.errors import EnvironmentsError, OptionError
from invlearn.estimators import InvariantClassifier, InvariantRegressor
from invlearn.estimators.base import InvariantEstimator
from invlearn.estimators.fitting import Fitted, Recipe, fit_network
from invlearn.estimators.strength import choose_strength
from invlearn.ground.machine import check_device
from invlearn.losses import get_loss
from invlearn.model_record import ModelRecord, OutputScale
from invlearn.networks import NetworkSpec
from invlearn.objectives import get_objective
from invlearn.rows.inputs import ImageInputs, Inputs, Make, TableInputs
from invlearn.rows.model import RowsModel
from invlearn.rows.source import Source, loss_of, set_aside
from invlearn.rows.streamed import stream_parquet
from invlearn.tables import Target


@dataclass(frozen=True)
class FitRequest:
    """How a model is fitted to a user's rows; see `InvariantClassifier` for the parameters.

    The defaults are those of comparisons, so that what is fitted is what was measured.
    `penalty_weight` 'auto' falls back to the objective's own with fewer than three environments.
    """

    objective: str = "vrex"
    penalty_weight: float | str | None = "auto"
    hidden: tuple[int, ...] = (16,)
    steps: int = 200
    early_stopping: bool | str = False
    seed: int = 0
    device: str = "cpu"


def fit_rows(
    source: Source,
    request: FitRequest,
    *,
    provenance: Mapping[str, str],
    progress: bool = False,
) -> tuple[RowsModel, list[str]]:
    """Fit a model to all rows of all environments but those of few rows or a single class.

    Parameters
    ----------
    source : Source
    request : FitRequest
    provenance : mapping of str
        Goes into the model.
    progress : bool
        Show a progress bar on a terminal.

    Returns
    -------
    (RowsModel, list of str)
        And what there is to know: warnings of the training, the strength chosen.

    Raises
    ------
    EnvironmentsError, OptionError, UnknownNameError
    """
    source = set_aside(source)
    request, notes = _affordable(request, source.names)
    inputs = source.learn_inputs()
    spec = _network(inputs, request.hidden, source.target)
    classifies = source.target.task == "classification"
    kind: type[InvariantEstimator] = InvariantClassifier if classifies else InvariantRegressor
    model = kind(
        request.objective,
        penalty_weight=request.penalty_weight,
        network=Make(spec),
        standardize=False,
        steps=request.steps,
        early_stopping=request.early_stopping,
        random_state=request.seed,
        device=request.device,
        verbose=progress,
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(source.matrix(inputs), source.y, environments=source.environments)
    found = Fitted(
        model.network_, model.history_, model.curves_, model.n_iter_, model.stop_reason_,
        model.selection_, model.hyper_,
    )  # fmt: skip
    output = OutputScale(center=0.0, scale=1.0)
    if isinstance(model, InvariantRegressor):
        output = OutputScale(center=model.target_location_, scale=model.target_scale_)
    notes = [*source.notes, *notes, *dict.fromkeys(str(warning.message) for warning in caught)]
    notes += _outcome(request, found)
    names = (source.target_name, source.environment_name)
    return _model(
        found, request, names, inputs, source.target, spec, output, source.sizes, provenance
    ), notes


def fit_streamed(
    path: str | Path,
    request: FitRequest,
    *,
    target: str,
    environment: str,
    task: str | None = None,
    drop: Sequence[str] = (),
    provenance: Mapping[str, str],
    progress: bool = False,
) -> tuple[RowsModel, list[str]]:
    """The same from a Parquet file that need not fit in memory.

    Columns are learnt from a sample, and strengths chosen on the held-out rows, at most 20,000 of
    each environment; `early_stopping` reads these too. Other parameters are `fit_rows`'s and
    `stream_parquet`'s.
    """
    _affordable(request, ())  # Before the work of encoding.
    with stream_parquet(
        path, target=target, environment=environment, task=task, drop=drop, seed=request.seed
    ) as rows:
        request, notes = _affordable(request, rows.train.names)
        spec = _network(rows.inputs, request.hidden, rows.target)
        make = Make(spec)
        loss = get_loss(loss_of(rows.target))
        auto = request.penalty_weight == "auto"
        recipe = Recipe(
            objective=request.objective,
            strength=None
            if auto or request.penalty_weight is None
            else float(request.penalty_weight),
            steps=request.steps,
            early_stopping=request.early_stopping,
            device=request.device,
        )

        def network(generator: torch.Generator) -> torch.nn.Module:
            return make(spec.n_features, spec.n_outputs, generator)

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            if auto:
                recipe = choose_strength(
                    recipe, network, rows.validation, loss, seed=request.seed
                ).applied_to(recipe)
            found = fit_network(
                recipe,
                network,
                rows.train,
                loss,
                seed=request.seed,
                validation=rows.validation if request.early_stopping else None,
                progress=progress,
            )
        said = dict.fromkeys(str(warning.message) for warning in caught)
        held = f"{rows.validation.n_rows:,} rows were held out, not trained on."
        notes = [*rows.notes, held, *notes, *said, *_outcome(request, found)]
        output = OutputScale(center=rows.target_location, scale=rows.target_scale)
        return _model(
            found, request, (target, environment), rows.inputs, rows.target, spec, output,
            dict(zip(rows.train.names, rows.train.sizes, strict=True)), provenance,
        ), notes  # fmt: skip


def _affordable(request: FitRequest, names: Sequence[str]) -> tuple[FitRequest, list[str]]:
    """The request with a penalty weight that these environments can give, and what that means."""
    objective = get_objective(request.objective)
    check_device(request.device)
    if request.steps < 1:
        raise OptionError(f"Expected steps of 1 or more, got {request.steps}.")
    if request.penalty_weight != "auto":
        if request.penalty_weight is not None and not objective.strength:
            raise OptionError(
                f"Expected no penalty weight for {objective.title}, which has no penalty, got "
                f"{request.penalty_weight}. Leave it out."
            )
        return request, []
    if not objective.strength:
        return replace(request, penalty_weight=None), []
    if len(names) < 3:
        note = (
            f"With {len(names)} environments the penalty weight cannot be chosen by leaving one "
            "out; the default was taken."
        )
        return replace(request, penalty_weight=None), [note]
    return request, []


def _network(inputs: Inputs, hidden: tuple[int, ...], target: Target) -> NetworkSpec:
    return inputs.network(hidden, len(target.classes) if len(target.classes) > 2 else 1)


def _outcome(request: FitRequest, found: Fitted) -> list[str]:
    """The strength that was used; EnvironmentsError for a training that diverged at once.

    A training that was interrupted leaves no model.
    """
    if found.reason == "interrupted":
        raise KeyboardInterrupt
    if found.history.empty or not math.isfinite(float(found.history["total"].iloc[-1])):
        raise EnvironmentsError(
            "The training left the finite numbers. Lower --penalty-weight, or look for columns "
            "with extreme values."
        )
    strength = get_objective(request.objective).strength
    if not strength:
        return []
    chosen = " (chosen by leaving environments out)" if request.penalty_weight == "auto" else ""
    words = f"{found.hyper[strength]:g}" if strength in found.hyper else "0, that is ERM"
    return [f"{strength.replace('_', ' ').capitalize()}: {words}{chosen}."]


def _model(
    found: Fitted,
    request: FitRequest,
    names: tuple[str, str],
    inputs: Inputs,
    target: Target,
    spec: NetworkSpec,
    output: OutputScale,
    sizes: Mapping[str, int],
    provenance: Mapping[str, str],
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
            "steps": int(found.steps),
            "seed": request.seed,
            "stop_reason": found.reason,
            "hyper": {name: float(value) for name, value in found.hyper.items()},
        },
        environments=dict(sizes),
        provenance=dict(provenance),
    )
    return RowsModel(found.network.cpu(), inputs, target, output, record)
