"""A plan's trainer, and runs that end whole or not at all."""

from functools import partial

import pytest
import torch

from invlearn.learning import evaluation_sets, make_trainer, standard_plan, train, train_all
from invlearn.learning.builders import Drawn
from invlearn.learning.plan import Layers
from invlearn.models import MLP

PLAN = standard_plan("erm", Layers((4,)), steps=5)


@pytest.fixture
def single(rows):
    made = rows(sizes=(30, 41))
    return made.with_features(made.x.float())


def weights(model):
    return torch.cat([p.flatten() for p in model.parameters()])


@pytest.mark.parametrize(
    "network",
    [Layers((4,)), Drawn(lambda n, k, generator: MLP(n, (4,), k, generator=generator))],
)
def test_weights_follow_the_seed(network):
    one, two, other = (weights(network(3, 1, seed)) for seed in (0, 0, 1))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_outputs_are_kept_where_rules_can_read_them(single):
    for validation, kept in ((None, ()), (single, ("train", "validation"))):
        run = train(
            PLAN, single, "logistic", 1, 0,
            evaluations=evaluation_sets(single, validation), keep_outputs=True,
        )  # fmt: skip
        assert tuple(run.outputs.splits if run.outputs else ()) == kept


def test_it_goes_on_from_a_network(single):
    start = MLP(4, (4,), generator=torch.Generator().manual_seed(9))
    trainer = make_trainer(PLAN, single, "logistic", 1, 0, start=start)
    assert trainer.model is start


def test_trained_at_once_is_trained_alone(single):
    trainers = [make_trainer(PLAN, single, "logistic", 1, seed) for seed in (0, 1)]
    runs = train_all(trainers)
    for seed, run in enumerate(runs):
        alone = train(PLAN, single, "logistic", 1, seed)
        torch.testing.assert_close(weights(run.model), weights(alone.model), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("together", [False, True])
def test_what_is_interrupted_leaves_nothing(single, monkeypatch, together):
    def interrupted(self, step):
        raise KeyboardInterrupt

    monkeypatch.setattr("invlearn.training.trainer.Trainer._plan", interrupted)
    trainers = [make_trainer(PLAN, single, "logistic", 1, seed) for seed in (0, 1)]
    alone = partial(train, PLAN, single, "logistic", 1, 0)
    with pytest.raises(KeyboardInterrupt):
        train_all(trainers) if together else alone()


def test_no_warning_but_a_message(single, recwarn):
    run = train(standard_plan("erm", Layers((4,)), steps=3, lr=1e30), single, "logistic", 1, 0)
    assert not recwarn
    assert "diverged" in run.messages[0] or "collapsed" in run.messages[0]
