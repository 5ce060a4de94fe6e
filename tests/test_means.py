"""Means over environments and random halves: exact, balanced, and unbiased in a product."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from invlearn.environments import Environments
from invlearn.errors import OptionError
from invlearn.losses import get_loss
from invlearn.means import random_folds, seeded_generator, segment_sums
from invlearn.objectives.irmv1 import IRMv1
from invlearn.training import Batch, Engine


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def rows(dtype=torch.float64, n=60, segments=4):
    g = generator()
    segment = torch.arange(n) % segments
    segment = segment[torch.randperm(n, generator=g)]
    moments = {
        "risk": torch.rand(n, generator=g, dtype=torch.float64).to(dtype),
        "dummy_gradient": torch.randn(n, 3, generator=g, dtype=torch.float64).to(dtype),
        "second": torch.randn(n, 2, 2, generator=g, dtype=torch.float64).to(dtype),
    }
    return moments, segment, torch.rand(n, generator=g, dtype=torch.float64) + 0.1


def environment_means(moments, segment, n_segments, weights=None):
    """The engine's sums, divided by the sums of the weights."""
    weights = torch.ones(len(segment)) if weights is None else weights
    weights = weights.to(torch.float64)
    mass = segment_sums(torch.ones_like(weights), segment, n_segments, weights)
    means = {"mass": mass}
    for name, values in moments.items():
        sums = segment_sums(values, segment, n_segments, weights)
        means[name] = sums / mass.reshape(-1, *[1] * (sums.ndim - 1))
    return means


# Means.


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["f64", "f32"])
def test_means_are_those_of_a_loop_over_rows(weighted, dtype):
    moments, segment, weights = rows(dtype)
    got = environment_means(moments, segment, 4, weights if weighted else None)
    assert set(got) == {*moments, "mass"}
    for s in range(4):
        mass, sums = 0.0, {name: 0.0 for name in moments}
        for i in range(len(segment)):
            if segment[i] == s:
                w = float(weights[i]) if weighted else 1.0
                mass += w
                for name, values in moments.items():
                    sums[name] = sums[name] + w * values[i].double()
        assert float(got["mass"][s]) == pytest.approx(mass, rel=1e-13)
        for name in moments:
            assert got[name].dtype == torch.float64
            torch.testing.assert_close(got[name][s], sums[name] / mass, rtol=1e-12, atol=1e-13)


def test_trap_soft_weights_are_divided_by_their_sum_not_by_the_row_count():
    values = {"risk": torch.tensor([1.0, 3.0, 5.0, 5.0])}
    weights = torch.tensor([0.1, 0.3, 0.2, 0.0])
    got = environment_means(values, torch.tensor([0, 0, 1, 1]), 2, weights)
    torch.testing.assert_close(got["risk"], torch.tensor([2.5, 5.0]).double())
    torch.testing.assert_close(got["mass"], torch.tensor([0.4, 0.2]).double())


def test_scaling_all_weights_changes_no_mean():
    moments, segment, weights = rows()
    one = environment_means(moments, segment, 4, weights)
    ten = environment_means(moments, segment, 4, 10 * weights)
    for name in moments:
        torch.testing.assert_close(one[name], ten[name], rtol=1e-13, atol=1e-14)


def test_whole_number_weights_count_as_repeated_rows():
    moments, segment, _ = rows()
    times = torch.arange(len(segment)) % 3 + 1
    repeated = {name: v.repeat_interleave(times, 0) for name, v in moments.items()}
    want = environment_means(repeated, segment.repeat_interleave(times), 4)
    got = environment_means(moments, segment, 4, times)
    for name, expected in want.items():
        torch.testing.assert_close(got[name], expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("weighted", [False, True])
def test_gradients_flow_through_the_means(weighted):
    moments, segment, weights = rows(n=12)
    weights = weights if weighted else None

    def mean_of(values):
        return environment_means({"risk": values}, segment, 4, weights)["risk"]

    values = moments["dummy_gradient"].requires_grad_()
    assert torch.autograd.gradcheck(mean_of, (values,))


def test_large_means_keep_their_digits_in_double_precision():
    n = 200_000
    values = torch.full((n,), 1000.1, dtype=torch.float32)
    got = environment_means({"risk": values}, torch.zeros(n, dtype=torch.int64), 1)
    assert float(got["risk"]) == pytest.approx(float(values[0]), rel=1e-12)


# Folds.


@settings(max_examples=60, deadline=None, database=None)
@given(
    sizes=st.lists(st.integers(2, 40), min_size=1, max_size=6),
    folds=st.integers(1, 5),
    seed=st.integers(0, 2**31),
)
def test_trap_every_row_has_one_fold_and_folds_are_balanced_at_odd_sizes_too(sizes, folds, seed):
    sizes = tuple(size + folds for size in sizes)
    fold = random_folds(sizes, folds, generator(seed))
    assert fold.dtype == torch.int64
    assert len(fold) == sum(sizes)
    for part in fold.split(sizes):
        counts = torch.bincount(part, minlength=folds)
        assert len(counts) == folds
        assert counts.sum() == len(part)
        assert counts.min() >= 1
        assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize("size", [2, 3])
def test_trap_the_smallest_environments_still_fill_both_halves(size):
    fold = random_folds((size,), 2, generator())
    means = environment_means({"risk": torch.rand(size)}, fold, 2)
    assert means["risk"].isfinite().all()


def test_folds_are_random_and_a_function_of_the_generator():
    a, again, b = (random_folds((50, 50), 2, generator(seed)) for seed in (1, 1, 2))
    assert a.equal(again)
    assert not a.equal(b)
    assert not a[:50].equal(a[50:])


def test_every_row_falls_into_every_fold_equally_often():
    draws = 8_000
    fold = random_folds((5,) * draws, 2, generator()).reshape(draws, 5)
    shares = fold.double().mean(0)
    expected = float(fold[0].sum()) / 5  # Of five rows, always as many in the second half.
    error = math.sqrt(expected * (1 - expected) / draws)
    assert (shares - expected).abs().max() < 5 * error


def test_folds_leave_the_global_generator_alone():
    before = torch.get_rng_state()
    random_folds((9, 7), 2, generator())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("sizes", "folds", "least"), [((5, 1), 2, 1), ((9, 3), 4, 3)])
