"""A run whose penalty changes nothing says that it trained as ERM; others are not accused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import nn

from invlearn.environments import Environments
from invlearn.errors import NoEffectWarning
from invlearn.models import MLP
from invlearn.objectives import OBJECTIVES, get_objective
from invlearn.objectives.base import MeanObjective, Range, Terms, number
from invlearn.training import PenaltySchedule, Settings, Trainer, train_many

pytestmark = pytest.mark.filterwarnings("ignore::invlearn.errors.CollapseWarning")  # Few steps.


@dataclass(frozen=True)
class Forgotten(MeanObjective):
    """A penalty that its author cut off from the graph."""

    penalty_weight: float = number(10.0, Range(1.0, 100.0))
    title: ClassVar[str] = "Forgotten"
    summary: ClassVar[str] = "Looks like a penalty."
    source: ClassVar[str] = "here"
    strength: ClassVar[str] = "penalty_weight"

    def value(self, means, state):
        risks = means["risk"]
        penalty = risks.detach().var()
        return Terms(risks.mean() + self.penalty_weight * penalty, risks, penalty), state


def rows(same=False, sizes=(40, 40), seed=0, d=3):
    generator = torch.Generator().manual_seed(seed)
    parts = {}
    for name, n in zip(("a", "b"), sizes, strict=True):
        x = torch.randn(n, d, generator=generator)
        flip = torch.rand(n, generator=generator) < (0.1 if name == "a" else 0.3)
        parts[name] = (x, ((x[:, 0] > 0) ^ flip).long())
    return Environments.from_parts(dict.fromkeys(parts, parts["a"]) if same else parts)


def trainer(objective, data, steps=12, hidden=(5,), **options):
    model = MLP(3, hidden, generator=torch.Generator().manual_seed(1))
    return Trainer(
        model, data, objective, "logistic", settings=Settings(steps=steps, lr=0.05, **options)
    )


IDLE = {
    "V-REx, rows twice": ("vrex", rows(same=True)),
    "MM-REx, rows twice": ("mmrex", rows(same=True)),
    "CORAL, rows twice": ("coral", rows(same=True)),
    "IGA, rows twice": ("iga", rows(same=True)),
    "Fishr, rows twice": ("fishr", rows(same=True)),
    "AND-mask, nothing masked": (get_objective("and-mask", agreement=1e-9), rows()),
    "SAND-mask, nothing masked": (
        get_objective("sand-mask", agreement=0.0, sharpness=1e9),
        rows(same=True),
    ),
    "a weight too small to count": (get_objective("irmv1", penalty_weight=1e-12), rows()),
    "a penalty without a gradient": (Forgotten(), rows()),
}


@pytest.mark.parametrize("case", IDLE)
def test_a_penalty_without_a_gradient_is_said(case):
    objective, data = IDLE[case]
    made = trainer(objective, data)
    with pytest.warns(NoEffectWarning) as said:
        run = made.run()
    name, numbers = made.objective.strength, made.objective.numbers
    (text,) = (str(one.message) for one in said if one.category is NoEffectWarning)
    assert text in run.messages
    assert text == (
        f"{made.objective.title} trained as ERM. In each of 4 steps looked at, 0 to 7, its "
        "gradient was ERM's, to 1e-06 of its length. Look whether the environments hold the same "
        f"rows, or the features are constant; else raise {name}, which is {numbers[name]:g}."
    )


@pytest.mark.parametrize("name", OBJECTIVES)
def test_no_objective_is_accused_on_environments_that_differ(name):
    trainer(name, rows(), steps=6).run()  # A warning is an error here.


@pytest.mark.parametrize(
    ("objective", "data"),
    [
        ("erm", rows(same=True)),
        ("group-dro", rows(same=True)),
        (get_objective("vrex", penalty_weight=0.0), rows(same=True)),
        (get_objective("sd", penalty_weight=1e-4), rows()),
    ],
)
def test_erm_no_weight_by_choice_and_a_small_penalty_are_not_accused(objective, data):
    trainer(objective, data).run()


def test_a_penalty_that_waits_is_looked_at_from_where_it_sets_in():
    schedule = PenaltySchedule("step", start=7)
    idle = trainer("vrex", rows(same=True), steps=16, schedule=schedule)
    with pytest.warns(NoEffectWarning, match=r"In each of 4 steps looked at, 7 to 14, its"):
        idle.run()
    busy = trainer("vrex", rows(), schedule=schedule)
    busy.run()
    assert (busy._effect.steps, busy._effect.seen) == ([7], True)


def test_a_gradient_of_the_same_line_but_another_length_is_no_accusation():
    """With one number to learn every gradient lies on ERM's line."""
    data = rows(d=1)
    model = nn.Linear(1, 1, bias=False)
    made = Trainer(model, data, "vrex", "logistic", settings=Settings(steps=12, lr=0.05))
    made.run()
    assert made._effect.seen


def test_equal_risks_at_the_first_step_alone_are_no_accusation():
    made = trainer("vrex", rows())
    with torch.no_grad():
        for p in made.model.parameters():
            p.zero_()
        made.model.layers[0].bias.fill_(0.1)
    made.run()
    assert made._effect.seen
    assert len(made._effect.steps) > 1


def test_looking_changes_no_number(monkeypatch):
    def run():
        return trainer("vrex", rows(), batch_size=20).run()

    looked = run()
    monkeypatch.setattr("invlearn.training.effect.Effect.look", lambda self, trainer, update: None)
    blind = run()
    assert looked.history.equals(blind.history)
    for a, b in zip(looked.model.parameters(), blind.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_looking_leaves_the_statistics_of_a_batch_norm_alone(monkeypatch):
    def run():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1))
        Trainer(model, rows(), "vrex", "logistic", settings=Settings(steps=3)).run()
        return model.state_dict()

    looked = run()
    monkeypatch.setattr("invlearn.training.effect.Effect.look", lambda self, trainer, update: None)
    blind = run()
    assert all(torch.equal(looked[name], blind[name]) for name in blind)


def test_many_runs_at_once_say_so_each():
    data = (rows(same=True), rows(), rows(same=True))
    made = [trainer("vrex", each, steps=8) for each in data]
    with pytest.warns(NoEffectWarning):
        runs = train_many(made, arrangement="stacked")
    assert ["as ERM" in "".join(run.messages) for run in runs] == [True, False, True]


def test_a_resumed_run_remembers_what_was_seen():
    first = trainer("vrex", rows())
    first.run(until=6)
    second = trainer("vrex", rows(same=True))
    second.load_state_dict(first.state_dict())
    second.run()
    assert (second._effect.steps, second._effect.seen) == ([0], True)
