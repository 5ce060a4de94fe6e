"""A network as a method: what learning gives, problem by problem, and what is measured along it."""

from dataclasses import replace

import pytest
import torch

from invlearn.environments import Environments, EvaluationSet
from invlearn.evaluation import outputs
from invlearn.learning import EarlyStopping, fit, standard_plan
from invlearn.learning.plan import Layers
from invlearn.losses import get_loss
from invlearn.methods import get_network
from invlearn.problem import Problem
from invlearn.training import Settings


def rows(names, seed):
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(20 * len(names)) % 2
    x = torch.randn(len(y), 3, generator=generator) + y[:, None]
    return Environments.from_arrays(x, y, [name for name in names for _ in range(20)])


def problem(key, names="abc", seed=0):
    test = EvaluationSet.from_environments(rows("xy", 100 + seed), "test")
    return Problem("made", rows(names, seed), None, test, "x", "logistic", key=key, seed=seed)


def planned(name, **options):
    method = get_network(name)
    plan = standard_plan(method.objective, Layers((4,)), steps=10, **options)
    return replace(method, plan=plan)


def outcomes(method, problems):
    found = {}
    method.fit(problems, lambda problem, outcome: found.update({problem.key: outcome}))
    return found


@pytest.mark.parametrize("strength", ["auto", 3.0])
def test_it_is_what_learning_gives(strength):
    method, one = planned("vrex", strength=strength), problem("0")
    outcome = outcomes(method, [one])["0"]
    data = one
    alone = fit(method.planned, data.train, get_loss("logistic"), 1, seed=0)
    assert torch.equal(outcome.predict(data.test.x), outputs(alone.network, data.test.x))
    assert outcome.chosen == {"penalty_weight": alone.objective.numbers.get("penalty_weight", 0.0)}
    assert not outcome.failed


def test_two_environments_take_the_default_weight_where_none_can_be_left_out():
    outcome = outcomes(planned("vrex", strength="auto"), [problem("0", "ab")])["0"]
    assert outcome.chosen == {"penalty_weight": 100.0}


def test_several_problems_at_once_agree_with_each_alone():
    method, problems = planned("vrex"), [problem(str(seed), seed=seed) for seed in range(3)]
    together = outcomes(method, problems)
    for one in problems:
        alone = outcomes(method, [one])[one.key]
        x = one.test.x
        torch.testing.assert_close(
            together[one.key].predict(x), alone.predict(x), rtol=1e-4, atol=1e-4
        )


def test_a_problem_without_test_environments_is_measured_on_its_own_rows():
    one = problem("0")
    none = EvaluationSet(one.test.x, (), (), (), "test")
    data = Problem("made", one.train, None, none, "", "logistic")
    curves = outcomes(planned("erm"), [data])[""].curves
    assert set(curves["split"]) == {"train"}


def test_a_rule_that_no_step_satisfies_is_said():
    method = planned("erm", early_stopping=EarlyStopping("risks-agree"))
    method = replace(method, plan=replace(method.planned, settings=Settings(steps=2, lr=1e-9)))
    said = outcomes(method, [problem("0")])["0"].messages
    assert any("no step satisfied the rule that chooses it" in text for text in said)
