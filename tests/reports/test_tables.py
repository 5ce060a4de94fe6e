from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from invlearn.errors import OptionError, UnknownNameError
from invlearn.metrics import METRICS
from invlearn.reports import aggregate, console, wide, write_report
from invlearn.reports.benchmark import Unsatisfied, Warned
from invlearn.reports.drawing import numeric_axis
from invlearn.reports.tables import Stat, footnotes, table, text
from invlearn.results import RESULT_COLUMNS


def frame(values: list[float]) -> pd.DataFrame:
    nan = np.nan
    rows = [("erm", t, "a", "test", "accuracy", v, nan, nan, 10, "last")
            for t, v in enumerate(values)]  # fmt: skip
    return pd.DataFrame(rows, columns=list(RESULT_COLUMNS))


def printed(experiment, width: int = 110, all_rules: bool = True) -> str:
    out = io.StringIO()
    shown = Console(file=out, width=width)
    console(experiment.results, experiment.record, shown, all_rules=all_rules)
    return out.getvalue()


def test_aggregate_by_hand():
    row = aggregate(frame([0.5, 0.6, 0.7])).iloc[0]
    assert row["mean"] == pytest.approx(0.6)
    assert row["std"] == pytest.approx(np.sqrt(0.02 / 3))
    assert row["count"] == 3


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_aggregate_counts_finite_values_only(bad):
    row = aggregate(frame([0.5, bad, 0.7])).iloc[0]
    assert row["mean"] == pytest.approx(0.6)
    assert row["count"] == 2


def test_aggregate_of_nothing_finite():
    row = aggregate(frame([np.nan, np.nan])).iloc[0]
    assert np.isnan(row["mean"])
    assert row["count"] == 0


def test_wide():
    both = pd.concat([frame([0.5, 0.7]), frame([np.nan]).assign(environment="b")])
    cells = wide(both, selection="last", split="test", metric="accuracy")
    assert cells.loc["erm"].to_dict() == {"a": "60.0 ± 10.0", "b": "–"}


@pytest.mark.parametrize(
    ("stat", "metric", "expected"),
    [
        (Stat(0.669, 0.025, 3), "accuracy", "66.9 ± 2.5"),
        (Stat(0.669, 0.0, 1), "accuracy", "66.9 (n=1)"),
        (Stat(0.31, 0.012, 3), "risk", "0.310 ± 0.012"),
        (Stat(100.0, 0.0, 1), "risk", "100 (n=1)"),
        (Stat(12345.0, 1.0, 2), "risk", "1.23e+04 ± 1"),
        (Stat(float("nan"), float("nan"), 0), "risk", "–"),
    ],
)
def test_text(stat, metric, expected):
    assert text(stat, METRICS[metric]) == expected


def test_training_column_is_the_mean_over_environments_first(experiment):
    one = table(experiment.results, experiment.record, experiment.record.rule("last"))
    mine = experiment.results.query(
        "method == 'erm' and selection == 'last' and split == 'train' and metric == 'accuracy'"
    )
    per_trial = mine.groupby("problem")["value"].mean()
    assert one.rows[0].train.mean == pytest.approx(per_trial.mean())
    assert one.rows[0].train.std == pytest.approx(per_trial.std(ddof=0))
    assert one.environments == ("p_e=0.1", "p_e=0.2", "p_e=0.9")


def test_a_trial_lacking_an_environment_is_not_averaged(experiment):
    frame = experiment.results
    lost = (
        (frame["method"] == "erm")
        & (frame["problem"] == 0)
        & (frame["environment"] == "p_e=0.2")
        & (frame["split"] == "train")
    )
    rule = experiment.record.rule("last")
    for results in (frame[~lost], frame.assign(value=frame["value"].mask(lost))):
        row = table(results, experiment.record, rule).rows[0]
        assert row.train.count == 2
        assert table(results, experiment.record, rule).cells(row)[-1] == "2 of 3"


def test_a_method_without_results_keeps_its_row(experiment):
    results = experiment.results[experiment.results["method"] != "vrex"]
    one = table(results, experiment.record, experiment.record.rule("last"))
    assert [row.method.name for row in one.rows] == ["erm", "irmv1", "vrex", "erm-grayscale"]
    assert one.cells(one.rows[2]) == ["–", "–", "–", "–", "0 of 3"]


