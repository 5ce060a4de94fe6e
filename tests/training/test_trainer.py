"""The training loop: reruns, resuming, schedules, and a clean end whatever happens."""

from __future__ import annotations

import copy
import math
import random

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from invlearn.environments import Environments, EvaluationSet
from invlearn.errors import (
    CollapseWarning,
    DivergenceWarning,
    EnvironmentsError,
    OptionError,
    UnknownNameError,
)
from invlearn.models import MLP
from invlearn.objectives import OBJECTIVES, get_objective
from invlearn.objectives.irmv1 import IRMv1
from invlearn.training import PenaltySchedule, Settings, Trainer

# A few steps need not beat a constant; the tests of that warning ask for it themselves.
pytestmark = pytest.mark.filterwarnings("ignore::invlearn.errors.CollapseWarning")


def parameters(trainer):
    return [p.detach().clone() for p in trainer.model.parameters()]


def assert_same(first, second):
    """Bit for bit: parameters, history and curves."""
    for a, b in zip(parameters(first), parameters(second), strict=True):
        assert torch.equal(a, b)
    one, two = first.run(until=first.step), second.run(until=second.step)
    pd.testing.assert_frame_equal(one.history, two.history, check_exact=True)
    pd.testing.assert_frame_equal(one.curves, two.curves, check_exact=True)


PUBLISHED_WEIGHT = IRMv1(1e4)


def trainer_of(net, data, objective=PUBLISHED_WEIGHT, *, seed=0, **settings):
    return Trainer(
        net,
        data,
        objective,
        "logistic",
        settings=Settings(**{"steps": 8, "lr": 0.01, "evaluate_every": 4, **settings}),
        seed=seed,
        evaluations=[EvaluationSet.from_environments(data, "train")],
    )