def test_trap_fewer_rows_than_folds_are_refused(sizes, folds, least):
    with pytest.raises(
        OptionError,
        match=rf"at least {folds} rows of every environment in each step, got {least}: .*"
        rf"into {folds} parts\. Raise batch_size, or choose the variant without a "
        r"split: estimator='full' \(IRMv1\), convention='mean' \(IB-IRM\), rows='shared'",
    ):
        random_folds(sizes, folds, generator())


def test_seeded_generators_repeat_their_key_and_differ_across_keys():
    draws = {
        key: torch.rand(3, generator=seeded_generator(*key)).tolist()
        for key in itertools.product(range(3), repeat=2)
    }
    for key, values in draws.items():
        assert torch.rand(3, generator=seeded_generator(*key)).tolist() == values
    assert len({tuple(values) for values in draws.values()}) == len(draws)


# The product of halves.

POPULATION = torch.tensor([0.9, -0.4, 0.3, 1.2, -1.1, 0.2, 0.6], dtype=torch.float64)


def penalty_of(objective, d, segment, n_envs):
    """IRMv1's penalty over environments made of rows with these dummy gradients."""
    moments = {"risk": torch.zeros(len(d)), "dummy_gradient": d[:, None]}
    means = environment_means(moments, segment, n_envs * objective.folds)
    if objective.folds == 2:
        means = {name: m.reshape(n_envs, 2, *m.shape[1:]) for name, m in means.items()}
    return float(objective.bound({"penalty_weight": 1.0}).value(means, None)[0].penalty)


def test_trap_product_of_halves_is_unbiased_over_all_minibatches():
    truth = float(POPULATION.mean()) ** 2
    n = len(POPULATION)
    pairs = torch.cartesian_prod(torch.arange(n), torch.arange(n))  # All batches of two rows.
    d = POPULATION[pairs].flatten()
    batch = torch.arange(len(pairs)).repeat_interleave(2)
    fold = random_folds((2,) * len(pairs), 2, generator())
    split = penalty_of(IRMv1(estimator="split"), d, batch * 2 + fold, len(pairs))
    full = penalty_of(IRMv1(), d, batch, len(pairs))
    assert split == pytest.approx(truth, rel=1e-12)
    assert full == pytest.approx(truth + float(POPULATION.var(correction=0)) / 2, rel=1e-12)


@pytest.mark.parametrize("size", [4, 7])
def test_trap_squared_minibatch_gradient_is_biased_upwards_and_the_product_is_not(size):
    draws = 15_000
    truth = float(POPULATION.mean()) ** 2
    d = POPULATION[torch.randint(0, len(POPULATION), (draws * size,), generator=generator(1))]
    batch = torch.arange(draws).repeat_interleave(size)
    fold = random_folds((size,) * draws, 2, generator(2))

    halves = environment_means({"d": d}, batch * 2 + fold, 2 * draws)["d"].reshape(draws, 2)
    products = halves.prod(1)
    assert abs(products.mean() - truth) < 4 * products.std() / math.sqrt(draws)
    assert products.min() < 0

    squares = environment_means({"d": d}, batch, draws)["d"].square()
    bias = float(POPULATION.var(correction=0)) / size
    error = float(squares.std()) / math.sqrt(draws)
    assert bias > 10 * error
    assert abs(float(squares.mean()) - truth - bias) < 4 * error

    objective = IRMv1(estimator="split")
    assert penalty_of(objective, d, batch * 2 + fold, draws) == pytest.approx(
        float(products.mean()), rel=1e-10
    )


def test_trap_the_product_of_halves_can_be_negative():
    d = torch.tensor([1.0, -2.0], dtype=torch.float64)
    assert penalty_of(IRMv1(estimator="split"), d, torch.tensor([0, 1]), 1) == -2.0


def test_trap_half_of_weightless_rows_is_refused():
    x, w = torch.ones(3, 1), torch.tensor([1.0, 1.0, 0.0])
    data = Environments.from_parts({"a": (x, x[:, 0], w), "b": (x, x[:, 0], w)})
    fold = torch.tensor([0, 1, 0, 0, 0, 1])
    engine = Engine(torch.nn.Linear(1, 1), get_loss("squared"), IRMv1(estimator="split"))
    with pytest.raises(
        OptionError,
        match=r"positive sum of row weights in every mean of a step, got 0 in environment 'b'\. R",
    ):
        engine.step(Batch(data, fold), None)
