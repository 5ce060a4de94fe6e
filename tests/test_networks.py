"""Networks from a description: bounds, shapes, seeds, and rows that do not see each other."""

from __future__ import annotations

import math
import random

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from safetensors.torch import save
from torch.func import functional_call, grad, jvp, vmap

from invlearn.errors import DataFileError, EnvironmentsError
from invlearn.features import ChannelImages
from invlearn.models import batch_norms
from invlearn.networks import ConvNetSpec, MLPSpec, NetworkSpec, build, parse_weights

CONVOLUTIONAL = ConvNetSpec(channels=2, height=9, width=12, filters=(8, 12, 16), n_outputs=3)
SPECS = [
    MLPSpec(n_features=5, hidden=(), n_outputs=2),
    MLPSpec(n_features=5, hidden=(7, 4), n_outputs=1),
    ConvNetSpec(channels=1, height=8, width=8, n_outputs=1),
    CONVOLUTIONAL,
]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def images(n=6, dtype=torch.float32, seed=1):
    return torch.randn(n, 2, 9, 12, generator=seeded(seed), dtype=dtype)


@pytest.mark.parametrize("spec", SPECS)
def test_the_shapes_told_in_advance_are_those_of_the_built_network(spec):
    state = build(spec, seeded()).state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == spec.shapes()
    assert spec.n_parameters == sum(tensor.numel() for tensor in state.values())


@pytest.mark.parametrize("spec", SPECS)
def test_weights_come_from_the_generator_alone(spec):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    one = build(spec, seeded()).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(4)
    again, other = build(spec, seeded()).state_dict(), build(spec, seeded(1)).state_dict()
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("spec", SPECS)
def test_json_brings_back_the_description(spec):
    assert TypeAdapter(NetworkSpec).validate_json(spec.model_dump_json()) == spec


def test_kaiming_bounds():
    """sqrt(6 / fan_in) before a ReLU, sqrt(3 / fan_in) in the last layer."""
    net = build(ConvNetSpec(channels=3, height=8, width=8, n_outputs=50), seeded())
    layers = [*net.convolutions, net.last]
    bounds = [math.sqrt(6 / (9 * c)) for c in (3, 16, 32)] + [math.sqrt(3 / 64)]
    for layer, bound in zip(layers, bounds, strict=True):
        largest = float(layer.weight.detach().abs().max())
        assert 0.97 * bound < largest <= bound
        assert not layer.bias.any()


