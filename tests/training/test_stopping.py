"""Stopping by a selection rule: the step, the model, the state."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from invlearn.environments import Environments, EvaluationSet
from invlearn.errors import DivergenceWarning, OptionError
from invlearn.objectives import get_objective
from invlearn.selection import Choice, get_rule, lowest_validation_risk, reference_step
from invlearn.training import PenaltySchedule, Settings, Stopping, Trainer


def trainer(net, learnable, stopping=None, steps=200, lr=0.05, objective="erm", **options):
    rows = learnable(sizes=(60, 80))
    return Trainer(
        net(),
        rows,
        objective,
        "logistic",
        settings=Settings(steps=steps, lr=lr, evaluate_every=5),
        evaluations=[
            EvaluationSet.from_environments(rows, "train"),
            EvaluationSet.from_environments(learnable(sizes=(30, 40), seed=1), "validation"),
        ],
        stopping=stopping,
        **options,
    )


LOWEST = Stopping("lowest-validation-risk", patience=4)


def parameters(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_stops_after_patience_and_leaves_the_chosen_steps_model(net, learnable):
    run = trainer(net, learnable, LOWEST).run()
    assert run.stop_reason == "stopped"
    assert run.steps == run.choice.step + 4 * 5
    assert run.choice.step == lowest_validation_risk(run.curves).step
    again = trainer(net, learnable).run(until=run.choice.step)
    assert torch.equal(parameters(run.model), parameters(again.model))


def test_min_steps_hold_it_back(net, learnable):
    run = trainer(net, learnable, replace(LOWEST, min_steps=150)).run()
    assert run.steps >= 150


def test_without_a_stop_the_chosen_model_is_left_at_the_end(net, learnable):
    run = trainer(net, learnable, replace(LOWEST, patience=1000), steps=100).run()
    assert (run.stop_reason, run.steps) == ("finished", 100)
    again = trainer(net, learnable).run(until=run.choice.step)
    assert torch.equal(parameters(run.model), parameters(again.model))


@pytest.mark.parametrize("at", [7, 30, 63])
def test_trap_resuming_a_stopping_run_equals_going_on(at, net, learnable):
    whole = trainer(net, learnable, LOWEST).run()
    first = trainer(net, learnable, LOWEST)
    first.run(until=at)
    second = trainer(net, learnable, LOWEST)
    second.load_state_dict(first.state_dict())
    run = second.run()
    assert (run.stop_reason, run.steps, run.choice.step) == (
        whole.stop_reason,
        whole.steps,
        whole.choice.step,
    )
    assert torch.equal(parameters(run.model), parameters(whole.model))


def test_a_stopped_run_keeps_its_reason_and_choice_when_run_again_or_resumed(net, learnable):
    stopped = trainer(net, learnable, LOWEST)
    whole = stopped.run()
    other = trainer(net, learnable, LOWEST)
    other.load_state_dict(stopped.state_dict())
    for run in (stopped.run(), other.run()):
        assert (run.stop_reason, run.steps) == ("stopped", whole.steps)
        assert run.choice.step == whole.choice.step
        assert torch.equal(parameters(run.model), parameters(whole.model))


def test_without_a_rule_a_finished_run_goes_on(net, learnable):
    one = trainer(net, learnable, steps=20)
    one.run()
    assert one.run(until=30).steps == 30


def test_after_a_divergence_the_model_is_that_of_the_choice(net, learnable):
    class Breaks(type(get_objective("erm"))):
        def value(self, means, state):
            terms, state = super().value(means, state)
            count[0] += 1
            return (
                terms if count[0] < 42 else terms._replace(total=terms.total * torch.inf)
            ), state

    count = [0]
    stopping = replace(LOWEST, patience=1000)
    with pytest.warns(DivergenceWarning, match="The model is the one of step"):
        run = trainer(net, learnable, stopping, objective=Breaks()).run()
    assert run.stop_reason == "diverged"
    again = trainer(net, learnable).run(until=run.choice.step)
    assert torch.equal(parameters(run.model), parameters(again.model))


def test_groups_agree_stops_with_a_reference(net, learnable):
    erm = trainer(net, learnable, keep_outputs=("train", "validation"), steps=50).run()
    reference = erm.outputs.at(reference_step(erm.outputs))
    stopping = Stopping("groups-agree", patience=2, reference=reference)
    run = trainer(net, learnable, stopping, objective="vrex", steps=60).run()
    assert run.choice.step in set(run.curves["step"])


@pytest.mark.parametrize("averaging", [0.0, 0.8])
def test_lowest_worst_group_stops_on_certified_groups(net, averaging):
    """A feature shows the label in the first environment more often than in the second."""

    def rows(seed):
        g = torch.Generator().manual_seed(seed)
        parts = {}
        for name, p in (("a", 0.05), ("b", 0.3)):
            y = torch.randint(0, 2, (600,), generator=g)
            shown = y ^ (torch.rand(600, generator=g) < p).long()
            x = torch.randn(600, 3, generator=g, dtype=torch.float64)
            x[:, 0] += (y - 0.5) * 1.5
            x[:, 1] = 3.0 * (shown - 0.5)
            parts[name] = (x, y)
        return Environments.from_parts(parts)

    train, validation = rows(0), rows(1)
    sets = [EvaluationSet.from_environments(validation, "validation")]

    def make(objective, stopping=None, **options):
        settings = Settings(steps=120, lr=0.02, evaluate_every=5, averaging=averaging)
        return Trainer(net(), train, objective, "logistic", settings=settings, evaluations=sets,
                       stopping=stopping, **options)  # fmt: skip

    erm = make("erm", keep_outputs=("validation",)).run()
    reference = erm.outputs.at(reference_step(erm.outputs))
    stopping = Stopping("lowest-worst-group", patience=3, reference=reference)
    run = make("vrex", stopping).run()
    assert run.stop_reason == "stopped"
    assert (run.choice.satisfied, run.choice.note) == (True, None)
    assert 0 < run.choice.step == run.choice.statistic[1:].idxmin() < run.steps
    again = make("vrex").run(until=run.choice.step)
    assert torch.equal(parameters(run.model), parameters(again.model))


def test_evaluations_before_a_scheduled_penalty_do_not_count(net, learnable):
    first = replace(
        get_rule("lowest-validation-risk"),
        choose=lambda curves, target, outputs: Choice(0, True),
    )
    asked = Stopping(first, patience=2)
    assert trainer(net, learnable, asked, objective="vrex").run().steps == 10
    late = trainer(net, learnable, asked, objective="vrex")
    late.settings = replace(late.settings, schedule=PenaltySchedule("step", start=40, before=1.0))
    assert late.run().steps == 50


def test_a_rule_that_comes_back_is_refused(net, learnable):
    rule = replace(
        get_rule("risks-agree"),
        choose=lambda curves, target, outputs: Choice(
            0 if curves["step"].max() > 20 else int(curves["step"].max()), True
        ),
    )
    with pytest.raises(OptionError, match=r"came back to step 0, whose model it had passed over"):
        trainer(net, learnable, Stopping(rule)).run()


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (lambda: Stopping("oracle"), "'oracle' does not. Use 'lowest-worst-group'"),
        (lambda: Stopping("last"), "'last' does not"),
        (lambda: Stopping("risks-agree", patience=0), "Expected patience of 1 or more"),
        (lambda: Stopping("risks-agree", min_steps=-1), "min_steps of 0 or more, got 10 and -1"),
        (lambda: Stopping("risks-agreed"), "Did you mean 'risks-agree'"),
        (lambda: Stopping("groups-agree"), "outputs of a reference ERM to stop by 'groups-agree'"),
        (lambda: Stopping("lowest-worst-group"), "ERM to stop by 'lowest-worst-group', got none"),
    ],
)
def test_bad_stopping_is_refused(build, text):
    with pytest.raises(ValueError, match=text):
        build()


def test_stopping_without_validation_rows_is_refused(net, learnable):
    rows = learnable()
    with pytest.raises(OptionError, match="Expected validation rows to stop by, found none"):
        Trainer(net(), rows, "erm", "logistic", stopping=Stopping("risks-agree"))
