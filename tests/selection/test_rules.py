"""Selection rules on small hand-made tables; the honest ones never look at a test environment."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from invlearn.errors import OptionError, UnknownNameError
from invlearn.selection import RULES, applicable, get_rule, risks_agree, select
from selection.made import make_outputs

STEPS = (0, 10, 20, 30)
HONEST = [rule.name for rule in RULES.values() if not rule.oracle]
GROUPS = ("groups-agree", "inner-step-groups-agree", "lowest-worst-group")


def rows(split, metric, **values):
    """One metric of one split: {environment: values along the steps}."""
    return pd.DataFrame(
        [
            (name, split, metric, float(v), step)
            for name, along in values.items()
            for step, v in zip(STEPS, along, strict=True)
        ],
        columns=["environment", "split", "metric", "value", "step"],
    )


def validation(a, b, *, error=0.01, constant=0.7):
    same = {"a": [error] * 4, "b": [error] * 4}
    best = {"a": [constant] * 4, "b": [constant] * 4}
    return pd.concat(
        [
            rows("validation", "risk", a=a, b=b),
            rows("validation", "risk_standard_error", **same),
            rows("validation", "constant_risk", **best),
        ],
        ignore_index=True,
    )


def full():
    """A run with every split; each rule's best step is another one."""
    return pd.concat(
        [
            validation([0.70, 0.50, 0.45, 0.50], [0.70, 0.50, 0.35, 0.40]),
            rows("train", "risk", a=[0.7, 0.5, 0.4, 0.3], b=[0.7, 0.5, 0.3, 0.2]),
            rows("test", "risk", a=[0.7, 0.5, 0.4, 0.3], new=[0.6, 0.7, 0.8, 0.9]),
            rows("test", "accuracy", a=[0.5, 0.6, 0.7, 0.8], new=[0.9, 0.4, 0.3, 0.2]),
            rows("left-out", "risk", a=[0.7, 0.6, 0.4, 0.35], b=[0.7, 0.6, 0.6, 0.7]),
        ],
        ignore_index=True,
    )


def kept():
    """Outputs of the same run, whose groups' errors agree at step 20."""
    return make_outputs([0.5, 0.4, 0.3, 0.3], [0.0, 0.1, 0.3, 0.1])


def step(name, curves, target="new"):
    return get_rule(name).choose(curves, target, kept()).step


def test_last_takes_the_last_evaluated_step():
    assert get_rule("last").choose(full(), "new", None)[:2] == (30, True)
    assert step("last", full().sample(frac=1, random_state=0)) == 30


def test_lowest_validation_risk_takes_the_lowest_mean_over_environments():
    choice = get_rule("lowest-validation-risk").choose(full(), "new", None)
    assert choice[:2] == (20, True)
    assert choice.statistic.tolist() == pytest.approx([0.7, 0.5, 0.4, 0.45])
    assert choice.statistic.index.tolist() == list(STEPS)


def test_lowest_validation_risk_takes_the_first_of_equal_steps():
    curves = validation([0.6, 0.4, 0.4, 0.5], [0.6, 0.4, 0.4, 0.5])
    assert step("lowest-validation-risk", curves) == 10


def test_risks_agree_takes_the_last_step_below_an_absolute_threshold():
    curves = validation([0.60, 0.50, 0.44, 0.40], [0.60, 0.50, 0.40, 0.20])
    assert risks_agree(curves, threshold=0.03)[:2] == (20, True)  # Spreads: 0, 0, 0.02, 0.1.
    assert risks_agree(curves, threshold=0.015)[:2] == (10, True)
    assert risks_agree(curves, threshold=0.2)[:2] == (30, True)


def test_risks_agree_measures_the_population_standard_deviation():
    choice = risks_agree(validation([0.6, 0.5, 0.4, 0.4], [0.6, 0.5, 0.3, 0.1]))
    assert choice.statistic.tolist() == pytest.approx([0, 0, 0.05, 0.15])


@pytest.mark.parametrize(("error", "expected"), [(0.03, 10), (0.05, 20), (0.3, 30)])
def test_risks_agree_takes_its_default_threshold_from_the_standard_errors(error, expected):
    curves = validation([0.60, 0.50, 0.45, 0.40], [0.60, 0.50, 0.39, 0.20], error=error)
    # Of two environments: sqrt(1/2) of a standard error; the spreads are 0, 0, 0.03 and 0.1.
    assert risks_agree(curves)[:2] == (expected, True)