def test_rules_headline_first_oracles_last(experiment):
    names = [rule.name for rule in experiment.record.shown_rules(experiment.results)]
    assert names == ["risks-agree", "last", "last (oracle hyperparameters)", "oracle"]


def test_headline_with_oracle_hyperparameters_only(experiment):
    experiment.change(headline="last")
    results = experiment.results[experiment.results["selection"] != "last"]
    rule = experiment.record.main_rule(results)
    assert rule.oracle
    assert rule.name == "last (oracle hyperparameters)"


def test_unknown_headline(experiment):
    experiment.change(headline="risk-agrees")
    with pytest.raises(UnknownNameError, match="Did you mean 'risks-agree'"):
        experiment.record.shown_rules(experiment.results)


def test_oracle_recipe_labels_every_rule(experiment):
    experiment.tune_on_the_test_environment()
    assert all(rule.oracle for rule in experiment.record.shown_rules(experiment.results))
    assert printed(experiment).count("oracle: looked at the test environment") == 4


def test_console(experiment):
    experiment.change(warnings=(Warned("erm", 0, "x"),))
    experiment.change(unsatisfied=(Unsatisfied("risks-agree", "irmv1", (0, 2)),))
    shown = printed(experiment)
    assert shown.index("Risks agree") < shown.index("Last step") < shown.index("Best target")
    assert shown.count("[oracle: looked at the test environment]") == 2
    assert "In 2 runs no step satisfied the rule" in shown
    assert "1 warning was raised" in shown
    assert "ERM, 1 of 3: x." in shown
    assert "* reference, not a competitor" in shown


def test_console_prints_the_headline_rule_alone(experiment):
    experiment.change(unsatisfied=(Unsatisfied("risks-agree", "irmv1", (0, 2)),))
    shown = printed(experiment, width=80, all_rules=False)
    assert shown.startswith("Risks agree")
    assert shown.count("method") == 1
    assert "Last step" not in shown
    assert "no step satisfied" not in shown  # The answer says it.
    assert max(map(len, shown.splitlines())) <= 80


def test_console_prints_markup_as_it_is(experiment):
    first, *others = experiment.record.methods
    experiment.change(methods=(replace(first, title="[bold]ERM[/bold]"), *others))
    assert "[bold]ERM[/bold]" in printed(experiment)


def test_console_of_a_regression(build):
    shown = printed(build(trials=1, regression=True))
    assert "risk, lower is better" in shown
    assert "(n=1)" in shown
    assert "accuracy in" not in shown


def test_footnotes_name_the_rule_they_belong_to(experiment):
    experiment.change(unsatisfied=(Unsatisfied("last", "vrex", (1,)),))
    assert footnotes(experiment.record.rule("oracle"), experiment.record) == []
    assert footnotes(experiment.record.rule("last"), experiment.record) == [
        "In 1 run no step satisfied the rule and the last step was taken (V-REx: trial 1)."
    ]


def test_bad_inputs_are_refused(experiment, tmp_path):
    results, curves, record = experiment.results, experiment.curves, experiment.record
    with pytest.raises(OptionError, match="missing: step, selection"):
        write_report(results.drop(columns=["step", "selection"]), curves, record, tmp_path)
    with pytest.raises(OptionError, match="one value per"):
        write_report(pd.concat([results, results.head(1)]), curves, record, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_shown_environments_up_to_four(experiment):
    experiment.change_dataset(test_environments=("p_e=0.1", "p_e=0.5", "p_e=0.7"))
    assert experiment.record.dataset.shown == [
        "p_e=0.1", "p_e=0.5", "p_e=0.7", "p_e=0.9",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["p_e=0.1", "p_e=0.9"], ("p_e", [0.1, 0.9])),
        (["year=1990", "p_e=0.9"], None),
        (["north", "south"], None),
        ([], None),
    ],
)
def test_numeric_axis(names, expected):
    assert numeric_axis(names) == expected


def test_chance(experiment):
    accuracy = METRICS["accuracy"]
    assert experiment.record.dataset.chance(accuracy) == 0.5
    assert experiment.record.dataset.chance(METRICS["risk"]) is None
    experiment.change_dataset(loss="softmax", description={"classes": 4})
    assert experiment.record.dataset.chance(accuracy) == 0.25
    experiment.change_dataset(description={})
    assert experiment.record.dataset.chance(accuracy) is None
