"""What happens to rows before training: those there are, and a stranger's."""

from dataclasses import dataclass, replace

import pytest
import torch

from invlearn.environments import Environments
from invlearn.errors import EnvironmentsError, UnknownNameError
from invlearn.evaluation import forward
from invlearn.learning import fit, standard_plan, train
from invlearn.learning.plan import Layers
from invlearn.learning.preparation import PREPARATIONS, get_preparation
from invlearn.learning.preparation.eiil import NAMES
from invlearn.learning.reference import reference_plan
from invlearn.losses import get_loss

# A few steps on targets that nothing predicts.
pytestmark = pytest.mark.filterwarnings("ignore::invlearn.CollapseWarning")

LOGISTIC = get_loss("logistic")
PLAN = standard_plan("vrex", Layers(()), steps=40, strength=1.0)


@pytest.fixture
def noisy(rows):
    """Rows in single precision, whose targets no predictor gets all right."""
    made = rows("logistic", sizes=(60, 41), weights=True)
    return replace(made, x=made.x.float())


@pytest.mark.parametrize("name", PREPARATIONS)
@pytest.mark.parametrize("loss", ["logistic", "squared", "softmax"])
def test_the_same_rows_come_out_the_same_way(rows, name, loss):
    made = rows(loss, sizes=(60, 41), weights=True)
    made = replace(made, x=made.x.float())
    before = made.x.clone()
    n_outputs = 3 if loss == "softmax" else 1
    one, two = (
        PREPARATIONS[name].prepare(made, PLAN, get_loss(loss), n_outputs, 5) for _ in range(2)
    )
    assert torch.equal(made.x, before)
    assert torch.equal(one.x, two.x)
    assert torch.equal(one.x.sort(0).values, before.sort(0).values)
    assert one.weights is not None
    assert float(one.weights.sum()) > 0


def test_eiil_drops_the_labels_there_were(noisy):
    found = fit(replace(PLAN, preparation=get_preparation("eiil")), noisy, LOGISTIC, 1, seed=0)
    assert tuple(found.environments) == NAMES
    assert sum(found.environments.values()) == noisy.n_rows


def test_eiil_says_when_there_is_nothing_to_infer_from():
    rows = Environments.from_arrays([[-1.0], [1.0]] * 50, [0, 1] * 50, ["a"] * 100)
    plan = standard_plan("vrex", Layers(()), steps=200)
    with pytest.raises(EnvironmentsError, match="got 0 of 100"):
        get_preparation("eiil").prepare(rows, plan, LOGISTIC, 1, 0)


def test_a_misspelt_name():
    with pytest.raises(UnknownNameError, match=r"'eil'\. Did you mean 'eiil'"):
        get_preparation("eil")


@dataclass(frozen=True)
class TwiceWhatIsMissed:
    """Just train twice: rows that a reference gets wrong count several times."""

    factor: float = 5.0

    def prepare(self, rows, plan, loss, n_outputs, seed):
        reference = train(reference_plan(plan), rows, loss, n_outputs, seed).model
        missed = loss.value(forward(reference, rows.x), rows.y) > 0.6931
        weights = torch.ones(rows.n_rows) if rows.weights is None else rows.weights
        return replace(rows, weights=torch.where(missed, self.factor * weights, weights))


@dataclass(frozen=True)
class ByColumn:
    """Every environment's rows apart by the sign of a column."""

    column: int = 0

    def prepare(self, rows, plan, loss, n_outputs, seed):
        signs = ["+" if x > 0 else "-" for x in rows.x[:, self.column].tolist()]
        names = [f"{rows.names[e]}{sign}" for e, sign in zip(rows.index, signs, strict=True)]
        return Environments.from_arrays(rows.x, rows.y, names, weights=rows.weights)


def test_a_strangers_preparation_that_reweights(noisy):
    plan = standard_plan("erm", Layers(()), steps=40)
    found = fit(replace(plan, preparation=TwiceWhatIsMissed()), noisy, LOGISTIC, 1, seed=0)
    by_hand = TwiceWhatIsMissed().prepare(noisy, plan, LOGISTIC, 1, 0)
    expected = fit(plan, by_hand, LOGISTIC, 1, seed=0)
    assert not torch.equal(by_hand.weights, noisy.weights)
    for one, two in zip(found.network.parameters(), expected.network.parameters(), strict=True):
        assert torch.equal(one, two)


def test_a_strangers_preparation_that_relabels(noisy):
    found = fit(replace(PLAN, preparation=ByColumn()), noisy, LOGISTIC, 1, seed=0)
    assert list(found.environments) == ["e0+", "e0-", "e1+", "e1-"]
    assert "risk e0+" in found.run.history
