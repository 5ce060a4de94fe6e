"""One list of methods."""

from dataclasses import replace
from functools import partial

import pytest
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

from invlearn.errors import OptionError, UnknownNameError
from invlearn.methods import (
    METHODS,
    Network,
    get_method,
    get_network,
    known_methods,
    register_method,
)
from invlearn.objectives import OBJECTIVES, get_objective, register_objective


def test_every_objective_is_a_method_and_what_one_would_use_anyway_is_there():
    methods = known_methods()
    assert {*OBJECTIVES, "linear", "boosting", "erm-grayscale", "meta-irm-no-std"} <= set(methods)
    for name, method in methods.items():
        assert method.name == name
        assert method.title
        assert method.summary.endswith(".")
    assert {n for n, m in methods.items() if m.kind == "usual"} == {
        "erm", "erm-pooled", "linear", "boosting",
    }  # fmt: skip


def test_an_objective_that_is_registered_later_is_one_too(monkeypatch):
    monkeypatch.setitem(OBJECTIVES, "mine", get_objective("vrex"))
    assert get_method("mine").objective == get_objective("vrex")


def test_names_that_are_not_there():
    with pytest.raises(UnknownNameError, match=r"objective 'linaer'\. Did you mean 'linear'\?"):
        get_method("linaer")
    with pytest.raises(OptionError, match="a method that trains a network, got 'linear'"):
        get_network("linear")


def test_a_network_without_a_plan_says_so():
    method = get_network("vrex")
    assert isinstance(method, Network)
    with pytest.raises(ValueError, match="'vrex' was given no plan"):
        _ = method.planned


@pytest.fixture
def register():
    """`register_method` as 'mine', forgotten afterwards."""
    yield partial(register_method, "mine")
    METHODS.pop("mine", None)


def test_an_objectives_name_brings_its_settings_and_takes_numbers(register):
    register("vrex", hyper={"penalty_weight": 7})
    method = get_network("mine")
    assert (method.like, method.hyper, method.kind) == ("vrex", {"penalty_weight": 7}, "invariant")
    assert method.title == "V-REx (penalty_weight=7)"
    assert method.objective == get_objective("vrex", penalty_weight=7)
    register("vrex", hyper={"penalty_weight": 7})
    with pytest.raises(OptionError, match=r"'mine' is V-REx \(penalty_weight=7\)\. Choose another"):
        register("vrex", hyper={"penalty_weight": 8})
    assert "mine" in known_methods()


def test_an_objective_keeps_its_numbers(register):
    register(get_objective("irmv1"), title="Mine", summary="M.", source="me", kind="usual")
    method = get_network("mine")
    assert method.hyper == {"penalty_weight": 100.0}
    assert (method.title, method.summary, method.source, method.kind) == (
        "Mine",
        "M.",
        "me",
        "usual",
    )


def test_a_method_is_taken_as_it_is(register):
    register(get_method("linear"))
    assert get_method("mine") == replace(get_method("linear"), name="mine")


def nearest(classifies):
    """The nearest rows.

    As they are.
    """
    return KNeighborsClassifier() if classifies else KNeighborsRegressor()


@pytest.mark.parametrize(
    ("make", "settings", "summary"),
    [
        (KNeighborsClassifier(3), "KNeighborsClassifier(n_neighbors=3)", "KNeighborsClassifier on"),
        (KNeighborsClassifier, "KNeighborsClassifier", "KNeighborsClassifier on the pooled rows."),
        (nearest, "nearest", "The nearest rows."),
    ],
)
def test_a_model_or_what_makes_one(register, make, settings, summary):
    register(make)
    method = get_method("mine")
    assert method.kind == "usual"
    assert method.settings == {"model": settings}
    assert method.summary.startswith(summary)
    assert isinstance(method.model(True, 0), KNeighborsClassifier)
    register(make)


def needs(classifies, depth):
    """Something."""


@pytest.mark.parametrize(
    ("method", "more", "error", "said"),
    [
        ("vrx", {}, UnknownNameError, "objective 'vrx'. Did you mean 'vrex'"),
        ("vrex", {"hyper": {"penalty": 1}}, UnknownNameError, "hyperparameter of V-REx 'penalty'"),
        ("vrex", {"hyper": {"penalty_weight": -1}}, OptionError, "0 or more, got -1"),
        ("vrex", {"kind": "referee"}, UnknownNameError, "kind of method 'referee'. .*invariant"),
        (
            KNeighborsClassifier(),
            {"hyper": {"k": 1}},
            OptionError,
            "Expected hyperparameters of an",
        ),
        (3, {}, OptionError, "an objective or its name, a model with fit and predict, .* got 3."),
        (needs, {}, OptionError, "of classifies and seed, or of fewer, .* needs 'depth'. Give it"),
    ],
)
def test_what_is_no_method_is_refused(register, method, more, error, said):
    with pytest.raises(error, match=said):
        register(method, **more)
    assert "mine" not in known_methods()


@pytest.mark.parametrize("name", ["vrex", "linear", "meta-irm-no-std"])
def test_names_of_methods_and_objectives_are_refused(name):
    with pytest.raises(OptionError, match=rf"'{name}' is .*\. Choose another\."):
        register_method(name, KNeighborsClassifier())


def test_an_objective_cannot_take_a_methods_name(monkeypatch):
    with pytest.raises(OptionError, match=r"no method has, 'linear' is Linear model\. Choose"):
        register_objective("linear", get_objective("vrex"))
    monkeypatch.setitem(OBJECTIVES, "linear", get_objective("vrex"))
    with pytest.raises(OptionError, match="an objective and a method were registered as 'linear'"):
        known_methods()
