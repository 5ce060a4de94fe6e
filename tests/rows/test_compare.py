"""Methods on one's own rows: honest folds, both tasks, what is refused."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from invlearn import EnvironmentsError, OptionError, OutputError, UnknownNameError
from invlearn.comparison.store import Store
from invlearn.methods import Network, trial_seed
from invlearn.reports.own_rows_answer import own_rows_answer
from invlearn.reports.record import Answer
from invlearn.results import RESULT_COLUMNS
from invlearn.rows.compare import compare_rows
from invlearn.rows.example import hospitals
from invlearn.rows.folds import Folds
from invlearn.rows.measure import folds_of
from invlearn.rows.output import make_record, next_command, write_comparison
from invlearn.rows.request import RowsRequest
from invlearn.rows.source import from_frame
from invlearn.tables import Encoder

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


def test_nothing_of_the_environment_left_out_is_learned(frame):
    """Whatever its labels and columns say, encoders, strengths and networks stay the same."""
    four = frame[frame["hospital"].isin(["Arden", "Birk", "Coll", "Farhill"])]
    request = replace(QUICK, test_environment="Farhill", metric="accuracy")
    before = compare_rows(rows_of(four), request, jobs=1)
    here = four["hospital"] == "Farhill"
    turned = four.copy()
    turned.loc[here, "ill"] = np.where(four.loc[here, "ill"] == "yes", "no", "yes")
    after = compare_rows(rows_of(turned), request, jobs=1)
    assert after.settings == before.settings
    for method in ("linear", "boosting", "erm-pooled", "vrex"):
        right = before.found.cell("Farhill", method).value
        # The same predictions, judged by the opposite labels.
        assert after.found.cell("Farhill", method).value == pytest.approx(1 - right)
    odd = four.copy()
    odd.loc[here, "marker"] = 1e6
    odd.loc[here, "smoker"] = "sometimes"
    odd.loc[here, "age"] = np.nan
    others = rows_of(odd[~here]).learn_inputs()
    strange = compare_rows(rows_of(odd), request, jobs=1)
    assert strange.settings == before.settings
    assert others.encoder == rows_of(four[~here]).learn_inputs().encoder
    # A model sees the odd columns through an encoder that does not know them.
    source = rows_of(odd)
    inputs = source.of(["Arden", "Birk", "Coll"]).learn_inputs()
    from sklearn.linear_model import LogisticRegression

    inside = source.of(["Arden", "Birk", "Coll"])
    model = LogisticRegression(max_iter=1000).fit(inside.matrix(inputs), inside.y)
    left_out = source.of(["Farhill"])
    expected = model.score(left_out.matrix(inputs), left_out.y)
    assert strange.found.cell("Farhill", "linear").value == pytest.approx(expected)


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
    folds = folds_of(source, source, None, 0)
    assert len(folds) == 10
    assert sorted(name for fold in folds for name in fold) == list(source.names)


def test_more_rows_than_asked_are_drawn_from(three):
    compared = compare_rows(rows_of(three), replace(QUICK, max_rows=120), jobs=1)
    assert sum(compared.source.sizes.values()) == 120
    assert "120 of 180 rows were drawn" in compared.notes[0]


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"objectives": ("erm",)}, OptionError, "one objective besides ERM"),
        ({"objectives": ("vrx",)}, UnknownNameError, "Did you mean 'vrex'"),
        ({"test_environment": "Brik"}, UnknownNameError, "Did you mean 'Birk'"),
        ({"metric": "AUC"}, UnknownNameError, "metric"),
        (
            {"metric": "RMSE"},
            OptionError,
            "accuracy or balanced accuracy for a classification, got",
        ),
        ({"steps": 0}, OptionError, "steps of 1 or more"),
        ({"device": "cuda:9"}, OptionError, "device"),
        ({"trials": 0}, OptionError, "trials of 1 or more"),
        ({"select": "oracle"}, OptionError, "'oracle' does not. Use 'lowest-worst-group'"),
        ({"select": "last"}, OptionError, "reads validation rows"),
        ({"select": "risks-agre"}, UnknownNameError, "Did you mean 'risks-agree'"),
    ],
)
def test_what_is_refused(three, changes, error, says):
    with pytest.raises(error, match=says):
        compare_rows(rows_of(three), replace(QUICK, **changes), jobs=1)


def test_an_environment_that_was_set_aside_cannot_be_measured_in(three):
    tiny = three.drop(three.index[three["hospital"] == "Birk"][5:])
    with pytest.raises(EnvironmentsError, match="'Birk' was set aside"):
        compare_rows(rows_of(tiny), replace(QUICK, test_environment="Birk"), jobs=1)


def test_a_class_that_only_a_set_aside_environment_had_is_gone(three):
    odd = pd.concat([three, three.iloc[:3].assign(hospital="tiny", ill="maybe")])
    found = compare_rows(rows_of(odd), QUICK, jobs=1)
    assert found.source.target.classes == ("no", "yes")
    assert found.found.metric.name == "accuracy"
    assert "Environment 'tiny' has 3 rows: too few, set aside." in found.notes


def test_a_diverged_training_is_no_result(three, monkeypatch):
    fit = Network.fit

    def diverging(method, problems, done):
        failed = method.name == "vrex"
        fit(method, problems, lambda problem, found: done(problem, replace(found, failed=failed)))

    monkeypatch.setattr(Network, "fit", diverging)
    found = compare_rows(rows_of(three), QUICK, jobs=1).found
    assert found.failed() == {"vrex": ["Arden", "Birk", "Farhill"]}


def same(one, other):
    assert (one.found.values == other.found.values).all()
    assert (one.found.draws == other.found.draws).all()
    assert one.settings == other.settings
    assert one.notes == other.notes


def test_processes_give_what_one_gives(compared, three):
    same(compare_rows(rows_of(three), QUICK, jobs=2), compared)


def test_an_interrupted_comparison_resumes_to_the_same_results(compared, three, tmp_path):
    def stop(finished, total, what):
        if finished == 5:
            raise KeyboardInterrupt

    folder = tmp_path / "out"
    store = Store.check(folder, resume=False)
    with pytest.raises(KeyboardInterrupt):
        compare_rows(rows_of(three), QUICK, store=store, jobs=1, progress=stop)
    (work,) = folder.iterdir()
    assert len(list(work.glob("*.run.json"))) == 5
    again = Store.check(folder, resume=True)
    swapped = three.copy()  # Two patients of one hospital: means and deviations stay.
    swapped.loc[[0, 1], "age"] = three.loc[[1, 0], "age"].to_numpy()
    for rows, request in (
        (three, replace(QUICK, steps=16)), (three[1:], QUICK), (swapped, QUICK)
    ):  # fmt: skip
        with pytest.raises(OutputError, match="unfinished runs of another comparison"):
            compare_rows(rows_of(rows), request, store=again, jobs=1)
    seen = []
    resumed = compare_rows(
        rows_of(three), QUICK, store=again, jobs=1, progress=lambda n, total, _: seen.append(n)
    )
    assert seen == list(range(5, 13))
    same(resumed, compared)


def test_rows_of_images_and_odd_cells_have_a_checksum_too(three):
    def checksum(source):
        return Folds(source, (), (), ()).checksum

    plain = rows_of(three)
    odd = rows_of(three.assign(odd=[[1], {"a": 2}, "b"] * (len(three) // 3)))
    dark = np.zeros((len(three), 1, 2, 2), np.uint8)
    images = [replace(plain, frame=None, pixels=pixels) for pixels in (dark, dark + 1)]
    assert len({checksum(source) for source in (plain, odd, *images)}) == 4
    assert checksum(replace(odd, frame=odd.frame.copy())) == checksum(odd)


def test_errors_are_averaged_over_trainings(three):
    both = compare_rows(rows_of(three), replace(QUICK, trials=2), jobs=1)
    alone = [compare_rows(rows_of(three), replace(QUICK, seed=seed), jobs=1)
             for seed in (0, trial_seed(0, 1))]  # fmt: skip
    for environment in both.found.environments:
        values = [one.found.cell(environment, "vrex").value for one in alone]
        assert both.found.cell(environment, "vrex").value == pytest.approx(np.mean(values))
    said = both.settings["vrex"]["penalty weight"].split("; ")
    assert said[0] == "100 (default), 100 (default) without Arden"


def test_a_fold_is_encoded_once_for_all_methods(three, monkeypatch):
    learned, encoded = [], []
    fit, transform = Encoder.fit, Encoder.transform
    monkeypatch.setattr(Encoder, "fit", lambda *a: learned.append(1) or fit(*a))
    monkeypatch.setattr(Encoder, "transform", lambda *a: encoded.append(1) or transform(*a))
    compare_rows(rows_of(three), replace(QUICK, trials=2), jobs=1)
    assert len(learned) == 3 + 1  # All rows together, for the findings.
    assert len(encoded) == 2 * 3 + 1  # Those inside, and those left out.


def test_a_method_made_of_an_objective_takes_part(three):
    request = replace(QUICK, objectives=("meta-irm-no-std",))
    compared = compare_rows(rows_of(three), request, jobs=1)
    assert compared.found.contenders[-1].name == "meta-irm-no-std"
    # It is given, not a default; and without the deviation meta-IRM is no ERM.
    assert compared.settings["meta-irm-no-std"]["std weight"].split("; ")[0] == "0 without Arden"
    with pytest.raises(OptionError, match="'erm-grayscale', which needs features without"):
        compare_rows(rows_of(three), replace(QUICK, objectives=("vrex", "erm-grayscale")), jobs=1)


@pytest.fixture(scope="module")
def selected(three):
    return compare_rows(rows_of(three), replace(QUICK, select="lowest-validation-risk"), jobs=1)


def test_a_rule_chooses_every_networks_step_on_training_environments_alone(selected, three):
    """The step is the one of the lowest mean risk on rows held out; curves say so."""
    assert set(selected.steps) == {
        (method, name) for method in ("erm-pooled", "vrex") for name in ("Arden", "Birk", "Farhill")
    }
    curves = selected.curves
    assert set(curves["split"]) == {"train", "validation", "test"}
    assert set(curves["method"]) == {"erm-pooled", "vrex"}
    risks = curves[(curves["metric"] == "risk") & (curves["split"] == "validation")]
    means = risks.groupby(["method", "problem", "step"])["value"].mean().unstack("step")
    for (method, name), step in selected.steps.items():
        assert means.loc[method, f"without {name}, seed 0"].idxmin() == step
    # Whatever is measured in the environment left out, the choice stays.
    turned = three.assign(ill=three["ill"].where(three["hospital"] != "Farhill", "no"))
    turned.loc[turned["hospital"] == "Farhill", "ill"] = ["yes", "no"] * 30
    request = replace(QUICK, select="lowest-validation-risk", test_environment="Farhill")
    again = compare_rows(rows_of(turned), replace(request, metric="accuracy"), jobs=1)
    assert again.steps["vrex", "Farhill"] == selected.steps["vrex", "Farhill"]


def test_what_a_rule_chose_is_written(selected, tmp_path):
    request = replace(QUICK, select="lowest-validation-risk")
    write_comparison(selected, request, tmp_path / "r.csv", tmp_path / "out", {})
    table = pd.read_csv(tmp_path / "out" / "results.csv").set_index(["method", "environment"])
    assert table.loc[("vrex", "Birk"), "selection"] == "lowest-validation-risk"
    assert table.loc[("vrex", "Birk"), "step"] == selected.steps["vrex", "Birk"]
    assert table.loc[("linear", "Birk"), "selection"] == "last"
    curves = pd.read_parquet(tmp_path / "out" / "curves.parquet")
    pd.testing.assert_frame_equal(curves, selected.curves)
    assert selected.settings["vrex"]["step by"] == "lowest validation risk"
    command = next_command(tmp_path / "r.csv", selected, request, Answer("", (), "helps", "vrex"))
    assert "--early-stopping lowest-validation-risk" in command


def test_without_a_rule_the_last_step_is_taken(compared, tmp_path):
    assert compared.steps == {}
    write_comparison(compared, QUICK, tmp_path / "r.csv", tmp_path / "out", {})
    table = pd.read_csv(tmp_path / "out" / "results.csv")
    assert set(table["selection"]) == {"last"}
    assert not (tmp_path / "out" / "curves.parquet").exists()


def test_two_environments_are_too_few(frame):
    two = frame[frame["hospital"].isin(["Arden", "Birk"])]
    with pytest.raises(EnvironmentsError, match=r"at least three environments.* got 2"):
        compare_rows(rows_of(two), QUICK, jobs=1)


def test_what_is_written(compared, tmp_path):
    folder = tmp_path / "out"
    made = {"command": "invlearn compare", "version": "1"}
    record, answer = write_comparison(compared, QUICK, tmp_path / "my rows.csv", folder, made)
    table = pd.read_csv(folder / "results.csv")
    assert set(table["method"]) == {"linear", "boosting", "erm-pooled", "vrex"}
    assert list(table.columns) == list(RESULT_COLUMNS)
    assert set(zip(table["problem"], table["environment"], strict=True)) == {
        (f"without {name}, seed 0", name) for name in ("Arden", "Birk", "Farhill")
    }
    assert (set(table["split"]), set(table["selection"])) == ({"test"}, {"last"})
    assert table["step"].isna().all()
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["answer"]["headline"] == answer.headline
    assert summary["seed"] == record.seed == 0
    assert [each["method"] for each in summary["overall"]] == [
        "linear", "boosting", "erm-pooled", "vrex"
    ]  # fmt: skip
    assert summary["overall"][0]["worst"] == pytest.approx(list(compared.found.worst("linear")))
    page = (folder / "report.html").read_text()
    assert "scanner_artefact" in page
    assert "my rows.csv" in page
    with pytest.raises(
        OutputError, match=r"already holds results \(results\.csv, summary\.json, report\.html"
    ):
        Store.check(folder, resume=False)


def test_the_way_on_fits_what_was_measured(compared, three, tmp_path):
    helps = Answer("", (), "helps", "vrex")
    command = next_command(tmp_path / "a b.csv", compared, QUICK, helps)
    assert command.startswith("invlearn fit '")
    assert command.endswith(
        "--target ill --environment hospital --task classification --steps 15 --objective vrex "
        "--output model"
    )
    assert "--steps" not in next_command(tmp_path / "a.csv", compared, RowsRequest(), helps)
    does_not = Answer("", (), "as good", "boosting")
    wide = RowsRequest(hidden=(32, 8))
    without = replace(compared, source=rows_of(three, drop=["age"]))
    command = next_command(tmp_path / "a.csv", without, wide, does_not)
    assert "--drop age --hidden 32,8 --objective erm-pooled" in command


@pytest.mark.slow
def test_hospitals_and_no_shift():
    """The example tables end as they were made to: help where there is a shift, none without."""
    shifted = compare_rows(rows_of(hospitals()), RowsRequest())
    answer = own_rows_answer(make_record(shifted, RowsRequest(), {}))
    assert answer.helps
    for usual in ("linear", "boosting", "erm-pooled"):
        assert shifted.found.worst_environment(usual) == "Farhill"
        assert shifted.found.worst(usual).value < 0.7
    assert shifted.found.worst(answer.recommended).value > 0.72
    alike = compare_rows(rows_of(hospitals(shift=False)), RowsRequest())
    told = own_rows_answer(make_record(alike, RowsRequest(), {}))
    assert told.outcome == "as good"