KINDS = {
    "full": ("irmv1", {}),
    "mini-batch": ("irmv1", {"batch_size": 16}),
    "proportional": ("vrex", {"batch_size": 16, "rows": "proportional"}),
    "split": ("irmv1-split", {"batch_size": 16}),
    "split-full": ("irmv1-split", {}),
    "gradients": ("iga", {"batch_size": 16}),
}


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (F.binary_cross_entropy_with_logits, "logistic"),
        (torch.nn.BCEWithLogitsLoss(), "logistic"),
        # With a weight of 1 as good as without, but by way of autograd.
        (torch.nn.BCEWithLogitsLoss(pos_weight=torch.tensor(1.0)), "logistic"),
        (lambda z, y: F.binary_cross_entropy_with_logits(z[:, 0], y.double(), reduction="none"),
         "logistic"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("objective", ["irmv1", "meta-irm", "fishr"])
def test_a_loss_may_be_torchs_or_any_function(function, name, objective, learnable, net):
    settings, ends = Settings(steps=3, lr=0.01), []
    for loss in (function, name):
        trainer = Trainer(net(), learnable(), objective, loss, settings=settings)
        trainer.run()
        ends.append(parameters(trainer))
    for got, want in zip(*ends, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-12)


def test_a_loss_that_is_not_finite_is_refused_before_training(learnable, net):
    with pytest.raises(OptionError, match="finite losses from '<lambda>', got inf in row 0"):
        Trainer(net(), learnable(), "erm", lambda z, y: z[:, 0].square() / 0)


@pytest.mark.parametrize("kind", KINDS)
def test_reruns_with_equal_seeds_are_bit_identical(kind, learnable, net):
    objective, settings = KINDS[kind]
    trainers = []
    for noise in (1, 2):
        torch.manual_seed(noise)  # The global generator must not matter.
        trainers.append(trainer_of(net(), learnable(), objective, seed=5, **settings))
        trainers[-1].run()
    assert_same(*trainers)


@pytest.mark.parametrize("kind", ["mini-batch", "proportional", "split", "split-full"])
def test_other_seeds_draw_other_rows(kind, learnable, net):
    objective, settings = KINDS[kind]
    first, second = (
        trainer_of(net(), learnable(), objective, seed=seed, **settings) for seed in (0, 1)
    )
    first.run(), second.run()
    assert not torch.equal(parameters(first)[0], parameters(second)[0])


def test_seed_does_not_matter_where_nothing_is_drawn(learnable, net):
    first, second = (trainer_of(net(), learnable(), seed=seed) for seed in (0, 1))
    first.run(), second.run()
    assert_same(first, second)


@pytest.mark.parametrize("at_anneal", ["rescale", "reset-optimizer"])
@pytest.mark.parametrize("objective", ["irmv1", "irmv1-split", "group-dro"])
@pytest.mark.parametrize("batch_size", [None, 16])
def test_trap_resuming_equals_going_on(objective, at_anneal, batch_size, learnable, net):
    settings = {
        "steps": 40,
        "batch_size": batch_size,
        "schedule": PenaltySchedule("step", start=30, before=1.0, at_anneal=at_anneal),
        "lr_factor": lambda step: 1 / (1 + step),
        "evaluate_every": 10,
    }
    straight = trainer_of(net(), learnable(), objective, **settings)
    straight.run()
    stopped = trainer_of(net(), learnable(), objective, **settings)
    stopped.run(until=20)
    saved = stopped.state_dict()
    resumed = trainer_of(net(seed=9), learnable(), objective, **settings)
    resumed.load_state_dict(saved)
    run = resumed.run()
    assert (run.stop_reason, run.steps) == ("finished", 40)
    assert_same(resumed, straight)
    if objective == "group-dro":
        assert torch.equal(resumed._state, straight._state)
        assert not torch.equal(resumed._state, resumed._state.new_full((2,), 0.5).log())
    moments = [resumed.optimizer.state_dict()["state"], straight.optimizer.state_dict()["state"]]
    assert moments[0].keys() == moments[1].keys() != set()
    for i, kept in moments[0].items():
        assert all(torch.equal(value, moments[1][i][name]) for name, value in kept.items())


def test_trap_resuming_does_not_restart_the_annealing(learnable, net):
    settings = {"steps": 12, "schedule": PenaltySchedule("step", start=8, before=1.0)}
    stopped = trainer_of(net(), learnable(), **settings)
    stopped.run(until=6)
    resumed = trainer_of(net(), learnable(), **settings)
    resumed.load_state_dict(stopped.state_dict())
    history = resumed.run().history
    assert history["step"].tolist() == list(range(12))
    assert history["penalty_weight"].tolist() == [1.0] * 8 + [1e4] * 4


def test_state_dict_survives_torch_save(learnable, net, tmp_path):
    stopped = trainer_of(net(), learnable(), "group-dro")
    stopped.run(until=4)
    torch.save(stopped.state_dict(), tmp_path / "state.pt")
    resumed = trainer_of(net(), learnable(), "group-dro")
    resumed.load_state_dict(torch.load(tmp_path / "state.pt"))
    resumed.run(), stopped.run()
    assert_same(resumed, stopped)


def test_trap_learning_rate_goes_on_after_the_optimizer_is_reset(learnable, net):
    def factor(step):
        return 1.0 if step < 5 else 0.5 ** (step - 4)

    trainer = trainer_of(
        net(),
        learnable(),
        lr_factor=factor,
        schedule=PenaltySchedule("step", start=3, before=1.0, at_anneal="reset-optimizer"),
    )
    rates, counts = [], []
    for step in range(8):
        trainer.run(until=step + 1)
        rates.append(trainer.optimizer.param_groups[0]["lr"])
        counts.append({int(s["step"]) for s in trainer.optimizer.state.values()})
    assert rates == [0.01 * factor(step) for step in range(8)]
    assert counts == [{1}, {2}, {3}, {1}, {2}, {3}, {4}, {5}]


@pytest.mark.parametrize("micro_batch", ["auto", None, 1, 7, 50])
def test_trap_micro_batches_are_not_steps(micro_batch, learnable, net):
    trainer = trainer_of(
        net(),
        learnable(),
        steps=6,
        micro_batch=micro_batch,
        schedule=PenaltySchedule("step", start=4, before=1.0, at_anneal="reset-optimizer"),
    )
    run = trainer.run()
    assert run.steps == len(run.history) == 6
    assert run.history["penalty_weight"].tolist() == [1.0] * 4 + [1e4] * 2
    assert {int(s["step"]) for s in trainer.optimizer.state.values()} == {2}
    whole = trainer_of(
        net(), learnable(), steps=6, micro_batch=None, schedule=trainer.settings.schedule
    )
    whole.run()
    for a, b in zip(parameters(trainer), parameters(whole), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)


def published(net, data, *, steps, anneal, weight, l2, lr, at_anneal):
    """The loop of the IRM paper's code, written out."""
    optimizer = torch.optim.Adam(net.parameters(), lr=lr)
    for step in range(steps):
        if at_anneal == "reset-optimizer" and step == anneal:
            optimizer = torch.optim.Adam(net.parameters(), lr=lr)
        nlls, penalties = [], []
        for _, x, y in data:
            logits = net(x)[:, 0]
            scale = torch.ones((), dtype=torch.float64, requires_grad=True)
            dummy = F.binary_cross_entropy_with_logits(logits * scale, y.double())
            grad = torch.autograd.grad(dummy, [scale], create_graph=True)[0]
            nlls.append(F.binary_cross_entropy_with_logits(logits, y.double()))
            penalties.append(grad**2)
        loss = torch.stack(nlls).mean()
        loss = loss + l2 * sum(w.norm().pow(2) for w in net.parameters())
        penalty_weight = weight if step >= anneal else 1.0
        loss = loss + penalty_weight * torch.stack(penalties).mean()
        if at_anneal == "rescale" and penalty_weight > 1.0:
            loss = loss / penalty_weight
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@pytest.mark.parametrize("micro_batch", [None, 13])
@pytest.mark.parametrize("at_anneal", ["rescale", "reset-optimizer", "nothing"])
def test_training_equals_the_published_loop(at_anneal, micro_batch, learnable, net):
    data, expected = learnable(), net()
    with torch.no_grad():  # The norm's derivative at the zero biases of the start is undefined.
        for layer in expected.layers:
            layer.bias.uniform_(-0.5, 0.5, generator=torch.Generator().manual_seed(1))
    trainer = trainer_of(
        copy.deepcopy(expected),
        data,
        IRMv1(penalty_weight=1e3, convention="irm-paper"),
        steps=12,
        lr=0.02,
        l2=0.01,
        schedule=PenaltySchedule("step", start=6, before=1.0, at_anneal=at_anneal),
        micro_batch=micro_batch,
    )
    trainer.run()
    published(expected, data, steps=12, anneal=6, weight=1e3, l2=0.01, lr=0.02, at_anneal=at_anneal)
    for got, want in zip(trainer.model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)


def mean_risk(net, data):
    losses = [F.binary_cross_entropy_with_logits(net(x)[:, 0], y.double()) for _, x, y in data]
    return torch.stack(losses).mean()


def test_weight_decay_comes_through_the_optimizers_options(learnable, net):
    data, expected = learnable(), net()
    trainer = trainer_of(
        copy.deepcopy(expected), data, "erm", steps=5, optimizer_options={"weight_decay": 0.1}
    )
    trainer.run()
    optimizer = torch.optim.Adam(expected.parameters(), lr=0.01, weight_decay=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        mean_risk(expected, data).backward()
        optimizer.step()
    for got, want in zip(trainer.model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "AdamW", "RMSprop", "LBFGS"])
def test_optimizers_of_torch_train_as_they_do_by_hand(optimizer, learnable, net):
    data, expected = learnable(), net()
    trainer = trainer_of(copy.deepcopy(expected), data, "erm", steps=2, optimizer=optimizer)
    run = trainer.run()
    assert (run.stop_reason, run.steps, len(run.history)) == ("finished", 2, 2)
    by_hand = getattr(torch.optim, optimizer)(expected.parameters(), lr=0.01)

    def closure():
        by_hand.zero_grad()
        risk = mean_risk(expected, data)
        risk.backward()
        return risk

    for _ in range(2):
        by_hand.step(closure)
    for got, want in zip(parameters(trainer), expected.parameters(), strict=True):
        torch.testing.assert_close(got, want.detach(), rtol=1e-7, atol=1e-9)


def test_history_holds_every_steps_terms(learnable, net):
    data, model = learnable(), net()
    with torch.no_grad():
        risks = [
            float(F.binary_cross_entropy_with_logits(model(x)[:, 0], y.double()))
            for _, x, y in data
        ]
    history = trainer_of(model, data, get_objective("vrex", penalty_weight=2.0)).run().history
    assert list(history) == ["step", "total", "penalty", "penalty_weight", "risk e0", "risk e1"]
    first = history.iloc[0]
    assert [first["risk e0"], first["risk e1"]] == pytest.approx(risks, rel=1e-12)
    assert first["penalty"] == pytest.approx(np.var(risks), rel=1e-9)
    assert first["total"] == pytest.approx(np.mean(risks) + 2 * np.var(risks), rel=1e-12)


def test_objective_without_a_penalty_weight_has_none_in_its_history(learnable, net):
    assert trainer_of(net(), learnable(), "erm").run().history["penalty_weight"].isna().all()


def test_evaluations_include_step_zero_and_the_last(learnable, net):
    run = trainer_of(net(), learnable(), steps=25, evaluate_every=10).run()
    assert list(run.curves) == ["environment", "split", "metric", "value", "step"]
    assert run.curves["step"].unique().tolist() == [0, 10, 20, 25]
    assert not run.curves.duplicated(["environment", "split", "metric", "step"]).any()


def test_curves_step_t_is_the_model_after_t_updates(learnable, net):
    run = trainer_of(net(), learnable(), "erm", steps=8, evaluate_every=4).run()
    risk = run.curves.query("metric == 'risk'").pivot(
        index="step", columns="environment", values="value"
    )
    for step in (0, 4):  # History's risks are those before the update.
        for name in ("e0", "e1"):
            before = run.history[f"risk {name}"][step]
            assert risk.loc[step, name] == pytest.approx(before, rel=1e-10)


def interrupt(trainer, step):
    """Raise KeyboardInterrupt inside the engine at this step; returns how to undo it."""
    whole = trainer._engine.step

    def broken(*args):
        if trainer.step == step:
            raise KeyboardInterrupt
        return whole(*args)

    trainer._engine.step = broken
    return lambda: setattr(trainer._engine, "step", whole)


@pytest.mark.parametrize("step", [0, 5, 8])
@pytest.mark.parametrize("objective", ["irmv1-split", "group-dro"])
def test_interrupted_run_holds_what_was_learnt_and_can_go_on(objective, step, learnable, net):
    straight = trainer_of(net(), learnable(), objective, steps=12, batch_size=16)
    straight.run()
    trainer = trainer_of(net(), learnable(), objective, steps=12, batch_size=16)
    mend = interrupt(trainer, step)
    run = trainer.run()
    assert (run.stop_reason, run.steps, len(run.history)) == ("interrupted", step, step)
    assert run.curves["step"].max() == step
    mend()
    run = trainer.run()
    assert (run.stop_reason, run.steps) == ("finished", 12)
    for a, b in zip(parameters(trainer), parameters(straight), strict=True):
        assert torch.equal(a, b)
    pd.testing.assert_frame_equal(run.history, straight.run().history, check_exact=True)


def test_divergence_ends_with_a_warning_and_a_finite_model(learnable, net):
    trainer = Trainer(
        net(()),
        learnable(loss="squared"),
        "erm",
        "squared",
        settings=Settings(steps=100, lr=1e6, optimizer="SGD", evaluate_every=10),
    )
    with pytest.warns(DivergenceWarning, match="ERM diverged at step") as caught:
        run = trainer.run()
    assert run.stop_reason == "diverged"
    assert run.steps < 100
    assert run.steps % 10
    assert all(bool(torch.isfinite(p).all()) for p in run.model.parameters())
    text = (
        f"ERM diverged at step {run.steps}: the objective is not a finite number. Lower the "
        "learning rate. The model is the one of step 20."
    )
    assert run.messages == (text,)
    assert [str(w.message) for w in caught] == [text]


def test_diverged_model_is_that_of_the_last_evaluation(learnable, net):
    data = learnable(loss="squared")
    settings = Settings(steps=100, lr=1e6, optimizer="SGD", evaluate_every=10)
    diverged = Trainer(net(()), data, "erm", "squared", settings=settings)
    with pytest.warns(DivergenceWarning):
        run = diverged.run()
    expected = Trainer(net(()), data, "erm", "squared", settings=settings)
    expected.run(until=run.steps // 10 * 10)
    for a, b in zip(parameters(diverged), parameters(expected), strict=True):
        assert torch.equal(a, b)


def test_constant_predictor_is_reported_as_collapsed(learnable, net):
    model = net(())
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(1e-4)
    trainer = trainer_of(model, learnable(), "irmv1", steps=3, lr=1e-9)
    with pytest.warns(CollapseWarning, match="IRMv1 collapsed") as caught:
        run = trainer.run()
    (text,) = run.messages
    assert [str(w.message) for w in caught] == [text]
    assert run.stop_reason == "finished"
    assert "its training risk 0.6931 is not 0.5 % below the best constants' 0.67" in text
    assert "Lower penalty_weight (it is 100) or train for more steps; a Trainer can also" in text
    assert repr(run) == ("Run(finished after 3 steps, mean training risk 0.6931, messages: 1)")


@pytest.mark.filterwarnings("error")
def test_predictor_that_learns_gives_no_warning(learnable, net):
    run = trainer_of(net(), learnable(), "erm", steps=60, lr=0.05).run()
    assert (run.stop_reason, run.messages) == ("finished", ())


def test_environment_with_one_class_is_refused_where_environments_are_compared(net):
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    data = Environments.from_parts(
        {"both": (x, torch.arange(20) % 2), "sick": (x, torch.ones(20, dtype=torch.int64))}
    )
    with pytest.warns(
        UserWarning,
        match="Environment 'sick' holds one class only: .* Merge it with another environment",
    ) as caught:
        trainer_of(net(), data, "erm")
    assert len(caught) == 1
    with pytest.raises(EnvironmentsError, match="Environment 'sick' holds one class only"):
        trainer_of(net(), data, "vrex")


def test_one_environment_is_refused_where_several_are_compared(learnable, net):
    with pytest.raises(
        EnvironmentsError,
        match=r"IRMv1 needs at least 2 training environments, got 1 \(e0\)\. .*objective 'erm'",
    ):
        trainer_of(net(), learnable((40,)), "irmv1")


@pytest.mark.parametrize("name", OBJECTIVES)
def test_objectives_say_themselves_how_many_environments_they_need(name, learnable, net):
    few = learnable((40,))
    if OBJECTIVES[name].min_environments > 1:
        with pytest.raises(EnvironmentsError, match="needs at least 2 training environments"):
            trainer_of(net(), few, name)
    else:
        assert trainer_of(net(), few, name).run().stop_reason == "finished"


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("sizes", [(20, 31), (12, 15, 20, 9, 31)])
def test_trap_no_objective_is_made_for_two_environments_only(name, sizes, learnable, net):
    run = trainer_of(net(), learnable(sizes), name, steps=3, batch_size=10).run()
    assert run.stop_reason == "finished"
    risks = run.history[[f"risk e{e}" for e in range(len(sizes))]]
    assert np.isfinite(risks.to_numpy()).all()
    assert np.isfinite(run.history["total"]).all()


@pytest.mark.parametrize(
    ("loss", "y", "text"),
    [
        ("logistic", [1, 2], "Expected targets 0 and 1 for the logistic loss, got values 1, 2"),
        ("squared", [0, 1], "Expected float targets with 1 column.* Convert the targets"),
        ("logistic", [0.1, 0.7], "Expected targets 0 and 1 for the logistic loss"),
    ],
)
def test_targets_of_another_kind_than_the_losss_are_refused(loss, y, text, net):
    x = torch.zeros(2, 3, dtype=torch.float64)
    data = Environments.from_parts({"a": (x, torch.tensor(y)), "b": (x, torch.tensor(y))})
    with pytest.raises(EnvironmentsError, match=text):
        Trainer(net(), data, "erm", loss)


def test_trap_softmax_over_one_output_is_refused(learnable, net):
    with pytest.raises(OptionError, match="at least two outputs for the softmax loss, got 1"):
        Trainer(net(), learnable(), "erm", "softmax")


def test_misspelt_objective_and_loss_are_told_the_nearest(learnable, net):
    with pytest.raises(UnknownNameError, match=r"Unknown objective 'irmv2'. Did you mean 'irmv1'"):
        Trainer(net(), learnable(), "irmv2", "logistic")
    with pytest.raises(UnknownNameError, match=r"Unknown loss 'logistc'. Did you mean 'logistic'"):
        Trainer(net(), learnable(), "erm", "logistc")


@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf])
def test_penalty_weight_outside_its_domain_is_refused(weight):
    with pytest.raises(OptionError, match="Expected penalty_weight of IRMv1 to be a finite number"):
        IRMv1(weight)


