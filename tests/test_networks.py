"""Networks from a description: bounds, shapes and seeds."""

from __future__ import annotations

import random

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save

from invlearn.errors import DataFileError
from invlearn.networks import MLPSpec, build, parse_weights

SPECS = [
    MLPSpec(n_features=5, hidden=(), n_outputs=2),
    MLPSpec(n_features=5, hidden=(7, 4), n_outputs=1),
]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


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
    assert MLPSpec.model_validate_json(spec.model_dump_json()) == spec


MLP_FIELDS = {"kind": "mlp", "n_features": 5, "hidden": [7], "n_outputs": 1}


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
        ({"n_features": 5}, "Field required"),
        (MLP_FIELDS | {"kind": "torch.nn.Linear"}, "Input should be 'mlp'"),
    ],
)
def test_descriptions_out_of_bounds_are_refused(fields, problem):
    with pytest.raises(ValidationError) as caught:
        MLPSpec.model_validate(fields)
    assert problem in str(caught.value)


def test_the_bounds_themselves_are_allowed():
    assert MLPSpec(n_features=10**6, hidden=(999,), n_outputs=1).n_parameters == 999_001_999


def test_a_million_wrong_widths_end_at_the_first():
    with pytest.raises(ValidationError) as caught:
        MLPSpec(n_features=5, hidden=["x"] * 10**6, n_outputs=1)
    assert caught.value.error_count() == 1


def test_weights_come_back_bit_for_bit():
    state = build(SPECS[1], seeded()).state_dict()
    back = parse_weights(save(state), SPECS[1])
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
