"""Environments inferred from a reference's mistakes."""

import pytest
import torch

from invlearn.learning.preparation.eiil import most_different_split
from invlearn.losses import get_loss
from reference.eiil import ascend, penalty


@pytest.mark.parametrize("loss", ["logistic", "squared", "softmax"])
def test_the_split_is_where_ascent_ends(loss):
    g = torch.Generator().manual_seed(0)
    z = torch.randn(16, 3 if loss == "softmax" else 1, generator=g, dtype=torch.float64)
    y = torch.randint(0, 3 if loss == "softmax" else 2, (16,), generator=g)
    y = y.double() if loss == "squared" else y
    split = most_different_split(get_loss(loss).dummy_gradient(z, y).sum(1))
    best = penalty(get_loss(loss), z, y, split.double())
    for start in range(5):
        q = ascend(get_loss(loss), z, y, seed=start)
        reached = penalty(get_loss(loss), z, y, q)
        assert reached <= best * (1 + 1e-9)
        if reached > 0.999 * best:
            break
    else:
        pytest.fail("no ascent came near")
    side = (q > 0.5) if ((q > 0.5) == split).double().mean() > 0.5 else (q <= 0.5)
    assert torch.equal(side, split)