@pytest.mark.parametrize("kind", KINDS)
def test_training_leaves_the_global_generators_alone(kind, learnable, net):
    objective, settings = KINDS[kind]
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    trainer_of(net(), learnable(), objective, **settings).run()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.random.get_state()[1].tolist() == before[2]


def test_saved_state_does_not_change_with_the_training_that_follows(learnable, net):
    trainer = trainer_of(net(), learnable(), steps=20)
    trainer.run(until=10)
    state = trainer.state_dict()
    trainer.run()
    finals = []
    for _ in range(2):  # One state, two trainers.
        again = trainer_of(net(), learnable(), steps=20)
        again.load_state_dict(state)
        again.run()
        finals.append(parameters(again))
    for first, second, whole in zip(*finals, parameters(trainer), strict=True):
        assert torch.equal(first, second)
        assert torch.equal(first, whole)


def test_divergence_in_the_last_update_is_noticed(learnable, net):
    data = learnable(loss="squared")
    trainer = Trainer(
        net(),
        data,
        "erm",
        "squared",
        settings=Settings(steps=1, lr=1e300, optimizer="SGD"),
        evaluations=[EvaluationSet.from_environments(data, "train")],
    )
    with pytest.warns(DivergenceWarning):
        run = trainer.run()
    assert run.stop_reason == "diverged"
    assert run.curves["value"].map(math.isfinite).all()
    assert run.curves["step"].max() == 0


