"""A strength is chosen on the environments left out of training in turn."""

import numpy as np
import pandas as pd
import pytest

from invlearn.environments import Environments, EvaluationSet
from invlearn.errors import EnvironmentsError
from invlearn.evaluation import evaluate
from invlearn.learning import make_trainer, standard_plan
from invlearn.learning.plan import Layers
from invlearn.learning.strength import Strength, choose_strength, environment_groups
from invlearn.losses import get_loss
from invlearn.objectives.erm import ERM

# A few steps on targets that nothing predicts.
pytestmark = pytest.mark.filterwarnings("ignore::invlearn.CollapseWarning")

LOGISTIC = get_loss("logistic")
PLAN = standard_plan("vrex", Layers(()), strength="auto", steps=30)


@pytest.fixture
def three(rows):
    made = rows(sizes=(30, 41, 25))
    return made.with_features(made.x.float())


def test_scores_are_risks_where_nothing_was_trained(three):
    found = choose_strength(PLAN, three, LOGISTIC, 1, seed=3).scores
    expected = []
    for out in three.names:
        kept = three.select([name for name in three.names if name != out])
        held = [EvaluationSet.from_environments(three.select([out]), "left-out")]
        for strength in (0.0, 100.0, 1000.0):
            plan = PLAN.with_strength(strength) if strength else PLAN.as_erm()
            model = make_trainer(plan, kept, LOGISTIC, 1, 3).run().model
            (risk,) = (m.value for m in evaluate(model, held, LOGISTIC) if m.metric == "risk")
            expected.append((strength, out, risk))
    assert found["environment"].tolist() == [out for _, out, _ in expected]
    assert found["strength"].tolist() == [strength for strength, _, _ in expected]
    np.testing.assert_allclose(found["risk"], [risk for *_, risk in expected], rtol=1e-5)


def test_the_lowest_worst_risk_is_taken_the_smallest_of_equals(three, monkeypatch):
    chosen = choose_strength(PLAN, three, LOGISTIC, 1, seed=3)
    worst = chosen.scores.groupby("strength")["risk"].max()
    assert (chosen.value or 0.0) == worst.idxmin()


def test_applied():
    assert Strength(7.0, pd.DataFrame()).applied_to(PLAN).objective.penalty_weight == 7.0
    assert Strength(None, pd.DataFrame()).applied_to(PLAN).objective == ERM()


def test_fewer_than_three_environments():
    two = Environments.from_arrays([[-1.0], [1.0]] * 4, [0, 1] * 4, list("aaaabbbb"))
    with pytest.raises(EnvironmentsError, match=r"Choosing the strength .* needs at least 3"):
        choose_strength(PLAN, two, LOGISTIC, 1, seed=0)


def test_groups_hold_every_environment_once():
    names = [f"e{i}" for i in range(13)]
    groups = environment_groups(names, 5, seed=1)
    assert sorted(name for group in groups for name in group) == sorted(names)
    assert {len(group) for group in groups} == {2, 3}
    assert groups == environment_groups(names, 5, seed=1)
    assert groups != environment_groups(names, 5, seed=2)
