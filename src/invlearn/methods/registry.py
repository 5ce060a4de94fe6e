"""The list of methods: every objective, what is made of one, and what one would use anyway."""

from __future__ import annotations

from invlearn.errors import OptionError, unknown_name
from invlearn.methods.base import Method
from invlearn.methods.network import Network
from invlearn.methods.usual import USUAL
from invlearn.objectives import OBJECTIVES
from invlearn.objectives.meta_irm import MetaIRM

POOLED = ("erm", "erm-pooled")
"""Objectives that one would use anyway."""

_TITLES = {"erm-pooled": "ERM, pooled rows", "irmv1-split": "IRMv1, split batch"}


def _ablation(name: str, what: str, objective: MetaIRM, **hyper: float) -> Network:
    return Network(
        f"meta-irm-{name}",
        f"meta-IRM, {what}",
        "invariant",
        f"An ablation of meta-IRM: {what}.",
        "Bae et al. 2021, table 5",
        objective=objective,
        like="meta-irm",
        hyper=hyper,
    )


_SPECIAL = (
    Network(
        "erm-grayscale",
        "ERM without the shortcut",
        "reference",
        "ERM on features from which the shortcut was removed by hand (grayscale images).",
        "Arjovsky et al. 2019",
    ),
    _ablation("no-std", "without the standard deviation", MetaIRM(), std_weight=0.0),
    _ablation("first-order", "first order only", MetaIRM(first_order=True)),
    _ablation("same-environment", "adapting to the same one", MetaIRM(same_environment=True)),
)


def known_methods() -> dict[str, Method]:
    """Every method by name, those of objectives registered since among them."""
    objectives = {
        name: Network(
            name,
            _TITLES.get(name, objective.title),
            "usual" if name in POOLED else "invariant",
            objective.summary,
            objective.source,
            objective=objective,
        )
        for name, objective in OBJECTIVES.items()
    }
    return objectives | {method.name: method for method in (*_SPECIAL, *USUAL)}


def get_method(name: str) -> Method:
    """Look a method up; UnknownNameError for a name that is not there."""
    methods = known_methods()
    if name not in methods:
        raise unknown_name("objective", name, methods)
    return methods[name]


def get_network(name: str) -> Network:
    """Look up a method that trains a network; OptionError for one that does not."""
    method = get_method(name)
    if not isinstance(method, Network):
        raise OptionError(
            f"Expected a method that trains a network, got '{name}'. Leave it out of --objectives."
        )
    return method
