"""The registry of objectives: one file each, one line here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from invlearn.errors import OptionError, unknown_name
from invlearn.ground.registry import Registry
from invlearn.objectives.and_mask import ANDMask
from invlearn.objectives.base import Objective
from invlearn.objectives.coral import CORAL
from invlearn.objectives.erm import ERM
from invlearn.objectives.fishr import Fishr
from invlearn.objectives.group_dro import GroupDRO
from invlearn.objectives.ib_irm import IBERM, IBIRM
from invlearn.objectives.iga import IGA
from invlearn.objectives.irmv1 import IRMv1
from invlearn.objectives.meta_irm import MetaIRM
from invlearn.objectives.mmrex import MMREx
from invlearn.objectives.pair import PAIR
from invlearn.objectives.sand_mask import SANDMask
from invlearn.objectives.sd import SD
from invlearn.objectives.vrex import VREx

OBJECTIVES: Registry[Objective] = Registry(
    "objective",
    {
        "erm": ERM(),
        "erm-pooled": ERM(over="rows"),
        "irmv1": IRMv1(),
        "irmv1-split": IRMv1(estimator="split"),
        "vrex": VREx(),
        "mmrex": MMREx(),
        "group-dro": GroupDRO(),
        "iga": IGA(),
        "meta-irm": MetaIRM(),
        "sd": SD(),
        "ib-erm": IBERM(),
        "ib-irm": IBIRM(),
        "coral": CORAL(),
        "fishr": Fishr(),
        "and-mask": ANDMask(),
        "sand-mask": SANDMask(),
        "pair": PAIR(),
    },
)


def get_objective(
    objective: str | Objective, hyper: Mapping[str, Any] | None = None, /, **options: Any
) -> Objective:
    """Look an objective up by name, with options of its own; an instance passes through.

    Parameters
    ----------
    objective : str or Objective
    hyper : mapping, optional
        Its hyperparameters and other options by name; here, they may be keywords as well.

    Raises
    ------
    UnknownNameError
        With the nearest known name, of an objective or of an option.
    OptionError
        An option outside its domain.

    Examples
    --------
    >>> get_objective("irmv1", {"penalty_weight": 1e3}).numbers
    {'penalty_weight': 1000.0}
    """
    if isinstance(objective, str):
        objective = OBJECTIVES.find(objective)
    if not isinstance(hyper, Mapping | None):
        raise OptionError(
            f"Expected hyper as a dict of options of {objective.title} by name, got {hyper!r}. "
            "Write {'name': value}."
        )
    options = {**(hyper or {}), **options}
    known = [field.name for field in fields(objective)]
    for name in options:
        if name not in known:
            raise unknown_name(f"option of {objective.title}", name, known)
    return replace(objective, **options) if options else objective


@OBJECTIVES.registrar
def register_objective(name: str, objective: Objective) -> None:
    """Make an objective known by a name, here and in the worker processes of a comparison.

    It then works wherever a built-in one does. The same one again does no harm, and one whose
    class was defined anew in the same place, by a notebook cell that ran again, takes its place.
    For the command line, name the module that calls this as an entry point of the group
    ``invlearn.objectives``.

    Raises
    ------
    OptionError
        The name is another's or no name, or what it should name is no instance of an objective.

    Examples
    --------
    >>> from invlearn.objectives.erm import ERM
    >>> register_objective("erm", ERM())  # The same one again does no harm.
    """
    if not isinstance(objective, Objective):
        raise OptionError(
            f"Expected an instance of an Objective to be known as '{name}', got {objective!r}. "
            "Call its class: register_objective(name, MyObjective())."
        )
    OBJECTIVES.add(name, objective)


__all__ = ["OBJECTIVES", "Objective", "get_objective", "register_objective"]
