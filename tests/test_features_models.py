"""Channel images, the linear layer's two kernels, and the multilayer perceptron."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from invlearn import kernels
from invlearn.errors import EnvironmentsError, OptionError
from invlearn.features import ChannelImages, as_rows, concatenate, width
from invlearn.models import MLP, Linear, batch_norms
from invlearn.stored_rows import RowStore, StoredRows

TOLERANCE = {torch.float64: 1e-11, torch.float32: 2e-4}

needs_onednn = pytest.mark.skipif(not kernels.ONEDNN, reason="this CPU takes torch's own path")


@pytest.fixture(params=["this CPU's choice", "torch's own"])
def kernel(request, monkeypatch):
    """Runs a test on the kernel this CPU gets and on torch's own."""
    if request.param == "torch's own":
        monkeypatch.setattr(kernels, "ONEDNN", False)


def images_of(channel, channels=3, pixels=5, dtype=torch.float64, seed=0):
    g = torch.Generator().manual_seed(seed)
    pixels = torch.randn(len(channel), pixels, generator=g, dtype=torch.float64)
    return ChannelImages(pixels.to(dtype), torch.as_tensor(channel), channels)


def normal(*shape, dtype=torch.float64, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=g, dtype=torch.float64).to(dtype)


def close(got, want):
    tolerance = TOLERANCE[want.dtype]
    torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance)


# What is asked of rows, however they are stored.


@pytest.fixture(params=["tensor", "matrices", "images", "stored"])
def rows(request):
    """Eight rows of each kind."""
    if request.param == "images":
        yield images_of([0, 0, 1, 2, 2, 1, 0, 1])
    elif request.param == "matrices":
        yield normal(8, 2, 3)
    elif request.param == "tensor":
        yield normal(8, 3)
    else:
        with RowStore(8, 3) as store:
            store.put(np.arange(8), normal(8, 3).numpy())
            yield StoredRows.of(store)


def test_rows_of_every_kind_are_asked_alike(rows):
    asked, dense = as_rows(rows), as_rows(rows).dense()
    index = torch.tensor([5, 0, 3])
    assert as_rows(asked.take(index)).dense().equal(dense[index])
    assert as_rows(asked.stretch(2, 6)).dense().equal(dense[2:6])
    parts = [asked.stretch(0, 3), asked.stretch(3, 8)]
    assert as_rows(as_rows(parts[0]).joined(parts)).dense().equal(dense)
    assert asked.n_features == width(rows) == dense[0].numel()
    assert math.prod(asked.row_shape) == asked.n_features
    assert len(asked.values) == 8
    assert asked.in_memory == (not isinstance(rows, StoredRows))
    assert (asked.channel is None) == (asked.n_channels == 1)
    asked.check("environment 'a'")  # Nothing is wrong with them.


@pytest.mark.parametrize("make", [lambda: normal(6, 3), lambda: images_of([0, 1, 2, 0, 1, 2])])
def test_rows_that_are_not_finite_are_told_by_number(make):
    rows = as_rows(make())
    rows.values[4, 1] = math.nan
    with pytest.raises(EnvironmentsError, match=r"x of environment 'a' holds .* first row 4\. Imp"):
        rows.check("environment 'a'")


def test_channels_out_of_range_are_told():
    with pytest.raises(EnvironmentsError, match=r"channels 0 to 2 in here, got 0 to 3\. Number"):
        as_rows(images_of([0, 3])).check("here")


# Channel images.


def test_dense_puts_the_pixels_in_their_channel_and_zeros_elsewhere():
    images = images_of([2, 0, 1, 2])
    dense = images.dense().reshape(4, 3, 5)
    for row, channel in enumerate([2, 0, 1, 2]):
        for c in range(3):
            expected = images.pixels[row] if c == channel else torch.zeros(5).double()
            assert dense[row, c].equal(expected)
    assert images.n_features == width(images) == 15
    assert width(torch.zeros(7, 2, 3)) == 6


