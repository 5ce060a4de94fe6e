"""The coloring protocol: its statistics, its order of rows, and what its test set shares."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from invlearn.datasets.coloring import (
    TEST_P,
    colored_environments,
    colored_sweep,
    noisy_labels,
    parse_probabilities,
    sweep_probabilities,
    without_color,
)
from invlearn.environments import Environments
from invlearn.errors import OptionError
from invlearn.features import ChannelImages

N = 20_000
DIGITS = np.arange(N) % 10
# Every image holds its own number, so that a row tells which digit it is.
PIXELS = torch.arange(N, dtype=torch.float32)[:, None]


def colored(probabilities: tuple[float, ...] = (0.1, 0.2), **options: int) -> Environments:
    rng = np.random.default_rng(1)
    return colored_environments(PIXELS, DIGITS, probabilities, label_noise=0.25, rng=rng, **options)


def assert_share(flags: torch.Tensor, expected: float) -> None:
    """Within five standard errors of a binomial share."""
    error = math.sqrt(expected * (1 - expected) / len(flags))
    assert abs(flags.double().mean().item() - expected) < 5 * error


def test_labels_are_large_or_small_digits_flipped_with_the_noise() -> None:
    envs = colored()
    for _, x, y in envs:
        assert isinstance(x, ChannelImages)
        clean = torch.from_numpy(DIGITS)[x.pixels[:, 0].long()] >= 5
        assert_share(clean != y.bool(), 0.25)
    assert envs.y.dtype == torch.int64


def test_color_differs_from_label_with_the_probability_of_the_environment() -> None:
    for (_, x, y), p in zip(colored((0.1, 0.2, 0.7)), (0.1, 0.2, 0.7), strict=True):
        assert isinstance(x, ChannelImages)
        assert x.n_channels == 2
        assert_share(x.channel != y, p)


def test_noise_of_zero_and_one_is_exact() -> None:
    rng = np.random.default_rng(0)
    assert noisy_labels(DIGITS, 0.0, rng)[:10].tolist() == [0] * 5 + [1] * 5
    assert noisy_labels(DIGITS, 1.0, rng)[:10].tolist() == [1] * 5 + [0] * 5


def test_rows_are_dealt_from_one_shuffle_and_used_once() -> None:
    envs = colored()
    order = np.random.default_rng(1).permutation(N)
    for e, (_, x, _) in enumerate(envs):
        assert isinstance(x, ChannelImages)
        assert set(x.pixels[:, 0].long().tolist()) == set(order[e::2].tolist())
    assert envs.names == ("p_e=0.1", "p_e=0.2")


def test_rows_of_an_environment_are_sorted_by_color() -> None:
    envs = colored()
    assert isinstance(envs.x, ChannelImages)
    assert len(envs.x.runs()) == 4
    assert [channel for _, _, channel in envs.x.runs()] == [0, 1, 0, 1]


def test_fewer_rows_are_among_more_rows_with_the_same_labels() -> None:
    few, many = colored(rows_per_environment=1000), colored(rows_per_environment=3000)
    assert few.sizes == (1000, 1000)
    assert many.sizes == (3000, 3000)
    for (_, x, y), (_, all_x, all_y) in zip(few, many, strict=True):
        assert isinstance(x, ChannelImages)
        assert isinstance(all_x, ChannelImages)
        rows = zip(x.pixels[:, 0].tolist(), x.channel.tolist(), y.tolist(), strict=True)
        all_rows = zip(
            all_x.pixels[:, 0].tolist(), all_x.channel.tolist(), all_y.tolist(), strict=True
        )
        assert set(rows) <= set(all_rows)


def test_sweep_shares_digits_and_labels_and_flips_monotonically() -> None:
    rng = np.random.default_rng(2)
    sweep = colored_sweep(PIXELS, DIGITS, TEST_P, label_noise=0.25, rng=rng)
    assert isinstance(sweep.x, ChannelImages)
    assert sweep.names == tuple(f"p_e=0.{k}" for k in range(1, 10))
    assert sweep.split == "test"
    assert len(sweep.x) == 2 * N
    before = torch.zeros(N, dtype=torch.bool)
    for p, rows, y in zip(TEST_P, sweep.rows, sweep.targets, strict=True):
        assert torch.equal(rows % N, torch.arange(N))
        assert torch.equal(y, sweep.targets[0])
        color = sweep.x.channel[rows]
        assert torch.equal(color, rows // N)
        flipped = color != y
        assert_share(flipped, p)
        assert not (before & ~flipped).any()
        before = flipped


def test_sweep_covers_training_probabilities() -> None:
    assert sweep_probabilities((0.1, 0.2)) == TEST_P
    assert sweep_probabilities((0.05, 0.25, 0.3)) == tuple(sorted([*TEST_P, 0.05, 0.25]))


def test_without_color_keeps_the_gray_image() -> None:
    envs = colored()
    gray = without_color(envs.x)
    assert isinstance(envs.x, ChannelImages)
    assert torch.equal(without_color(envs.x), envs.x.pixels)
    assert without_color(gray) is gray


def test_probabilities_are_read() -> None:
    assert parse_probabilities(" 0.1, 0.2 ,1") == (0.1, 0.2, 1.0)
    assert parse_probabilities("0.3") == (0.3,)


@pytest.mark.parametrize("text", ["", "a,b", "0.1,", "0.1,0.1", "1.5", "-0.1,0.2", "nan"])
def test_bad_probabilities(text: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse_probabilities(text)
    assert str(caught.value) == (
        f"Expected option 'training_p' to be distinct probabilities, got {text!r}. "
        "Write one per training environment, separated by commas: '0.1,0.2'."
    )


def test_more_rows_than_there_are() -> None:
    with pytest.raises(OptionError) as caught:
        colored(rows_per_environment=10_001)
    assert str(caught.value) == (
        "Expected option 'rows_per_environment' between 0 and 10000, got 10001. "
        "Choose a value in that range."
    )


@pytest.mark.parametrize("build", [colored_environments, colored_sweep])
def test_noise_that_is_no_probability(build: object) -> None:
    assert callable(build)
    with pytest.raises(OptionError, match=r"'label_noise' between 0 and 1, got 1\.5\."):
        build(PIXELS, DIGITS, (0.1,), label_noise=1.5, rng=np.random.default_rng(0))


def test_target_is_no_training_environment() -> None:
    with pytest.raises(OptionError, match="nobody may train on the target"):
        parse_probabilities("0.1,0.9")
