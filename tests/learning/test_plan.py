"""What a plan leaves to the rows, and what it refuses."""

import pytest

from invlearn.errors import OptionError, UnknownNameError
from invlearn.learning import EarlyStopping, Plan, standard_plan
from invlearn.learning.plan import Layers
from invlearn.objectives import OBJECTIVES
from invlearn.objectives.erm import ERM
from invlearn.objectives.meta_irm import MetaIRM
from invlearn.objectives.vrex import VREx
from invlearn.training import PenaltySchedule, Settings

NETWORK = Layers(())


@pytest.mark.parametrize(("sizes", "batch_size"), [((2000, 9), None), ((9, 2001), 1000)])
def test_environments_of_some_size_are_drawn_from(sizes, batch_size):
    assert standard_plan("vrex", NETWORK).resolved(sizes).settings.batch_size == batch_size
    given = standard_plan("vrex", NETWORK, batch_size=7).resolved(sizes)
    assert given.settings.batch_size == 7


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_what_is_erm_without_its_penalty_is_warmed_up(name):
    objective = OBJECTIVES[name]
    schedule = standard_plan(name, NETWORK, steps=50).resolved([9, 9, 9]).settings.schedule
    if objective.strength and objective.erm_at_zero:
        assert schedule == PenaltySchedule("step", start=10, at_anneal="reset-optimizer")
    else:
        assert schedule == PenaltySchedule()


@pytest.mark.parametrize("n_envs", [2, 4])
def test_the_weakest_strength_follows_the_environments(n_envs):
    plan = standard_plan("meta-irm", NETWORK).resolved([9] * n_envs)
    assert plan.objective.std_weight == MetaIRM().strengths(n_envs)[0]


def test_a_number_that_was_given_stays():
    for plan in (
        standard_plan(VREx(penalty_weight=7.0), NETWORK),
        standard_plan("vrex", NETWORK, strength=7.0),
        standard_plan("vrex", NETWORK, strength=3.0, hyper={"penalty_weight": 7.0}),
    ):
        assert plan.resolved([9, 9]).objective == VREx(penalty_weight=7.0)


@pytest.mark.parametrize("name", [name for name, o in OBJECTIVES.items() if o.strength])
@pytest.mark.parametrize("n_envs", [2, 4])
def test_any_strength_that_was_given_with_the_objective_stays(name, n_envs):
    objective = OBJECTIVES[name]
    for strength in (objective.numbers[objective.strength], *objective.strengths(n_envs)):
        own = objective.with_numbers({objective.strength: strength})
        assert standard_plan(own, NETWORK).resolved([9] * n_envs).objective == own


def test_resolving_again_changes_nothing():
    plan = standard_plan("vrex", NETWORK, early_stopping=EarlyStopping()).resolved([9, 9])
    assert plan.auto == frozenset()
    assert plan.resolved([5000]) == plan


@pytest.mark.parametrize(
    ("n_envs", "rule"), [(1, "lowest-validation-risk"), (2, "lowest-worst-group")]
)
def test_what_it_stops_by_follows_the_environments(n_envs, rule):
    plan = standard_plan("erm", NETWORK, early_stopping=EarlyStopping(patience=3))
    assert plan.resolved([9] * n_envs).early_stopping == EarlyStopping(rule, patience=3)


def test_as_erm_keeps_the_rest():
    plan = standard_plan("vrex", NETWORK, strength="auto", steps=7, device="cpu")
    erm = plan.as_erm()
    assert erm.objective == ERM()
    assert not erm.choose_strength
    assert (erm.settings, erm.network) == (plan.settings, plan.network)


def test_a_strength_cannot_be_chosen_where_there_is_none():
    assert standard_plan("vrex", NETWORK, strength="auto").choose_strength
    assert not standard_plan("erm", NETWORK, strength="auto").choose_strength


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"objective": "erm", "strength": 2.0}, OptionError, "no penalty weight for ERM"),
        ({"strength": "atuo"}, UnknownNameError, "Did you mean 'auto'"),
        ({"batch_size": "all"}, UnknownNameError, "Unknown batch size 'all'"),
        ({"strength": "auto", "hyper": {"penalty_weight": 1.0}}, OptionError, "got both"),
        ({"hyper": {"inner_lr": 1.0}}, UnknownNameError, "option of V-REx 'inner_lr'"),
    ],
)
def test_what_is_refused(options, error, says):
    with pytest.raises(error, match=says):
        standard_plan(**{"objective": "vrex", "network": NETWORK} | options)


def test_what_cannot_be_left_to_the_rows():
    with pytest.raises(UnknownNameError, match=r"'batchsize'.*Did you mean 'batch_size'"):
        Plan(VREx(), NETWORK, Settings(), auto=frozenset({"batchsize"}))


def test_a_rule_that_is_none():
    with pytest.raises(UnknownNameError, match="Did you mean 'risks-agree'"):
        EarlyStopping("risk-agree")
