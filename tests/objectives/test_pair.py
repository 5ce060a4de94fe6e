"""PAIR: its weights against the published linear programs, its step against autograd."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from conftest import make_model
from invlearn.errors import OptionError, UnknownNameError
from invlearn.objectives.erm import ERM
from invlearn.objectives.pair import PAIR, pareto_weights
from objectives.made import LOSSES, SIZES, assert_equals_slow_version, make_batch, step
from reference import gradients

PREFERENCES = {"published": (1e-12, 1e-2, 0.99), "even": (1.0, 1.0, 1.0), "some": (1.0, 2.0, 30.0)}


@pytest.mark.parametrize("convention", PAIR.conventions)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("preference", "tolerance"), [(1e12, 0.1), (20.0, 0.1), (1.0, 5.0)])
def test_step_is_that_of_the_slow_version(convention, loss, sizes, weighted, preference, tolerance):
    objective = PAIR(preference=preference, tolerance=tolerance, convention=convention)
    assert_equals_slow_version("pair", objective, loss, SIZES[sizes], weighted)


def problem(seed, rank):
    """Values and a Gram matrix; conflicts between gradients are common in so few dimensions."""
    g = torch.Generator().manual_seed(seed)
    vectors = torch.randn(3, rank, dtype=torch.float64, generator=g)
    vectors = vectors * torch.exp(2 * torch.randn(3, 1, dtype=torch.float64, generator=g))
    values = torch.exp(2 * torch.randn(3, dtype=torch.float64, generator=g))
    return values, vectors @ vectors.T


@pytest.mark.parametrize("preference", PREFERENCES)
@pytest.mark.parametrize("tolerance", [0.1, 1.2])
@pytest.mark.parametrize("rank", [2, 3, 8])
def test_weights_solve_the_published_linear_programs(preference, tolerance, rank):
    r, kinds = torch.tensor(PREFERENCES[preference], dtype=torch.float64), set()
    for seed in range(40):
        values, gram = problem(seed, rank)
        got = pareto_weights(values, gram, r, tolerance)
        wanted = gradients.pareto_weights(values.numpy(), gram.numpy(), r.numpy(), tolerance)
        np.testing.assert_allclose(got.numpy(), wanted, atol=1e-6)
        kinds.add(int((got > 0).sum()))
    assert len(kinds) > 1  # Corners of the triangle and others were met.


def test_weights_of_a_stack_are_those_of_its_members():
    problems = [problem(seed, 2) for seed in range(20)]
    values, grams = (torch.stack(parts) for parts in zip(*problems, strict=True))
    r = torch.ones(20, 3, dtype=torch.float64)
    tolerance = torch.full((20,), 0.1, dtype=torch.float64)
    got = torch.func.vmap(pareto_weights)(values, grams, r, tolerance)
    for i, (own, gram) in enumerate(problems):
        torch.testing.assert_close(got[i], pareto_weights(own, gram, r[i], 0.1))


def test_an_objective_at_zero_leaves_the_preference_as_weights():
    r = torch.tensor([1.0, 1.0, 2.0])
    got = pareto_weights(torch.tensor([1.0, 0.0, 1.0]), torch.eye(3), r, 0.1)
    assert got.tolist() == [0.25, 0.25, 0.5]


def test_preference_zero_is_erm():
    batch, model = make_batch(PAIR(), sizes=(11, 7, 12)), make_model()
    terms, got, _ = step(PAIR(preference=0.0), batch, model, "logistic", None)
    erm, wanted, _ = step(ERM(), batch, model, "logistic", None)
    torch.testing.assert_close(terms.total, erm.total)
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b)


def test_three_quadratics_arrive_at_the_preferred_balance():
    """l_j = 1 + ‖θ − e_j‖² for j = 1..3: r l is the same for all at the point that is sought."""
    theta = torch.zeros(3, dtype=torch.float64)
    corners, r = torch.eye(3, dtype=torch.float64), torch.tensor([1.0, 1.2, 1.5]).double()
    for _ in range(1500):
        values = 1 + (theta - corners).square().sum(1)
        vectors = 2 * (theta - corners)
        alpha = pareto_weights(values, vectors @ vectors.T, r, 1e-5)
        theta = theta - 0.01 * alpha @ vectors
    weighted = r * (1 + (theta - corners).square().sum(1))
    assert float(weighted.max() / weighted.min()) < 1.02
    # Pareto optimal: theta is a mixture of the corners.
    assert float(theta.sum()) == pytest.approx(1.0, abs=0.02)
    assert bool((theta > 0).all())


def test_errors():
    with pytest.raises(UnknownNameError, match="convention"):
        PAIR(convention="code")
    with pytest.raises(OptionError, match="preference of PAIR to be a finite number, 0 or more"):
        PAIR(preference=-1.0)