@pytest.mark.parametrize(
    ("channel", "runs"),
    [
        ([], []),
        ([1], [(0, 1, 1)]),
        ([2, 2, 0, 0, 0, 2], [(0, 2, 2), (2, 5, 0), (5, 6, 2)]),
        ([0, 1, 2], [(0, 1, 0), (1, 2, 1), (2, 3, 2)]),
    ],
)
def test_runs_are_the_stretches_of_one_channel(channel, runs):
    images = ChannelImages(
        torch.zeros(len(channel), 4), torch.tensor(channel, dtype=torch.int64), 3
    )
    assert images.runs() == runs


@pytest.mark.parametrize(
    "rows", [slice(1, 3), torch.tensor([3, 0, 0]), torch.tensor([True, False, False, True])]
)
def test_picking_rows_of_images_picks_rows_of_the_dense_ones(rows):
    images = images_of([2, 0, 1, 2])
    assert images[rows].dense().equal(images.dense()[rows])
    assert len(images[rows]) == len(images.dense()[rows])


def test_images_change_type_without_changing_their_channels():
    images = images_of([2, 0, 1])
    single = images.to(torch.float32)
    assert single.dtype == torch.float32
    assert single.channel.equal(images.channel)
    assert single.channel.dtype == torch.int64
    moved = images.to("meta")
    assert moved.device.type == "meta"
    assert moved.channel.device.type == "cpu"  # It says which products there are to make.
    assert images.to("cpu").dense().equal(images.dense())


def test_concatenated_images_are_concatenated_dense_ones():
    a, b = images_of([0, 2]), images_of([1], seed=1)
    assert concatenate([a, b]).dense().equal(torch.cat([a.dense(), b.dense()]))
    assert concatenate([a.pixels, b.pixels]).equal(torch.cat([a.pixels, b.pixels]))


# The linear layer.


def channels_of(order, n):
    channel = torch.randint(0, 3, (n,), generator=torch.Generator().manual_seed(n))
    return {
        "sorted": channel.sort().values,
        "unsorted": channel,
        "one channel": torch.full((n,), 2),
        "some runs": torch.arange(n) * 7 // n % 3,
    }[order]


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("order", ["sorted", "unsorted", "one channel", "some runs"])
@pytest.mark.parametrize("n", [1, 30, 300, 600])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["f64", "f32"])
def test_linear_on_channel_images_is_nn_linear_on_dense_ones(order, n, dtype):
    images = images_of(channels_of(order, n), dtype=dtype)
    layer, plain = Linear(15, 4, dtype=dtype), nn.Linear(15, 4, dtype=dtype)
    with torch.no_grad():
        layer.weight.copy_(normal(4, 15, seed=1))
        layer.bias.copy_(normal(4, seed=2))
    plain.load_state_dict(layer.state_dict())
    got, want = layer(images), plain(images.dense())
    close(got, want)
    upstream = normal(n, 4, dtype=dtype, seed=3)
    got.backward(upstream)
    want.backward(upstream)
    close(layer.weight.grad, plain.weight.grad)
    close(layer.bias.grad, plain.bias.grad)


def test_linear_flattens_rows_with_several_axes():
    layer = Linear(12, 2).double()
    x = normal(5, 3, 2, 2)
    close(layer(x), F.linear(x.reshape(5, 12), layer.weight, layer.bias))


