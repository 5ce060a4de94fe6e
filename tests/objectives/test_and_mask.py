"""AND-mask against the published formulas, coordinate by coordinate."""

from __future__ import annotations

import pytest
import torch

from invlearn.errors import OptionError, UnknownNameError
from invlearn.objectives.and_mask import ANDMask
from objectives.made import LOSSES, SIZES, assert_equals_slow_version


@pytest.mark.parametrize("convention", ANDMask.conventions)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("agreement", [0.3, 1.0])
def test_gradient_is_that_of_the_slow_version(convention, loss, sizes, weighted, agreement):
    objective = ANDMask(agreement=agreement, convention=convention)
    assert_equals_slow_version("and-mask", objective, loss, SIZES[sizes], weighted)


def combine(objective, *rows):
    gradients = {"w": torch.tensor(rows)}
    risks = torch.arange(1.0, len(rows) + 1, dtype=torch.float64)
    scalars, _ = objective.scalars({"risk": risks}, None)
    combination, _ = objective.combine(scalars, gradients, None)
    return combination.gradient["w"].tolist(), combination.terms


def test_only_coordinates_on_which_all_agree_move():
    got, terms = combine(ANDMask(agreement=1.0), [1.0, 1.0, -2.0, 0.0], [3.0, -1.0, -4.0, 1.0])
    assert got == [2.0, 0.0, -3.0, 0.0]
    assert float(terms.total) == 1.5
    assert terms.risks.tolist() == [1.0, 2.0]
    assert float(terms.penalty) == 0.5


def test_published_codes_divide_by_the_share_that_is_kept():
    for convention in ("domainbed", "and-mask-code"):
        got, _ = combine(ANDMask(convention=convention), [1.0, 1.0], [3.0, -1.0])
        assert got == pytest.approx([4.0, 0.0])


def test_agreement_zero_is_the_mean_gradient():
    got, terms = combine(ANDMask(agreement=0.0), [1.0, 1.0], [3.0, -1.0])
    assert got == [2.0, 0.0]
    assert float(terms.penalty) == 0.0


def test_nine_of_ten_environments_reach_a_threshold_of_four_fifths_in_float32():
    got, _ = combine(ANDMask(agreement=0.8), *[[1.0]] * 9, [-1.0])
    assert got == pytest.approx([0.8])


def test_errors():
    with pytest.raises(OptionError, match=r"agreement of AND-mask between 0 and 1, got 1\.5"):
        ANDMask(agreement=1.5)
    with pytest.raises(UnknownNameError, match="convention"):
        ANDMask(convention="code")
