"""Recipes by name, by file, and for datasets that nobody wrote one for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from invlearn.comparison.recipes import get_recipe
from invlearn.comparison.requests import DEFAULT_METHODS
from invlearn.errors import DataFileError, InvlearnError, OptionError, UnknownNameError
from invlearn.methods import get_network
from invlearn.training import PenaltySchedule

OWN = """
note = "Tried by hand."
[settings]
steps = 30
lr = 0.02
[methods.vrex]
hyper = { penalty_weight = 50 }
"""


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Write own.toml here and read it as a recipe."""
    monkeypatch.chdir(tmp_path)

    def read(text, **more):
        Path("own.toml").write_text(text)
        return get_recipe("linear-sem", "own.toml", **more)

    return read


def test_a_file_sets_what_it_names_and_the_rest_are_the_defaults(written):
    recipe = written(OWN)
    assert recipe.name == "own.toml"
    assert recipe.notice == (
        "Settings from 'own.toml': steps, lr; for vrex: penalty_weight; the rest from the defaults."
    )
    assert recipe.note == f"{recipe.notice} Tried by hand."
    assert not recipe.oracle
    vrex, erm = (recipe.plan(get_network(name)) for name in ("vrex", "erm"))
    assert vrex.objective.penalty_weight == 50
    assert (vrex.settings.steps, vrex.settings.lr, vrex.settings.averaging) == (30, 0.02, 0.95)
    assert vrex.settings.schedule == PenaltySchedule("step", start=6, at_anneal="reset-optimizer")
    assert erm.settings.schedule == PenaltySchedule()
    assert recipe.plan(get_network("vrex"), steps=100).settings.schedule.start == 20
    assert hash(recipe) == hash(written(OWN))
    assert recipe == get_recipe("any", Path("own.toml"))
    assert recipe != written(OWN.replace("0.02", "0.03"))


def test_a_file_may_be_like_a_recipe(written):
    recipe = written('like = ["colored-digits", "default"]\n[settings]\nlr = 0.5\n')
    assert recipe.notice.endswith("lr; the rest from 'default' of colored-digits.")
    own, other = (r.plan(get_network("mmrex")) for r in (recipe, get_recipe("colored-digits")))
    assert own == other  # A method's own settings are over those of all.
    own, other = (r.plan(get_network("erm")) for r in (recipe, get_recipe("colored-digits")))
    assert (own.settings.lr, own.settings.l2) == (0.5, other.settings.l2)


def test_a_schedule_is_not_mixed_of_two(written):
    recipe = written(
        'like = ["colored-digits", "default"]\nmethods.vrex.schedule = { kind = "constant" }'
    )
    assert recipe.plan(get_network("vrex")).settings.schedule == PenaltySchedule()


def test_what_is_like_an_oracle_is_one(written):
    oracle = 'oracle = false\nlike = ["colored-mnist", "irm-paper"]'
    assert written(oracle).oracle
    assert written("oracle = true").oracle
    for text in (oracle, "oracle = true"):
        with pytest.raises(OptionError, match=r"'own\.toml' is an oracle, or like one\. Use anoth"):
            written(text, oracle=False)


