"""Objectives trained on a small table with a shortcut: each does what it says."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from invlearn.environments import Environments, EvaluationSet
from invlearn.evaluation import evaluate
from invlearn.losses import get_loss
from invlearn.means import random_folds
from invlearn.models import MLP
from invlearn.objectives import get_objective
from invlearn.training import Batch, Engine, PenaltySchedule, Settings, Trainer

STEPS = 200


def table(noises, n, seed):
    """Cause → target → effect: the effect is the better predictor until its noise grows."""
    g = torch.Generator().manual_seed(seed)
    parts = {}
    for noise in noises:
        cause = torch.randn(n, generator=g)
        y = (cause + 0.8 * torch.randn(n, generator=g)) / 1.28
        effect = y + noise * torch.randn(n, generator=g)
        x = torch.stack([cause, effect, *torch.randn(4, n, generator=g)], 1)
        parts[f"noise {noise}"] = (x, y)
    return Environments.from_parts(parts)


TRAIN, ELSEWHERE = table((0.15, 0.4, 0.8), 500, 0), table((2.5,), 2000, 1)


@cache
def trained(name):
    objective, model = (
        get_objective(name),
        MLP(6, (16,), generator=torch.Generator().manual_seed(0)),
    )
    late = PenaltySchedule("step", start=STEPS // 5, at_anneal="reset-optimizer")
    waits = bool(objective.strength) and objective.erm_at_zero
    settings = Settings(steps=STEPS, lr=0.02, schedule=late if waits else PenaltySchedule())
    return Trainer(model, TRAIN, objective, "squared", settings=settings).run().model


def risk_elsewhere(name):
    there = EvaluationSet.from_environments(ELSEWHERE, "test")
    found = evaluate(trained(name), [there], get_loss("squared"))
    return next(m.value for m in found if m.metric == "risk")


def penalty(objective, model):
    """The objective's own penalty on all rows."""
    fold = None
    if objective.folds > 1:
        fold = random_folds(TRAIN.sizes, objective.folds, torch.Generator().manual_seed(0))
    state = objective.init(len(TRAIN), torch.zeros(1, dtype=torch.float64))
    engine = Engine(model, get_loss("squared"), objective)
    return float(engine.step(Batch(TRAIN, fold), state)[0].penalty)


@pytest.mark.parametrize("name", ["ib-irm", "fishr", "pair"])
def test_the_shortcut_counts_less_where_targets_and_outputs_are_compared(name):
    assert risk_elsewhere(name) < 0.65 * risk_elsewhere("erm")


@pytest.mark.parametrize("name", ["sd", "ib-erm", "ib-irm", "coral", "fishr", "pair"])
def test_the_penalty_ends_lower_than_erms(name):
    objective = get_objective(name)
    assert penalty(objective, trained(name)) < 0.9 * penalty(objective, trained("erm"))


@pytest.mark.parametrize("name", ["and-mask", "sand-mask"])
def test_masks_hold_parameters_still_and_let_the_risk_fall(name):
    objective = get_objective(name)
    fresh = MLP(6, (16,), generator=torch.Generator().manual_seed(0))
    engine = Engine(fresh, get_loss("squared"), objective)
    before, _ = engine.step(Batch(TRAIN), None)
    after, _ = Engine(trained(name), get_loss("squared"), objective).step(Batch(TRAIN), None)
    assert float(after.total) < 0.4 * float(before.total)
    assert float(after.penalty) > 0.5
