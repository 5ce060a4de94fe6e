"""The search reads training environments only and keeps the setting with the lowest score."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from invlearn.comparison import references
from invlearn.comparison import search as module
from invlearn.comparison.recipes import get_recipe
from invlearn.comparison.requests import SCORES
from invlearn.comparison.runner import Kept, Task
from invlearn.comparison.search import search
from invlearn.comparison.search_scores import best
from invlearn.comparison.search_space import SETTINGS_SPACE, draw_plans, search_space
from invlearn.errors import InvlearnError, OptionError
from invlearn.learning import fitting, reference
from invlearn.methods import get_network

TINY = {"rows_per_environment": 200, "validation_rows": 100, "test_rows": 50}


@pytest.fixture(autouse=True)
def no_reference_of_earlier_tests():
    references.shared_reference.cache_clear()


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    """Twenty steps instead of the recipe's."""

    def short(plan, draws, seed, space):
        return [
            (replace(drawn, settings=drawn.settings.with_steps(20)), values)
            for drawn, values in draw_plans(plan, draws, seed, space)
        ]

    monkeypatch.setattr(module, "draw_plans", short)


def test_search_writes_its_runs_and_the_best(tmp_path):
    table = search(
        "colored-digits",
        ["irmv1", "vrex"],
        tmp_path / "out",
        draws=3,
        trials=2,
        dataset_options=TINY,
        score="late-risk",
        command="by hand",
    )
    assert len(table) == 2 * 3 * 2
    written = pd.read_csv(tmp_path / "out" / "search.csv")
    assert written["risk p_e=0.1"].to_numpy() == pytest.approx(
        table["risk p_e=0.1"].to_numpy(), rel=1e-6
    )
    summary = json.loads((tmp_path / "out" / "search.json").read_text())
    assert summary["best"]["irmv1"] == pytest.approx(best(table, "irmv1", "late-risk"))
    assert summary["provenance"]["command"] == "by hand"
    assert summary["settings_before_drawing"]["vrex"]["steps"] == 400
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["search.csv", "search.json"]


def test_draws_cover_every_range():
    plan = get_recipe("colored-digits").plan(get_network("irmv1"))
    space = search_space(plan.objective)
    drawn = [values for _, values in draw_plans(plan, 10, 3, space)]
    for name, span in {**SETTINGS_SPACE, **plan.objective.space}.items():
        low, high = (span.low, span.high) if not span.log else np.log([span.low, span.high])
        values = [v[name] if not span.log else np.log(v[name]) for v in drawn]
        tenths = {
            min(int(10 * (v + 1e-9 - low + (name == "start")) / (high - low)), 9) for v in values
        }
        assert len(tenths) >= 9
    assert drawn == [values for _, values in draw_plans(plan, 10, 3, space)]
    assert drawn != [values for _, values in draw_plans(plan, 10, 4, space)]


def test_the_penalty_sets_in_at_the_recipes_share_of_fewer_steps():
    recipe, method = get_recipe("colored-digits"), get_network("irmv1")
    objective = recipe.plan(method).objective
    start = search_space(objective)["start"]
    short = search_space(objective, share=60 / 400)["start"]
    assert (short.low, short.high) == pytest.approx((start.low * 0.15, start.high * 0.15))
    plan = recipe.plan(method, steps=60)
    assert all(
        drawn.settings.schedule.start == values["start"] < 60
        for drawn, values in draw_plans(plan, 10, 1, search_space(objective, share=60 / 400))
    )
    assert search_space(objective, {"start": (5, 20)}, share=60 / 400)["start"][:2] == (5, 20)
    assert "start" not in search_space(get_network("meta-irm").objective, share=0.5)


def test_what_the_runs_warned_of_is_said_once_for_a_method():
    texts = ["V-REx trained as ERM. In each of 3 steps ...", "V-REx collapsed: its risk 0.7"]
    runs = [
        Kept(Task(f"vrex-{draw}", str(trial)), {}, {"method": "vrex", "draw": draw}, None, said)
        for draw, said in enumerate([(texts[0],), (texts[0].replace("3", "4"), texts[1]), ()])
        for trial in range(2)
    ]
    assert module._warnings(runs) == [
        {"method": "vrex", "warning": "V-REx trained as ERM", "runs": 4, "draws": [0, 1]},
        {"method": "vrex", "warning": "V-REx collapsed", "runs": 2, "draws": [1]},
    ]


