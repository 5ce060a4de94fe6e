"""Errors of two groups of rows along the steps, by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from invlearn.losses import get_loss
from invlearn.outputs import Outputs, SplitOutputs
from invlearn.selection import reference_step
from invlearn.selection.gaps import gaps, reference_group
from selection.made import make_outputs


def tiny(loss, y, z, reference, *, environment, weights=None, raised=None):
    """Outputs of one split from plain lists; z and reference [n] or [n, k]."""
    split = SplitOutputs(
        names=tuple(f"e{e}" for e in range(max(environment) + 1)),
        environment=torch.tensor(environment),
        y=torch.tensor(y),
        z=torch.tensor([z]).reshape(1, len(y), -1).half(),
        weights=None if weights is None else torch.tensor(weights),
        raised=None if raised is None else torch.tensor([raised]),
        reference=torch.tensor(reference).reshape(len(y), -1).half(),
    )
    return Outputs(get_loss(loss), (0,), {"train": split})


def test_gap_by_hand():
    outputs = tiny(
        "logistic",
        [1, 1, 1, 0, 0, 0],
        [1.0, -1.0, 1.0, -1.0, 1.0, 1.0],  # Wrong: rows 1, 4, 5.
        [-1.0, -1.0, 1.0, -1.0, -1.0, 1.0],  # The group: rows 0, 1, 5.
        environment=[0, 0, 0, 1, 1, 1],
    )
    found = gaps(outputs, "reference", ["train"])
    assert found.difference == pytest.approx([2 / 3 - 1 / 3])
    # Each mean has the variance p (1 − p) / n = (2 / 9) / 3.
    assert found.standard_error == pytest.approx([np.sqrt(4 / 27)])
    assert found.worst == pytest.approx([2 / 3])
    assert found.certificate.frequencies == pytest.approx((2 / 3, 1 / 3))
    assert found.certified.tolist() == [False]


def test_gap_with_row_weights_by_hand():
    outputs = tiny(
        "logistic",
        [1, 1, 1, 1],
        [1.0, -1.0, 1.0, -1.0],
        [-1.0, -1.0, 1.0, 1.0],
        environment=[0, 1, 0, 1],
        weights=[3.0, 1.0, 1.0, 1.0],
    )
    found = gaps(outputs, "reference", ["train"])
    assert found.difference == pytest.approx([1 / 4 - 1 / 2])
    inside = (3 / 4 * 1 / 4) ** 2 + (1 / 4 * 3 / 4) ** 2
    outside = 2 * (1 / 2 * 1 / 2) ** 2
    assert found.standard_error == pytest.approx([np.sqrt(inside + outside)])
    assert found.worst == pytest.approx([1 / 2])
    assert found.certificate.frequencies == pytest.approx((3 / 4, 1 / 2))


def test_weights_count_like_repeated_rows_in_the_means():
    y, z, reference = [1, 1, 0, 0, 1], [1.0, -1.0, 1.0, -1.0, 1.0], [-1.0, -1.0, 1.0, -1.0, 1.0]
    twice = [0, 1, 1, 2, 2, 2, 3, 4]
    weighted = tiny(
        "logistic", y, z, reference, environment=[0] * 5, weights=[1.0, 2.0, 3.0, 1.0, 1.0]
    )
    again = [[column[i] for i in twice] for column in (y, z, reference)]
    repeated = tiny("logistic", *again, environment=[0] * 8)
    one, other = (gaps(o, "reference", ["train"]) for o in (weighted, repeated))
    assert one.difference == pytest.approx(other.difference)
    assert one.worst == pytest.approx(other.worst)


def test_reference_is_taken_where_its_errors_depend_most_on_the_environment():
    # Its errors: none, unequally frequent, the same and as many hard rows, all rows.
    made = make_outputs([0, 1, 1, 1], [0, 0, 0.25, 1], splits=("train", "validation"))
    assert reference_step(made) == 10
    assert reference_step(replace(made, steps=(5, 7, 9, 11))) == 7


def test_reference_step_reads_the_rows_of_all_splits_together():
    first = make_outputs([0, 0.5, 1], [0, 0, 0])
    second = make_outputs([0, 1, 0], [0, 0, 0], sizes=(2000, 2000), members=(200, 600))
    both = replace(first, splits={"train": second.splits["validation"], **first.splits})
    assert reference_step(first) == 20
    assert reference_step(both) == 10


def test_reference_step_weighs_the_rows():
    made = make_outputs([0, 1, 0], [0, 0, 0.05])
    split = made.splits["validation"]
    assert reference_step(made) == 10
    # The group's rows count for nothing: what is wrong outside of it is left.
    weights = (split.reference[:, 0].sign() == (2.0 * split.y - 1)).float()
    assert reference_step(replace(made, splits={"v": replace(split, weights=weights)})) == 20


def test_gap_of_several_classes_by_hand():
    outputs = tiny(
        "softmax",
        [0, 1, 2, 2],
        [[3.0, 0, 0], [3, 0, 0], [0, 0, 3], [0, 3, 0]],  # Wrong: rows 1 and 3.
        [[0.0, 3, 0], [0, 0, 3], [0, 0, 3], [0, 0, 3]],  # The group: rows 0 and 1.
        environment=[0, 1, 0, 1],
    )
    found = gaps(outputs, "reference", ["train"])
    assert found.difference == pytest.approx([0])
    assert found.worst == pytest.approx([1 / 2])


def test_gap_of_a_regression_compares_squared_errors_of_rows_above_and_below_the_median():
    outputs = tiny(
        "squared",
        [0.0, 0, 0, 0, 0],
        [1.0, 2, 3, 4, 0],
        [0.0, 1, 2, 3, 4],  # The median error is 4: rows 3 and 4 are worse.
        environment=[0, 0, 1, 1, 1],
    )
    found = gaps(outputs, "reference", ["train"])
    assert reference_group(outputs.splits["train"], outputs).tolist() == [0, 0, 0, 1, 1]
    assert found.difference == pytest.approx([(16 + 0) / 2 - (1 + 4 + 9) / 3])
    outside = sum((v - 14 / 3) ** 2 for v in (1, 4, 9)) / 9
    assert found.standard_error == pytest.approx([np.sqrt(2 * 8**2 / 4 + outside)])


def test_gap_reads_the_rows_of_its_splits_together():
    outputs = make_outputs([0.5], [0.1])
    other = make_outputs([0.2], [0.3], sizes=(50, 70), members=(5, 20)).splits["validation"]
    both = replace(outputs, splits={"train": other, **outputs.splits})
    found = gaps(both, "reference", ["train", "validation"])
    inside, outside = 0.5 * 80 + 0.2 * 25, 0.1 * 320 + 0.3 * 95
    assert found.difference == pytest.approx([inside / 105 - round(outside) / 415], abs=0.003)
    assert found.certificate.frequencies == pytest.approx((25 / 250, 80 / 270))


def test_inner_steps_groups_are_those_of_every_step():
    outputs = make_outputs([0.5, 0.5], [0.1, 0.1])
    split = outputs.splits["validation"]
    raised = torch.stack([split.raised[0], ~split.raised[0]])
    outputs = replace(outputs, splits={"validation": replace(split, raised=raised)})
    found = gaps(outputs, "inner-step", ["validation"])
    assert found.difference == pytest.approx([0.4, -0.4])
    none = replace(split, raised=torch.zeros_like(raised))
    found = gaps(replace(outputs, splits={"validation": none}), "inner-step", ["validation"])
    assert found.certified.tolist() == [False, False]
    assert np.isnan(found.difference).all()
