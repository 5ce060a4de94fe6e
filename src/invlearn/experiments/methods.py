"""What `compare` compares: an objective, over all features or over those without the shortcut."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from invlearn.errors import unknown_name
from invlearn.objectives import OBJECTIVES
from invlearn.objectives.base import Objective
from invlearn.objectives.meta_irm import MetaIRM


@dataclass(frozen=True)
class Method:
    """A row of the comparison.

    Attributes
    ----------
    reference : bool
        Whether it is trained on features from which the shortcut was removed: knowledge
        that nobody has of new data. A bound, not a competitor.
    like : str
        The method whose settings in a recipe it takes, if it has none of its own.
    hyper : mapping
        Hyperparameters that make it what it is, over the recipe's.
    """

    name: str
    title: str
    summary: str
    source: str
    objective: Objective
    reference: bool = False
    like: str = ""
    hyper: Mapping[str, float] = field(default_factory=dict)


def _titles() -> dict[str, str]:
    special = {"erm-pooled": "ERM, pooled rows", "irmv1-split": "IRMv1, split batch"}
    return {name: special.get(name, objective.title) for name, objective in OBJECTIVES.items()}


def _ablation(name: str, what: str, objective: MetaIRM, **hyper: float) -> Method:
    return Method(
        f"meta-irm-{name}",
        f"meta-IRM, {what}",
        f"An ablation of meta-IRM: {what}.",
        "Bae et al. 2021, table 5",
        objective,
        like="meta-irm",
        hyper=hyper,
    )


_SPECIAL = (
    Method(
        "erm-grayscale",
        "ERM without the shortcut",
        "ERM on features from which the shortcut was removed by hand (grayscale images).",
        "Arjovsky et al. 2019",
        OBJECTIVES["erm"],
        reference=True,
    ),
    _ablation("no-std", "without the standard deviation", MetaIRM(), std_weight=0.0),
    _ablation("first-order", "first order only", MetaIRM(first_order=True)),
    _ablation("same-environment", "adapting to the same one", MetaIRM(same_environment=True)),
)

METHODS: dict[str, Method] = {
    name: Method(name, _titles()[name], objective.summary, objective.source, objective)
    for name, objective in OBJECTIVES.items()
} | {method.name: method for method in _SPECIAL}


def get_method(name: str) -> Method:
    """Look a method up by name."""
    if name not in METHODS:
        raise unknown_name("objective", name, METHODS)
    return METHODS[name]