def test_model_after_a_divergence_has_a_finite_objective(learnable, net):
    data = learnable(loss="squared")
    settings = Settings(steps=100, lr=1e6, optimizer="SGD", evaluate_every=1)
    trainer = Trainer(net(), data, "erm", "squared", settings=settings)
    with pytest.warns(DivergenceWarning):
        trainer.run()
    with torch.no_grad():
        risk = (trainer.model(data.x)[:, 0] - data.y).square().mean()
    assert math.isfinite(float(risk))


def test_environments_of_unequal_noise_are_no_false_collapse(net):
    g = torch.Generator().manual_seed(0)
    quiet = torch.randn(1000, 3, generator=g, dtype=torch.float64)
    loud = 30 * torch.randn(20, 3, generator=g, dtype=torch.float64)
    data = Environments.from_parts(
        {
            "quiet": (quiet, 0.5 * quiet[:, 0]),
            "loud": (loud, 0.5 * loud[:, 0] + torch.randn(20, generator=g, dtype=torch.float64)),
        }
    )
    model = net(())
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
        next(model.parameters())[0, 0] = 0.5
    settings = Settings(steps=2, lr=1e-9)
    assert Trainer(model, data, "erm", "squared", settings=settings).run().messages == ()


def test_progress_off_a_terminal_is_a_line_on_the_error_output(learnable, net, capsys):
    trainer_of(net(), learnable(), steps=3).run(progress=True)
    assert capsys.readouterr() == ("", "IRMv1: 0 of 3, 0 s\n")
    trainer_of(net(), learnable(), steps=3).run()
    assert capsys.readouterr() == ("", "")