def test_very_many_draws_are_asked_about_before_they_are_drawn(tmp_path):
    with pytest.raises(OptionError, match=r"got 3,000,000 runs \(1,000,000 draws, 3 trials, 1 met"):
        search("colored-digits", ["irmv1"], tmp_path / "out", draws=10**6)
    assert not (tmp_path / "out").exists()


def test_a_start_that_no_step_reaches_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(OptionError, match=r"Expected a penalty that sets in before the last step:"):
        search(
            "colored-digits",
            ["irmv1"],
            tmp_path / "out",
            steps=60,
            dataset_options=TINY,
            ranges={"start": (80, 90)},
        )
    assert not (tmp_path / "out").exists()


def test_trap_search_never_evaluates_a_test_environment(tmp_path, monkeypatch):
    seen = []

    def spied(function):
        def spy(*arguments, evaluations, **options):
            seen.extend(data.split for data in evaluations)
            return function(*arguments, evaluations=evaluations, **options)

        return spy

    monkeypatch.setattr(fitting, "make_trainer", spied(fitting.make_trainer))
    monkeypatch.setattr(reference, "train", spied(reference.train))  # The reference ERM's.
    for score in SCORES:
        out = tmp_path / score
        options = {"draws": 1, "trials": 1, "dataset_options": TINY, "score": score}
        search("colored-digits", ["irmv1"], out, **options)
    assert set(seen) == {"train", "validation"}


def test_the_reference_has_half_of_the_steps_asked_for(tmp_path, monkeypatch):
    steps, train = [], reference.train

    def spy(plan, *arguments, **options):
        steps.append(plan.settings.steps)
        return train(plan, *arguments, **options)

    monkeypatch.setattr(reference, "train", spy)
    options = {"draws": 1, "trials": 1, "dataset_options": TINY, "steps": 30}
    search("colored-digits", ["irmv1"], tmp_path / "out", **options)
    assert steps == [15]


def test_worst_group_takes_the_draw_with_the_lowest_mean_score_in_all_its_trials():
    table = pd.DataFrame(
        {
            "method": "meta-irm",
            "draw": [0, 0, 1, 1, 2, 2],
            "trial": [0, 1] * 3,
            "score": [0.20, None, 0.30, 0.31, 0.40, 0.20],
            **{name: [1.0, 1.0, 2.0, 2.0, 3.0, 3.0] for name in ("lr", "l2", "inner_lr")},
            **{name: [1.0, 1.0, 2.0, 2.0, 3.0, 3.0] for name in ("std_weight", "dropgrad")},
        }
    )
    found = best(table, "meta-irm", "worst-group")
    assert (found["draw"], found["lr"]) == (2, 3.0)
    assert found["score"] == pytest.approx(0.3)
    assert best(table[table["draw"] == 0], "meta-irm", "worst-group") == {}


def test_ranges_by_hand_replace_those_of_the_space():
    plan = get_recipe("colored-digits").plan(get_network("meta-irm"))
    space = search_space(plan.objective, {"inner_lr": (1.1, 1.2)})
    drawn = [v["inner_lr"] for _, v in draw_plans(plan, 5, 0, space)]
    assert 1.1 <= min(drawn) <= max(drawn) <= 1.2
    assert "start" not in space  # meta-IRM has no penalty to anneal.


def scored(*risks):
    """Two trials of each draw, with risks of two environments in each."""
    return pd.DataFrame(
        [
            {
                "method": "irmv1",
                "draw": draw,
                "trial": trial,
                "lr": 0.1 * (draw + 1),
                "l2": 0.0,
                "start": 10.0,
                "penalty_weight": 1.0,
                "constant_risk": 0.69,
                "risk a": a,
                "risk b": b,
            }
            for draw, trials in enumerate(risks)
            for trial, (a, b) in enumerate(trials)
        ]
    )


SHORTCUT = [(0.35, 0.50), (0.35, 0.50)]
LUCK_EVENS_OUT = [(0.60, 0.61), (0.61, 0.60)]
AGREES = [(0.64, 0.641), (0.64, 0.641)]
CONSTANT = [(0.69, 0.69), (0.69, 0.69)]
NEARLY = [(0.60, 0.62), (0.60, 0.62)]


