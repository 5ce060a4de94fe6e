"""Colored digits: pools of scans stay apart, augmentation stays small, seeds decide everything."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from invlearn.datasets import colored_digits, load_benchmark
from invlearn.datasets.colored_digits import SCANS, augment, split_scans
from invlearn.errors import OptionError
from invlearn.features import ChannelImages

SMALL = {"rows_per_environment": 400, "validation_rows": 200, "test_rows": 300}


def digit_labels() -> np.ndarray:
    return load_digits().target.astype(np.int64)


def test_defaults() -> None:
    benchmark = load_benchmark("colored-digits", seed=0)
    assert benchmark.train.names == ("p_e=0.1", "p_e=0.2")
    assert benchmark.train.sizes == (20_000, 20_000)
    assert benchmark.validation is not None
    assert benchmark.validation.sizes == (5000, 5000)
    assert len(benchmark.test.x) == 20_000
    assert (benchmark.target, benchmark.loss, benchmark.n_outputs) == ("p_e=0.9", "logistic", 1)
    assert isinstance(benchmark.train.x, ChannelImages)
    assert benchmark.train.x.n_features == 128
    assert [channel for *_, channel in benchmark.train.x.runs()] == [0, 1, 0, 1]
    assert benchmark.train.x.pixels.min() >= 0
    assert benchmark.train.x.pixels.max() <= 1
    agreement = [(x.channel == y).double().mean().item() for _, x, y in benchmark.train]  # type: ignore[union-attr]
    assert agreement == pytest.approx([0.9, 0.8], abs=0.03)
    assert dict(benchmark.description) == {
        "test_set": "scans kept apart for the test",
        "image_size": 8,
        "rows_per_environment": 20_000,
        "validation_rows_per_environment": 5000,
        "test_rows": 10_000,
        "train_scans": 1000,
        "validation_scans": 297,
        "test_scans": 500,
        "label_noise": 0.25,
        "training_p": "0.1,0.2",
    }


def test_pools_are_disjoint_and_stratified() -> None:
    digits = digit_labels()
    pools = split_scans(digits, np.random.default_rng(0))
    assert {name: len(pool) for name, pool in pools.items()} == SCANS
    assert sorted(np.concatenate(list(pools.values())).tolist()) == list(range(len(digits)))
    overall = np.bincount(digits) / len(digits)
    for pool in pools.values():
        shares = np.bincount(digits[pool], minlength=10) / len(pool)
        np.testing.assert_allclose(shares, overall, atol=1.5 / len(pool))


def test_no_scan_crosses_from_one_part_to_another(monkeypatch: pytest.MonkeyPatch) -> None:
    scans = torch.from_numpy(load_digits().data / 16.0).to(torch.float32)
    known = {row.numpy().tobytes(): k for k, row in enumerate(scans)}
    assert len(known) == len(scans)
    monkeypatch.setattr(colored_digits, "augment", lambda picked, rng: picked)
    benchmark = load_benchmark("colored-digits", seed=1, **SMALL)
    assert benchmark.validation is not None
    used = []
    for x in (benchmark.train.x, benchmark.validation.x, benchmark.test.x):
        assert isinstance(x, ChannelImages)
        used.append({known[row.numpy().tobytes()] for row in x.pixels})
    assert used[0].isdisjoint(used[1] | used[2])
    assert used[1].isdisjoint(used[2])
    assert [len(part) for part in used] == [800, 297, 300]


def test_scans_are_used_about_equally_often() -> None:
    picked = colored_digits._repeat(np.arange(7), 17, np.random.default_rng(0))
    assert set(np.bincount(picked).tolist()) == {2, 3}


def test_augmentation_changes_every_copy_a_little() -> None:
    scans = torch.from_numpy(load_digits().data[:1] / 16.0).to(torch.float32).repeat(500, 1)
    moved = augment(scans, np.random.default_rng(0))
    assert moved.shape == scans.shape
    assert moved.dtype == torch.float32
    assert len(moved.unique(dim=0)) == 500
    likeness = torch.nn.functional.cosine_similarity(moved, scans)
    assert 0.6 < likeness.mean() < 0.97
    # Turned, scaled and shifted evenly both ways, the copies center on the scan.
    middle = moved.mean(dim=0)
    assert torch.nn.functional.cosine_similarity(middle, scans[0], dim=0) > 0.9


@pytest.mark.parametrize("axis", [0, 1])
def test_shift_is_at_most_one_pixel(axis: int) -> None:
    dot = torch.zeros(1, 8, 8)
    dot[0, 3:5, 3:5] = 1.0
    moved = augment(dot.reshape(1, 64).repeat(300, 1), np.random.default_rng(0))
    mass = moved.reshape(-1, 8, 8)
    place = (mass.sum(dim=2 - axis) * torch.arange(8.0)).sum(dim=1) / mass.sum(dim=(1, 2))
    # A shift of one pixel acts after the scaling, which may enlarge it.
    assert (place - 3.5).abs().max() < 1.5
    assert (place - 3.5).abs().max() > 0.7
    assert place.mean().item() == pytest.approx(3.5, abs=0.15)


def test_seeds() -> None:
    first, again, other = (load_benchmark("colored-digits", seed=s, **SMALL) for s in (4, 4, 5))
    assert isinstance(first.train.x, ChannelImages)
    assert isinstance(again.train.x, ChannelImages)
    assert isinstance(other.train.x, ChannelImages)
    assert torch.equal(first.train.x.pixels, again.train.x.pixels)
    assert torch.equal(first.train.y, again.train.y)
    assert all(torch.equal(a, b) for a, b in zip(first.test.rows, again.test.rows, strict=True))
    assert not torch.equal(first.train.x.pixels, other.train.x.pixels)
    assert not torch.equal(first.test.targets[0], other.test.targets[0])


def test_global_generators_are_left_alone() -> None:
    state, legacy = torch.get_rng_state(), np.random.get_state()[1].copy()
    load_benchmark("colored-digits", seed=0, **SMALL)
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(np.random.get_state()[1], legacy)


@pytest.mark.parametrize("option", ["rows_per_environment", "validation_rows", "test_rows"])
def test_bad_sizes(option: str) -> None:
    low = 1 if option == "test_rows" else 2
    with pytest.raises(OptionError) as caught:
        load_benchmark("colored-digits", seed=0, **{option: 0})
    assert str(caught.value) == (
        f"Expected option '{option}' between {low} and 1000000, got 0. "
        "Choose a value in that range."
    )


def test_trap_no_seed_trains_on_another_seeds_test_scans() -> None:
    digits = load_digits().target
    pools = [split_scans(digits, np.random.default_rng(seed)) for seed in (0, 1)]
    assert set(pools[0]["test"]) == set(pools[1]["test"])
    assert set(pools[0]["validation"]) != set(pools[1]["validation"])
