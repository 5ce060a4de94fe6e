"""The registry of objectives: one file each, one line here."""

from __future__ import annotations

from invlearn.errors import unknown_name
from invlearn.objectives.base import Objective
from invlearn.objectives.erm import ERM
from invlearn.objectives.group_dro import GroupDRO
from invlearn.objectives.iga import IGA
from invlearn.objectives.irmv1 import IRMv1
from invlearn.objectives.meta_irm import MetaIRM
from invlearn.objectives.mmrex import MMREx
from invlearn.objectives.vrex import VREx

OBJECTIVES: dict[str, Objective] = {
    "erm": ERM(),
    "erm-pooled": ERM(over="rows"),
    "irmv1": IRMv1(),
    "irmv1-split": IRMv1(estimator="split"),
    "vrex": VREx(),
    "mmrex": MMREx(),
    "group-dro": GroupDRO(),
    "iga": IGA(),
    "meta-irm": MetaIRM(),
}


def get_objective(objective: str | Objective) -> Objective:
    """Look an objective up by name; an instance passes through.

    Raises
    ------
    UnknownNameError
        With the nearest known name.
    """
    if isinstance(objective, Objective):
        return objective
    if objective not in OBJECTIVES:
        raise unknown_name("objective", objective, OBJECTIVES)
    return OBJECTIVES[objective]


__all__ = ["OBJECTIVES", "Objective", "get_objective"]
