"""A regressor for rows from several environments, in scikit-learn's conventions."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from sklearn.base import RegressorMixin

from invlearn.errors import OptionError
from invlearn.estimators.base import InvariantEstimator
from invlearn.estimators.checks import Array
from invlearn.learning.scaling import location_and_scale
from invlearn.losses import Loss, Squared, get_loss


class InvariantRegressor(RegressorMixin, InvariantEstimator):  # type: ignore[misc]
    """A regressor that looks for what predicts in every environment at once.

    Trained on targets brought to mean 0 and standard deviation 1, so that penalty weights mean the
    same whatever the targets' unit.

    Parameters
    ----------
    loss : str, Loss or callable, optional
        Default 'squared'. ``nn.HuberLoss(delta=1.0)``, or a function ``loss(outputs, targets)`` of
        outputs [n, 1] and targets [n] that gives every row's loss [n]; all in standard deviations
        of the targets.
    objective, penalty_weight, hyper, network, hidden, standardize, steps, batch_size, lr, l2,
    early_stopping, patience, validation_fraction, warm_start, keep_interrupted, random_state,
    device, verbose
        See `InvariantClassifier`.

    Attributes
    ----------
    target_location_, target_scale_ : float
        The targets' mean and standard deviation.
    n_features_in_, feature_names_in_, environments_, network_, location_, scale_, history_,
    curves_, selection_, choices_, n_iter_, stop_reason_, penalty_weight_, penalty_scores_, hyper_
        See `InvariantClassifier`.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> year = np.repeat([2023, 2024, 2025], 50)
    >>> X = rng.normal(size=(150, 2))
    >>> model = InvariantRegressor(network="linear", steps=300, random_state=0)
    >>> model.fit(X, 3 * X[:, 0] + 10, environments=year).score(X, 3 * X[:, 0] + 10) > 0.95
    True
    """

    def _targets(self, y: Any, weights: Array) -> tuple[Array, Loss, int]:
        y = np.asarray(y, dtype=np.float64)
        location, scale = location_and_scale(y, weights)
        self.target_location_, self.target_scale_ = float(location), float(scale)
        scaled = (y - self.target_location_) / self.target_scale_
        return scaled.astype(np.float32), self._loss, 1

    @property
    def _loss(self) -> Loss:
        loss = get_loss("squared" if self.loss is None else self.loss, like=Squared())
        if loss.kind != "numbers":
            raise OptionError(
                f"Expected a loss over numbers for a regressor, got '{loss.called}'. Use "
                "'squared', torch.nn.HuberLoss() or a function."
            )
        return loss

    def predict(self, X: Any) -> Array:
        """Predictions [n], in the targets' unit."""
        z = self._outputs(X)[:, 0]
        return cast(Array, z * self.target_scale_ + self.target_location_)
