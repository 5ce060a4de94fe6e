"""Estimators in scikit-learn's conventions, for rows that carry an environment label."""

from invlearn.estimators.classifier import InvariantClassifier
from invlearn.estimators.regressor import InvariantRegressor

__all__ = ["InvariantClassifier", "InvariantRegressor"]