def test_forward_is_the_written_out_formula():
    net = build(CONVOLUTIONAL, seeded()).double()
    for norm in net.norms:  # Ones and zeros would hide a norm that forgot its weights.
        norm.weight.data.uniform_(0.5, 2, generator=seeded(2))
        norm.bias.data.uniform_(-1, 1, generator=seeded(3))
    h = images(dtype=torch.float64)
    for convolution, norm, groups in zip(net.convolutions, net.norms, (4, 4, 4), strict=True):
        h = torch.conv2d(h, convolution.weight, convolution.bias, padding=1)
        n, c, height, width = h.shape
        grouped = h.reshape(n, groups, -1)
        mean = grouped.mean(2, keepdim=True)
        variance = (grouped - mean).square().mean(2, keepdim=True)
        h = ((grouped - mean) / (variance + 1e-5).sqrt()).reshape(h.shape)
        h = (h * norm.weight[:, None, None] + norm.bias[:, None, None]).clamp(min=0)
        h = h[:, :, : height // 2 * 2, : width // 2 * 2]
        h = h.reshape(n, c, height // 2, 2, width // 2, 2).amax((3, 5))
    expected = h.mean((2, 3)) @ net.last.weight.T + net.last.bias
    torch.testing.assert_close(net(images(dtype=torch.float64)), expected)


def test_a_row_does_not_see_the_other_rows():
    net = build(CONVOLUTIONAL, seeded()).double()
    x = images(dtype=torch.float64)
    alone = torch.cat([net(row[None]) for row in x])
    torch.testing.assert_close(net(x), alone, rtol=1e-12, atol=1e-12)
    assert batch_norms(net) == []


def test_flat_rows_and_channel_images_are_the_same_images():
    net = build(CONVOLUTIONAL, seeded())
    x = images()
    assert torch.equal(net(x), net(x.flatten(1)))
    rows = ChannelImages(x[:, 0].flatten(1), torch.arange(6) % 2, 2)
    assert torch.equal(net(rows), net(rows.dense()))
    assert net(x[:0]).shape == net(x[:0].flatten(1)).shape == (0, 3)


@pytest.mark.parametrize("shape", [(4, 215), (4, 2, 12, 9), (4, 1, 9, 12), (4,)])
def test_images_of_another_size_are_refused(shape):
    with pytest.raises(EnvironmentsError) as caught:
        build(CONVOLUTIONAL, seeded())(torch.zeros(shape))
    assert str(caught.value) == (
        "Expected images of 2 channel(s), height 9 and width 12, as such or as flat rows of 216, "
        f"got rows of shape {shape[1:]}. Give the network images of the size it was built for."
    )


def test_function_transforms_go_through():
    """Penalties differentiate twice, forward-mode and over stacked runs."""
    net = build(CONVOLUTIONAL, seeded()).double()
    x = images(dtype=torch.float64)
    weights = {name: value.detach() for name, value in net.named_parameters()}
    g = seeded(4)
    along = {
        name: torch.randn(value.shape, generator=g, dtype=value.dtype)
        for name, value in weights.items()
    }

    def risk(weights):
        return functional_call(net, weights, (x,)).square().mean()

    def penalty(weights):
        return sum(g.square().sum() for g in grad(risk)(weights).values())

    def inner(one, other):
        return sum(float((one[name] * other[name]).sum()) for name in one)

    _, forward = jvp(risk, (weights,), (along,))
    assert float(forward) == pytest.approx(inner(grad(risk)(weights), along), rel=1e-9)

    step = 1e-6
    moved = [{n: w + s * along[n] for n, w in weights.items()} for s in (step, -step)]
    difference = float(penalty(moved[0]) - penalty(moved[1])) / (2 * step)
    assert difference == pytest.approx(inner(grad(penalty)(weights), along), rel=1e-4)

    stacked = {name: torch.stack([w, 1.1 * w]) for name, w in weights.items()}
    runs = vmap(lambda w: functional_call(net, w, (x,)))(stacked)
    one = functional_call(net, {name: 1.1 * w for name, w in weights.items()}, (x,))
    torch.testing.assert_close(runs[1], one)


MLP_FIELDS = {"kind": "mlp", "n_features": 5, "hidden": [7], "n_outputs": 1}
CONV_FIELDS = {"kind": "convolutional", "channels": 3, "height": 28, "width": 28, "n_outputs": 1}


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        (MLP_FIELDS | {"n_features": 0}, "greater than or equal to 1"),
        (MLP_FIELDS | {"n_features": 10**6 + 1}, "less than or equal to 1000000"),
        (MLP_FIELDS | {"n_features": 10**400}, "less than or equal to 1000000"),
        (MLP_FIELDS | {"n_features": 5.0}, "valid integer"),
        (MLP_FIELDS | {"n_features": True}, "valid integer"),
        (MLP_FIELDS | {"n_features": "5"}, "valid integer"),
        (MLP_FIELDS | {"hidden": [0]}, "greater than or equal to 1"),
        (MLP_FIELDS | {"hidden": [1] * 65}, "at most 64 items"),
        (MLP_FIELDS | {"hidden": 7}, "valid tuple"),
        (MLP_FIELDS | {"hidden": [10**5] * 2}, "at most 1000000000 parameters"),
        (MLP_FIELDS | {"n_outputs": 10**5 + 1}, "less than or equal to 100000"),
        (MLP_FIELDS | {"extra": 1}, "Extra inputs"),
        (MLP_FIELDS | {"__class__": "os.system"}, "Extra inputs"),
        (MLP_FIELDS | {"channels": 3}, "Extra inputs"),
        ({"kind": "mlp"}, "Field required"),
        ({"n_features": 5}, "Unable to extract tag"),
        (MLP_FIELDS | {"kind": "torch.nn.Linear"}, "does not match any of the expected tags"),
        (CONV_FIELDS | {"height": 7}, "greater than or equal to 8"),
        (CONV_FIELDS | {"width": 1025}, "less than or equal to 1024"),
        (CONV_FIELDS | {"channels": 65}, "less than or equal to 64"),
        (CONV_FIELDS | {"filters": [8, 8]}, "Field required"),
        (CONV_FIELDS | {"filters": [8, 8, 8, 8]}, "at most 3 items"),
        (CONV_FIELDS | {"filters": [7, 8, 8]}, "greater than or equal to 8"),
        (
            CONV_FIELDS | {"height": 1024, "width": 1024, "filters": [128, 8, 8]},
            "at most 100000000 values in a layer, got 134217728",
        ),
    ],
)
def test_descriptions_out_of_bounds_are_refused(fields, problem):
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(NetworkSpec).validate_python(fields)
    assert problem in str(caught.value)


