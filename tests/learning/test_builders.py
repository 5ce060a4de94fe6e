"""Whatever builds a network builds the same one from the same seed."""

from functools import partial

import pytest
import torch
from torch import nn

from invlearn import MLP, OptionError
from invlearn.environments import Environments
from invlearn.learning.builders import Drawn, check_network

ROWS = Environments.from_arrays(torch.zeros(8, 3), [0, 1] * 4, list("aaaabbbb"))


class OfSizes(nn.Linear):
    def __init__(self, n_outputs, n_features, bias=True):
        super().__init__(n_features, n_outputs, bias)


def of_everything(*sizes):
    return MLP(*sizes[:1], (4,), *sizes[1:2], generator=sizes[2])


BUILDERS = {
    "generator": lambda n, k, generator: MLP(n, (4,), k, generator=generator),
    "ignored generator": lambda n, k, generator: nn.Linear(n, k),
    "two": lambda n, k: nn.Linear(n, k),
    "one": lambda n: nn.Linear(n, 2),
    "one by name": lambda n_outputs: nn.Linear(3, n_outputs),
    "none": lambda: nn.Linear(3, 2),
    "by name": lambda *, generator, n_outputs: MLP(3, (4,), n_outputs, generator=generator),
    "defaults": lambda n, k, width=5, generator=None: MLP(n, (width,), k, generator=generator),
    "starred": of_everything,
    "torch's class": nn.Linear,
    "class": OfSizes,
    "partial": partial(nn.Linear, bias=False),
    "lazy": lambda n, k: nn.Sequential(nn.LazyLinear(4), nn.ReLU(), nn.LazyLinear(k)),
}


def weights(make, seed):
    network = Drawn(make)(3, 2, seed)
    check_network(network, ROWS, 2, seed)
    return torch.cat([p.detach().flatten() for p in network.parameters()])


@pytest.mark.parametrize("name", BUILDERS)
def test_a_seed_settles_the_weights(name):
    one, two, other = (weights(BUILDERS[name], seed) for seed in (0, 0, 1))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("name", ["ignored generator", "lazy"])
def test_the_global_generator_is_left_alone(name):
    before = torch.get_rng_state()
    weights(BUILDERS[name], 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_module_is_copied_with_its_weights():
    mine = nn.Linear(3, 2)
    made = Drawn(mine)(3, 2, 0)
    assert made is not mine
    assert torch.equal(made.weight, mine.weight)


def test_a_builder_that_returns_one_network_is_not_shared():
    mine = nn.Linear(3, 2)
    make = Drawn(lambda: mine)
    assert make(3, 2, 0) is not make(3, 2, 0)


def test_a_builder_that_needs_more_is_told_how():
    with pytest.raises(OptionError, match=r"n_features, n_outputs and generator or fewer.*hidden="):
        Drawn(lambda n, k, generator, hidden: None)(3, 2, 0)
    with pytest.raises(OptionError, match=r"or fewer.*depth="):  # By its name only: no such number.
        Drawn(lambda n, *, depth: None)(3, 2, 0)


def test_a_builder_of_something_else():
    def of_sizes(n, k):
        return n, k

    with pytest.raises(OptionError, match=r"torch\.nn\.Module from of_sizes, got tuple"):
        Drawn(of_sizes)(3, 2, 0)


@pytest.mark.parametrize(
    ("network", "n_outputs", "says"),
    [
        (nn.Linear(3, 7), 2, r"2 outputs, one per class.*got shape \(2, 7\).*n_outputs"),
        (nn.Linear(3, 2), 1, r"1 output for every row.*log-odds"),
        (nn.Linear(5, 2), 2, r"rows of shape \(3,\), this one fails on two of them: mat1"),
        (nn.Linear(3, 2).double(), 2, r"type torch.float32, got torch.float64.*network.float\(\)"),
        (nn.Unflatten(1, (3, 1)), 2, r"got shape \(2, 3, 1\)"),
    ],
)
def test_a_network_for_other_rows_is_refused(network, n_outputs, says):
    with pytest.raises(OptionError, match=says):
        check_network(network, ROWS, n_outputs, 0)