def test_features_of_another_type_than_the_models_are_refused(learnable, net):
    with pytest.raises(OptionError, match=r"Expected features of the model's type torch.float32"):
        Trainer(net().float(), learnable(), "erm", "logistic")


def test_dropout_reruns_are_bit_identical(learnable):
    finals = []
    for _ in range(2):
        g = torch.Generator().manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Dropout(0.5), MLP(3, (4,), generator=g)).double()
        torch.rand(1)  # The global generator is somewhere else each time.
        trainer = Trainer(model, learnable(), "erm", "logistic", settings=Settings(steps=5))
        trainer.run()
        finals.append(parameters(trainer))
    for first, second in zip(*finals, strict=True):
        assert torch.equal(first, second)


def test_resuming_anywhere_leaves_the_same_curves(learnable, net):
    data = learnable()
    runs = []
    for stops in ((20,), (7, 20)):
        trainer = Trainer(
            net(),
            data,
            "irmv1",
            "logistic",
            settings=Settings(steps=20),
            evaluations=[EvaluationSet.from_environments(data, "train")],
        )
        for stop in stops:
            run = trainer.run(until=stop)
        runs.append(run.curves)
    assert runs[0].equals(runs[1])


def test_evaluation_targets_of_another_kind_are_refused(learnable, net):
    data = learnable()
    other = EvaluationSet(data.x, ("new",), (torch.arange(3),), (torch.tensor([0, 1, 2]),), "test")
    with pytest.raises(EnvironmentsError, match="Expected targets 0 and 1"):
        Trainer(net(), data, "erm", "logistic", evaluations=[other])


