"""What the classifier and the regressor share: parameters, validation of rows, fitting."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils import Tags, check_random_state, estimator_html_repr
from sklearn.utils.validation import _check_sample_weight, check_is_fitted

from invlearn.diagnostics import Finding
from invlearn.environments import Environments
from invlearn.errors import (
    InterruptedWarning,
    OptionError,
    SingleEnvironmentWarning,
)
from invlearn.estimators.checks import (
    Array,
    environment_labels,
    no_environments,
    weighted,
)
from invlearn.estimators.choices import choices
from invlearn.estimators.diagnosed import diagnose_estimator
from invlearn.estimators.inputs import checked, in_single, row_blocks, standardized
from invlearn.estimators.planned import planned, start_of
from invlearn.estimators.saved import load_estimator, save_estimator
from invlearn.evaluation import outputs
from invlearn.features import width
from invlearn.learning import Fitted, fit
from invlearn.learning.builders import Builder
from invlearn.learning.preparation import get_preparation
from invlearn.losses import AnyLoss, Loss
from invlearn.objectives import get_objective
from invlearn.objectives.base import Objective

Network = str | Builder


class InvariantEstimator(BaseEstimator):  # type: ignore[misc]
    """Base of `InvariantClassifier` and `InvariantRegressor`; use one of those."""

    # With metadata routing switched on they are asked for; nobody has to request them.
    __metadata_request__fit: ClassVar = {"environments": True}

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
        keep_interrupted: bool = False,
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
        self.keep_interrupted = keep_interrupted
        self.random_state = random_state
        self.device = device
        self.verbose = verbose

    @property
    @abstractmethod
    def _loss(self) -> Loss:
        """What it is trained with."""

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
        X : array, DataFrame or sparse matrix [n, d]
            Finite numbers. With a network of your own, rows may have any shape. A sparse matrix is
            made dense, 1 GiB at most.
        y : array [n]
        environments : array of n labels, 'infer' or None
            Where each row comes from; of any type, compared as text without blanks around it.
            None takes all rows for one environment and trains with
            ERM, with a warning. 'infer' splits the rows by the mistakes of a quick ERM (EIIL).
        sample_weight : array [n], optional
            Non-negative row weights. Rows of weight 0 are taken as not there; an environment of
            them only is warned of.

        Returns
        -------
        self

        Raises
        ------
        EnvironmentsError, OptionError, UnknownNameError
            Environments that cannot be learned from; parameters outside their domain.
        ValueError
            X or y that scikit-learn's validation refuses.
        KeyboardInterrupt
            As the training was interrupted, unless it is to be kept. As after any error, the
            estimator is as it was before.

        Warns
        -----
        SingleEnvironmentWarning, IgnoredWarning, InterruptedWarning
            No environments; a penalty weight for an objective without penalty, an environment of
            weight 0; a training that was interrupted and is kept.
        """
        before = dict(vars(self))
        try:
            self._fit(X, y, environments, sample_weight)
        except BaseException:  # Half of a new fit over an old one would predict nonsense.
            self.__dict__.clear()
            self.__dict__.update(before)
            raise
        return self

    def _fit(self, X: Any, y: Any, environments: Any, sample_weight: Any) -> None:
        plan = planned(self)
        if isinstance(environments, str) and plan.choose_strength:
            raise OptionError(
                "Expected penalty_weight as a number with inferred environments, got 'auto': there "
                "are two, and none can be left out. Leave it None."
            )
        X, y = checked(self, X, y)
        labels = environment_labels(environments, X.shape[0])
        weights = _check_sample_weight(sample_weight, X, ensure_non_negative=True)
        X, y, labels, weights = weighted(X, np.asarray(y), labels, weights)
        classes = getattr(self, "classes_", None)
        targets, loss, n_outputs = self._targets(y, weights)
        uniform = bool((weights == weights[0]).all())
        rows = Environments.from_arrays(
            torch.as_tensor(self._learn_scale(X, weights)),
            torch.as_tensor(targets),
            np.zeros(len(y), int) if isinstance(labels, str | None) else labels,
            weights=None if uniform else weights,
        )
        if isinstance(labels, str):
            plan = replace(plan, preparation=get_preparation("eiil"))
        elif labels is None and plan.objective.min_environments > 1:
            warnings.warn(
                no_environments(plan.objective.title, type(self).__name__),
                SingleEnvironmentWarning,
                stacklevel=3,
            )
            plan = plan.as_erm()
        found = fit(
            plan,
            rows,
            loss,
            n_outputs,
            seed=int(check_random_state(self.random_state).randint(2**31 - 1)),
            start=start_of(self, width(rows.x), n_outputs, classes),
            progress=bool(self.verbose),
            keep_interrupted=self.keep_interrupted,
        )
        if found.run.stop_reason == "interrupted":
            warnings.warn(
                f"The training was interrupted after {found.run.steps} of {self.steps} steps; what "
                "it had learned by then is kept (keep_interrupted=True). Fit again for the whole.",
                InterruptedWarning,
                stacklevel=3,
            )
        self._keep(found)
        self._row_width = width(rows.x)
        self.choices_ = choices(self, plan, found)

    def diagnose(self, X: Any, y: Any, environments: Any, **options: Any) -> list[Finding]:
        """What it does in each environment of labeled rows, and why; see `invlearn.diagnose`."""
        return diagnose_estimator(self, X, y, environments, **options)

    def save(self, folder: str | Path) -> None:
        """Write the fitted estimator into a new folder of numbers and JSON, without a pickle.

        Kept are the network's weights, what rows have to be and how they are scaled, the classes,
        the parameters (a RandomState becomes None) and `choices_`; not `history_`, `curves_`,
        `selection_` and `penalty_scores_`. A network of your own is kept as weights: `load` takes
        its code again, and a loss that has no name.

        Parameters
        ----------
        folder : path
            New or empty; its parents are made.

        Raises
        ------
        OutputError
            A folder that holds something or cannot be written.
        OptionError
            What cannot be kept without code: an objective of an unregistered class, classes that
            are no numbers, booleans or texts, weights that are not finite.
        """
        check_is_fitted(self)
        save_estimator(self, folder)

    @classmethod
    def load(
        cls, folder: str | Path, *, network: Builder | None = None, loss: AnyLoss | None = None
    ) -> Self:
        """Read a fitted estimator that `save` wrote; nothing in the folder is run.

        Parameters
        ----------
        folder : path
            May come from a stranger: it is read as data, within bounds, and checked.
        network : function, Module class or Module, optional
        loss : callable, optional
            What the estimator was fitted with, if that was no name: no folder holds code.

        Raises
        ------
        DataFileError
            A folder that is no whole, unaltered model of this estimator.
        OptionError
            A network or loss that is missing or not wanted, or another network than the saved one.
        """
        return load_estimator(cls, folder, network, loss)

    def _html_repr(self) -> str:
        html: str = estimator_html_repr(self)
        if not hasattr(self, "choices_"):
            return html
        return f"{html}<p>What was chosen:</p>{self.choices_.to_html(header=False, border=0)}"

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "network_")

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def _learn_scale(self, X: Any, weights: Array) -> Array:
        """Learn location and scale of the columns (of a table), and apply them, in float32."""
        if not self.standardize or X.ndim != 2:
            self.location_, self.scale_ = np.zeros(1), np.ones(1)
            return in_single(X)
        rows, self.location_, self.scale_ = standardized(X, weights)
        return rows

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
        parts = row_blocks(checked(self, X, reset=False))
        scaled = ((part - self.location_) / self.scale_ for part in parts)
        return np.concatenate([outputs(self.network_, torch.as_tensor(x)).numpy() for x in scaled])
