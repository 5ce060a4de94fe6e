"""Runs trained together end as the same runs trained one by one."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

from invlearn.environments import Environments, EvaluationSet
from invlearn.errors import DivergenceWarning, OptionError, StackingWarning, UnknownNameError
from invlearn.features import ChannelImages
from invlearn.losses import Custom
from invlearn.models import MLP
from invlearn.objectives import OBJECTIVES
from invlearn.objectives.base import Terms
from invlearn.objectives.meta_irm import MetaIRM
from invlearn.objectives.vrex import VREx
from invlearn.training import PenaltySchedule, Settings, Stopping, Trainer, train_many
from invlearn.training.alike import fitting, likeness
from invlearn.training.many_runs import pays, small_step

pytestmark = pytest.mark.filterwarnings("ignore::invlearn.errors.CollapseWarning")

SCHEDULE = PenaltySchedule("step", start=2, before=1.0, at_anneal="rescale")


def make_runs(objective, rows, model, **settings):
    """Three runs whose seeds, rows, hyperparameters, rates and schedules differ."""
    objective = OBJECTIVES[objective] if isinstance(objective, str) else objective
    trainers = []
    for r in range(3):
        data = rows(sizes=(30, 41), seed=r)
        held = EvaluationSet.from_environments(rows(sizes=(12, 10), seed=10 + r), "validation")
        numbers = dict.fromkeys(objective.numbers, 0.3 + 0.2 * r)
        if r == 1 and isinstance(objective, MetaIRM):
            numbers["dropgrad"] = 0.0
        given = {
            "steps": 6,
            "lr": 0.01 * (r + 1),
            "l2": 0.001 * r,
            "batch_size": 20,
            "schedule": replace(SCHEDULE, start=2 + r),
            "evaluate_every": 2,
        } | settings
        trainers.append(
            Trainer(
                model(seed=r),
                data,
                objective.with_numbers(numbers),
                "logistic",
                settings=Settings(**given),
                seed=r,
                evaluations=[held],
            )
        )
    return trainers


def assert_equal_runs(together, alone, exact=1e-9):
    for one, other in zip(together, alone, strict=True):
        assert (one.stop_reason, one.steps) == (other.stop_reason, other.steps)
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
    together = train_many(make_runs(objective, rows, model, **settings), arrangement="stacked")
    alone = [trainer.run() for trainer in make_runs(objective, rows, model, **settings)]
    assert_equal_runs(together, alone)


@pytest.mark.parametrize(
    "objective",
    [
        MetaIRM(inner_steps=2),
        MetaIRM(rate="curvature"),
        MetaIRM(rate="normalized"),
        MetaIRM(rows="separate"),
        MetaIRM(adapts=("last",)),
        MetaIRM(first_order=True),
        MetaIRM(same_environment=True),
    ],
)
def test_every_kind_of_meta_irm(objective, rows, model):
    together = train_many(make_runs(objective, rows, model), arrangement="stacked")
    assert_equal_runs(together, [t.run() for t in make_runs(objective, rows, model)])


def test_every_action_at_the_anneal_step(rows, model):
    schedule = PenaltySchedule("step", start=4, before=0.5, at_anneal="reset-optimizer")
    settings = {"schedule": schedule, "optimizer_options": {"weight_decay": 0.01, "eps": 1e-6}}
    together = train_many(make_runs("vrex", rows, model, **settings), arrangement="stacked")
    assert_equal_runs(together, [t.run() for t in make_runs("vrex", rows, model, **settings)])


def colored(r, n_envs=2):
    g = torch.Generator().manual_seed(r)
    parts = {}
    for e in range(n_envs):
        name, n = f"e{e}", 20 + 3 * r if e == 0 else 25 - r
        y = torch.randint(0, 2, (n,), generator=g)
        channel = (y ^ (torch.rand(n, generator=g) < 0.2)).sort().values
        pixels = torch.rand(n, 4, generator=g, dtype=torch.float64)
        parts[name] = (ChannelImages(pixels, channel, 2), y, torch.rand(n, generator=g) + 0.1)
    return Environments.from_parts(parts)


@pytest.mark.parametrize("n_envs", [2, 10])  # Ten: more stretches than are worth a product each.
@pytest.mark.parametrize("objective", ["irmv1", "irmv1-split", "iga", "meta-irm"])
def test_colored_images_of_unequal_counts_and_weights(objective, n_envs):
    def runs():
        return [
            Trainer(
                MLP(8, (5,), generator=torch.Generator().manual_seed(r)).double(),
                colored(r, n_envs),
                objective,
                "logistic",
                settings=Settings(steps=4, batch_size=None if objective == "irmv1" else 15),
                seed=r,
            )
            for r in range(3)
        ]

    trainers = runs()
    assert len({likeness(t) for t in trainers}) == 1
    assert_equal_runs(
        train_many(trainers, arrangement="stacked"), [trainer.run() for trainer in runs()]
    )


def test_a_run_that_ends_early_leaves_the_stack(rows, model):
    def runs():
        trainers = make_runs("irmv1", rows, model)
        trainers[1].settings = replace(trainers[1].settings, steps=4)
        return trainers

    seen = []
    together = train_many(
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
                    trainer.objective,
                    "logistic",
                    settings=trainer.settings,
                    seed=trainer.seed,
                    evaluations=trainer._recorder.evaluations,
                    stopping=Stopping("lowest-validation-risk", patience=3),
                )
            )
        return trainers

    together, alone = train_many(runs(), arrangement="stacked"), [t.run() for t in runs()]
    assert any(run.stop_reason == "stopped" for run in alone)
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
        together = train_many(runs(), arrangement="stacked")
    with pytest.warns(DivergenceWarning):
        alone = [trainer.run() for trainer in runs()]
    assert [run.stop_reason for run in together] == ["finished", "finished", "diverged"]
    assert_equal_runs(together[:2], alone[:2])
    assert together[2].messages == alone[2].messages


def test_models_have_memory_of_their_own_afterwards_and_can_go_on(rows, model):
    trainers, alone = (make_runs("erm", rows, model) for _ in range(2))
    train_many(trainers, arrangement="stacked")
    for trainer, other in zip(trainers, alone, strict=True):
        other.run()
        for p in trainer.model.parameters():
            assert p.untyped_storage().nbytes() == p.numel() * p.element_size()
        for one in (trainer, other):
            one.settings = replace(one.settings, steps=9)
    assert_equal_runs([t.run() for t in trainers], [t.run() for t in alone])


@pytest.mark.parametrize(
    "kind", ["dropout", "buffer", "frozen", "sgd", "drawn pairs", "batch norm", "unused", "options"]
)
def test_what_cannot_be_stacked_is_trained_in_turn(kind, rows, model):
    def runs():
        trainers = []
        for r in range(2):
            net = model(seed=r)
            settings = Settings(
                steps=3,
                l2=0.01,
                optimizer="SGD" if kind == "sgd" else "Adam",
                optimizer_options={"betas": [0.9, 0.99]} if kind == "options" else {},
                micro_batch=None if kind == "batch norm" else "auto",
            )
            if kind == "dropout":
                net = nn.Sequential(net, nn.Dropout(0.3))
            if kind == "batch norm":
                norm = nn.BatchNorm1d(1, track_running_stats=False).double()
                net = nn.Sequential(net, norm)
            if kind == "unused":
                torch.manual_seed(r)
                net.spare = nn.Linear(3, 3).double()
            if kind == "buffer":
                net.register_buffer("scale", torch.ones(()))
            if kind == "frozen":
                net.layers[0].bias.requires_grad_(False)
            objective = MetaIRM(pairs=1) if kind == "drawn pairs" else "erm"
            data = rows(sizes=(10, 12, 9))
            trainers.append(Trainer(net, data, objective, "logistic", settings=settings, seed=r))
        return trainers

    assert likeness(runs()[0]) is None or not any(fitting(runs()))
    assert_equal_runs(train_many(runs(), arrangement="stacked"), [t.run() for t in runs()])


def test_unlike_runs_are_not_stacked_with_each_other(rows, model):
    one, other = (Trainer(model(hidden=h), rows(), "erm", "logistic") for h in ((4,), (5,)))
    assert likeness(one) != likeness(other)


def test_the_arrangement_follows_the_size_of_a_step(rows, model):
    small = Trainer(model(), rows(), "erm", "logistic")
    large = Trainer(model(hidden=(3000, 3000)), rows(), "erm", "logistic")
    assert pays(small)
    assert not pays(large)


@pytest.mark.parametrize("call", [0, 1, 13])
def test_an_interrupt_ends_every_run_with_what_it_learned(call, rows, model, monkeypatch):
    trainers, other = make_runs("erm", rows, model), make_runs("vrex", rows, model)
    plan, calls = Trainer._plan, []

    def interrupted(self, step):
        calls.append(step)
        if len(calls) == call + 1:
            raise KeyboardInterrupt
        return plan(self, step)

    monkeypatch.setattr(Trainer, "_plan", interrupted)
    runs = train_many([*trainers, *other], arrangement="stacked")
    assert {run.stop_reason for run in runs} == {"interrupted"}
    assert {run.steps for run in runs[:3]} <= {call // 3, call // 3 + 1}
    assert [run.steps for run in runs[3:]] == [0, 0, 0]


def test_a_misspelt_arrangement():
    with pytest.raises(UnknownNameError, match="stacked"):
        train_many([], arrangement="stackd")


def made(objective, r, data, net, **options):
    settings = Settings(
        **({"steps": 4, "lr": 0.02, "batch_size": 15} | options.pop("settings", {}))
    )
    loss = options.pop("loss", "logistic")
    return Trainer(net, data, objective, loss, settings=settings, seed=r, **options)


def assert_stacked_as_alone(runs, expected=3):
    trainers = runs()
    assert sum(fitting(trainers)) == expected
    assert len({likeness(trainer) for trainer in trainers} - {None}) == 1
    assert_equal_runs(
        train_many(trainers, arrangement="stacked"), [trainer.run() for trainer in runs()]
    )


@pytest.mark.parametrize("loss", ["squared", "softmax", "softmax-per-class", "custom"])
@pytest.mark.parametrize("objective", ["irmv1", "group-dro", "iga", "meta-irm"])
def test_every_loss_and_weighted_rows(loss, objective, rows, model):
    kind = "squared" if loss == "custom" else loss.partition("-")[0]
    function = Custom(lambda z, y: (z[:, 0] - y).square()) if loss == "custom" else loss

    def runs():
        return [
            made(
                objective,
                r,
                rows(kind, sizes=(30, 25 + r, 22), weights=True, seed=r),
                model(kind, seed=r),
                loss=function,
            )
            for r in range(3)
        ]

    assert_stacked_as_alone(runs)


@pytest.mark.parametrize("objective", ["vrex", "meta-irm"])
def test_tied_parameters_and_rates_that_change(objective, rows):
    class Tied(nn.Module):
        def __init__(self, seed):
            super().__init__()
            torch.manual_seed(seed)
            self.layer, self.head = nn.Linear(4, 4), nn.Linear(4, 1)
            self.again = nn.Linear(4, 4)
            self.again.weight = self.layer.weight
            self.double()

        def forward(self, x):
            return self.head(self.again(self.layer(x).tanh()).tanh())

    settings = {"lr_factor": lambda step: 1 / (1 + step)}

    def runs():
        return [made(objective, r, rows(seed=r), Tied(r), settings=settings) for r in range(3)]

    assert_stacked_as_alone(runs)


def test_runs_that_were_begun_alone_go_on_in_a_stack(rows, model):
    def runs():
        trainers = make_runs("group-dro", rows, model, averaging=0.7)
        for trainer in trainers:
            trainer.run(until=4)
        return trainers

    assert_equal_runs(train_many(runs(), arrangement="stacked"), [t.run() for t in runs()])


def test_outputs_beyond_the_memory_budget_are_recomputed(rows, model):
    settings = {"memory_budget": 1, "micro_batch": 8}
    together = train_many(make_runs("irmv1", rows, model, **settings), arrangement="stacked")
    assert_equal_runs(together, [t.run() for t in make_runs("irmv1", rows, model)])


def test_models_that_differ_in_more_than_parameters_are_told_apart(rows, model):
    class Net(nn.Module):
        def __init__(self, act, seed):
            super().__init__()
            self.inner, self.act = model(hidden=(), seed=seed), act

        def forward(self, x):
            return self.act(self.inner(x))

    acts = [torch.tanh, torch.relu, torch.tanh]

    def runs():
        return [made("erm", r, rows(seed=r), Net(act, r)) for r, act in enumerate(acts)]

    assert_stacked_as_alone(runs, expected=2)


def test_an_objective_that_branches_on_a_number_is_trained_in_turn(rows, model):
    @dataclass(frozen=True)
    class Branching(VREx):
        def value(self, means, state):
            if self.penalty_weight > 0.5:
                return super().value(means, state)
            return Terms(means["risk"].mean(), means["risk"], means["risk"].var()), state

    def runs():
        return make_runs(Branching(), rows, model)

    text = (
        r"^V-REx is trained one run after another, because torch\.func\.vmap cannot map it over "
        r"several: vmap: It looks like you're attempting to use a Tensor in some data-dependent "
        r"control flow\..* Write it with operations on tensors alone, torch\.where"
    )
    with pytest.warns(StackingWarning, match=text):
        assert not any(fitting(runs()))
    with pytest.warns(StackingWarning) as caught:
        together = train_many(runs(), arrangement="stacked")
    assert [w.category for w in caught].count(StackingWarning) == 1
    assert_equal_runs(together, [t.run() for t in runs()])


def test_rows_whose_weights_sum_to_nothing_are_named(rows, model):
    def runs():
        trainers = []
        for r in range(2):
            data = rows(weights=True, seed=r)
            data.weights[:30] = 0
            trainers.append(made("iga", r, data, model(seed=r)))
        return trainers

    for train in (lambda: runs()[0].run(), lambda: train_many(runs(), arrangement="stacked")):
        with pytest.raises(OptionError, match="positive sum of row weights"):
            train()


def test_a_diverged_run_names_its_own_environment(rows, model):
    trainers = []
    for r, name in enumerate(("first", "second")):
        data = replace(rows(seed=r), names=(name, "other"))
        trainers.append(made("meta-irm", r, data, model(seed=r)))
    with torch.no_grad():
        for p in trainers[1].model.parameters():
            p.fill_(1e300)
    with pytest.warns(DivergenceWarning):
        runs = train_many(trainers, arrangement="stacked")
    assert "'second'" in runs[1].messages[0]


def test_a_run_is_handed_over_with_memory_of_its_own(rows, model):
    trainers, seen = make_runs("erm", rows, model), []
    trainers[0].settings = replace(trainers[0].settings, steps=4)

    def done(i, run):
        p = next(run.model.parameters())
        seen.append(p.untyped_storage().nbytes() == p.numel() * p.element_size())

    train_many(trainers, arrangement="stacked", done=done)
    assert seen == [True] * 3


def test_a_small_step_is_one_of_few_rows_and_parameters():
    assert small_step((1000, 1000), None, 1000)
    assert small_step((10**6, 10**6), 1000, 1000)
    assert not small_step((10**6, 10**6), None, 1000)