@pytest.mark.parametrize(
    ("risks", "draw", "agrees"),
    [
        ([SHORTCUT, AGREES, CONSTANT], 1, 1.0),
        ([SHORTCUT, AGREES, LUCK_EVENS_OUT], 2, 1.0),
        ([SHORTCUT, NEARLY, CONSTANT], 1, 0.0),
        ([CONSTANT], 0, 0.0),
    ],
)
def test_best_is_the_lowest_risk_among_those_that_agree_and_beat_a_constant(risks, draw, agrees):
    found = best(scored(*risks), "irmv1", "late-risk")
    assert (found["draw"], found["agrees"]) == (draw, agrees)
    assert found["lr"] == pytest.approx(0.1 * (draw + 1))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"draws": 0}, "draws=0"),
        ({"seed": -1}, "seed=-1"),
        ({"recipe": "nope"}, "Unknown recipe"),
        ({"dataset_options": {"rows": 3}}, "Unknown option"),
        ({"score": "worst-grup"}, "Unknown score 'worst-grup'. Did you mean 'worst-group'"),
        ({"ranges": {"inner_rl": (0.1, 1)}}, "Unknown hyperparameter to search 'inner_rl'"),
        ({"ranges": {"lr": (2, 1)}}, "Expected a range of lr with 0 < low < high, got 2:1"),
        ({"ranges": {"lr": (0, 1)}}, "Expected a range of lr with 0 < low < high, got 0:1"),
        ({"ranges": {"start": (-1, 1)}}, "Expected a range of start with 0 <= low < high"),
    ],
)
def test_bad_searches_are_refused_with_nothing_written(change, text, tmp_path):
    options = {"draws": 1, "trials": 1, "dataset_options": TINY} | change
    with pytest.raises(InvlearnError, match=text):
        search("colored-digits", ["irmv1"], tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_search_never_overwrites_another(tmp_path):
    (tmp_path / "search.csv").write_text("earlier")
    with pytest.raises(InvlearnError, match="already holds results"):
        search("colored-digits", ["irmv1"], tmp_path, draws=1, trials=1, dataset_options=TINY)
    assert (tmp_path / "search.csv").read_text() == "earlier"


@pytest.mark.parametrize(
    ("dataset", "method", "options", "text"),
    [
        ("colored-mnist", "irmv1", {"recipe": "irm-paper"}, "'irm-paper' is an oracle"),
        ("colored-digits", "erm-grayscale", {}, "'erm-grayscale' is a reference"),
        ("colored-digits", "irmv1", {"dataset_options": {"training_p": "0.1"}}, "at least 2"),
    ],
)
def test_trap_search_refuses_what_it_could_not_search_honestly(
    dataset, method, options, text, tmp_path
):
    with pytest.raises(InvlearnError, match=text):
        search(dataset, [method], tmp_path / "out", draws=1, trials=1, **options)
    assert not (tmp_path / "out").exists()


def test_an_interrupted_search_resumes_to_the_same_table(tmp_path):
    asked = {"draws": 2, "trials": 2, "dataset_options": TINY}
    whole = search("colored-digits", ["meta-irm"], tmp_path / "whole", **asked)

    def stop(done, total, what):
        if done == 3:
            raise KeyboardInterrupt

    folder = tmp_path / "broken off"
    with pytest.raises(KeyboardInterrupt):
        search("colored-digits", ["meta-irm"], folder, progress=stop, **asked)
    with pytest.raises(InvlearnError, match="Add --resume"):
        search("colored-digits", ["meta-irm"], folder, **asked)
    with pytest.raises(InvlearnError, match="another comparison"):
        search("colored-digits", ["meta-irm"], folder, resume=True, **{**asked, "draws": 3})
    seen = []
    resumed = search(
        "colored-digits",
        ["meta-irm"],
        folder,
        resume=True,
        progress=lambda done, total, what: seen.append(done),
        **asked,
    )
    assert seen == [3, 4]
    pd.testing.assert_frame_equal(resumed, whole, check_exact=True)
    assert sorted(p.name for p in folder.iterdir()) == ["search.csv", "search.json"]
