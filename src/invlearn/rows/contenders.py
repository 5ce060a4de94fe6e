"""What is compared on a user's rows: what one would use anyway, and the family."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, Ridge

from invlearn.diagnostics.held_out import Contender
from invlearn.estimators import InvariantClassifier, InvariantRegressor
from invlearn.objectives import get_objective
from invlearn.rows.inputs import Make

DEFAULT = ("erm-pooled", "irmv1", "vrex", "meta-irm")

POOLED = ("erm", "erm-pooled")


def contenders(objectives: Sequence[str], task: str, *, images: bool) -> tuple[Contender, ...]:
    """Baselines, then networks trained with each objective; UnknownNameError for a misspelt one.

    Boosting is left out for images, whose pixels are no columns.
    """
    linear = "Logistic regression" if task == "classification" else "Ridge regression"
    found = [Contender("linear", linear, "usual", "A linear model of the pooled rows.")]
    if not images:
        found.append(
            Contender(
                "boosting",
                "Gradient boosting",
                "usual",
                "Trees on the pooled rows, scikit-learn's histogram gradient boosting.",
            )
        )
    for name in dict.fromkeys(objectives):
        objective = get_objective(name)
        usual = name in POOLED
        found.append(
            Contender(
                name,
                f"{objective.title} (pooled network)" if name == "erm-pooled" else objective.title,
                "usual" if usual else "invariant",
                objective.summary,
            )
        )
    return tuple(found)


def estimator(
    name: str, task: str, *, make: Make, steps: int, seed: int, auto: bool, device: str = "cpu"
) -> Any:
    """An unfitted estimator of encoded rows."""
    classifies = task == "classification"
    if name == "linear":
        return LogisticRegression(max_iter=1000) if classifies else Ridge()
    if name == "boosting":
        kind = HistGradientBoostingClassifier if classifies else HistGradientBoostingRegressor
        return kind(random_state=seed)
    kind = InvariantClassifier if classifies else InvariantRegressor
    choose = auto and bool(get_objective(name).strength)
    return kind(
        name,
        penalty_weight="auto" if choose else None,
        network=make,
        standardize=False,
        steps=steps,
        random_state=seed,
        device=device,
    )
