"""What a fit chose can be read."""

import numpy as np
import pytest

from invlearn import InvariantClassifier

pytestmark = pytest.mark.filterwarnings("ignore::invlearn.CollapseWarning")  # In a few steps.


def test_choices_are_said(rows):
    X, y, hospital = rows
    said = {}
    for name, options in {
        "default": {},
        "given": {"penalty_weight": 7.0},
        "auto": {"penalty_weight": "auto"},
        "stopped": {"early_stopping": "lowest-validation-risk", "batch_size": 40},
        "erm": {"objective": "erm"},
    }.items():
        model = InvariantClassifier(steps=8, network="linear", random_state=0, **options)
        said[name] = model.fit(X, y, environments=hospital).choices_["chosen"]
    assert said["default"].to_dict() == {
        "objective": "V-REx",
        "penalty weight": "100 (the default)",
        "steps": "8 of 8 (finished)",
        "epochs": "8 (all rows of every environment in a step)",
        "environments": "3 (h0: 200, h1: 200, h2: 200 rows)",
    }
    assert said["given"]["penalty weight"] == "7 (given)"
    assert "chosen by leaving environments out" in said["auto"]["penalty weight"]
    assert "by the rule 'lowest-validation-risk'" in said["stopped"]["step kept"]
    assert said["stopped"]["epochs"] == "2 (40 rows of every environment in a step)"
    assert "penalty weight" not in said["erm"]


def test_they_stand_below_the_parameters_in_a_notebook(rows):
    X, y, hospital = rows
    model = InvariantClassifier(steps=2, random_state=0)
    assert "What was chosen" not in model._repr_html_()
    names = np.where(hospital == "h0", "<b>north</b>", hospital)
    shown = model.fit(X, y, environments=names)._repr_html_()
    assert "What was chosen" in shown
    assert "&lt;b&gt;north&lt;/b&gt;: 200" in shown
    assert "What was chosen" in model._repr_mimebundle_()["text/html"]


def test_of_many_environments_the_first_are_named(rows):
    X, y, _ = rows
    model = InvariantClassifier("erm", steps=2, random_state=0)
    model.fit(X, y, environments=np.arange(600) % 10)
    assert model.choices_.loc["environments", "chosen"].endswith("5: 60 and 4 more)")
