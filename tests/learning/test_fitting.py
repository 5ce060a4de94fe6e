"""From a plan and rows to a network."""

from dataclasses import replace

import pytest
import torch

from invlearn.errors import EnvironmentsError, OptionError
from invlearn.learning import EarlyStopping, fit, fitting, standard_plan
from invlearn.learning.plan import Layers
from invlearn.losses import get_loss

# A few steps are no training.
pytestmark = pytest.mark.filterwarnings("ignore:.*collapsed")

LOGISTIC = get_loss("logistic")


@pytest.fixture
def learnable(rows):
    """Single-precision rows of three environments whose target a column tells."""
    made = rows(sizes=(60, 81, 50))
    return replace(made, x=made.x.float(), y=(made.x[:, 0] > 0).long())


@pytest.fixture
def weights(learnable):
    """The weights of a network fitted by an objective, its penalty waiting or not."""

    def fitted(objective, *, waits):
        plan = standard_plan(objective, Layers((3,)), steps=50)
        plan = plan if waits else replace(plan, auto=plan.auto - {"warm_up"})
        network = fit(plan, learnable, LOGISTIC, 1, seed=0).network
        return torch.cat([p.detach().flatten() for p in network.parameters()])

    return fitted


@pytest.mark.parametrize("objective", ["erm", "erm-pooled", "group-dro", "meta-irm"])
def test_without_a_penalty_that_waits_there_is_no_warm_up(weights, objective):
    assert torch.equal(weights(objective, waits=True), weights(objective, waits=False))


@pytest.mark.parametrize("objective", ["irmv1", "vrex", "mmrex", "iga"])
def test_a_penalty_waits_while_the_network_warms_up(weights, objective):
    assert not torch.equal(weights(objective, waits=True), weights(objective, waits=False))
    assert not torch.equal(weights(objective, waits=True), weights("erm", waits=True))


def test_what_it_leaves(learnable):
    found = fit(standard_plan("vrex", Layers(()), steps=20), learnable, LOGISTIC, 1, seed=0)
    assert found.objective.numbers == {"penalty_weight": 100.0}
    assert found.environments == {"e0": 60, "e1": 81, "e2": 50}
    assert (found.run.stop_reason, found.run.steps) == ("finished", 20)
    assert found.scores.empty
    assert not found.network.training


def test_a_chosen_strength_is_trained_with(learnable):
    plan = standard_plan("vrex", Layers(()), strength="auto", steps=20)
    found = fit(plan, learnable, LOGISTIC, 1, seed=0)
    best = found.scores.groupby("strength")["risk"].max().idxmin()
    assert found.objective.numbers.get("penalty_weight", 0.0) == best


def test_early_stopping_holds_rows_out(learnable):
    how = EarlyStopping("lowest-validation-risk", patience=2, validation_fraction=0.3)
    plan = standard_plan("erm", Layers(()), steps=100, early_stopping=how)
    found = fit(plan, learnable, LOGISTIC, 1, seed=0)
    train, validation = learnable.split(0.3, seed=0)
    given = fit(plan, train, LOGISTIC, 1, seed=0, validation=validation)
    assert found.run.curves.equals(given.run.curves)
    assert found.environments == {"e0": 60, "e1": 81, "e2": 50}
    assert set(found.run.curves["step"]) <= {*range(0, 101, 2)}


def test_of_large_environments_a_sample_is_measured(learnable, monkeypatch):
    sizes = []
    made = fitting.evaluation_sets
    monkeypatch.setattr(
        fitting, "evaluation_sets", lambda *sets: sizes.append(sets[0].sizes) or made(*sets)
    )
    monkeypatch.setattr(fitting, "MEASURED_ROWS", 45)
    plan = standard_plan("erm", Layers(()), steps=10, early_stopping=EarlyStopping())
    fit(plan, learnable, LOGISTIC, 1, seed=0)
    assert sizes == [(45, 45, 40)]


def test_a_rule_that_needs_more_environments(learnable):
    plan = standard_plan("erm", Layers(()), early_stopping=EarlyStopping("risks-agree"))
    with pytest.raises(EnvironmentsError, match="Early stopping by 'risks-agree' needs at least 2"):
        fit(plan, learnable.select(["e0"]), LOGISTIC, 1, seed=0)


def test_a_device_this_machine_lacks(learnable):
    plan = standard_plan("erm", Layers(()), device="cuda:77")
    with pytest.raises(OptionError, match="device of this machine"):
        fit(plan, learnable, LOGISTIC, 1, seed=0)
