"""Runs trained together end as the same runs trained one by one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from invlearn.environments import Environments, EvaluationSet
from invlearn.errors import DivergenceWarning, UnknownNameError
from invlearn.features import ChannelImages
from invlearn.models import MLP
from invlearn.objectives import OBJECTIVES
from invlearn.objectives.meta_irm import MetaIRM
from invlearn.training import PenaltySchedule, Settings, Stopping, Trainer, train_together
from invlearn.training.together import likeness, pays

pytestmark = pytest.mark.filterwarnings("ignore::invlearn.errors.CollapseWarning")

SCHEDULE = PenaltySchedule("step", start=4, before=1.0, at_anneal="rescale")


def make_runs(objective, rows, model, **settings):
    """Three runs whose seeds, rows, hyperparameters, rates and schedules differ."""
    objective = OBJECTIVES[objective] if isinstance(objective, str) else objective
    trainers = []
    for r in range(3):
        data = rows(sizes=(30, 41), seed=r)
        held = EvaluationSet.from_environments(rows(sizes=(12, 10), seed=10 + r), "validation")
        hyper = objective.Hyper(*[0.3 + 0.2 * r] * len(objective.Hyper._fields))
        if r == 1 and isinstance(objective, MetaIRM):
            hyper = hyper._replace(dropgrad=0.0)
        given = {
            "steps": 9,
            "lr": 0.01 * (r + 1),
            "l2": 0.001 * r,
            "batch_size": 20,
            "schedule": replace(SCHEDULE, start=3 + r),
            "evaluate_every": 3,
        } | settings
        trainers.append(
            Trainer(
                model(seed=r),
                data,
                objective,
                "logistic",
                hyper=hyper,
                settings=Settings(**given),
                seed=r,
                evaluations=[held],
            )
        )
    return trainers


def assert_equal_runs(together, alone, exact=1e-9):
    for one, other in zip(together, alone, strict=True):
        assert (one.reason, one.steps) == (other.reason, other.steps)
        for p, q in zip(one.model.parameters(), other.model.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=exact, atol=exact)
        for name in other.history:
            got, want = (
                torch.tensor(run.history[name].to_numpy(dtype=float)) for run in (one, other)
            )
            torch.testing.assert_close(
                got.double(), want.double(), rtol=1e-8, atol=1e-9, equal_nan=True
            )
        values = [torch.tensor(run.curves["value"].to_numpy(dtype=float)) for run in (one, other)]
        torch.testing.assert_close(values[0], values[1], rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize(
    "settings", [{}, {"batch_size": None}, {"averaging": 0.8}, {"micro_batch": 7}]
)
def test_together_equals_one_by_one(objective, settings, rows, model):
    together = train_together(make_runs(objective, rows, model, **settings), arrangement="stacked")
    alone = [trainer.run() for trainer in make_runs(objective, rows, model, **settings)]
    assert_equal_runs(together, alone)


@pytest.mark.parametrize(
    "objective",
    [
        MetaIRM(inner_steps=2),
        MetaIRM(rate="curvature"),
        MetaIRM(rate="normalised"),
        MetaIRM(rows="separate"),
        MetaIRM(adapts=("last",)),
        MetaIRM(first_order=True),
        MetaIRM(same_environment=True),
    ],
)
def test_every_kind_of_meta_irm(objective, rows, model):
    together = train_together(make_runs(objective, rows, model), arrangement="stacked")
    assert_equal_runs(together, [t.run() for t in make_runs(objective, rows, model)])


def test_every_action_at_the_anneal_step(rows, model):
    schedule = PenaltySchedule("step", start=4, before=0.5, at_anneal="reset-optimizer")
    settings = {"schedule": schedule, "optimizer_options": {"weight_decay": 0.01, "eps": 1e-6}}
    together = train_together(make_runs("vrex", rows, model, **settings), arrangement="stacked")
    assert_equal_runs(together, [t.run() for t in make_runs("vrex", rows, model, **settings)])


def colored(r):
    g = torch.Generator().manual_seed(r)
    parts = {}
    for name, n in (("a", 20 + 3 * r), ("b", 25 - r)):
        y = torch.randint(0, 2, (n,), generator=g)
        channel = (y ^ (torch.rand(n, generator=g) < 0.2)).sort().values
        pixels = torch.rand(n, 4, generator=g, dtype=torch.float64)
        parts[name] = (ChannelImages(pixels, channel, 2), y, torch.rand(n, generator=g) + 0.1)
    return Environments.from_parts(parts)


@pytest.mark.parametrize("objective", ["irmv1", "irmv1-split", "iga", "meta-irm"])
def test_colored_images_of_unequal_counts_and_weights(objective):
    def runs():
        return [
            Trainer(
                MLP(8, (5,), generator=torch.Generator().manual_seed(r)).double(),
                colored(r),
                objective,
                "logistic",
                settings=Settings(steps=6, batch_size=None if objective == "irmv1" else 15),
                seed=r,
            )
            for r in range(4)
        ]

    trainers = runs()
    assert len({likeness(t) for t in trainers}) == 1
    assert_equal_runs(
        train_together(trainers, arrangement="stacked"), [trainer.run() for trainer in runs()]
    )


def test_a_run_that_ends_early_leaves_the_stack(rows, model):
    def runs():
        trainers = make_runs("irmv1", rows, model)
        trainers[1].settings = replace(trainers[1].settings, steps=4)
        return trainers

    seen = []
    together = train_together(
        runs(), arrangement="stacked", done=lambda i, run: seen.append((i, run.steps))
    )
    assert seen[0] == (1, 4)
    assert_equal_runs(together, [trainer.run() for trainer in runs()])


def test_stopping_by_a_rule(rows, model):
    def runs():
        trainers = []
        for trainer in make_runs("vrex", rows, model, steps=60, evaluate_every=2):
            trainers.append(
                Trainer(
                    trainer.model,
                    trainer.environments,
                    "vrex",
                    "logistic",
                    hyper=trainer.hyper,
                    settings=trainer.settings,
                    seed=trainer.seed,
                    evaluations=trainer.recorder.evaluations,
                    stopping=Stopping("lowest-validation-risk", patience=3),
                )
            )
        return trainers

    together, alone = train_together(runs(), arrangement="stacked"), [t.run() for t in runs()]
    assert any(run.reason == "stopped" for run in alone)
    assert_equal_runs(together, alone)


@pytest.mark.parametrize("objective", ["erm", "meta-irm"])
def test_a_run_that_diverges_leaves_the_others_alone(objective, rows, model):
    def runs():
        trainers = make_runs(objective, rows, model)
        with torch.no_grad():
            trainers[2].model.layers[-1].bias.fill_(1e308)
            trainers[2].model.layers[-1].weight.fill_(1e308)
        return trainers

    with pytest.warns(DivergenceWarning):
        together = train_together(runs(), arrangement="stacked")
    with pytest.warns(DivergenceWarning):
        alone = [trainer.run() for trainer in runs()]
    assert [run.reason for run in together] == ["finished", "finished", "diverged"]
    assert_equal_runs(together[:2], alone[:2])
    assert together[2].messages == alone[2].messages


def test_models_have_memory_of_their_own_afterwards_and_can_go_on(rows, model):
    trainers, alone = (make_runs("erm", rows, model) for _ in range(2))
    train_together(trainers, arrangement="stacked")
    for trainer, other in zip(trainers, alone, strict=True):
        other.run()
        for p in trainer.model.parameters():
            assert p.untyped_storage().nbytes() == p.numel() * p.element_size()
        for one in (trainer, other):
            one.settings = replace(one.settings, steps=14)
    assert_equal_runs([t.run() for t in trainers], [t.run() for t in alone])


@pytest.mark.parametrize("kind", ["dropout", "buffer", "frozen", "sgd", "drawn pairs"])
def test_what_cannot_be_stacked_is_trained_in_turn(kind, rows, model):
    def runs():
        trainers = []
        for r in range(2):
            net = model(seed=r)
            settings = Settings(steps=3, optimizer="SGD" if kind == "sgd" else "Adam")
            if kind == "dropout":
                net = nn.Sequential(net, nn.Dropout(0.3))
            if kind == "buffer":
                net.register_buffer("scale", torch.ones(()))
            if kind == "frozen":
                net.layers[0].bias.requires_grad_(False)
            objective = MetaIRM(pairs=1) if kind == "drawn pairs" else "erm"
            data = rows(sizes=(10, 12, 9))
            trainers.append(Trainer(net, data, objective, "logistic", settings=settings, seed=r))
        return trainers

    assert likeness(runs()[0]) is None
    assert_equal_runs(train_together(runs(), arrangement="stacked"), [t.run() for t in runs()])


def test_unlike_runs_are_not_stacked_with_each_other(rows, model):
    one, other = (Trainer(model(hidden=h), rows(), "erm", "logistic") for h in ((4,), (5,)))
    assert likeness(one) != likeness(other)


def test_the_arrangement_follows_the_size_of_a_step(rows, model):
    small = Trainer(model(), rows(), "erm", "logistic")
    large = Trainer(model(hidden=(3000, 3000)), rows(), "erm", "logistic")
    assert pays(small)
    assert not pays(large)


@pytest.mark.parametrize("call", [0, 1, 13])
def test_an_interrupt_ends_every_run_with_what_it_learnt(call, rows, model, monkeypatch):
    trainers, other = make_runs("erm", rows, model), make_runs("vrex", rows, model)
    plan, calls = Trainer._plan, []

    def interrupted(self, step):
        calls.append(step)
        if len(calls) == call + 1:
            raise KeyboardInterrupt
        return plan(self, step)

    monkeypatch.setattr(Trainer, "_plan", interrupted)
    runs = train_together([*trainers, *other], arrangement="stacked")
    assert {run.reason for run in runs} == {"interrupted"}
    assert {run.steps for run in runs[:3]} <= {call // 3, call // 3 + 1}
    assert [run.steps for run in runs[3:]] == [0, 0, 0]


def test_a_misspelt_arrangement():
    with pytest.raises(UnknownNameError, match="stacked"):
        train_together([], arrangement="stackd")
