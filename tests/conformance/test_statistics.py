"""The engine, single and stacked, micro-batch by micro-batch, against loops over rows."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import pytest
import torch

from invlearn.classifier import classifier_of
from invlearn.environments import Environments
from invlearn.errors import OptionError
from invlearn.features import ChannelImages
from invlearn.losses import get_loss
from invlearn.means import random_folds
from invlearn.models import MLP
from invlearn.objectives import OBJECTIVES
from invlearn.objectives.base import MeanObjective, Outer, Terms
from invlearn.objectives.gradient import Combination, GradientObjective, Scalars
from invlearn.training import Batch, Engine
from invlearn.training.stack import Stack
from invlearn.training.stacked_engine import StackedEngine
from reference import statistics


@dataclass(frozen=True)
class Covariances(MeanObjective):
    """Second moments of features and outputs must agree; its state is a running mean of them."""

    parts: int = 1
    title, summary, source, reads_features = "covariances", "For tests.", "", True

    @property
    def folds(self):
        return self.parts

    def init(self, n_envs, like):
        return torch.zeros(n_envs, dtype=like.dtype, device=like.device)

    def moments(self, loss, z, y, h):
        left = torch.cat([h, z], 1)
        return {"risk": loss.value(z, y), "h": h, "outer": Outer(left, h)}

    def value(self, means, state):
        second = means["outer"] - means["outer"].mean(0)
        first = means["h"] - means["h"].mean(0)
        risks = means["risk"].reshape(len(second), -1).mean(1)
        sizes = second.square().flatten(1).sum(1) + first.square().flatten(1).sum(1)
        penalty = (sizes + state).square().mean()
        return Terms(risks.mean() + penalty, risks, penalty), (state + sizes.detach()) / 2


@dataclass(frozen=True)
class Signs(GradientObjective):
    """Gradients of three scalars, of risks and features, weighted by their signs' agreement."""

    title, summary, source, reads_features = "signs", "For tests.", "", True

    def moments(self, loss, z, y, h):
        return {"risk": loss.value(z, y), "outer": Outer(z, h)}

    def scalars(self, means, state):
        risks = means["risk"]
        values = torch.stack([risks[0], risks.var(), means["outer"].square().sum()])
        return Scalars(values, Terms(risks.mean(), risks, risks.var())), state

    def combine(self, scalars, gradients, state):
        total = {n: g.sum(0) * g.sign().sum(0).abs() for n, g in gradients.items()}
        return Combination(total, None, scalars.terms), state


TESTED = {name: o for name, o in OBJECTIVES.items() if o.needs != "inner steps"} | {
    "covariances": Covariances(),
    "covariances of halves": Covariances(2),
    "signs": Signs(),
}


def batch_of(data, objective, seed=0):
    if objective.folds == 1:
        return Batch(data)
    generator = torch.Generator().manual_seed(seed)
    return Batch(data, random_folds(data.sizes, objective.folds, generator))


def ready(name, seed=0):
    """The objective with numbers of one size, and a state as after some steps."""
    objective = TESTED[name]
    objective = objective.with_numbers(dict.fromkeys(objective.numbers, 0.7 + 0.1 * seed))
    state = objective.init(3, torch.zeros(1, dtype=torch.float64))
    return objective, state if state is None else state + 0.1 * seed


