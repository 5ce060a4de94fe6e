"""A classifier for rows from several environments, in scikit-learn's conventions."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets

from invlearn.errors import EnvironmentsError, OptionError
from invlearn.estimators.base import InvariantEstimator
from invlearn.estimators.checks import Array
from invlearn.losses import Loss, Softmax, get_loss


class InvariantClassifier(ClassifierMixin, InvariantEstimator):  # type: ignore[misc]
    """A classifier that looks for what predicts in every environment at once.

    Parameters
    ----------
    objective : str or Objective
        Any of `invlearn.OBJECTIVES`, by name or as an object with options of its own.
    penalty_weight : float, 'auto' or None
        How much invariance counts (meta-IRM: the weight of the meta-losses' deviation); ignored,
        with a warning, where the objective has no penalty. None: a
        gentle weight for standardized tables. 'auto': chosen by leaving training environments
        out in turn (in five groups, if there are more), for the lowest worst risk; needs three
        environments, trains three networks for each, and may find that ERM is best.
    hyper : mapping, optional
        Other hyperparameters and options of the objective by name, ``{"inner_lr": 0.5}``.
    loss : str, Loss or callable, optional
        Default: 'logistic' for two classes, else 'softmax'. ``nn.CrossEntropyLoss(...)`` and a
        function ``loss(outputs, targets)`` that gives every row's loss [n] see a logit per class
        [n, k], also of two, and targets 0 to k − 1; ``nn.BCEWithLogitsLoss(...)`` sees one of two.
    network : 'mlp', 'linear', callable or torch.nn.Module
        A function or Module class ``network(n_features, n_outputs, generator)``, by these names
        or in this order, that may need fewer of them: n_features are the numbers in a row, and for
        two classes there is one output, unless a loss asks for two. `random_state` settles its
        weights, also where it draws them from torch's global generator. A Module is where every
        fit starts: it is copied, its weights kept as they are.
    hidden : sequence of int
        Widths of the hidden layers of the 'mlp'.
    standardize : bool
        Bring columns to mean 0 and standard deviation 1 first; those of a sparse matrix to
        largest absolute value 1, so that rare words stay small.
    steps, batch_size, lr, l2
        Of training, see `invlearn.learning.standard_plan`. A penalty sets in after a fifth of the
        steps; ERM, GroupDRO, meta-IRM and SAND-mask have none that waits.
    early_stopping : bool or str
        Stop by a selection rule on held-out rows of the training environments; True takes
        'lowest-worst-group'.
    patience : int
        Evaluations (of 50) without a new choice before it stops.
    validation_fraction : float
        Rows held out for it, in every environment.
    warm_start : bool
        Go on from the last fit's network.
    keep_interrupted : bool
        After Ctrl-C keep the network of the last step made, with a warning, where `fit` raises
        KeyboardInterrupt otherwise. In a grid such a network would be scored like the others.
    random_state : int, RandomState or None
    device : str
        'cpu', 'cuda', 'cuda:1'.
    verbose : bool
        Show how far training is: a bar on a terminal, elsewhere a line now and then.

    Attributes
    ----------
    classes_ : array [k]
    n_features_in_ : int
    feature_names_in_ : array of str
        Where X was a DataFrame.
    environments_ : dict of str to int
        Rows of each environment that was trained on.
    network_ : torch.nn.Module
        Takes standardized rows.
    location_, scale_ : arrays [d]
        What is subtracted and divided by.
    history_ : DataFrame
        A row per step: total, penalty, each environment's risk.
    curves_ : DataFrame
        With early stopping: every measurement along the steps.
    selection_ : Choice or None
        With early stopping: the step chosen, whether the rule was satisfied, its note.
    n_iter_ : int
        Steps made.
    stop_reason_ : 'finished', 'stopped', 'interrupted' or 'diverged'
    choices_ : DataFrame
        What was chosen, to be read: objective, penalty weight and how it came about, steps,
        epochs, environments.
    penalty_weight_ : float
        The one used; 0 for ERM.
    penalty_scores_ : DataFrame
        With 'auto': the risk of every candidate in every environment left out.
    hyper_ : dict
        All the objective's hyperparameters.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> hospital = np.repeat(["north", "south", "east"], 100)
    >>> ill = rng.integers(0, 2, 300)
    >>> X = rng.normal(size=(300, 2)) + ill[:, None]
    >>> model = InvariantClassifier(steps=100, random_state=0)
    >>> model.fit(X, ill, environments=hospital).predict_proba(X[:5]).shape
    (5, 2)
    """

    classes_: Array

    def _targets(self, y: Any, weights: Array) -> tuple[Array, Loss, int]:
        from sklearn.preprocessing import LabelEncoder

        check_classification_targets(y)
        encoder = LabelEncoder().fit(y)
        self.classes_ = encoder.classes_
        if len(self.classes_) < 2:
            raise EnvironmentsError(
                f"Expected two or more classes in y, got one class: {self.classes_[0]!r}. There "
                "is nothing to tell apart."
            )
        codes = encoder.transform(y).astype(np.int64)
        return codes, self._loss, self._loss.outputs_for(len(self.classes_))

    @property
    def _loss(self) -> Loss:
        if self.loss is None:
            return get_loss("logistic" if len(self.classes_) == 2 else "softmax")
        loss = get_loss(self.loss, like=Softmax())
        if loss.kind != "classes":
            raise OptionError(
                f"Expected a loss over classes for a classifier, got '{loss.called}'. Use "
                "'logistic' for two classes, 'softmax', a cross entropy of torch's or a function."
            )
        return loss

    def decision_function(self, X: Any) -> Array:
        """Log-odds of the second of two classes [n], or every class's logit [n, k]."""
        outputs = torch.as_tensor(self._outputs(X))
        z = self._loss.logits(outputs).numpy()
        return z[:, 1] - z[:, 0] if len(self.classes_) == 2 else z

    def predict_proba(self, X: Any) -> Array:
        """Probability of every class [n, k], in the order of `classes_`."""
        z = torch.as_tensor(self._outputs(X))
        return self._loss.probabilities(z).numpy()

    def predict(self, X: Any) -> Array:
        """The likeliest class of every row [n]."""
        z = torch.as_tensor(self._outputs(X))
        return cast(Array, self.classes_[self._loss.logits(z).argmax(1).numpy()])
