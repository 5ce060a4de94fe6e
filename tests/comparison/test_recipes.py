"""Recipes: what one takes over from another."""

from __future__ import annotations

from dataclasses import replace

import pytest

from invlearn.comparison.recipes import get_recipe
from invlearn.comparison.requests import BenchmarkRequest
from invlearn.methods import get_network


@pytest.mark.parametrize("name", BenchmarkRequest.methods)
def test_the_demo_is_the_default_recipe_with_fewer_and_smaller_steps(name):
    method = get_network(name)
    demo, full = (get_recipe("colored-digits", recipe).plan(method) for recipe in ("demo", None))
    assert demo.settings.steps < full.settings.steps
    assert demo.settings.steps / demo.settings.evaluate_every >= 15
    starts = [plan.settings.schedule.start / plan.settings.steps for plan in (demo, full)]
    assert starts[0] == pytest.approx(starts[1], abs=0.01)
    shorter = {field: getattr(demo.settings, field) for field in ("steps", "evaluate_every")}
    schedule = replace(full.settings.schedule, start=demo.settings.schedule.start)
    smaller = {"batch_size": demo.settings.batch_size, "schedule": schedule}
    assert demo == replace(full, settings=replace(full.settings, **shorter, **smaller))


def test_a_recipe_like_another_says_the_rest_in_its_own_words():
    demo, full = get_recipe("colored-digits", "demo"), get_recipe("colored-digits")
    assert demo.note != full.note
    assert demo.common == {**full.common, "steps": 300, "batch_size": 2500, "evaluate_every": 20}
    # The tables of the other are as they were.
    assert full.common["steps"] == 400
    mnist = get_recipe("colored-mnist", "honest")
    assert mnist.common == full.common