def test_model_without_parameters_is_refused(learnable):
    with pytest.raises(OptionError, match="trainable parameters, got none"):
        Trainer(torch.nn.Identity(), learnable(), "erm", "logistic")


def averaged_by_hand(learnable, net, decay):
    """The raw parameters' moving average at every step, from a run that keeps none."""
    raw = trainer_of(net(), learnable(), batch_size=16)
    averages = [parameters(raw)]
    for step in range(1, raw.settings.steps + 1):
        raw.run(until=step)
        last = parameters(raw)
        # The average starts at the parameters after the first update.
        averages.append(
            last
            if step == 1
            else [decay * a + (1 - decay) * p for a, p in zip(averages[-1], last, strict=True)]
        )
    return raw, averages


def test_the_average_is_what_is_measured_and_returned(learnable, net):
    data = learnable()
    raw, averages = averaged_by_hand(learnable, net, 0.7)
    trainer = trainer_of(net(), data, batch_size=16, averaging=0.7)
    run = trainer.run()
    for got, want in zip(parameters(trainer), parameters(raw), strict=True):
        assert torch.equal(got, want)  # Training itself goes on as without it.
    for got, want in zip(run.model.parameters(), averages[-1], strict=True):
        torch.testing.assert_close(got.detach(), want, rtol=1e-12, atol=1e-12)
    risk = run.curves.query("metric == 'risk' and step == 4")["value"].tolist()
    model = net()
    for p, value in zip(model.parameters(), averages[4], strict=True):
        p.data.copy_(value)
    with torch.no_grad():
        logits = {name: (model(x)[:, 0], y.double()) for name, x, y in data}
    risks = [float(F.binary_cross_entropy_with_logits(*pair)) for pair in logits.values()]
    assert risk == pytest.approx(risks, rel=1e-10)


