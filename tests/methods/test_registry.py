"""One list of methods."""

import pytest

from invlearn.errors import OptionError, UnknownNameError
from invlearn.methods import Network, get_method, get_network, known_methods
from invlearn.objectives import OBJECTIVES, get_objective


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