def test_the_bounds_themselves_are_allowed():
    assert MLPSpec(n_features=10**6, hidden=(999,), n_outputs=1).n_parameters == 999_001_999
    assert ConvNetSpec(channels=64, height=1024, width=1024, filters=(95, 8, 8), n_outputs=1)


def test_a_million_wrong_widths_end_at_the_first():
    with pytest.raises(ValidationError) as caught:
        MLPSpec(n_features=5, hidden=["x"] * 10**6, n_outputs=1)
    assert caught.value.error_count() == 1


def test_weights_come_back_bit_for_bit():
    state = build(CONVOLUTIONAL, seeded()).state_dict()
    back = parse_weights(save(state), CONVOLUTIONAL)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)


SMALL = MLPSpec(n_features=2, hidden=(3,), n_outputs=1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "Expected safetensors, got: 'Error while deserializing: header too small'."),
        (
            save({"layers.0.bias": torch.ones(3), "b": torch.ones(1)}),
            "Expected 4 tensors, got 2 that lack 'layers.0.weight', 'layers.1.bias', "
            "'layers.1.weight'.",
        ),
        (
            save(build(SMALL, seeded()).state_dict() | {"b\n": torch.ones(0)}),
            "Expected 4 tensors, got 5 that have unknown 'b\\n'.",
        ),
        (
            save(build(SMALL, seeded()).half().state_dict()),
            "Expected tensor 'layers.0.weight' of type F32 and shape (3, 2), got F16 and (3, 2).",
        ),
        (
            save(build(SMALL, seeded()).state_dict() | {"layers.0.bias": torch.ones(3, 1)}),
            "Expected tensor 'layers.0.bias' of type F32 and shape (3,), got F32 and (3, 1).",
        ),
        (
            save(build(SMALL, seeded()).state_dict() | {"layers.1.bias": torch.ones(1) / 0}),
            "Expected finite numbers, tensor 'layers.1.bias' has NaN or infinity.",
        ),
    ],
)
def test_other_weights_are_refused(content, message):
    with pytest.raises(DataFileError) as caught:
        parse_weights(content, SMALL)
    assert str(caught.value) == message


def test_500_mutations_of_the_weights_are_refused_or_finite():
    content = save(build(SMALL, seeded()).state_dict())
    draw = random.Random(3)
    outcomes = set()
    for _ in range(500):
        at, length = draw.randrange(len(content)), draw.randrange(1, 9)
        mutated = draw.choice(
            [
                content[:at] + bytes([content[at] ^ (1 << draw.randrange(8))]) + content[at + 1 :],
                content[:at] + draw.randbytes(length) + content[at + length :],
                content[:at] + content[at + length :],
                content[:at] + content[at - length : at] + content[at:],
            ]
        )
        try:
            weights = parse_weights(mutated, SMALL)
        except DataFileError:
            outcomes.add("refused")
            continue
        outcomes.add("read")
        assert {name: tuple(tensor.shape) for name, tensor in weights.items()} == SMALL.shapes()
        assert all(torch.isfinite(tensor).all() for tensor in weights.values())
    assert outcomes == {"refused", "read"}
