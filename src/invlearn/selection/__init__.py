"""Which step's model to keep: rules over the results table and the stored outputs of a run.

A rule reads the measurements of one run (columns environment, split, metric, value, step), and
some read the outputs for its training and validation rows; it picks a step. A rule that reads a
test environment is an oracle and says so.
"""

from __future__ import annotations

from functools import partial

import pandas as pd

from invlearn.errors import unknown_name
from invlearn.outputs import Outputs
from invlearn.selection.certificate import Certificate, certify
from invlearn.selection.gaps import reference_step
from invlearn.selection.groups import groups_agree, lowest_worst_group
from invlearn.selection.rules import (
    Choice,
    Note,
    Rule,
    last_step,
    leave_one_environment_out,
    lowest_validation_risk,
    oracle,
    risks_agree,
)

RULES: dict[str, Rule] = {
    rule.name: rule
    for rule in (
        Rule(
            "lowest-worst-group",
            "lowest worst-group error",
            "The step at which the worse-off group errs least on validation rows: those that the "
            "reference ERM gets wrong, or the others. The environments have to certify the "
            "groups.",
            lowest_worst_group,
            needs="validation",
            reads_outputs=True,
            reads_reference=True,
            min_environments=2,
            statistic="error of the worse-off group",
        ),
        Rule(
            "groups-agree",
            "groups agree",
            "The last steps at which rows that a reference ERM gets wrong have the same error as "
            "the others (training and validation rows), while the risk clearly beats a "
            "constant predictor's; among them the one where the errors are nearest. "
            "The environments have to certify the groups: the reference's errors must "
            "not be equally frequent in each.",
            groups_agree,
            needs="validation",
            reads_outputs=True,
            reads_reference=True,
            min_environments=2,
            statistic="error where the reference errs, less error elsewhere",
        ),
        Rule(
            "inner-step-groups-agree",
            "inner step's groups agree",
            "'groups agree' with the groups of validation rows whose loss a small step down the "
            "pooled risk's gradient raises or lowers: no reference model is needed.",
            partial(groups_agree, source="inner-step", splits=("validation",)),
            needs="validation",
            reads_outputs=True,
            min_environments=2,
            statistic="error where a pooled step hurts, less error elsewhere",
        ),
        Rule(
            "risks-agree",
            "risks agree",
            "The last step at which the validation risks of the training environments differ by "
            "less than one standard error, while clearly beating a constant predictor.",
            risks_agree,
            needs="validation",
            min_environments=2,
            statistic="standard deviation of validation risks",
        ),
        Rule(
            "last",
            "last step",
            "The model at the end of training.",
            last_step,
        ),
        Rule(
            "lowest-validation-risk",
            "lowest validation risk",
            "The step with the lowest mean risk on held-out rows of the training environments.",
            lowest_validation_risk,
            needs="validation",
        ),
        Rule(
            "leave-one-environment-out",
            "leave one environment out",
            "The step that did best in training environments left out of training in turn.",
            leave_one_environment_out,
            needs="left-out",
        ),
        Rule(
            "oracle",
            "oracle step",
            "The step that is best in the test environment. No user has it; it bounds what any "
            "rule could choose.",
            oracle,
            needs="test",
            oracle=True,
        ),
    )
}


def get_rule(name: str) -> Rule:
    """Look a rule up by name; UnknownNameError for another."""
    if name not in RULES:
        raise unknown_name("selection rule", name, RULES)
    return RULES[name]


def applicable(curves: pd.DataFrame, *, outputs: bool = False) -> list[Rule]:
    """The rules that can read these measurements, with or without outputs, in registry order."""
    splits = set(curves["split"])
    shared = curves.loc[curves["split"] == "validation", "environment"].nunique()
    return [
        rule
        for rule in RULES.values()
        if (rule.needs is None or rule.needs in splits)
        and (outputs or not rule.reads_outputs)
        and (rule.min_environments == 1 or shared >= rule.min_environments)
    ]


def select(
    curves: pd.DataFrame, rule: Rule, target: str, label: str, outputs: Outputs | None = None
) -> tuple[pd.DataFrame, Choice]:
    """A run's measurements at the step a rule chooses, with the column 'selection' set."""
    choice = rule.choose(curves, target, outputs)
    return curves[curves["step"] == choice.step].assign(selection=label), choice


__all__ = [
    "RULES",
    "Certificate",
    "Choice",
    "Note",
    "Rule",
    "applicable",
    "certify",
    "get_rule",
    "groups_agree",
    "last_step",
    "leave_one_environment_out",
    "lowest_validation_risk",
    "lowest_worst_group",
    "oracle",
    "reference_step",
    "risks_agree",
    "select",
]
