"""Work is estimated from sizes: it grows with them as the work does."""

import pytest
import torch
from torch import nn

from invlearn.diagnostics.work import PER_OPERATION, affordable, seconds_of_a_row
from invlearn.features import ChannelImages
from invlearn.models import MLP


def test_products_are_counted():
    x = torch.zeros(64, 1000)
    for model in (MLP(1000, (500,), 2, generator=torch.Generator()), nn.Linear(1000, 500)):
        found = seconds_of_a_row(model, x)
        assert 1e6 * PER_OPERATION < found < 3e6 * PER_OPERATION
    convolution = nn.Conv2d(3, 16, 3, padding=1)
    found = seconds_of_a_row(convolution, torch.zeros(8, 3, 32, 32))
    operations = 2 * 16 * 27 * 32 * 32
    assert operations * PER_OPERATION < found < 3 * operations * PER_OPERATION


def test_values_are_counted_and_the_model_is_left_in_its_mode():
    class Slow(nn.Module):
        def forward(self, x):
            for _ in range(10):
                x = x * 1.5
            return x[:, :1]

    model = Slow().train()
    assert seconds_of_a_row(model, torch.zeros(4, 1000)) == pytest.approx(1e-5, rel=0.3)
    assert model.training
    images = ChannelImages(torch.zeros(4, 6), torch.tensor([0, 0, 1, 1]), 2)
    assert seconds_of_a_row(MLP(12, (3,), generator=torch.Generator()), images) > 0


def test_equal_sizes_give_equal_numbers():
    x = torch.randn(4, 10)
    assert seconds_of_a_row(nn.Linear(10, 2), x) == seconds_of_a_row(nn.Linear(10, 2), 2 * x)


def test_what_there_is_time_for():
    assert affordable(1000, 20, 1e-3, 20) == 1000
    assert affordable(1000, 20, 0.1, 20) == 200
    assert affordable(1000, 20, 100, 20) == 20
    assert affordable(10, 20, 100, 20) == 10
    assert affordable(10, 20, 0, 20) == 10