LAYOUTS = {
    "packed": lambda *shape, **kw: normal(*shape, **kw),
    "transposed": lambda n, k, **kw: normal(k, n, **kw).t(),
    "strided": lambda n, k, **kw: normal(n, 2 * k, **kw)[:, ::2],
    "repeated": lambda n, k, **kw: normal(1, k, **kw).expand(n, k),
}


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("x_layout", LAYOUTS)
@pytest.mark.parametrize("weight_layout", ["packed", "transposed", "strided"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("n", [63, 64, 200])
def test_linear_kernel_has_the_values_and_gradients_of_torchs(x_layout, weight_layout, bias, n):
    values = [
        LAYOUTS[x_layout](n, 9, dtype=torch.float32, seed=0),
        LAYOUTS[weight_layout](6, 9, dtype=torch.float32, seed=1),
        *([normal(6, dtype=torch.float32, seed=2)] if bias else []),
    ]
    upstream = normal(6, n, dtype=torch.float32, seed=3).t()
    results = []
    for function in (kernels.linear, F.linear):
        leaves = [v.detach().requires_grad_() for v in values]
        out = function(*leaves)
        results.append([out, *torch.autograd.grad(out, leaves, upstream)])
    for got, want in zip(*results, strict=True):
        close(got, want)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["f64", "f32"])
@pytest.mark.parametrize("wanted", [0, 1, 2])
def test_linear_kernel_gives_one_gradient_alone(dtype, wanted):
    values = [
        normal(100, 5, dtype=dtype),
        normal(3, 5, dtype=dtype, seed=1),
        normal(3, dtype=dtype, seed=2),
    ]
    values[wanted].requires_grad_()
    got = torch.autograd.grad(kernels.linear(*values).square().sum(), values[wanted])
    want = torch.autograd.grad(F.linear(*values).square().sum(), values[wanted])
    close(got[0], want[0])


@needs_onednn
@pytest.mark.parametrize(("n", "outputs", "taken"), [(64, 3, True), (63, 3, False), (64, 1, False)])
def test_only_large_products_take_the_other_kernel(n, outputs, taken, monkeypatch):
    calls = []
    original = kernels._product
    monkeypatch.setattr(kernels, "_product", lambda *args: (calls.append(1), original(*args))[1])
    kernels.linear(torch.randn(n, 5), torch.randn(outputs, 5))
    assert bool(calls) is taken


@needs_onednn
def test_both_kernels_repeat_themselves_bit_for_bit():
    x, weight = normal(500, 30, dtype=torch.float32), normal(7, 30, dtype=torch.float32, seed=1)
    assert kernels.linear(x, weight).equal(kernels.linear(x, weight))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["f64", "f32"])
@pytest.mark.parametrize("transform", ["vmap", "grad", "jvp", "forward over reverse"])
def test_linear_kernel_works_under_function_transforms(transform, dtype):
    x, bias = normal(100, 5, dtype=dtype), normal(3, dtype=dtype, seed=2)
    weights = normal(4, 3, 5, dtype=dtype, seed=1)
    weight, tangent = weights[0], weights[1]

    def outcome(linear):
        def risk(w):
            return linear(x, w, bias).square().mean()

        if transform == "vmap":
            return torch.func.vmap(lambda w: linear(x, w, bias))(weights)
        if transform == "grad":
            return torch.func.grad(risk)(weight)
        if transform == "jvp":
            return torch.func.jvp(lambda w: linear(x, w, bias), (weight,), (tangent,))[1]
        return torch.func.jvp(torch.func.grad(risk), (weight,), (tangent,))[1]

    close(outcome(kernels.linear), outcome(F.linear))


# The multilayer perceptron.


def mlp(seed=0, n_features=40, hidden=(30, 20), n_outputs=3):
    return MLP(n_features, hidden, n_outputs, generator=torch.Generator().manual_seed(seed))


def test_initial_weights_depend_on_the_generator_alone():
    states = []
    for global_seed in (1, 2):
        torch.manual_seed(global_seed)
        before = torch.get_rng_state()
        states.append(mlp(seed=7).state_dict())
        assert torch.equal(torch.get_rng_state(), before)
    for name, tensor in states[0].items():
        assert tensor.equal(states[1][name])
    assert not mlp(seed=8).layers[0].weight.equal(states[0]["layers.0.weight"])


def test_initial_weights_fill_xaviers_bounds_and_biases_are_zero():
    model = mlp(n_features=200, hidden=(100, 50), n_outputs=1)
    shapes = [tuple(layer.weight.shape) for layer in model.layers]
    assert shapes == [(100, 200), (50, 100), (1, 50)]
    for layer in list(model.layers)[:2]:
        fan_out, fan_in = layer.weight.shape
        bound = math.sqrt(6 / (fan_in + fan_out))
        assert 0.99 * bound < layer.weight.abs().max() <= bound
        assert abs(float(layer.weight.detach().mean())) < 5 * bound / math.sqrt(
            3 * layer.weight.numel()
        )
        assert float(layer.weight.detach().std()) == pytest.approx(bound / math.sqrt(3), rel=0.05)
    for layer in model.layers:
        assert (layer.bias == 0).all()
        assert layer.weight.requires_grad


