"""The recipe behind the estimators."""

import pytest
import torch

from invlearn.environments import Environments
from invlearn.estimators.fitting import Recipe, fit_network
from invlearn.losses import get_loss
from invlearn.models import MLP


@pytest.fixture
def weights(rows):
    """The weights of a network fitted by an objective, its penalty waiting or not."""
    X, y, hospital = rows
    x = torch.tensor(X.to_numpy(), dtype=torch.float32)
    environments = Environments.from_arrays(x, torch.tensor(y.to_numpy()), hospital)

    def fit(objective, warm_up):
        recipe = Recipe(objective, steps=50, warm_up=warm_up, averaging=0.0)
        network = fit_network(
            recipe, lambda g: MLP(2, (3,), generator=g), environments, get_loss("logistic"), seed=0
        ).network
        return torch.cat([p.detach().flatten() for p in network.parameters()])

    return fit


@pytest.mark.parametrize("objective", ["erm", "erm-pooled", "group-dro", "meta-irm"])
def test_without_a_penalty_that_waits_there_is_no_warm_up(weights, objective):
    assert torch.equal(weights(objective, 0.4), weights(objective, 0.0))


@pytest.mark.filterwarnings("ignore:.*collapsed")
@pytest.mark.parametrize("objective", ["irmv1", "vrex", "mmrex", "iga"])
def test_a_penalty_waits_while_the_network_warms_up(weights, objective):
    assert not torch.equal(weights(objective, 0.8), weights(objective, 0.0))
    assert not torch.equal(weights(objective, 0.8), weights("erm", 0.0))