WRONG = {
    "bad = 1": "Unknown key of 'own.toml' 'bad'. Known: hidden, like, methods, note, oracle, sched",
    "[settings]\nlrr = 1.0": "Unknown key in 'settings' of 'own.toml' 'lrr'. Did you mean 'lr'?",
    "[settings]\nschedule = {}": "Unknown key in 'settings' of 'own.toml' 'schedule'.",
    "[schedule]\nstrat = 3": "Unknown key in 'schedule' of 'own.toml' 'strat'. Did you mean",
    "[methods.vrex]\nlr = 1.0": "Unknown key in 'methods.vrex' of 'own.toml' 'lr'.",
    "[methods.vrex.settings]\nlrr = 1": "Unknown key in 'methods.vrex.settings' of 'own.toml'",
    "[settings]\nlr = 'fast'": (
        "Expected settings.lr in 'own.toml' to be a valid number, got 'fast'. Change it there."
    ),
    "[settings]\nsteps = 2.5": "Expected settings.steps in 'own.toml' to be a valid integer",
    "[settings]\nlr = 1979-05-27": "Expected settings.lr in 'own.toml' to be a valid number",
    "hidden = [0]": "Expected hidden.0 in 'own.toml' to be greater than or equal to 1, got 0.",
    "hidden = [true]": "Expected hidden.0 in 'own.toml' to be a valid integer, got True.",
    "settings = 3": "Expected settings in 'own.toml' to be a table, got 3.",
    "methods.vrex = 3": "Expected methods.vrex in 'own.toml' to be a table, got 3.",
    "oracle = 'no'": "Expected oracle in 'own.toml' to be a valid boolean, got 'no'.",
    "like = ['x']": "Expected like in 'own.toml' to be a dataset and a recipe of it, got ['x'].",
    "like = ['linear-se', 'x']": "Unknown dataset that 'own.toml' is like 'linear-se'. Did you",
    "like = ['linear-sem', 'x']": "Unknown recipe that 'own.toml' is like 'x'. Known: default.",
    "[methods.vrx]\nhidden = [3]": "in 'own.toml', 'vrx'. Did you mean 'vrex'?",
    "[methods.linear]\nhidden = [3]": "Unknown method that trains a network, in 'own.toml', 'linea",
    "[methods.vrex.hyper]\npenalty = 1": "In 'own.toml', for vrex: Unknown hyperparameter of V-REx",
    "[methods.vrex.hyper]\npenalty_weight = 'x'": (
        "Expected methods.vrex.hyper.penalty_weight in 'own.toml' to be a valid number, got 'x'."
    ),
    "[methods.vrex.options]\nfoo = 1": "In 'own.toml', for vrex: Unknown option of V-REx 'foo'.",
    "[settings]\nlr = -1.0": "In 'own.toml', for vrex: Expected a positive lr",
    "[settings]\nlr = nan": "In 'own.toml', for vrex: Expected a positive lr",
    "[settings]\noptimizer = 'Adamm'": "In 'own.toml', for vrex: Unknown optimizer 'Adamm'. Did",
    "[settings.optimizer_options]\nbogus = 1": "In 'own.toml', for vrex: torch.optim.Adam does not",
    "schedule = { kind = 'stepp' }": "In 'own.toml', for vrex: Unknown penalty schedule 'stepp'.",
    "schedule = { kind = 'step', start = 900 }": (
        "In 'own.toml', for vrex: Expected a penalty that sets in before the last step"
    ),
    "schedule = { kind = 'warm-up', start = 3 }": (
        "In 'own.toml', for vrex: Expected nothing beside the kind of a 'warm-up' schedule"
    ),
    "a = [": "Expected a recipe in TOML in 'own.toml', it is none: Invalid value",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_file_that_is_wrong_is_refused_by_name(written, text):
    with pytest.raises(InvlearnError) as caught:
        written(text).plan(get_network("vrex"))
    assert WRONG[text] in str(caught.value)


def test_what_is_no_file_is_said(written):
    written("")
    Path("folder.toml").mkdir()
    Path("bytes.toml").write_bytes(b"\xff\xfe")
    for name, said in {
        "none.toml": "at 'none.toml', it cannot be read: No such file or directory. Name a TOML",
        "folder.toml": "at 'folder.toml', it cannot be read: ",
        "bytes.toml": "in TOML in 'bytes.toml', it is none: 'utf-8' codec",
    }.items():
        with pytest.raises(DataFileError, match=said):
            get_recipe("linear-sem", name)
    with pytest.raises(DataFileError, match=r"ends in \.toml, got 'own\.cfg'\. Rename it"):
        get_recipe("linear-sem", Path("own.cfg"))


def test_a_dataset_without_a_recipe_has_defaults_that_say_so():
    recipe = get_recipe("theirs")
    assert recipe == get_recipe("theirs", "defaults")
    assert recipe.name == "defaults"
    assert recipe.notice == (
        "'theirs' has no recipe: methods are trained with defaults, not tuned to it."
    )
    assert recipe.note.startswith(recipe.notice)
    plan = recipe.plan(get_network("irmv1"))
    assert plan.network.hidden == (16,)
    assert (plan.settings.steps, plan.settings.schedule.start) == (500, 100)
    with pytest.raises(UnknownNameError, match="recipe for theirs 'default'"):
        get_recipe("theirs", "default")


def test_a_datasets_own_recipe_has_nothing_to_say_first():
    assert get_recipe("linear-sem").notice == ""


@pytest.mark.parametrize("name", DEFAULT_METHODS)
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
