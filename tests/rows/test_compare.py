"""Methods on one's own rows: honest folds, both tasks, what is refused."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from invlearn import EnvironmentsError, OptionError, OutputError, UnknownNameError
from invlearn.reports.verdict import Verdict
from invlearn.rows.compare import RowsRequest, _folds, compare_rows
from invlearn.rows.example import hospitals
from invlearn.rows.output import check_folder, next_command, write_comparison
from invlearn.rows.source import from_frame

QUICK = RowsRequest(("erm-pooled", "vrex"), steps=15)


def rows_of(frame, **options):
    names = {"target": "ill", "environment": "hospital"} | options
    return from_frame(frame, "hospitals.csv", **names)


@pytest.fixture(scope="module")
def three(frame):
    return frame[frame["hospital"].isin(["Arden", "Birk", "Farhill"])].reset_index(drop=True)


@pytest.fixture(scope="module")
def compared(three):
    return compare_rows(rows_of(three), QUICK, jobs=1)


def test_every_method_in_every_environment(compared):
    assert compared.found.environments == ("Arden", "Birk", "Farhill")
    assert [c.name for c in compared.found.contenders] == [
        "linear", "boosting", "erm-pooled", "vrex",
    ]  # fmt: skip
    assert compared.found.metric.name == "accuracy"
    assert compared.columns["scanner_artefact"] == "number"
    assert compared.columns["admitted"] == "date"
    assert {f.name for f in compared.findings} == {"feature-effects", "diversity"}


def test_the_linear_baseline_is_scikit_learns(compared, three):
    from sklearn.linear_model import LogisticRegression

    source = rows_of(three)
    inside, left_out = source.of(["Arden", "Birk"]), source.of(["Farhill"])
    inputs = inside.learn_inputs()
    model = LogisticRegression(max_iter=1000).fit(inside.matrix(inputs), inside.y)
    expected = model.score(left_out.matrix(inputs), left_out.y)
    assert compared.found.cell("Farhill", "linear").value == pytest.approx(expected)


def test_nothing_of_the_environment_left_out_is_learnt(compared, three):
    """Whatever its labels and columns say, what the others were set to stays the same."""
    spoiled = three.copy()
    here = spoiled["hospital"] == "Farhill"
    spoiled.loc[here, "ill"] = np.where(spoiled.loc[here, "ill"] == "yes", "no", "yes")
    again = compare_rows(rows_of(spoiled), replace(QUICK, test_environment="Farhill"), jobs=1)
    for method in ("linear", "boosting", "erm-pooled", "vrex"):
        before = compared.found.cell("Farhill", method).value
        # The same predictions, judged by the opposite labels.
        assert again.found.cell("Farhill", method).value == pytest.approx(1 - before)


def test_one_environment_only(three):
    found = compare_rows(rows_of(three), replace(QUICK, test_environment="Birk"), jobs=1).found
    assert found.environments == ("Birk",)


def test_strengths_are_chosen_where_there_are_three_left(frame):
    four = frame[frame["hospital"].isin(["Arden", "Birk", "Coll", "Farhill"])]
    request = replace(QUICK, test_environment="Farhill", objectives=("erm-pooled", "vrex"))
    setting = compare_rows(rows_of(four), request, jobs=1).settings["vrex"]["penalty weight"]
    assert setting.endswith(" without Farhill")
    assert setting.split()[0] in {"0", "100", "1000"}


def test_a_regression(three):
    source = rows_of(three, target="pressure", drop=["ill"])
    compared = compare_rows(source, QUICK, jobs=1)
    assert compared.found.metric.name == "RMSE"
    spread = three["pressure"].std()
    # Pressure is independent of the rest, so that nothing beats its mean.
    assert compared.found.worst("linear").value == pytest.approx(spread, rel=0.35)


def test_a_rare_class_counts_alike(three):
    rare = three[(three["ill"] == "no") | (np.arange(len(three)) % 6 == 0)]
    assert compare_rows(rows_of(rare), QUICK, jobs=1).found.metric.name == "balanced accuracy"
    request = replace(QUICK, metric="accuracy")
    assert compare_rows(rows_of(rare), request, jobs=1).found.metric.name == "accuracy"


def test_three_classes(three):
    graded = three.assign(
        grade=np.array(["low", "middle", "high"])[np.digitize(three["marker"], [9, 11])]
    )
    compared = compare_rows(rows_of(graded, target="grade", drop=["ill"]), QUICK, jobs=1)
    assert compared.found.worst("linear").value > 0.8


def test_many_environments_are_left_out_in_groups():
    frame = pd.concat([hospitals(rows=12, seed=s).assign(
        hospital=lambda f, s=s: f["hospital"] + str(s)) for s in range(3)])  # fmt: skip
    source = rows_of(frame)
    folds = _folds(source, RowsRequest())
    assert len(folds) == 10
    assert sorted(name for fold in folds for name in fold) == list(source.names)


def test_more_rows_than_asked_are_drawn_from(three):
    compared = compare_rows(rows_of(three), replace(QUICK, max_rows=120), jobs=1)
    assert sum(compared.found.rows) == 120
    assert "120 of 180 rows were drawn" in compared.notes[0]


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"objectives": ("erm",)}, OptionError, "one objective besides ERM"),
        ({"objectives": ("vrx",)}, UnknownNameError, "Did you mean 'vrex'"),
        ({"test_environment": "Brik"}, UnknownNameError, "Did you mean 'Birk'"),
        ({"metric": "AUC"}, UnknownNameError, "metric"),
        ({"steps": 0}, OptionError, "steps of 1 or more"),
        ({"device": "cuda:9"}, OptionError, "device"),
    ],
)
def test_what_is_refused(three, changes, error, says):
    with pytest.raises(error, match=says):
        compare_rows(rows_of(three), replace(QUICK, **changes), jobs=1)


def test_two_environments_are_too_few(frame):
    two = frame[frame["hospital"].isin(["Arden", "Birk"])]
    with pytest.raises(EnvironmentsError, match=r"at least three environments.* got 2"):
        compare_rows(rows_of(two), QUICK, jobs=1)


def test_what_is_written(compared, tmp_path):
    folder = tmp_path / "out"
    check_folder(folder)
    made = {"command": "invlearn compare", "version": "1"}
    answer = write_comparison(compared, QUICK, tmp_path / "my rows.csv", folder, made)
    table = pd.read_csv(folder / "results.csv")
    assert set(table["method"]) == {"linear", "boosting", "erm-pooled", "vrex"}
    assert set(table["environment"]) == {"Arden", "Birk", "Farhill", "(worst)", "(mean)"}
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["answer"]["headline"] == answer.headline
    assert summary["provenance"]["seed"] == "0"
    page = (folder / "report.html").read_text()
    assert "scanner_artefact" in page
    assert "my rows.csv" in page
    with pytest.raises(
        OutputError, match=r"already holds results\.csv, summary\.json, report\.html"
    ):
        check_folder(folder)


def test_the_way_on_is_a_command_that_works(compared, tmp_path):
    helps = Verdict("", (), "vrex", True)
    command = next_command(tmp_path / "a b.csv", compared, helps)
    assert command.startswith("invlearn fit '")
    assert command.endswith(
        "--target ill --environment hospital --task classification --objective vrex --output model"
    )
    does_not = Verdict("", (), "boosting", False)
    assert "--objective erm-pooled" in next_command(tmp_path / "a.csv", compared, does_not)


@pytest.mark.slow
def test_hospitals_and_no_shift():
    """The example tables end as they were made to: help where there is a shift, none without."""
    from invlearn.reports.verdict import verdict

    shifted = compare_rows(rows_of(hospitals()), RowsRequest())
    answer = verdict(shifted.found)
    assert answer.helps
    for usual in ("linear", "boosting", "erm-pooled"):
        assert shifted.found.worst_environment(usual) == "Farhill"
        assert shifted.found.worst(usual).value < 0.7
    assert shifted.found.worst(answer.recommended).value > 0.72
    alike = compare_rows(rows_of(hospitals(shift=False)), RowsRequest())
    assert not verdict(alike.found).helps
