"""What `compare` compares: an objective, over all features or over those without the shortcut."""

from __future__ import annotations

from dataclasses import dataclass

from invlearn.errors import unknown_name
from invlearn.objectives import OBJECTIVES
from invlearn.objectives.base import Objective


@dataclass(frozen=True)
class Method:
    """A row of the comparison.

    Attributes
    ----------
    reference : bool
        Whether it is trained on features from which the shortcut was removed: knowledge
        that nobody has of new data. A bound, not a competitor.
    """

    name: str
    title: str
    summary: str
    source: str
    objective: Objective
    reference: bool = False


def _titles() -> dict[str, str]:
    special = {"erm-pooled": "ERM, pooled rows", "irmv1-split": "IRMv1, split batch"}
    return {name: special.get(name, objective.title) for name, objective in OBJECTIVES.items()}


METHODS: dict[str, Method] = {
    name: Method(name, _titles()[name], objective.summary, objective.source, objective)
    for name, objective in OBJECTIVES.items()
} | {
    "erm-grayscale": Method(
        "erm-grayscale",
        "ERM without the shortcut",
        "ERM on features from which the shortcut was removed by hand (grayscale images).",
        "Arjovsky et al. 2019",
        OBJECTIVES["erm"],
        reference=True,
    )
}


def get_method(name: str) -> Method:
    """Look a method up by name."""
    if name not in METHODS:
        raise unknown_name("objective", name, METHODS)
    return METHODS[name]