def test_trap_constant_predictor_is_excluded_although_its_risks_agree():
    curves = validation([0.70, 0.50, 0.70, 0.69], [0.70, 0.50, 0.70, 0.69])
    assert risks_agree(curves, threshold=0.1)[:2] == (10, True)
    assert risks_agree(curves)[:2] == (10, True)
    assert risks_agree(curves, threshold=0.1, margin=0.01)[:2] == (30, True)


def test_risks_agree_smooths_over_evaluations_up_to_the_current_one():
    curves = validation([0.6, 0.5, 0.4, 0.4], [0.6, 0.3, 0.4, 0.2])  # Spreads 0, 0.1, 0, 0.1.
    choice = risks_agree(curves, threshold=0.04, smoothing=2, min_step=0)
    assert choice.statistic.tolist() == pytest.approx([0, 0.05, 0.05, 0.05])
    assert choice[:2] == (0, True)
    assert risks_agree(curves, threshold=0.04)[:2] == (20, True)
    # The risk that has to beat the constant's is smoothed as well: 0.65, not 0.6, at step 10.
    late = validation([0.70, 0.60, 0.60, 0.60], [0.70, 0.60, 0.60, 0.60])
    assert risks_agree(late, smoothing=2, margin=0.1, first=True)[:2] == (20, True)
    assert risks_agree(late, margin=0.1, first=True)[:2] == (10, True)


def test_risks_agree_considers_no_step_before_min_step():
    curves = validation([0.6, 0.5, 0.4, 0.4], [0.6, 0.5, 0.3, 0.1])  # Agree at steps 0 and 10.
    assert risks_agree(curves, threshold=0.03, min_step=10)[:2] == (10, True)
    assert risks_agree(curves, threshold=0.03, min_step=11)[:2] == (30, False)
    assert risks_agree(curves, threshold=0.03, min_step=10, first=True)[:2] == (10, True)


def test_risks_agree_takes_the_first_step_if_asked():
    curves = validation([0.7, 0.5, 0.4, 0.4], [0.7, 0.5, 0.4, 0.2])
    assert risks_agree(curves, threshold=0.03)[:2] == (20, True)
    # Step 0 agrees too, but no better than a constant predictor does.
    assert risks_agree(curves, threshold=0.03, first=True)[:2] == (10, True)


def test_risks_agree_falls_back_to_the_last_step_and_says_so():
    apart = validation([0.7, 0.5, 0.5, 0.5], [0.7, 0.2, 0.2, 0.1])
    assert risks_agree(apart)[:2] == (30, False)
    constant = validation([0.7] * 4, [0.7] * 4)
    assert risks_agree(constant, threshold=0.5)[:2] == (30, False)


def test_risks_agree_needs_two_environments():
    curves = full()
    with pytest.raises(
        OptionError,
        match=r"Expected at least two training environments whose risks could agree, got 1\. "
        r"Use the rule 'lowest-validation-risk'\.",
    ):
        risks_agree(curves[curves["environment"] == "a"])


def test_leave_one_environment_out_takes_the_lowest_mean_held_out_risk():
    choice = get_rule("leave-one-environment-out").choose(full(), "new", None)
    assert choice[:2] == (20, True)
    assert choice.statistic.tolist() == pytest.approx([0.7, 0.6, 0.5, 0.525])


def test_oracle_takes_the_targets_most_accurate_step():
    assert step("oracle", full(), "new") == 0
    assert step("oracle", full(), "a") == 30


def test_oracle_takes_the_targets_lowest_risk_in_a_regression():
    curves = full()
    assert step("oracle", curves[curves["metric"] != "accuracy"], "new") == 0
    assert step("oracle", curves[curves["metric"] != "accuracy"], "a") == 30


