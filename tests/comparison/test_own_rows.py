"""Methods on one's own rows: honest folds, both tasks, what is refused."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from invlearn import EnvironmentsError, OptionError, OutputError, UnknownNameError
from invlearn.comparison.compare import compare
from invlearn.comparison.folds import Folds
from invlearn.comparison.measure import folds_of
from invlearn.comparison.own_rows_record import next_command
from invlearn.comparison.requests import BenchmarkRequest, RowsRequest
from invlearn.methods import Network, get_method, trial_seed
from invlearn.reports.record import Answer
from invlearn.results import RESULT_COLUMNS
from invlearn.rows.example import hospitals
from invlearn.rows.source import from_frame
from invlearn.tables import Encoder

METHODS = {name: get_method(name) for name in ("linear", "boosting", "erm-pooled", "vrex")}


def quick(frame, **changes):
    """A short comparison of some rows."""
    names = {"target": "ill", "environment": "hospital", "methods": ("erm-pooled", "vrex")}
    return RowsRequest(frame, **names | {"steps": 15} | changes)


def ran(frame, **changes):
    return compare(quick(frame, **changes), jobs=1)


def value(made, environment, method):
    cells = made.results.set_index(["environment", "method"])["value"]
    return cells[environment, method]


def overall(made, method):
    return next(each for each in made.record.overall if each.method == method)


def settings(made):
    return {method.name: method.settings for method in made.record.methods}


def steps(made):
    chosen = made.results.dropna(subset="step").set_index(["method", "environment"])["step"]
    return chosen.to_dict()


def rows_of(frame, **options):
    names = {"target": "ill", "environment": "hospital"} | options
    return from_frame(frame, "hospitals.csv", **names)


@pytest.fixture(scope="module")
def frame():
    return hospitals(rows=60)


@pytest.fixture(scope="module")
def three(frame):
    return frame[frame["hospital"].isin(["Arden", "Birk", "Farhill"])].reset_index(drop=True)


@pytest.fixture(scope="module")
def compared(three, tmp_path_factory):
    """From a file, written to a folder."""
    folder = tmp_path_factory.mktemp("own rows")
    three.to_csv(folder / "my rows.csv", index=False)
    return compare(quick(folder / "my rows.csv"), folder / "out", jobs=1, command="typed")


def test_every_method_in_every_environment(compared):
    assert list(compared.results["environment"].unique()) == ["Arden", "Birk", "Farhill"]
    assert [c.name for c in compared.record.methods] == [
        "linear", "boosting", "erm-pooled", "vrex",
    ]  # fmt: skip
    assert compared.record.metric == "accuracy"
    assert compared.record.columns["scanner_artefact"] == "number"
    assert compared.record.columns["admitted"] == "date"
    assert {f.name for f in compared.record.findings} == {"feature-effects", "diversity"}


def test_the_linear_baseline_is_scikit_learns(compared, three):
    from sklearn.linear_model import LogisticRegression

    source = rows_of(three)
    inside, left_out = source.of(["Arden", "Birk"]), source.of(["Farhill"])
    inputs = inside.learn_inputs()
    model = LogisticRegression(max_iter=1000).fit(inside.matrix(inputs), inside.y)
    expected = model.score(left_out.matrix(inputs), left_out.y)
    assert value(compared, "Farhill", "linear") == pytest.approx(expected)


def test_nothing_of_the_environment_left_out_is_learned(frame):
    """Whatever its labels and columns say, encoders, strengths and networks stay the same."""
    four = frame[frame["hospital"].isin(["Arden", "Birk", "Coll", "Farhill"])]
    request = {"test_environment": "Farhill", "metric": "accuracy"}
    before = ran(four, **request)
    here = four["hospital"] == "Farhill"
    turned = four.copy()
    turned.loc[here, "ill"] = np.where(four.loc[here, "ill"] == "yes", "no", "yes")
    after = ran(turned, **request)
    assert settings(after) == settings(before)
    for method in ("linear", "boosting", "erm-pooled", "vrex"):
        right = value(before, "Farhill", method)
        # The same predictions, judged by the opposite labels.
        assert value(after, "Farhill", method) == pytest.approx(1 - right)
    odd = four.copy()
    odd.loc[here, "marker"] = 1e6
    odd.loc[here, "smoker"] = "sometimes"
    odd.loc[here, "age"] = np.nan
    others = rows_of(odd[~here]).learn_inputs()
    strange = ran(odd, **request)
    assert settings(strange) == settings(before)
    assert others.encoder == rows_of(four[~here]).learn_inputs().encoder
    # A model sees the odd columns through an encoder that does not know them.
    source = rows_of(odd)
    inputs = source.of(["Arden", "Birk", "Coll"]).learn_inputs()
    from sklearn.linear_model import LogisticRegression

    inside = source.of(["Arden", "Birk", "Coll"])
    model = LogisticRegression(max_iter=1000).fit(inside.matrix(inputs), inside.y)
    left_out = source.of(["Farhill"])
    expected = model.score(left_out.matrix(inputs), left_out.y)
    assert value(strange, "Farhill", "linear") == pytest.approx(expected)


def test_one_environment_only(three):
    made = ran(three, test_environment="Birk")
    assert set(made.results["environment"]) == {"Birk"}


def test_strengths_are_chosen_where_there_are_three_left(frame):
    four = frame[frame["hospital"].isin(["Arden", "Birk", "Coll", "Farhill"])]
    setting = settings(ran(four, test_environment="Farhill"))["vrex"]["penalty weight"]
    assert setting.endswith(" without Farhill")
    assert setting.split()[0] in {"0", "100", "1000"}


def test_a_regression(three):
    compared = ran(three, target="pressure", drop=["ill"])
    assert compared.record.metric == "RMSE"
    spread = three["pressure"].std()
    # Pressure is independent of the rest, so that nothing beats its mean.
    assert overall(compared, "linear").worst.value == pytest.approx(spread, rel=0.35)


def test_a_rare_class_counts_alike(three):
    rare = three[(three["ill"] == "no") | (np.arange(len(three)) % 6 == 0)]
    assert ran(rare).record.metric == "balanced accuracy"
    assert ran(rare, metric="accuracy").record.metric == "accuracy"


def test_three_classes(three):
    graded = three.assign(
        grade=np.array(["low", "middle", "high"])[np.digitize(three["marker"], [9, 11])]
    )
    compared = ran(graded, target="grade", drop=["ill"])
    assert overall(compared, "linear").worst.value > 0.8


def test_many_environments_are_left_out_in_groups():
    frame = pd.concat([hospitals(rows=12, seed=s).assign(
        hospital=lambda f, s=s: f["hospital"] + str(s)) for s in range(3)])  # fmt: skip
    source = rows_of(frame)
    folds = folds_of(source, source, None, 0)
    assert len(folds) == 10
    assert sorted(name for fold in folds for name in fold) == list(source.names)


def test_more_rows_than_asked_are_drawn_from(three):
    compared = ran(three, max_rows=120)
    assert sum(compared.record.environments.values()) == 120
    assert "120 of 180 rows were drawn" in compared.record.notes[0]


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"methods": ("erm",)}, OptionError, "one objective besides ERM"),
        ({"methods": ("vrx",)}, UnknownNameError, "Did you mean 'vrex'"),
        ({"test_environment": "Brik"}, UnknownNameError, "Did you mean 'Birk'"),
        ({"metric": "AUC"}, UnknownNameError, "metric"),
        (
            {"metric": "RMSE"},
            OptionError,
            "accuracy or balanced accuracy for a classification, got",
        ),
        ({"steps": 0}, OptionError, "steps of 1 or more"),
        ({"device": "cuda:9"}, OptionError, "device"),
        ({"trials": 0}, OptionError, "Expected at least one trial, got 0"),
        ({"select": "oracle"}, OptionError, "'oracle' does not. Use 'lowest-worst-group'"),
        ({"select": "last"}, OptionError, "reads validation rows"),
        ({"select": "risks-agre"}, UnknownNameError, "Did you mean 'risks-agree'"),
    ],
)
def test_what_is_refused(three, changes, error, says):
    with pytest.raises(error, match=says):
        ran(three, **changes)


def test_an_environment_that_was_set_aside_cannot_be_measured_in(three):
    tiny = three.drop(three.index[three["hospital"] == "Birk"][5:])
    with pytest.raises(EnvironmentsError, match="'Birk' was set aside"):
        ran(tiny, test_environment="Birk")


def test_a_class_that_only_a_set_aside_environment_had_is_gone(three):
    odd = pd.concat([three, three.iloc[:3].assign(hospital="tiny", ill="maybe")])
    found = ran(odd)
    assert found.record.classes == ("no", "yes")
    assert found.record.metric == "accuracy"
    assert "Environment 'tiny' has 3 rows: too few, set aside." in found.record.notes


def test_a_diverged_training_is_no_result(three, monkeypatch):
    fit = Network.fit

    def diverging(method, problems, done):
        failed = method.name == "vrex"
        fit(method, problems, lambda problem, found: done(problem, replace(found, failed=failed)))

    monkeypatch.setattr(Network, "fit", diverging)
    failed = {each.method: each.failed for each in ran(three).record.overall if each.failed}
    assert failed == {"vrex": ("Arden", "Birk", "Farhill")}


def same(one, other):
    pd.testing.assert_frame_equal(one.results, other.results, check_exact=True)
    assert one.record.overall == other.record.overall
    assert one.record.methods == other.record.methods
    assert one.record.notes == other.record.notes


def test_processes_give_what_one_gives(compared, three, forked_workers):
    same(compare(quick(three), jobs=2), compared)


def test_an_interrupted_comparison_resumes_to_the_same_results(compared, three, tmp_path):
    def stop(finished, total, what):
        if finished == 5:
            raise KeyboardInterrupt

    folder = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        compare(quick(three), folder, jobs=1, progress=stop)
    (work,) = folder.iterdir()
    assert len(list(work.glob("*.run.json"))) == 5
    swapped = three.copy()  # Two patients of one hospital: means and deviations stay.
    swapped.loc[[0, 1], "age"] = three.loc[[1, 0], "age"].to_numpy()
    for request in (quick(three, steps=16), quick(three[1:]), quick(swapped)):
        with pytest.raises(OutputError, match="unfinished runs of another comparison"):
            compare(request, folder, jobs=1, resume=True)
    seen = []
    resumed = compare(
        quick(three), folder, jobs=1, resume=True, progress=lambda n, total, _: seen.append(n)
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
    both = ran(three, trials=2)
    alone = [ran(three, seed=seed)
             for seed in (0, trial_seed(0, 1))]  # fmt: skip
    for environment in both.record.environments:
        values = [value(one, environment, "vrex") for one in alone]
        assert value(both, environment, "vrex") == pytest.approx(np.mean(values))
    said = settings(both)["vrex"]["penalty weight"].split("; ")
    assert said[0] == "100 (default), 100 (default) without Arden"


def test_a_fold_is_encoded_once_for_all_methods(three, monkeypatch):
    learned, encoded = [], []
    fit, transform = Encoder.fit, Encoder.transform
    monkeypatch.setattr(Encoder, "fit", lambda *a: learned.append(1) or fit(*a))
    monkeypatch.setattr(Encoder, "transform", lambda *a: encoded.append(1) or transform(*a))
    ran(three, trials=2)
    assert len(learned) == 3 + 1  # All rows together, for the findings.
    assert len(encoded) == 2 * 3 + 1  # Those inside, and those left out.


def test_a_method_made_of_an_objective_takes_part(three):
    compared = ran(three, methods=("meta-irm-no-std",))
    assert compared.record.methods[-1].name == "meta-irm-no-std"
    # It is given, not a default; and without the deviation meta-IRM is no ERM.
    assert settings(compared)["meta-irm-no-std"]["std weight"].split("; ")[0] == "0 without Arden"
    with pytest.raises(OptionError, match="'erm-grayscale', which needs features without"):
        ran(three, methods=("vrex", "erm-grayscale"))


@pytest.fixture(scope="module")
def selected(three, tmp_path_factory):
    folder = tmp_path_factory.mktemp("selected") / "out"
    return compare(quick(three, select="lowest-validation-risk"), folder, jobs=1)


def test_a_rule_chooses_every_networks_step_on_training_environments_alone(selected, three):
    """The step is the one of the lowest mean risk on rows held out; curves say so."""
    assert set(steps(selected)) == {
        (method, name) for method in ("erm-pooled", "vrex") for name in ("Arden", "Birk", "Farhill")
    }
    curves = selected.curves
    assert set(curves["split"]) == {"train", "validation", "test"}
    assert set(curves["method"]) == {"erm-pooled", "vrex"}
    risks = curves[(curves["metric"] == "risk") & (curves["split"] == "validation")]
    means = risks.groupby(["method", "problem", "step"])["value"].mean().unstack("step")
    for (method, name), step in steps(selected).items():
        assert means.loc[method, f"without {name}, seed 0"].idxmin() == step
    # Whatever is measured in the environment left out, the choice stays.
    turned = three.assign(ill=three["ill"].where(three["hospital"] != "Farhill", "no"))
    turned.loc[turned["hospital"] == "Farhill", "ill"] = ["yes", "no"] * 30
    again = ran(
        turned, select="lowest-validation-risk", test_environment="Farhill", metric="accuracy"
    )
    assert steps(again)["vrex", "Farhill"] == steps(selected)["vrex", "Farhill"]


def test_what_a_rule_chose_is_written(selected, three):
    table = pd.read_csv(selected.folder / "results.csv").set_index(["method", "environment"])
    assert table.loc[("vrex", "Birk"), "selection"] == "lowest-validation-risk"
    assert table.loc[("vrex", "Birk"), "step"] == steps(selected)["vrex", "Birk"]
    assert table.loc[("linear", "Birk"), "selection"] == "last"
    curves = pd.read_parquet(selected.folder / "curves.parquet")
    pd.testing.assert_frame_equal(curves, selected.curves)
    assert settings(selected)["vrex"]["step by"] == "lowest validation risk"
    request = quick("r.csv", select="lowest-validation-risk")
    command = next_command(request, selected.record, Answer("", (), "helps", "vrex"), METHODS)
    assert "--early-stopping lowest-validation-risk" in command


def test_without_a_rule_the_last_step_is_taken(compared):
    assert steps(compared) == {}
    table = pd.read_csv(compared.folder / "results.csv")
    assert set(table["selection"]) == {"last"}
    assert not (compared.folder / "curves.parquet").exists()


def test_two_environments_are_too_few(frame):
    two = frame[frame["hospital"].isin(["Arden", "Birk"])]
    with pytest.raises(EnvironmentsError, match=r"at least three environments.* got 2"):
        ran(two)


def test_what_is_written(compared):
    folder = compared.folder
    table = pd.read_csv(folder / "results.csv")
    assert set(table["method"]) == {"linear", "boosting", "erm-pooled", "vrex"}
    assert list(table.columns) == list(RESULT_COLUMNS)
    np.testing.assert_allclose(table["value"], compared.results["value"], rtol=1e-9)
    assert set(zip(table["problem"], table["environment"], strict=True)) == {
        (f"without {name}, seed 0", name) for name in ("Arden", "Birk", "Farhill")
    }
    assert (set(table["split"]), set(table["selection"])) == ({"test"}, {"last"})
    assert table["step"].isna().all()
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["answer"]["headline"] == compared.answer.headline
    assert summary["provenance"]["command"] == "typed"
    assert summary["seed"] == compared.record.seed == 0
    assert [each["method"] for each in summary["overall"]] == [
        "linear", "boosting", "erm-pooled", "vrex"
    ]  # fmt: skip
    assert summary["overall"][0]["worst"] == pytest.approx(list(overall(compared, "linear").worst))
    page = (folder / "report.html").read_text()
    assert "scanner_artefact" in page
    assert "my rows.csv" in page
    with pytest.raises(
        OutputError, match=r"already holds results \(results\.csv, summary\.json, report\.html"
    ):
        compare(quick(folder.parent / "my rows.csv"), folder)


def test_what_a_console_and_a_notebook_show(compared):
    assert repr(compared) == (
        f"Comparison({compared.answer.headline} Methods: linear, boosting, erm-pooled, vrex, in "
        f"'{compared.folder}')"
    )
    page = compared._repr_html_()
    assert page.startswith(f"<h4>{compared.answer.headline}</h4>")
    assert all(method.title in page for method in compared.record.methods)
    worst = overall(compared, "vrex")
    cell = compared.overview.loc["V-REx"]
    assert cell.iloc[0] == worst.where
    assert cell.iloc[1].startswith(f"{100 * worst.worst.value:.1f} %")


def test_without_a_folder_nothing_is_written(three, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = ran(three, methods=("vrex",), steps=2)
    assert (made.folder, list(tmp_path.iterdir())) == (None, [])
    assert made.record.next_command == ""  # No command fits rows in memory.
    with pytest.raises(OptionError, match="folder of the unfinished runs with resume"):
        compare(quick(three), resume=True)


def test_a_request_is_a_command_too():
    request = quick("a b.csv", drop=("age",), test_environment="Birk", hidden=())
    assert request.command() == (
        "invlearn compare 'a b.csv' --target ill --environment hospital --drop age --hidden '' "
        "--objectives erm-pooled,vrex --trials 1 --seed 0 --test-environment Birk --steps 15"
    )


def test_a_command_takes_a_file_that_looks_like_an_option():
    assert quick("-t.csv").command().startswith("invlearn compare ./-t.csv --target")


def test_a_request_keeps_sequences_of_any_kind(tmp_path):
    request = quick("t.csv", drop=pd.Index(["age"]), methods={"vrex": 1}, hidden=[16])
    assert (request.drop, request.methods, request.hidden) == (("age",), ("vrex",), (16,))
    for given, says in (
        ({"drop": "age"}, r"drop as a sequence, got 'age'\. For instance \['age'\]"),
        ({"hidden": 16}, r"hidden as a sequence, got 16\. For instance \(16,\)"),
        ({"trials": 1.5}, r"trials as a whole number, got 1\.5"),
    ):
        with pytest.raises(OptionError, match=says):
            quick("t.csv", **given)
    with pytest.raises(OptionError, match="Expected methods as a sequence, got 'vrex'"):
        BenchmarkRequest("colored-digits", "vrex")


def test_numbers_of_numpy_are_numbers(frame, tmp_path):
    one = np.int64(1)
    asked = quick(frame, seed=one, steps=one, hidden=np.array([4]), test_environment="Birk")
    made = compare(asked, tmp_path / "out", jobs=1)
    assert (made.record.seed, made.record.method("vrex").settings["hidden layers"]) == (1, "4")
    with pytest.raises(OptionError, match="seed of 0 to 2"):
        ran(frame, seed=-1)
    with pytest.raises(OptionError, match="BenchmarkRequest or RowsRequest, got DataFrame"):
        compare(frame)


def test_the_way_on_fits_what_was_measured(compared):
    helps = Answer("", (), "helps", "vrex")
    command = next_command(quick("a b.csv"), compared.record, helps, METHODS)
    assert command.startswith("invlearn fit '")
    assert command.endswith(
        "--target ill --environment hospital --task classification --steps 15 --objective vrex "
        "--output model"
    )
    assert "--steps" not in next_command(quick("a.csv", steps=200), compared.record, helps, METHODS)
    does_not = Answer("", (), "as good", "boosting")
    wide = quick("a.csv", steps=200, hidden=(32, 8), drop=("age",))
    command = next_command(wide, compared.record, does_not, METHODS)
    assert "--drop age --hidden 32,8 --objective erm-pooled" in command


@pytest.mark.slow
def test_hospitals_and_no_shift():
    """The example tables end as they were made to: help where there is a shift, none without."""
    shifted = compare(RowsRequest(hospitals(), "ill", "hospital"))
    assert shifted.answer.helps
    for usual in ("linear", "boosting", "erm-pooled"):
        assert overall(shifted, usual).where == "Farhill"
        assert overall(shifted, usual).worst.value < 0.7
    assert overall(shifted, shifted.answer.recommended).worst.value > 0.72
    alike = compare(RowsRequest(hospitals(shift=False), "ill", "hospital"))
    assert alike.answer.outcome == "as good"


def test_one_training_again_has_the_seed_that_it_has_among_others(three):
    def short(**which):
        return ran(three, methods=("vrex",), steps=3, **which)

    several, one = short(trials=3), short(trial=2)
    assert one.record.trials == 1
    seed = trial_seed(0, 2)
    assert one.results["problem"].str.endswith(f", seed {seed}").all()
    assert str(seed) in several.results["problem"].iloc[0].split(", ")[-1]
    first, alone = short(trial=0), short()
    pd.testing.assert_frame_equal(first.results, alone.results)
    assert not np.allclose(one.results["value"], alone.results["value"])


def test_very_many_trainings_are_asked_about(frame):
    with pytest.raises(OptionError, match=r"got 2,000,000 runs \(1,000,000 trials, 2 m"):
        ran(frame, trials=10**6)
