"""One reference ERM, however it is asked for."""

from dataclasses import replace

import pytest
import torch

from invlearn.learning import EarlyStopping, evaluation_sets, fit, reference, standard_plan
from invlearn.learning.plan import Layers
from invlearn.learning.preparation import eiil, get_preparation
from invlearn.learning.reference import reference_outputs, reference_plan
from invlearn.losses import get_loss
from invlearn.objectives.erm import ERM
from invlearn.selection import reference_step
from invlearn.training import Trainer

# A few steps on targets that nothing predicts.
pytestmark = pytest.mark.filterwarnings("ignore:.*collapsed")

LOGISTIC = get_loss("logistic")
PLAN = standard_plan("vrex", Layers((3,)), steps=21, early_stopping=EarlyStopping())


@pytest.fixture
def single(rows):
    made = rows(sizes=(60, 41))
    return made.with_features(made.x.float())


def test_it_is_half_an_erm_where_its_errors_depend_most_on_the_environment(single):
    train, validation = single.split(0.3, seed=0)
    sets = evaluation_sets(train, validation)
    found = reference_outputs(PLAN, train, LOGISTIC, 1, 4, evaluations=sets)
    settings = replace(PLAN.resolved(train.sizes).as_erm().settings, steps=10)
    settings = replace(settings, schedule=type(settings.schedule)())
    outputs = Trainer(
        Layers((3,))(4, 1, 4), train, "erm", LOGISTIC, settings=settings, seed=4,
        evaluations=sets, keep_outputs=("train", "validation"),
    ).run().outputs  # fmt: skip
    expected = outputs.at(reference_step(outputs))
    assert found.keys() == expected.keys() == {"train", "validation"}
    assert all(torch.equal(found[split], expected[split]) for split in found)


def test_early_stopping_and_inferring_train_the_same(single, monkeypatch):
    trained, train = [], reference.train

    def spy(plan, *arguments, **options):
        trained.append(plan)
        return train(plan, *arguments, **options)

    monkeypatch.setattr(reference, "train", spy)
    monkeypatch.setattr(eiil, "train", spy)
    fit(PLAN, single, LOGISTIC, 1, seed=0)
    get_preparation("eiil").prepare(single, PLAN, LOGISTIC, 1, 0)
    assert trained == [reference_plan(PLAN)] * 2
    assert (trained[0].objective, trained[0].settings.steps) == (ERM(), 10)
