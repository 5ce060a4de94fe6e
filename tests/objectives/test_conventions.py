"""The conventions of published codes, each against its formula written out."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from invlearn.environments import Environments
from invlearn.errors import OptionError, UnknownNameError
from invlearn.losses import get_loss
from invlearn.models import MLP
from invlearn.objectives import OBJECTIVES, get_objective
from invlearn.objectives.erm import ERM
from invlearn.objectives.group_dro import GroupDRO
from invlearn.objectives.iga import IGA
from invlearn.objectives.irmv1 import IRMv1
from invlearn.objectives.mmrex import MMREx, penalty_weight
from invlearn.objectives.vrex import VREx
from invlearn.training import Batch, Engine
from invlearn.training.schedules import PUBLISHED, PenaltySchedule

WEIGHTS = [0.3, 1.0, 40.0, 1e4]


def outputs(loss, sizes=(12, 12), seed=0):
    """One (z, y) for each environment, z float64 and differentiable."""
    g = torch.Generator().manual_seed(seed)
    envs = []
    for n in sizes:
        z = torch.randn(n, 3 if loss.startswith("softmax") else 1, generator=g).double()
        if loss == "squared":
            y = torch.randn(n, generator=g).double()
        else:
            y = torch.randint(0, z.shape[1] if z.shape[1] > 1 else 2, (n,), generator=g)
        envs.append((z.requires_grad_(), y))
    return envs


def means_of(objective, loss, envs):
    """What the engine hands to an objective, with halves of even and of odd rows if it asks."""
    means = {"mass": []}
    for z, y in envs:
        rows = objective.moments(get_loss(loss), z, y, None)
        halves = [slice(None)] if objective.folds == 1 else [slice(0, None, 2), slice(1, None, 2)]
        for half in halves:
            for name, values in rows.items():
                means.setdefault(name, []).append(values[half].mean(0))
            means["mass"].append(torch.tensor(float(len(y[half])), dtype=torch.float64))
    stacked = {name: torch.stack(values) for name, values in means.items()}
    if objective.folds == 1:
        return stacked
    return {name: v.reshape(len(envs), 2, *v.shape[1:]) for name, v in stacked.items()}


def total_of(objective, loss, envs, weight):
    means = means_of(objective, loss, envs)
    return replace(objective, penalty_weight=weight).value(means, None)[0].total


def assert_same_objective(got, want, envs):
    """Same value, and the same gradient for every output."""
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    leaves = [z for z, _ in envs]
    pairs = zip(
        torch.autograd.grad(got, leaves, retain_graph=True),
        torch.autograd.grad(want, leaves, retain_graph=True),
        strict=True,
    )
    for a, b in pairs:
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def mean_nll(z, y):
    return F.binary_cross_entropy_with_logits(z, y[:, None].to(z.dtype))


def scalar_penalty(z, y):
    scale = torch.tensor(1.0, dtype=z.dtype, requires_grad=True)
    (grad,) = torch.autograd.grad(mean_nll(z * scale, y), [scale], create_graph=True)
    return torch.sum(grad**2)


def risks_of(envs):
    return torch.stack([mean_nll(z, y) for z, y in envs])


def constant(*risks):
    return {"risk": torch.tensor(risks, dtype=torch.float64, requires_grad=True)}


# IRMv1.


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("convention", ["irm-paper", "mean"])
def test_irm_paper_is_mean_risk_plus_mean_squared_dummy_gradient(weight, convention):
    envs = outputs("logistic", (12, 20))
    nll = torch.stack([mean_nll(z, y) for z, y in envs]).mean()
    penalty = torch.stack([scalar_penalty(z, y) for z, y in envs]).mean()
    got = total_of(IRMv1(convention=convention), "logistic", envs, weight)
    assert_same_objective(got, nll + weight * penalty, envs)


@pytest.mark.parametrize("weight", WEIGHTS)
def test_irm_paper_divides_the_whole_loss_l2_included_by_weights_above_one(weight):
    envs = outputs("logistic")
    norm, l2 = torch.tensor(3.7, dtype=torch.float64), 0.001
    loss = torch.stack([mean_nll(z, y) for z, y in envs]).mean()
    loss = loss + l2 * norm
    loss = loss + weight * torch.stack([scalar_penalty(z, y) for z, y in envs]).mean()
    if weight > 1.0:
        loss = loss / weight
    scale = PenaltySchedule(at_anneal="rescale").loss_scale(weight)
    total = total_of(IRMv1(convention="irm-paper"), "logistic", envs, weight)
    assert_same_objective(scale * (total + l2 * norm), loss, envs)


def test_irm_and_rex_codes_use_weight_one_before_annealing_and_then_rescale():
    for name in ("irm-paper", "rex-paper"):
        schedule = PUBLISHED[name]
        assert schedule.weight(schedule.start - 1, 1e4) == 1.0
        assert schedule.weight(schedule.start, 1e4) == 1e4
        assert schedule.loss_scale(1.0) == 1.0
        assert schedule.loss_scale(1e4) == 1e-4
    assert PUBLISHED["domainbed"].loss_scale(1e4) == 1.0


@pytest.mark.parametrize("sizes", [(12, 12), (9, 14, 7)], ids=["two", "three, odd"])
def test_irm_appendix_d_sums_risks_and_split_penalties(sizes):
    envs = outputs("squared", sizes)
    error, penalty = 0.0, 0.0
    for z, y in envs:
        dummy = torch.ones(1, dtype=torch.float64, requires_grad=True)
        losses = F.mse_loss(z[:, 0] * dummy, y, reduction="none")
        (g1,) = torch.autograd.grad(losses[0::2].mean(), dummy, create_graph=True)
        (g2,) = torch.autograd.grad(losses[1::2].mean(), dummy, create_graph=True)
        penalty = penalty + (g1 * g2).sum()
        error = error + losses.mean()
    objective = IRMv1(estimator="split", convention="irm-appendix-d")
    got = total_of(objective, "squared", envs, 1e5)
    assert_same_objective(1e-5 * got, 1e-5 * error + penalty, envs)


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("sizes", [(12, 12), (9, 14, 7)], ids=["two", "three, odd"])
def test_domainbed_irm_averages_products_of_halves_over_environments(weight, sizes):
    envs = outputs("softmax", sizes)
    nll, penalty = 0.0, 0.0
    for z, y in envs:
        nll = nll + F.cross_entropy(z, y)
        scale = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
        loss_1 = F.cross_entropy(z[::2] * scale, y[::2])
        loss_2 = F.cross_entropy(z[1::2] * scale, y[1::2])
        (grad_1,) = torch.autograd.grad(loss_1, [scale], create_graph=True)
        (grad_2,) = torch.autograd.grad(loss_2, [scale], create_graph=True)
        penalty = penalty + torch.sum(grad_1 * grad_2)
    want = nll / len(envs) + weight * penalty / len(envs)
    got = total_of(IRMv1(estimator="split", convention="domainbed"), "softmax", envs, weight)
    assert_same_objective(got, want, envs)


def test_one_dummy_per_class_sums_the_squares_over_classes():
    envs = outputs("softmax-per-class", (9, 14))
    penalties = []
    for z, y in envs:
        scale = torch.ones(3, dtype=torch.float64, requires_grad=True)
        loss = F.cross_entropy(z * scale, y)
        (grad,) = torch.autograd.grad(loss, [scale], create_graph=True)
        penalties.append(grad.square().sum())
    risks = torch.stack([F.cross_entropy(z, y) for z, y in envs])
    got = total_of(IRMv1(), "softmax-per-class", envs, 5.0)
    assert_same_objective(got, risks.mean() + 5.0 * torch.stack(penalties).mean(), envs)


@pytest.mark.parametrize("weight", WEIGHTS)
def test_rex_paper_irm_sums_the_risks_and_averages_the_penalties(weight):
    envs = outputs("logistic", (12, 20))
    (z1, y1), (z2, y2) = envs
    loss = mean_nll(z1, y1) + mean_nll(z2, y2)
    penalty = torch.stack([scalar_penalty(z1, y1), scalar_penalty(z2, y2)]).mean()
    got = total_of(IRMv1(convention="rex-paper"), "logistic", envs, weight)
    assert_same_objective(got, loss + weight * penalty, envs)


@pytest.mark.parametrize("convention", ["mean", "irm-appendix-d"])
def test_trap_a_negative_split_penalty_is_kept_not_clamped(convention):
    means = {
        "risk": torch.ones(2, 2),
        "mass": torch.ones(2, 2),
        "dummy_gradient": torch.tensor([[[1.0], [-3.0]], [[2.0], [0.5]]]),
    }
    objective = IRMv1(1.0, estimator="split", convention=convention)
    terms = objective.value(means, None)[0]
    assert terms.penalty == (-1.0 if convention == "mean" else -2.0)
    assert terms.total == 0.0


# V-REx.


@pytest.mark.parametrize("weight", WEIGHTS)
def test_rex_paper_vrex_is_sum_of_risks_plus_squared_difference(weight):
    envs = outputs("logistic", (12, 20))
    (z1, y1), (z2, y2) = envs
    loss1, loss2 = mean_nll(z1, y1), mean_nll(z2, y2)
    want = loss1 + loss2 + weight * (loss1 - loss2) ** 2
    got = total_of(VREx(convention="rex-paper"), "logistic", envs, weight)
    assert_same_objective(got, want, envs)
    variance = torch.stack([loss1, loss2]).var(correction=0)
    torch.testing.assert_close(want, loss1 + loss2 + weight * 4 * variance)


def test_rex_paper_vrex_of_more_environments_sums_over_pairs():
    envs = outputs("logistic", (9, 14, 7, 11))
    risks = risks_of(envs)
    pairs = itertools.combinations(risks, 2)
    want = risks.sum() + 3.0 * sum((a - b) ** 2 for a, b in pairs)
    assert_same_objective(total_of(VREx(convention="rex-paper"), "logistic", envs, 3.0), want, envs)


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("convention", ["domainbed", "mean"])
def test_domainbed_vrex_is_mean_risk_plus_population_variance(weight, convention):
    envs = outputs("softmax", (9, 14, 7))
    losses = torch.stack([F.cross_entropy(z, y) for z, y in envs])
    mean = losses.mean()
    want = mean + weight * ((losses - mean) ** 2).mean()
    got = total_of(VREx(convention=convention), "softmax", envs, weight)
    assert_same_objective(got, want, envs)
    torch.testing.assert_close(want, mean + weight * losses.var(correction=0))


@pytest.mark.parametrize("convention", VREx.conventions)
def test_trap_variance_of_one_environment_is_zero_not_nan(convention):
    means = constant(0.7)
    terms = VREx(1e4, convention=convention).value(means, None)[0]
    assert terms.total.item() == pytest.approx(0.7)
    assert terms.penalty == 0
    (slope,) = torch.autograd.grad(terms.total, means["risk"])
    assert slope.tolist() == [1.0]


def test_trap_gradient_at_equal_risks_is_finite():
    for objective in (VREx(), VREx(convention="rex-paper"), MMREx()):
        means = constant(0.7, 0.7, 0.7)
        terms = replace(objective, penalty_weight=1e4).value(means, None)[0]
        (slope,) = torch.autograd.grad(terms.total, means["risk"])
        assert slope.isfinite().all()


# MM-REx.


@pytest.mark.parametrize("weight", WEIGHTS)
def test_rex_paper_mmrex_is_sum_of_risks_plus_absolute_difference(weight):
    envs = outputs("logistic", (12, 20))
    (z1, y1), (z2, y2) = envs
    loss1, loss2 = mean_nll(z1, y1), mean_nll(z2, y2)
    want = loss1 + loss2 + weight * (loss1 - loss2).abs()
    got = total_of(MMREx(convention="rex-paper"), "logistic", envs, weight)
    assert_same_objective(got, want, envs)


@pytest.mark.parametrize("lambda_min", [-10.0, -0.5, 0.0, 0.2])
def test_rex_paper_mmrex_is_twice_the_papers_formula_at_the_same_lambda(lambda_min):
    envs = outputs("logistic", (12, 20))
    risks = risks_of(envs)
    paper = (1 - 2 * lambda_min) * risks.max() + lambda_min * risks.sum()
    weight = penalty_weight(lambda_min, 2)
    assert weight == pytest.approx(1 - 2 * lambda_min)
    assert_same_objective(total_of(MMREx(), "logistic", envs, weight), paper, envs)
    got = total_of(MMREx(convention="rex-paper"), "logistic", envs, weight)
    assert_same_objective(got, 2 * paper, envs)


@pytest.mark.parametrize("sizes", [(9, 14), (9, 14, 7), (9, 14, 7, 11, 8)])
@pytest.mark.parametrize("lambda_min", [-3.0, -0.1, 0.0, 0.15])
def test_mmrex_is_the_worst_mixture_with_weights_of_at_least_lambda_min(sizes, lambda_min):
    envs = outputs("logistic", sizes)
    risks = risks_of(envs).detach()
    n = len(risks)
    vertices = torch.full((n, n), lambda_min, dtype=torch.float64)
    vertices.fill_diagonal_(1 - (n - 1) * lambda_min)
    worst = (vertices @ risks).max()
    got = total_of(MMREx(), "logistic", envs, penalty_weight(lambda_min, n)).detach()
    torch.testing.assert_close(got, worst, rtol=1e-12, atol=1e-12)
    g = torch.Generator().manual_seed(0)
    free = torch.rand(1000, n, generator=g, dtype=torch.float64)
    mixtures = lambda_min + (1 - n * lambda_min) * free / free.sum(1, keepdim=True)
    assert (mixtures @ risks <= got + 1e-12).all()


@pytest.mark.parametrize("lambda_min", [0.34, 1.0, math.nan])
def test_lambda_min_above_an_equal_share_is_refused(lambda_min):
    with pytest.raises(OptionError, match=r"lambda_min of at most 1/E = 0\.333333, got .*extrap"):
        penalty_weight(lambda_min, 3)


# GroupDRO.


def test_group_dro_updates_its_weights_as_domainbed_does_step_after_step():
    eta = 0.5
    q = torch.ones(3, dtype=torch.float64)
    objective = GroupDRO(eta)
    state = objective.init(3, q)
    for step in range(6):
        envs = outputs("softmax", (9, 14, 7), seed=step)
        losses = torch.stack([F.cross_entropy(z, y) for z, y in envs])
        for m in range(3):
            q[m] *= (eta * losses[m].detach()).exp()
        q /= q.sum()
        means = means_of(objective, "softmax", envs)
        terms, state = objective.value(means, state)
        torch.testing.assert_close(state.exp(), q, rtol=1e-12, atol=1e-14)
        assert_same_objective(terms.total, torch.dot(losses, q), envs)
        assert not state.requires_grad
    assert q.max() > 0.34


def test_group_dro_does_not_overflow_where_the_plain_product_would():
    objective = GroupDRO(1.0)
    state = objective.init(2, torch.zeros(1))
    terms, state = objective.value(constant(1e5, 2e5), state)
    assert terms.total.item() == pytest.approx(2e5)
    assert state.exp().tolist() == [0.0, 1.0]


# IGA.


@pytest.mark.parametrize("convention", ["domainbed", "mean"])
def test_iga_adds_squared_deviations_of_gradients_summed_or_averaged(convention):
    g = torch.Generator().manual_seed(0)
    parts = {
        f"e{e}": (
            torch.randn(n, 4, generator=g, dtype=torch.float64),
            torch.randint(0, 3, (n,), generator=g),
        )
        for e, n in enumerate((9, 14, 7))
    }
    model = MLP(4, (6,), 3, generator=g).double()
    for layer in model.layers:
        layer.bias.data.uniform_(-0.5, 0.5, generator=g)
    params = list(model.parameters())

    losses = [F.cross_entropy(model(x), y) for x, y in parts.values()]
    grads = [torch.autograd.grad(loss, params, create_graph=True) for loss in losses]
    mean_loss = sum(losses) / 3
    mean_grad = torch.autograd.grad(mean_loss, params, retain_graph=True)
    penalty = 0.0
    for grad in grads:
        for own, mean in zip(grad, mean_grad, strict=True):
            penalty = penalty + (own - mean).pow(2).sum()
    if convention == "mean":
        penalty = penalty / 3
    want = mean_loss + 2.5 * penalty
    wanted = torch.autograd.grad(want, params)

    objective = IGA(2.5, convention=convention)
    engine = Engine(model, get_loss("softmax"), objective)
    batch = Batch(Environments.from_parts(parts))
    terms, _ = engine.step(batch, None)
    torch.testing.assert_close(terms.total, want.detach(), rtol=1e-12, atol=1e-12)
    for p, expected in zip(params, wanted, strict=True):
        torch.testing.assert_close(p.grad, expected, rtol=1e-9, atol=1e-11)


# ERM.


def test_pooled_erm_averages_over_rows_and_erm_over_environments():
    envs = outputs("logistic", (9, 14, 70))
    rows = torch.cat([z for z, _ in envs]), torch.cat([y for _, y in envs])
    means = means_of(ERM(), "logistic", envs)
    pooled = ERM(over="rows").value(means, None)[0].total
    assert_same_objective(pooled, mean_nll(*rows), envs)
    balanced = ERM().value(means, None)[0].total
    assert_same_objective(balanced, risks_of(envs).mean(), envs)


# Names and numbers that are refused.


@pytest.mark.parametrize(
    ("kind", "convention", "near"),
    [
        (IRMv1, "irm_paper", "irm-paper"),
        (VREx, "rex", "rex-paper"),
        (MMREx, "rexpaper", "rex-paper"),
        (IGA, "domain-bed", "domainbed"),
    ],
)
def test_an_unknown_convention_suggests_the_nearest(kind, convention, near):
    with pytest.raises(
        UnknownNameError, match=rf"Unknown convention '{convention}'\. Did you mean '{near}'\?"
    ):
        kind(convention=convention)


def test_a_convention_of_another_method_lists_the_known_ones():
    with pytest.raises(UnknownNameError, match=r"Known: domainbed, mean, rex-paper\."):
        VREx(convention="irm-appendix-d")


def test_unknown_options_and_objectives_suggest_the_nearest():
    with pytest.raises(UnknownNameError, match=r"estimator 'splt'\. Did you mean 'split'\?"):
        IRMv1(estimator="splt")
    with pytest.raises(UnknownNameError, match=r"average 'row'\. Did you mean 'rows'\?"):
        ERM(over="row")
    with pytest.raises(UnknownNameError, match=r"objective 'irmv2'\. Did you mean 'irmv1"):
        get_objective("irmv2")


def test_objectives_are_found_by_name_and_pass_through_as_instances():
    assert get_objective("vrex") is OBJECTIVES["vrex"]
    custom = VREx(convention="rex-paper")
    assert get_objective(custom) is custom


@pytest.mark.parametrize("name", [n for n, o in OBJECTIVES.items() if o.numbers])
@pytest.mark.parametrize("value", [-1.0, -math.inf, math.inf, math.nan])
def test_negative_infinite_and_nan_weights_are_refused_by_name(name, value):
    objective = OBJECTIVES[name]
    for field in objective.numbers:
        with pytest.raises(
            OptionError,
            match=rf"Expected {field} of {objective.title} to be a finite number, 0 or more, "
            rf"got {value}\. A negative weight would reward",
        ):
            replace(objective, **{field: value})


@pytest.mark.parametrize("name", [n for n, o in OBJECTIVES.items() if o.numbers])
def test_weights_of_zero_are_allowed_but_an_inner_step_of_none_is_not(name):
    objective = OBJECTIVES[name]
    for field in objective.numbers:
        if field != "inner_lr":
            assert replace(objective, **{field: 0.0}).numbers[field] == 0.0
            continue
        with pytest.raises(OptionError, match=r"Expected a positive inner_lr .*, got 0\.0\. With"):
            replace(objective, inner_lr=0.0)


@pytest.mark.parametrize(
    ("convention", "folds"),
    [("mean", 1), ("irm-paper", 1), ("domainbed", 2), ("irm-appendix-d", 2)],
)
def test_convention_brings_its_own_estimator(convention, folds):
    assert IRMv1(convention=convention).folds == folds
    assert replace(IRMv1(), convention=convention).folds == folds
    assert IRMv1(estimator="full", convention=convention).folds == 1


def test_published_schedules_set_in_where_the_codes_do():
    steps = {name: schedule.start for name, schedule in PUBLISHED.items()}
    assert steps == {"irm-paper": 190, "rex-paper": 100, "domainbed": 500}


def test_a_penalty_has_one_default_that_of_standardized_rows():
    penalties = [o for o in OBJECTIVES.values() if o.strength == "penalty_weight"]
    assert len(penalties) >= 5
    for objective in penalties:
        assert objective.penalty_weight == objective.strengths(3)[0], objective.title