@pytest.mark.parametrize("name", HONEST)
def test_trap_honest_rules_never_read_a_test_environment(name):
    curves = full()
    test = curves["split"] == "test"
    chosen = get_rule(name).choose(curves, "new", kept())
    rng = np.random.default_rng(0)
    for _ in range(20):
        scrambled = curves.copy()
        scrambled.loc[test, "value"] = rng.normal(size=test.sum()) * 100
        assert get_rule(name).choose(scrambled, "new", kept())[:2] == chosen[:2]
    for target in ("a", "new", "nowhere"):
        assert get_rule(name).choose(curves[~test], target, kept())[:2] == chosen[:2]


def test_trap_only_the_oracle_rule_reads_a_test_environment_and_is_labelled():
    curves = full()
    flipped = curves.copy()
    test = curves["split"] == "test"
    flipped.loc[test, "value"] = -curves.loc[test, "value"]
    moved = {name for name in RULES if step(name, curves) != step(name, flipped)}
    assert moved == {"oracle"}
    assert step("groups-agree", curves) == step("inner-step-groups-agree", curves) == 20
    assert {name for name, rule in RULES.items() if rule.oracle} == {"oracle"}
    assert {name for name, rule in RULES.items() if rule.needs == "test"} == {"oracle"}
    assert all(("oracle" in rule.name) == rule.oracle for rule in RULES.values())
    assert all(("oracle" in rule.title) == rule.oracle for rule in RULES.values())


@pytest.mark.parametrize("name", RULES)
def test_registry_entry_is_complete(name):
    rule = RULES[name]
    assert rule.name == name
    assert rule.title
    assert rule.explanation.endswith(".")
    assert rule.reads_outputs == (name in GROUPS)
    choice = rule.choose(full(), "new", kept())
    assert not rule.statistic or choice.statistic is not None


def names(curves, outputs=False):
    return [rule.name for rule in applicable(curves, outputs=outputs)]


def test_rules_apply_where_their_split_was_measured():
    curves = full()
    assert names(curves, outputs=True) == list(RULES)
    assert names(curves) == [name for name in RULES if name not in GROUPS]
    assert names(curves[curves["split"] == "train"], outputs=True) == ["last"]
    assert names(curves[curves["split"] == "train"]) == ["last"]
    assert names(curves[curves["split"].isin(["train", "test"])]) == ["last", "oracle"]
    assert names(curves[curves["split"] != "left-out"]) == [
        "risks-agree",
        "last",
        "lowest-validation-risk",
        "oracle",
    ]


def test_rules_of_agreement_do_not_apply_to_one_environment():
    curves = full()
    assert names(curves[curves["environment"] == "a"], outputs=True) == [
        "last",
        "lowest-validation-risk",
        "leave-one-environment-out",
        "oracle",
    ]


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("lowest-validation-risk", "validation"),
        ("risks-agree", "validation"),
        ("leave-one-environment-out", "left-out"),
    ],
)
def test_rule_without_its_split_says_what_is_missing(name, split):
    curves = full()
    with pytest.raises(OptionError, match=rf"Expected 'risk' of split '{split}' in the results"):
        step(name, curves[curves["split"] != split])


def test_select_keeps_all_measurements_of_the_chosen_step_under_the_label():
    chosen, choice = select(full(), get_rule("lowest-validation-risk"), "new", "a label")
    assert choice.step == 20
    assert set(chosen["step"]) == {20}
    assert set(chosen["selection"]) == {"a label"}
    assert len(chosen) == len(full()) / len(STEPS)


def test_misspelt_rule_is_told_the_nearest():
    with pytest.raises(
        UnknownNameError, match=r"Unknown selection rule 'orcle'\. Did you mean 'oracle'\?"
    ):
        get_rule("orcle")


def test_leave_one_environment_out_compares_steps_that_all_reached():
    held = {"a": {0: 0.9, 10: 0.7, 20: 0.1}, "b": {0: 0.9, 10: 0.8}}
    table = pd.DataFrame(
        [
            {"environment": e, "split": "left-out", "metric": "risk", "value": v, "step": s}
            for e, values in held.items()
            for s, v in values.items()
        ]
    )
    assert step("leave-one-environment-out", table) == 10


def test_last_is_a_step_the_run_itself_reached():
    table = pd.DataFrame(
        [
            {"environment": "a", "split": split, "metric": "risk", "value": 0.1, "step": s}
            for split, s in (("train", 50), ("left-out", 500))
        ]
    )
    assert step("last", table) == 50
