"""The list of methods: every objective, what is made of one, and what one would use anyway."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from invlearn.errors import OptionError, unknown_name
from invlearn.ground.registry import Registry
from invlearn.methods.base import Method
from invlearn.methods.network import Network
from invlearn.methods.usual import USUAL, Usual, check_maker, is_model
from invlearn.objectives import OBJECTIVES, get_objective
from invlearn.objectives.base import Objective
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


METHODS: Registry[Method] = Registry(
    "method",
    {method.name: method for method in (*_SPECIAL, *USUAL)},
    made_of=lambda method: getattr(method, "make", getattr(method, "objective", method)),
    beside=OBJECTIVES,
)
"""Those that are no objective as it is; `known_methods` has all."""

KINDS = ("usual", "invariant")
"""Of methods that somebody registers; see `MethodInfo`."""


def known_methods() -> dict[str, Method]:
    """Every method by name, those of objectives registered since among them."""
    objectives: dict[str, Method] = {name: _of(name) for name in OBJECTIVES}
    for name in METHODS:
        if name in objectives:
            raise OptionError(
                f"Expected different names, an objective and a method were registered as '{name}'. "
                "Choose another for one of them."
            )
    return objectives | dict(METHODS)


def get_method(name: str) -> Method:
    """Look a method up; UnknownNameError for a name that is not there."""
    if name in OBJECTIVES:
        return _of(name)
    if name in METHODS:
        return METHODS[name]
    raise unknown_name("objective", name, known_methods())


def _of(name: str) -> Network:
    """The method of an objective."""
    objective = OBJECTIVES[name]
    return Network(
        name,
        _TITLES.get(name, objective.title),
        "usual" if name in POOLED else "invariant",
        objective.summary,
        objective.source,
        objective=objective,
    )


def get_network(name: str) -> Network:
    """Look up a method that trains a network; OptionError for one that does not."""
    method = get_method(name)
    if not isinstance(method, Network):
        raise OptionError(
            f"Expected a method that trains a network, got '{name}'. Leave it out of --objectives."
        )
    return method


@METHODS.registrar
def register_method(
    name: str,
    method: str | Objective | Method | Any,
    *,
    hyper: Mapping[str, float] | None = None,
    title: str = "",
    summary: str = "",
    source: str = "",
    kind: str = "",
) -> None:
    """Make a method known by a name, here and in the worker processes of a comparison.

    It then competes wherever a built-in one does. The same one again does no harm, and one that was
    defined anew in the same place, by a notebook cell that ran again, takes its place. For the
    command line, name the module that calls this as an entry point of the group
    ``invlearn.methods``.

    Parameters
    ----------
    name : str
        Letters, digits, '-' and '_'.
    method : str, Objective, estimator, callable or Method
        An objective's name, which brings that objective's settings in recipes; an objective, which
        keeps all of its numbers; a model with scikit-learn's fit and predict (a pipeline for
        instance), fitted to the pooled rows of a table; a class or function that makes one, called
        with those of ``classifies`` (a bool) and ``seed`` that it has. Where a model's random_state
        is open it is the trial's seed. A classifier needs decision_function or predict_proba.
    hyper : mapping, optional
        Hyperparameters of an objective, over a recipe's.
    title, summary, source : str
        For lists and reports.
    kind : 'usual' or 'invariant'
        Whether reports count it among what one would use anyway; default: a model is.

    Raises
    ------
    OptionError, UnknownNameError
        The name is another's or no name; neither an objective nor a model nor what makes one; a
        hyperparameter that the objective does not have.

    Examples
    --------
    >>> register_method("vrex-strong", "vrex", hyper={"penalty_weight": 1e4})
    >>> get_method("vrex-strong").title
    'V-REx (penalty_weight=10000)'
    >>> from sklearn.ensemble import ExtraTreesClassifier
    >>> register_method("trees", ExtraTreesClassifier(50))
    >>> get_method("trees").kind
    'usual'
    >>> del METHODS["vrex-strong"], METHODS["trees"]
    """
    if kind and kind not in KINDS:
        raise unknown_name("kind of method", kind, KINDS)
    if isinstance(method, str | Objective):
        made: Method = _of_objective(name, method, dict(hyper or {}))
    elif hyper:
        raise OptionError(
            f"Expected hyperparameters of an objective, got {dict(hyper)} for '{name}', which is "
            "none. Set them where the model is made."
        )
    elif isinstance(method, Method):
        made = replace(method, name=name)
    else:
        check_maker(name, method)
        made = _of_model(name, method)
    said = replace(
        made,
        title=title or made.title,
        summary=summary or made.summary,
        source=source or made.source,
        kind=kind or made.kind,
    )
    METHODS.add(name, said)


def _of_objective(name: str, objective: str | Objective, hyper: dict[str, float]) -> Network:
    found = get_objective(objective)
    if isinstance(objective, Objective):
        hyper = {**found.numbers, **hyper}
    found = found.with_numbers(hyper)
    numbers = ", ".join(f"{number}={value:g}" for number, value in hyper.items())
    return Network(
        name,
        f"{found.title} ({numbers})" if numbers else found.title,
        "invariant",
        found.summary,
        found.source,
        objective=found,
        like=objective if isinstance(objective, str) else "",
        hyper=hyper,
    )


def _of_model(name: str, make: Any) -> Usual:
    named = type(make) if is_model(make) else make
    called = str(getattr(named, "__qualname__", name)).rsplit(".", 1)[-1]
    text = inspect.getdoc(named) if inspect.isfunction(named) else ""
    return Usual(
        name,
        name,
        "usual",
        (text or f"{called} on the pooled rows.").partition("\n")[0],
        str(getattr(named, "__module__", "")).partition(".")[0],
        {"model": " ".join(repr(make).split()) if is_model(make) else called},
        make,
    )