@pytest.mark.parametrize("hidden", [(), (8,), (8, 6)])
@pytest.mark.parametrize("n", [20, 90])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["f64", "f32"])
def test_mlp_is_the_sequence_of_its_layers_and_relus(hidden, n, dtype):
    model = mlp(n_features=15, hidden=hidden).to(dtype)
    plain = []
    for i, layer in enumerate(model.layers):
        copy = nn.Linear(layer.in_features, layer.out_features, dtype=dtype)
        copy.load_state_dict(layer.state_dict())
        plain += [copy] + [nn.ReLU()] * (i + 1 < len(model.layers))
    sequence = nn.Sequential(*plain)
    images = images_of(channels_of("sorted", n), dtype=dtype)
    for x in (images, images.dense()):
        model.zero_grad()
        sequence.zero_grad()
        got, want = model(x), sequence(images.dense())
        close(got, want)
        got.square().sum().backward()
        want.square().sum().backward()
        for p, q in zip(model.parameters(), sequence.parameters(), strict=True):
            close(p.grad, q.grad)


@pytest.mark.parametrize(
    "widths", [{"n_features": 0}, {"hidden": (3, 0)}, {"n_outputs": 0}, {"hidden": (-2,)}]
)
def test_a_layer_without_units_is_refused(widths):
    with pytest.raises(OptionError, match=r"Expected positive widths, got .*at least one unit"):
        mlp(**widths)


def test_batch_norms_are_found_at_any_depth_and_other_norms_are_not():
    model = nn.Sequential(
        nn.Linear(4, 4),
        nn.BatchNorm1d(4),
        nn.LayerNorm(4),
        nn.GroupNorm(2, 4),
        nn.InstanceNorm1d(4),
        nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3)),
    )
    assert batch_norms(model) == ["1", "5.1"]
    assert batch_norms(mlp()) == []


def test_kernel_can_be_differentiated_twice():
    g = torch.Generator().manual_seed(0)
    x, w = torch.randn(80, 5, generator=g), torch.randn(3, 5, generator=g)
    v = torch.randn(3, 5, generator=g)
    products = [
        torch.autograd.functional.hvp(lambda w, f=f: f(x, w).square().square().sum(), w, v)[1]
        for f in (kernels.linear, torch.nn.functional.linear)
    ]
    torch.testing.assert_close(*products)


@pytest.mark.parametrize("channels", [None, 2])
def test_layer_takes_no_rows(channels):
    x = torch.empty(0, 6)
    if channels:
        x = ChannelImages(torch.empty(0, 3), torch.empty(0, dtype=torch.int64), 2)
    assert Linear(6, 4)(x).shape == (0, 4)


@needs_onednn
@pytest.mark.parametrize("n", [64, 200])
def test_linear_kernel_has_the_second_derivatives_of_torchs(n):
    g = torch.Generator().manual_seed(0)
    x, w, b = (torch.randn(*shape, generator=g) for shape in ((n, 70), (33, 70), (33,)))
    found = []
    for function in (kernels.linear, F.linear):
        leaves = [t.clone().requires_grad_() for t in (x, w, b)]
        hidden = function(leaves[0], leaves[1], leaves[2]).tanh()
        out = function(hidden, leaves[1].t()[:33, :33].contiguous()).square().sum()
        first = torch.autograd.grad(out, leaves, create_graph=True)
        slope = sum((f * f.detach().cos()).sum() for f in first)
        found.append(torch.autograd.grad(slope, leaves))
    for got, want in zip(*found, strict=True):
        torch.testing.assert_close(got, want, rtol=2e-4, atol=2e-4 * float(want.abs().max()))