def test_a_resumed_run_goes_on_with_its_average(learnable, net):
    data = learnable()
    whole = trainer_of(net(), data, averaging=0.7).run()
    half = trainer_of(net(), data, averaging=0.7)
    half.run(until=4)
    resumed = trainer_of(net(), data, averaging=0.7)
    resumed.load_state_dict(half.state_dict())
    run = resumed.run()
    for got, want in zip(run.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(got, want)
    pd.testing.assert_frame_equal(run.curves, whole.curves, check_exact=True)


def test_a_state_without_the_average_is_refused(learnable, net):
    with_it = trainer_of(net(), learnable(), averaging=0.7)
    without = trainer_of(net(), learnable())
    for mine, other in ((with_it, without), (without, with_it)):
        before = parameters(mine)
        with pytest.raises(OptionError, match=r"state of a run with.* Use the same Settings\.aver"):
            mine.load_state_dict(other.state_dict())
        assert all(torch.equal(a, b) for a, b in zip(before, parameters(mine), strict=True))


@pytest.mark.filterwarnings("ignore::invlearn.errors.DivergenceWarning")
def test_an_average_that_diverged_is_that_of_the_last_finite_evaluation(learnable, net):
    trainer = trainer_of(
        net(), learnable(), "erm", steps=400, lr=1e30, averaging=0.9, optimizer="SGD"
    )
    run = trainer.run()
    assert run.stop_reason == "diverged"
    assert all(bool(torch.isfinite(p).all()) for p in run.model.parameters())
    assert run.model is not trainer.model
