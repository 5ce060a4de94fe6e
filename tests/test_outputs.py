"""Stored outputs: errors, a reference beside them, and their file."""

from __future__ import annotations

import pytest
import torch

from invlearn.errors import OptionError
from invlearn.losses import get_loss
from invlearn.outputs import Outputs, SplitOutputs


def make_split(loss="logistic", *, full=True, rows=9, steps=3, seed=0):
    """Random outputs of a split; `full` with all that is optional."""
    g = torch.Generator().manual_seed(seed)
    k = 3 if loss == "softmax" else 1
    y = (
        torch.randn(rows, generator=g, dtype=torch.float64)
        if loss == "squared"
        else torch.randint(0, max(k, 2), (rows,), generator=g)
    )
    return SplitOutputs(
        names=("ward α", "b"),
        environment=torch.arange(rows) % 2,
        y=y,
        z=torch.randn(steps, rows, k, generator=g).half(),
        weights=torch.rand(rows, generator=g) if full else None,
        raised=torch.rand(steps, rows, generator=g) < 0.5 if full else None,
        reference=torch.randn(rows, k, generator=g).half() if full else None,
    )


def assert_same(one, other):
    assert one.names == other.names
    for field in ("environment", "y", "z", "weights", "raised", "reference"):
        a, b = getattr(one, field), getattr(other, field)
        assert (a is None) == (b is None)
        if a is not None:
            assert (a.dtype, a.shape) == (b.dtype, b.shape)
            assert torch.equal(a, b)


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("loss", ["logistic", "softmax", "squared"])
def test_bytes_bring_back_every_field_bit_for_bit(loss, full):
    splits = {
        "train": make_split(loss, full=full, rows=20),
        "validation": make_split(loss, full=full, seed=1),
    }
    kept = Outputs(get_loss(loss), (0, 10, 15), splits)
    back = Outputs.from_bytes(kept.to_bytes(), get_loss(loss))
    assert back.loss == kept.loss
    assert back.steps == (0, 10, 15)
    assert all(type(step) is int for step in back.steps)
    assert list(back.splits) == list(splits)
    for name, split in splits.items():
        assert_same(back.splits[name], split)


def test_bytes_do_not_depend_on_the_memory_layout():
    split = make_split("softmax", full=False)
    turned = split.z.transpose(1, 2).contiguous().transpose(1, 2)
    kept = Outputs(
        get_loss("softmax"), (0, 1, 2), {"train": SplitOutputs(**{**vars(split), "z": turned})}
    )
    back = Outputs.from_bytes(kept.to_bytes(), get_loss("softmax"))
    assert torch.equal(back.splits["train"].z, split.z)


def test_outputs_at_a_step_are_those_of_every_split():
    splits = {"train": make_split(rows=20), "validation": make_split(seed=1)}
    kept = Outputs(get_loss("logistic"), (0, 10, 15), splits)
    found = kept.at(10)
    assert list(found) == ["train", "validation"]
    for name, split in splits.items():
        assert torch.equal(found[name], split.z[1])
        assert torch.equal(kept.with_reference(found).splits[name].reference, split.z[1])


def test_step_that_was_not_evaluated_is_refused():
    kept = Outputs(get_loss("logistic"), (0, 10, 15), {"train": make_split()})
    with pytest.raises(
        OptionError, match=r"Expected an evaluated step, got 5\. Evaluated: 0, 10, 15\."
    ):
        kept.at(5)


def test_reference_is_added_in_the_precision_of_the_outputs():
    splits = {"train": make_split(full=False, rows=20), "validation": make_split(full=False)}
    kept = Outputs(get_loss("logistic"), (0, 1, 2), splits)
    reference = {name: torch.randn(len(split.y), 1) for name, split in splits.items()}
    found = kept.with_reference(reference)
    for name, z in reference.items():
        assert found.splits[name].reference.dtype == torch.float16
        assert torch.equal(found.splits[name].reference, z.half())
        assert found.splits[name].z is kept.splits[name].z
        assert kept.splits[name].reference is None
    assert (found.loss, found.steps) == (kept.loss, kept.steps)


def test_reference_may_hold_splits_that_were_not_kept():
    kept = Outputs(get_loss("logistic"), (0, 1, 2), {"validation": make_split(full=False)})
    found = kept.with_reference({"train": torch.zeros(20, 1), "validation": torch.zeros(9, 1)})
    assert list(found.splits) == ["validation"]


@pytest.mark.parametrize(
    ("reference", "got"),
    [
        ({"train": torch.zeros(9, 1)}, "none"),
        ({"validation": torch.zeros(8, 1)}, r"shape \(8, 1\)"),
    ],
)
def test_reference_of_other_rows_is_refused(reference, got):
    kept = Outputs(get_loss("logistic"), (0, 1, 2), {"validation": make_split(full=False)})
    with pytest.raises(
        OptionError,
        match=r"Expected a reference's outputs for the split 'validation' of shape \(9, 1\), "
        rf"got {got}\. Keep the same splits in both runs\.",
    ):
        kept.with_reference(reference)


@pytest.mark.parametrize(
    ("loss", "y", "z", "expected"),
    [
        ("logistic", [0, 1, 1], [[-1.0], [-1.0], [2.0]], [0, 1, 0]),
        ("softmax", [0, 2], [[1.0, 0, 0], [0, 1, 0]], [0, 1]),
        ("squared", [1.0, 2.0], [[1.5], [0.0]], [0.25, 4.0]),
    ],
)
def test_errors_are_0_1_or_squared_in_double_precision(loss, y, z, expected):
    split = SplitOutputs(("a",), torch.zeros(len(y), dtype=torch.int64), torch.tensor(y), z=None)
    errors = split.errors(get_loss(loss), torch.tensor(z).half())
    assert errors.dtype == torch.float64
    assert errors.tolist() == expected
