"""SAND-mask against the published formula, coordinate by coordinate."""

from __future__ import annotations

import math

import pytest
import torch

from invlearn.errors import OptionError
from invlearn.objectives.sand_mask import SANDMask
from objectives.made import LOSSES, SIZES, assert_equals_slow_version


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("agreement", "sharpness"), [(0.5, 10.0), (0.0, 1e-3), (0.9, 1e-2)])
def test_gradient_is_that_of_the_slow_version(loss, sizes, weighted, agreement, sharpness):
    objective = SANDMask(agreement=agreement, sharpness=sharpness)
    assert_equals_slow_version("sand-mask", objective, loss, SIZES[sizes], weighted)


def combine(objective, *rows):
    gradients = {"w": torch.tensor(rows, dtype=torch.float64)}
    scalars, _ = objective.scalars({"risk": torch.ones(len(rows)).double()}, None)
    combination, _ = objective.combine(scalars, gradients, None)
    return combination.gradient["w"].tolist(), combination.terms


def test_the_mask_is_the_published_one():
    got, terms = combine(SANDMask(agreement=0.25, sharpness=0.5), [1.0, 1.0], [3.0, -1.0])
    mask = math.tanh(0.5 * (1 - 0.25) / 2.0)  # The sample variance of 1 and 3 is 2.
    assert got == pytest.approx([mask * 2.0 / (mask / 2), 0.0])
    assert float(terms.penalty) == pytest.approx(1 - mask / 2)


def test_equal_gradients_are_followed_and_do_not_divide_by_zero():
    got, _ = combine(SANDMask(), [1.0, 0.0], [1.0, 0.0])
    assert got == pytest.approx([2.0, 0.0])


def test_no_agreement_anywhere_moves_nothing():
    got, terms = combine(SANDMask(), [1.0, 2.0], [-1.0, -2.0])
    assert got == [0.0, 0.0]
    assert float(terms.penalty) == 1.0


def test_domainbeds_default_threshold_is_refused_as_it_learns_nothing():
    with pytest.raises(OptionError, match=r"agreement of SAND-mask in \[0, 1\), got 1.*Use 0\.5"):
        SANDMask(agreement=1.0)
