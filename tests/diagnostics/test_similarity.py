"""PWCCA against truths and a slow version; what a model's layers pass on."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from scipy.linalg import hadamard
from torch import nn

from invlearn.diagnostics import activations, pwcca, representation
from invlearn.errors import EnvironmentsError, OptionError, UnknownNameError
from invlearn.features import ChannelImages
from invlearn.models import MLP
from reference import cca


def gaussian(n, p, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, p, dtype=torch.float64, generator=generator)


def related(n=300, p=4, q=3, seed=0):
    a, noise = gaussian(n, p, seed), gaussian(n, q, seed + 1)
    return a, a @ gaussian(p, q, seed + 2) + noise


def columns(*numbers):
    return torch.from_numpy(hadamard(8)[:, list(numbers)].astype(float))


def test_by_hand():
    h1, h2, h3 = (columns(i) for i in (1, 2, 3))
    a = torch.cat([3 * h1, h2], 1)
    b = torch.cat([h1, 0.6 * h2 + 0.8 * h3], 1) + 7
    # Correlations 1 and 0.6; weights 3 to 1 for a's units, 1 to 1 for b's.
    assert pwcca(a, b) == pytest.approx((3 * 1 + 0.6) / 4, abs=1e-12)
    assert pwcca(b, a) == pytest.approx((1 + 0.6) / 2, abs=1e-12)


def test_one_unit_each_is_the_absolute_correlation():
    a, b = related(p=1, q=1)
    expected = abs(np.corrcoef(a[:, 0], b[:, 0])[0, 1])
    assert pwcca(a, b) == pytest.approx(expected, abs=1e-12)
    assert pwcca(-a, b) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_invertible_linear_maps(seed):
    a, b = related(seed=seed)
    mapped = 5 + a @ gaussian(4, 4, seed + 50)
    assert pwcca(a, mapped) == pytest.approx(1, abs=1e-8)
    assert pwcca(mapped, a) == pytest.approx(1, abs=1e-8)
    assert pwcca(a, b @ gaussian(3, 3, seed + 60) - 2) == pytest.approx(pwcca(a, b), abs=1e-8)
    assert pwcca(-3 * a.flip(1), b) == pytest.approx(pwcca(a, b), abs=1e-12)


@pytest.mark.parametrize(("p", "q"), [(4, 3), (3, 4), (5, 5), (1, 4), (6, 1)])
def test_slow_version(p, q):
    for seed in range(3):
        a, b = related(p=p, q=q, seed=seed)
        expected = cca.pwcca(a.numpy(), b.numpy())
        assert pwcca(a, b) == pytest.approx(expected, abs=1e-9)
        assert pwcca(b, a) == pytest.approx(cca.pwcca(b.numpy(), a.numpy()), abs=1e-9)


def test_not_symmetric():
    a, b = related()
    a[:, 0] *= 20
    assert abs(pwcca(a, b) - pwcca(b, a)) > 0.01


def test_independent_representations_are_near_the_known_small_value():
    n, k = 20000, 20
    got = pwcca(gaussian(n, k, 1), gaussian(n, k, 2))
    assert got == pytest.approx(8 / (3 * math.pi) * math.sqrt(k / n), rel=0.1)


def test_a_part_of_a_representation_gives_one():
    a = gaussian(50, 4)
    assert pwcca(a, a[:, :2]) == pytest.approx(1, abs=1e-12)
    assert pwcca(a[:, :2], a) == pytest.approx(1, abs=1e-12)


def test_dead_and_repeated_units_change_nothing():
    a, b = related()
    # 0.1 is no binary fraction: its mean would differ from it by rounding.
    dead = torch.full((len(a), 2), 0.1, dtype=torch.float64)
    assert pwcca(torch.cat([a, dead], 1), b) == pytest.approx(pwcca(a, b), abs=1e-12)
    assert pwcca(a, torch.cat([dead, b, b @ gaussian(3, 2)], 1)) == pytest.approx(
        pwcca(a, b), abs=1e-12
    )


def test_float32_rounding_is_no_direction():
    a, b = related(n=2000, p=5, q=5)
    mixed = gaussian(5, 60, 9)
    rounded = a.float() @ mixed.float()
    assert torch.linalg.matrix_rank(rounded.double()) > 5
    assert pwcca(b, rounded) == pytest.approx(pwcca(b, a), abs=1e-5)
    assert pwcca(rounded, b) == pytest.approx(pwcca(a @ mixed, b), abs=1e-5)


def test_more_units_than_rows_of_low_rank():
    a, b = related(n=40)
    assert pwcca(a, b @ gaussian(3, 100)) == pytest.approx(pwcca(a, b), abs=1e-10)


def test_numpy_and_other_types():
    a, b = related()
    frozen = b.numpy().copy()
    frozen.setflags(write=False)
    assert pwcca(a.numpy(), frozen) == pwcca(a, b)
    assert pwcca(a.float().requires_grad_(), b.float()) == pytest.approx(pwcca(a, b), abs=1e-5)
    whole = np.array([[0, 1], [1, 0], [2, 2], [5, 1], [0, 0], [3, 7]])
    assert pwcca(whole, whole) == pytest.approx(1, abs=1e-12)


def raises(error, text):
    return pytest.raises(error, match=f"^{re.escape(text)}$")


def test_errors():
    a, b = related()
    with raises(
        OptionError,
        "Expected activations on the same rows, got 300 rows in a and 299 in b. "
        "Run both models on the same rows, in the same order.",
    ):
        pwcca(a, b[1:])
    for bad, shape in ((a[:1], "(1, 4)"), (a[:, 0], "(300,)"), (a[:, :0], "(300, 0)")):
        with raises(
            OptionError,
            "Expected b as a matrix [rows, units] of at least two rows and one unit, got "
            f"shape {shape}. Flatten what each row has; one row has no correlation.",
        ):
            pwcca(a, bad)
    broken = a.clone()
    broken[3, 1] = math.inf
    with raises(
        OptionError,
        "Expected finite activations, got NaN or infinity in a. Look for a run that diverged.",
    ):
        pwcca(broken, b)
    with raises(
        OptionError,
        "Expected activations that vary over the rows, got constant ones in b. "
        "Look for a layer whose units are all dead.",
    ):
        pwcca(a, torch.full((300, 3), 0.1))
    with raises(
        OptionError,
        "Expected more rows than the ranks of both activations together, got 7 rows and ranks "
        "4 + 3: some correlations would be 1 whatever the activations. "
        "Take many more rows than units.",
    ):
        pwcca(a[:7], b[:7])
    assert 0 <= pwcca(a[:8], b[:8]) <= 1


def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def mlp():
    return MLP(4, (6, 5), 1, generator=generator())


def hidden(model, x):
    """Both hidden layers after the ReLU, and the output."""
    first = model.layers[0](x).relu()
    second = model.layers[1](first).relu()
    return first, second, model.layers[2](second)


def test_activations_are_what_the_next_layer_reads(mlp, monkeypatch):
    monkeypatch.setattr("invlearn.evaluation.BATCH_ROWS", 3)
    x = torch.randn(7, 4, generator=generator())
    found = activations(mlp, x)
    assert list(found) == ["layers.0", "layers.1", "layers.2"]
    for got, wanted in zip(found.values(), hidden(mlp, x), strict=True):
        torch.testing.assert_close(got, wanted)
        assert not got.requires_grad
    assert torch.equal(representation(mlp, x), activations(mlp, x)["layers.1"])


def test_activations_with_other_parameters(mlp):
    x = torch.randn(7, 4, generator=generator())
    before = {name: value.clone() for name, value in mlp.named_parameters()}
    stepped = {name: value + 0.1 for name, value in mlp.named_parameters()}
    other = MLP(4, (6, 5), 1, generator=generator())
    other.load_state_dict(stepped)
    found = activations(mlp, x, parameters=stepped)
    assert list(found) == ["layers.0", "layers.1", "layers.2"]
    for got, wanted in zip(found.values(), hidden(other, x), strict=True):
        torch.testing.assert_close(got, wanted)
    torch.testing.assert_close(representation(mlp, x, stepped), hidden(other, x)[1])
    assert all(torch.equal(value, before[name]) for name, value in mlp.named_parameters())
    one = {"layers.2.bias": stepped["layers.2.bias"]}
    torch.testing.assert_close(
        activations(mlp, x, parameters=one)["layers.2"], hidden(mlp, x)[2] + 0.1
    )


def test_channel_images(mlp, monkeypatch):
    monkeypatch.setattr("invlearn.evaluation.BATCH_ROWS", 4)
    images = ChannelImages(torch.rand(6, 2, generator=generator()), torch.arange(6) % 2, 2)
    for got, wanted in zip(activations(mlp, images).values(), hidden(mlp, images), strict=True):
        torch.testing.assert_close(got, wanted)
    linear = MLP(4, (), 1, generator=generator())
    assert list(activations(linear, images)) == ["layers.0"]
    assert torch.equal(representation(linear, images), images.dense())
    assert torch.equal(representation(linear, images.dense()), images.dense())


def test_layers_in_place_images_and_modes():
    model = nn.Sequential(
        nn.Conv2d(1, 3, 2), nn.BatchNorm2d(3), nn.ReLU(inplace=True), nn.Dropout(),
        nn.Flatten(), nn.Linear(12, 2), nn.Sigmoid(),
    )  # fmt: skip
    for parameter in model.parameters():
        nn.init.normal_(parameter, generator=generator())
    model[0].eval()
    x = torch.randn(5, 1, 3, 3, generator=generator())
    found = activations(model, x)
    assert {name: tuple(rows.shape) for name, rows in found.items()} == {
        "0": (5, 12), "1": (5, 12), "5": (5, 2),
    }  # fmt: skip
    assert (found["0"] < 0).any()
    assert (found["1"] >= 0).all()
    assert (found["5"] < 0).any()
    assert model.training
    assert not model[0].training
    assert int(model[1].num_batches_tracked) == 0
    assert not any(module._forward_hooks for module in model.modules())


def test_the_last_output_is_kept_as_it_was():
    class InPlace(nn.Module):
        def __init__(self):
            super().__init__()
            self.last = MLP(3, (), 2, generator=generator())

        def forward(self, x):
            return self.last(x).zero_()

    assert activations(InPlace(), torch.ones(4, 3))["last.layers.0"].abs().sum() > 0


def test_a_layer_on_its_own():
    model = nn.Linear(3, 2)
    found = activations(model, torch.ones(4, 3), parameters={"bias": torch.zeros(2)})
    torch.testing.assert_close(found["model"], (model(torch.ones(4, 3)) - model.bias))


def test_activations_errors(mlp):
    x = torch.ones(4, 4)
    with raises(EnvironmentsError, "Expected at least one row, got none. Pass rows to run on."):
        activations(mlp, x[:0])
    with raises(
        UnknownNameError,
        "Unknown parameter 'layers.0.wieght'. Did you mean 'layers.0.weight'? Known: "
        "layers.0.bias, layers.0.weight, layers.1.bias, layers.1.weight, layers.2.bias, "
        "layers.2.weight.",
    ):
        activations(mlp, x, parameters={"layers.0.wieght": x})
    with raises(
        OptionError,
        "Expected a model with at least one layer that has parameters, got none that ran. "
        "Pass a model made of modules such as nn.Linear.",
    ):
        activations(nn.ReLU(), x)

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            return self.layer(self.layer(x))

    model = Twice()
    with raises(
        OptionError,
        "Expected every layer to run once, got 'layer' twice. "
        "Give each of its places a layer of its own.",
    ):
        activations(model, x)
    assert not model.layer._forward_hooks
    assert model.training
