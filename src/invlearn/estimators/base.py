"""What the classifier and the regressor share: parameters, validation of rows, fitting."""

from __future__ import annotations

import copy
import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Self, cast

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
from torch import nn
from torch.nn.parameter import is_lazy

from invlearn.environments import Environments
from invlearn.errors import EnvironmentsError, OptionError, SingleEnvironmentWarning
from invlearn.estimators.checks import Array, check_parameters, environment_labels
from invlearn.evaluation import outputs
from invlearn.features import width
from invlearn.ground.machine import check_device
from invlearn.learning import EarlyStopping, Fitted, Plan, fit, standard_plan
from invlearn.learning.builders import Builder, Drawn
from invlearn.learning.preparation import get_preparation
from invlearn.learning.scaling import location_and_scale
from invlearn.losses import AnyLoss, Loss
from invlearn.models import MLP
from invlearn.objectives import get_objective
from invlearn.objectives.base import Objective

Network = str | Builder


class InvariantEstimator(BaseEstimator):  # type: ignore[misc]
    """Base of `InvariantClassifier` and `InvariantRegressor`; use one of those."""

    def __init__(
        self,
        objective: str | Objective = "vrex",
        *,
        penalty_weight: float | str | None = None,
        hyper: Mapping[str, Any] | None = None,
        loss: AnyLoss | None = None,
        network: Network = "mlp",
        hidden: Sequence[int] = (32,),
        standardize: bool = True,
        steps: int = 500,
        batch_size: int | str | None = "auto",
        lr: float = 0.01,
        l2: float = 1e-4,
        early_stopping: bool | str = False,
        patience: int = 10,
        validation_fraction: float = 0.2,
        warm_start: bool = False,
        random_state: int | np.random.RandomState | None = None,
        device: str = "cpu",
        verbose: bool = False,
    ) -> None:
        self.objective = objective
        self.penalty_weight = penalty_weight
        self.hyper = hyper
        self.loss = loss
        self.network = network
        self.hidden = hidden
        self.standardize = standardize
        self.steps = steps
        self.batch_size = batch_size
        self.lr = lr
        self.l2 = l2
        self.early_stopping = early_stopping
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.warm_start = warm_start
        self.random_state = random_state
        self.device = device
        self.verbose = verbose

    @abstractmethod
    def _targets(self, y: Any, weights: Array) -> tuple[Array, Loss, int]:
        """Encoded targets, the loss and the number of outputs; sets what is learned of them."""

    def fit(
        self,
        X: Any,
        y: Any,
        *,
        environments: Any = None,
        sample_weight: Any = None,
    ) -> Self:
        """Learn from rows of several environments.

        Parameters
        ----------
        X : array or DataFrame [n, d]
            Finite numbers. With a network of your own, rows may have any shape.
        y : array [n]
        environments : array of n labels, 'infer' or None
            Where each row comes from; of any type, compared as text without blanks around it.
            None takes all rows for one environment and trains with
            ERM, with a warning. 'infer' splits the rows by the mistakes of a quick ERM (EIIL).
        sample_weight : array [n], optional
            Non-negative row weights.

        Returns
        -------
        self

        Raises
        ------
        EnvironmentsError, OptionError, UnknownNameError
            Environments that cannot be learned from; parameters outside their domain.
        ValueError
            X or y that scikit-learn's validation refuses.
        """
        plan = self._plan()
        if isinstance(environments, str) and plan.choose_strength:
            raise OptionError(
                "Expected penalty_weight as a number with inferred environments, got 'auto': there "
                "are two, and none can be left out. Leave it None."
            )
        X, y = validate_data(
            self,
            X,
            y,
            dtype=np.float64,
            allow_nd=not isinstance(self.network, str),
            ensure_min_samples=2,
        )
        labels = environment_labels(environments, len(X))
        weights = _check_sample_weight(sample_weight, X, ensure_non_negative=True)
        kept = weights > 0  # As if the others were not there.
        if not kept.any():
            raise EnvironmentsError("Expected row weights with a positive sum, got only zeros.")
        X, y, weights = X[kept], np.asarray(y)[kept], weights[kept]
        labels = labels if isinstance(labels, str | None) else labels[kept]
        classes = getattr(self, "classes_", None)
        targets, loss, n_outputs = self._targets(y, weights)
        uniform = bool((weights == weights[0]).all())
        rows = Environments.from_arrays(
            torch.as_tensor(self._learn_scale(X, weights), dtype=torch.float32),
            torch.as_tensor(targets),
            np.zeros(len(X), int) if isinstance(labels, str | None) else labels,
            weights=None if uniform else weights,
        )
        if isinstance(labels, str):
            plan = replace(plan, preparation=get_preparation("eiil"))
        elif labels is None and plan.objective.min_environments > 1:
            warnings.warn(
                f"No environments were given: all rows are taken for one, and "
                f"{plan.objective.title} is replaced by ERM, which learns shortcuts. Pass "
                "environments=(a label per row) to fit, or 'infer', or set objective='erm'.",
                SingleEnvironmentWarning,
                stacklevel=2,
            )
            plan = plan.as_erm()
        found = fit(
            plan,
            rows,
            loss,
            n_outputs,
            seed=int(check_random_state(self.random_state).randint(2**31 - 1)),
            start=self._start(width(rows.x), n_outputs, classes),
            progress=bool(self.verbose),
        )
        self._keep(found)
        return self

    def _plan(self) -> Plan:
        """The parameters, checked where nothing later does."""
        check_parameters(self)
        check_device(self.device)
        strength = self.penalty_weight
        plan = standard_plan(
            self.objective,
            self._builder(),
            strength=strength if isinstance(strength, str | None) else float(strength),
            hyper=self.hyper,
            steps=int(self.steps),
            batch_size=self.batch_size,
            lr=self.lr,
            l2=self.l2,
            early_stopping=self._early_stopping(),
            device=self.device,
        )
        if self.warm_start and strength == "auto":
            raise OptionError(
                "Expected penalty_weight as a number with warm_start, got 'auto'. Choose it once, "
                "then set it to penalty_weight_."
            )
        return plan

    def _early_stopping(self) -> EarlyStopping | None:
        if not self.early_stopping:
            return None
        rule = self.early_stopping if isinstance(self.early_stopping, str) else "auto"
        return EarlyStopping(rule, self.patience, self.validation_fraction)

    def _builder(self) -> Drawn:
        """What makes networks with fresh weights."""
        if not isinstance(self.network, str):
            return Drawn(self.network)
        hidden = () if self.network == "linear" else tuple(self.hidden)
        return Drawn(
            lambda n_features, n_outputs, generator: MLP(
                n_features, hidden, n_outputs, generator=generator
            )
        )

    def _start(self, n_features: int, n_outputs: int, classes: Array | None) -> nn.Module | None:
        """The last fit's network to go on from, if asked for and made for the same."""
        if not self.warm_start or not hasattr(self, "network_"):
            return None
        if classes is not None and not np.array_equal(classes, self.classes_):
            raise OptionError(
                f"Expected the classes of the last fit with warm_start, {classes.tolist()}, got "
                f"{self.classes_.tolist()}. Set warm_start=False."
            )
        fresh = self._builder()(n_features, n_outputs, 0).state_dict()
        known = {name: value.shape for name, value in self.network_.state_dict().items()}
        if fresh.keys() != known.keys() or any(
            not is_lazy(value) and value.shape != known[name] for name, value in fresh.items()
        ):
            raise OptionError(
                "Expected rows and classes of the shape of the last fit with warm_start, got a "
                "network of other shapes. Set warm_start=False."
            )
        return copy.deepcopy(self.network_)

    def _learn_scale(self, X: Array, weights: Array) -> Array:
        """Learn location and scale of the columns (of a table), and apply them."""
        if not self.standardize or X.ndim != 2:
            self.location_, self.scale_ = np.zeros(1), np.ones(1)
            return X
        self.location_, self.scale_ = location_and_scale(X, weights)
        return self._scaled(X)

    def _scaled(self, X: Array) -> Array:
        return cast(Array, (X - self.location_) / self.scale_)

    def _keep(self, found: Fitted) -> None:
        self.network_ = found.network
        self.history_ = found.run.history
        self.curves_ = found.run.curves
        self.n_iter_ = found.run.steps
        self.stop_reason_ = found.run.stop_reason
        self.selection_ = found.run.choice
        self.hyper_ = found.objective.numbers
        self.penalty_weight_ = self.hyper_.get(get_objective(self.objective).strength, 0.0)
        self.penalty_scores_ = found.scores
        self.environments_ = found.environments

    def _outputs(self, X: Any) -> Array:
        """Outputs [n, k] of the network, in double precision."""
        check_is_fitted(self)
        X = validate_data(
            self, X, reset=False, dtype=np.float64, allow_nd=not isinstance(self.network, str)
        )
        return outputs(self.network_, torch.as_tensor(self._scaled(X))).numpy()