def colored(seed=0):
    """Images of two channels, weighted, as many of each environment and channel for all seeds."""
    g = torch.Generator().manual_seed(seed)
    parts = {}
    for e, n in enumerate((9, 14, 11)):
        x = ChannelImages(torch.rand(n, 2, generator=g).double(), torch.arange(n) * 2 // n, 2)
        parts[f"e{e}"] = (x, torch.randint(0, 2, (n,), generator=g), torch.rand(n).double() + 0.1)
    return Environments.from_parts(parts)


def gradients_of(model):
    return {n: p.grad for n, p in model.named_parameters()}


def assert_same_step(got, want, gradient, wanted, tolerance=1e-9):
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(one, other.detach(), rtol=tolerance, atol=1e-11)
    for name, g in wanted.items():
        torch.testing.assert_close(gradient[name], g, rtol=tolerance, atol=1e-11)


@pytest.mark.parametrize("name", TESTED)
@pytest.mark.parametrize("loss", ["squared", "logistic", "softmax"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("hidden", [(), (6, 5)], ids=["linear", "hidden"])
def test_engine_equals_loops_over_rows(name, loss, weighted, hidden, rows, model):
    objective, state = ready(name)
    net = model(loss, hidden=hidden)
    if not learnable(objective, net):
        return
    batch = batch_of(rows(loss, (9, 14, 11), weighted), objective)
    want, wanted, after = statistics.step(objective, batch, net, get_loss(loss), state)
    for micro_batch, budget in itertools.product((None, 5), (1, 2 << 30)):
        net.zero_grad()
        engine = Engine(
            net, get_loss(loss), objective, micro_batch=micro_batch, memory_budget=budget
        )
        got, new = engine.step(batch, state)
        assert_same_step(got, want, gradients_of(net), wanted)
        if after is not None:
            torch.testing.assert_close(new, after.detach(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", TESTED)
def test_images_of_one_channel_equal_loops_over_rows(name):
    for hidden in ((), (4,)):
        objective, state = ready(name)
        net = MLP(4, hidden, 1, generator=torch.Generator().manual_seed(0)).double()
        if not learnable(objective, net):
            continue
        batch = batch_of(colored(), objective)
        want, wanted, _ = statistics.step(objective, batch, net, get_loss("logistic"), state)
        got, _ = Engine(net, get_loss("logistic"), objective, micro_batch=4).step(batch, state)
        assert_same_step(got, want, gradients_of(net), wanted)


def learnable(objective, net):
    """Whether the model suits; one without layers before its classifier is refused by some."""
    if len(net.layers) > 1 or not objective.shapes_features:
        return True
    expected = f"whose outputs {objective.title} penalizes, got none: .* cannot change. Give the"
    with pytest.raises(OptionError, match=expected):
        Engine(net, get_loss("logistic"), objective)
    return False


def stacked(name, data, nets, micro_batch):
    """A step of three runs at once, and each run's own."""
    many = [ready(name, r) for r in range(3)]
    batches = [batch_of(own, many[0][0], r) for r, own in enumerate(data)]
    single = []
    for net, batch, (objective, state) in zip(nets, batches, many, strict=True):
        got, new = Engine(net, get_loss("logistic"), objective).step(batch, state)
        single.append((got, gradients_of(net), new))
    objective = many[0][0].static()
    classifier = classifier_of(nets[0]) if objective.reads_features else None
    stack = Stack(nets, micro_batch=micro_batch, memory_budget=1, classifier=classifier)
    states, numbers = [state for _, state in many], [o.numbers for o, _ in many]
    made = StackedEngine(stack, get_loss("logistic"), objective).step(batches, states, numbers)
    return made, single


@pytest.mark.parametrize("name", TESTED)
@pytest.mark.parametrize("micro_batch", [5, None])
@pytest.mark.parametrize("kind", ["rows", "weighted", "images", "linear"])
def test_stacked_equals_single(name, micro_batch, kind, rows, model):
    if kind == "images":
        data = [colored(r) for r in range(3)]
        nets = [MLP(4, (3,), generator=torch.Generator().manual_seed(r)).double() for r in range(3)]
    else:
        weighted = kind == "weighted"
        data = [rows(sizes=(9 + r, 14, 11), weights=weighted, seed=r) for r in range(3)]
        hidden = () if kind == "linear" else (6, 5)
        nets = [model(seed=r, hidden=hidden) for r in range(3)]
    if not learnable(ready(name)[0], nets[0]):
        return
    made, single = stacked(name, data, nets, micro_batch)
    for r, (terms, gradient, new) in enumerate(single):
        own = {n: g[r] for n, g in made.gradient.items()}
        assert_same_step([t[r] for t in made.terms], terms, own, gradient)
        if new is not None:
            torch.testing.assert_close(made.state[r], new, rtol=1e-10, atol=1e-12)


def test_a_scalar_that_reads_one_environment_costs_a_pass_over_its_rows_only(rows):
    net, seen = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 1)).double(), []
    net[1].register_full_backward_hook(lambda module, into, out: seen.append(len(out[0])))
    Engine(net, get_loss("logistic"), Signs()).step(Batch(rows(sizes=(8, 12, 16))), None)
    assert sorted(seen) == [8, 8, 8, 12, 12, 16, 16]  # The first risk, all risks, all features.
