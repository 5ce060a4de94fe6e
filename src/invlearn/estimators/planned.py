"""What the estimators' parameters ask for: a plan, what builds networks, where one starts."""

from __future__ import annotations

import copy
import warnings
from numbers import Real
from typing import Any

import numpy as np
from torch import nn
from torch.nn.parameter import is_lazy

from invlearn.errors import IgnoredWarning, OptionError
from invlearn.estimators.checks import Array, check_parameters
from invlearn.ground.machine import check_device
from invlearn.learning import EarlyStopping, Plan, standard_plan
from invlearn.learning.builders import Drawn
from invlearn.models import MLP
from invlearn.objectives import get_objective


def planned(estimator: Any) -> Plan:
    """The parameters, checked where nothing later does."""
    check_parameters(estimator)
    check_device(estimator.device)
    strength, objective = estimator.penalty_weight, get_objective(estimator.objective)
    if isinstance(strength, Real) and not objective.strength:
        warnings.warn(
            f"penalty_weight is ignored for {objective.title}, which has no penalty. Leave it "
            "None.",
            IgnoredWarning,
            stacklevel=4,
        )
        strength = None
    plan = standard_plan(
        estimator.objective,
        builder(estimator),
        strength=strength if isinstance(strength, str | None) else float(strength),
        hyper=estimator.hyper,
        steps=int(estimator.steps),
        batch_size=estimator.batch_size,
        lr=estimator.lr,
        l2=estimator.l2,
        early_stopping=_early_stopping(estimator),
        device=estimator.device,
    )
    if estimator.warm_start and strength == "auto":
        raise OptionError(
            "Expected penalty_weight as a number with warm_start, got 'auto'. Choose it once, "
            "then set it to penalty_weight_."
        )
    return plan


def _early_stopping(estimator: Any) -> EarlyStopping | None:
    if not estimator.early_stopping:
        return None
    rule = estimator.early_stopping if isinstance(estimator.early_stopping, str) else "auto"
    return EarlyStopping(rule, estimator.patience, estimator.validation_fraction)


def builder(estimator: Any) -> Drawn:
    """What makes networks with fresh weights."""
    if not isinstance(estimator.network, str):
        return Drawn(estimator.network)
    hidden = () if estimator.network == "linear" else tuple(estimator.hidden)
    return Drawn(
        lambda n_features, n_outputs, generator: MLP(
            n_features, hidden, n_outputs, generator=generator
        )
    )


def start_of(
    estimator: Any, n_features: int, n_outputs: int, classes: Array | None
) -> nn.Module | None:
    """The last fit's network to go on from, if asked for and made for the same."""
    if not estimator.warm_start or not hasattr(estimator, "network_"):
        return None
    if classes is not None and not np.array_equal(classes, estimator.classes_):
        raise OptionError(
            f"Expected the classes of the last fit with warm_start, {classes.tolist()}, got "
            f"{estimator.classes_.tolist()}. Set warm_start=False."
        )
    fresh = builder(estimator)(n_features, n_outputs, 0).state_dict()
    known = {name: value.shape for name, value in estimator.network_.state_dict().items()}
    if fresh.keys() != known.keys() or any(
        not is_lazy(value) and value.shape != known[name] for name, value in fresh.items()
    ):
        raise OptionError(
            "Expected rows and classes of the shape of the last fit with warm_start, got a "
            "network of other shapes. Set warm_start=False."
        )
    network: nn.Module = copy.deepcopy(estimator.network_)
    return network
