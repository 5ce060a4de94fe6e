"""Models of one's own rows: kept, loaded, asked for predictions."""

import json

import numpy as np
import pandas as pd
import polars
import pytest
import torch

from invlearn import (
    DataFileError,
    EnvironmentsError,
    InvariantClassifier,
    OptionError,
    OutputError,
    UnknownNameError,
    diagnose,
)
from invlearn.rows.files import predict_file, write_table
from invlearn.rows.fit import FitRequest, fit_rows
from invlearn.rows.inputs import Make
from invlearn.rows.model import RowsModel
from invlearn.rows.source import from_frame

QUICK = FitRequest(steps=20, penalty_weight=10.0)


def rows_of(frame, **options):
    names = {"target": "ill", "environment": "hospital"} | options
    return from_frame(frame, "hospitals.csv", **names)


def features(frame):
    return frame.drop(columns=["ill"])


@pytest.fixture(scope="module")
def fitted(frame):
    model, _ = fit_rows(rows_of(frame), QUICK, provenance={"command": "test"})
    return model


def test_a_loaded_model_predicts_the_same(fitted, frame, tmp_path):
    fitted.save(tmp_path / "model")
    again = RowsModel.load(tmp_path / "model")
    pd.testing.assert_frame_equal(again.predict(features(frame)), fitted.predict(features(frame)))
    assert again.record.environments == dict.fromkeys(
        ["Arden", "Birk", "Coll", "Dorn", "Elm", "Farhill"], 60
    )
    assert again.target_name == "ill"


def test_the_model_predicts_what_the_estimator_behind_a_comparison_does(fitted, frame):
    source = rows_of(frame)
    x = source.matrix(fitted.inputs)
    estimator = InvariantClassifier(
        "vrex", penalty_weight=10.0, network=Make(fitted.record.network), standardize=False,
        steps=20, random_state=0,
    ).fit(x, source.y, environments=source.environments)  # fmt: skip
    found = fitted.predict(features(frame)).drop(columns="prediction").to_numpy()
    np.testing.assert_allclose(found, estimator.predict_proba(x), rtol=1e-12)


def test_predictions(fitted, frame):
    found = fitted.predict(features(frame))
    assert list(found.columns) == ["prediction", "probability of no", "probability of yes"]
    np.testing.assert_allclose(found.iloc[:, 1] + found.iloc[:, 2], 1)
    likeliest = np.where(found["probability of yes"] > 0.5, "yes", "no")
    assert (found["prediction"] == likeliest).all()
    assert (found["prediction"] == frame["ill"]).mean() > 0.7
    assert len(fitted.predict(features(frame).head(0))) == 0


def test_a_regression_is_in_the_targets_unit(frame, tmp_path):
    source = rows_of(frame.assign(cost=1e5 + 1e4 * frame["dose"]), target="cost", drop=["ill"])
    model, _ = fit_rows(source, FitRequest("erm", steps=300), provenance={})
    model.save(tmp_path / "model")
    found = RowsModel.load(tmp_path / "model").predict(source.frame)["prediction"]
    assert np.abs(found - (1e5 + 1e4 * frame["dose"])).mean() < 2e3


def test_three_classes(frame, tmp_path):
    graded = frame.assign(grade=np.digitize(frame["marker"], [9, 11]))
    model, _ = fit_rows(
        rows_of(graded, target="grade", drop=["ill"]), FitRequest("erm", steps=200), provenance={}
    )
    model.save(tmp_path / "model")
    found = RowsModel.load(tmp_path / "model").predict(graded)
    assert list(found.columns)[1:] == [f"probability of {k}" for k in (0, 1, 2)]
    assert (found["prediction"] == graded["grade"]).mean() > 0.85


def test_new_environments_and_categories_are_fine_and_said(fitted, frame):
    new = features(frame).assign(hospital="Gorse", smoker="sometimes")
    assert fitted.predict(new)["prediction"].isin(["yes", "no"]).all()
    notes = " ".join(fitted.notes(new))
    assert "'sometimes'" in notes
    assert "The model was not trained in 'Gorse'" in notes
    assert fitted.notes(features(frame)) == []
    without = features(frame).drop(columns="hospital")
    assert len(fitted.predict(without)) == len(frame)


def test_environments_are_the_same_however_they_are_typed(frame):
    numbered = frame.assign(hospital=frame["hospital"].astype("category").cat.codes + 1)
    model, _ = fit_rows(rows_of(numbered), QUICK, provenance={})
    holes = numbered.assign(hospital=numbered["hospital"].astype(float))
    holes.loc[0, "hospital"] = np.nan
    assert model.notes(holes) == []


@pytest.mark.parametrize("weight", ["auto", 10.0])
def test_an_interrupted_fit_leaves_no_model(frame, monkeypatch, weight):
    def interrupted(self, step):
        raise KeyboardInterrupt

    monkeypatch.setattr("invlearn.training.trainer.Trainer._plan", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit_rows(rows_of(frame), FitRequest(penalty_weight=weight), provenance={})


def test_what_a_fit_refuses(frame):
    with pytest.raises(OptionError, match="no penalty weight for ERM"):
        fit_rows(rows_of(frame), FitRequest("erm", penalty_weight=3.0), provenance={})
    with pytest.raises(OptionError, match="device of this machine"):
        fit_rows(rows_of(frame), FitRequest(device="cuda:77"), provenance={})
    huge = frame.assign(cost=np.where(np.arange(len(frame)) % 2, 1e40, 1.5))
    with pytest.raises(EnvironmentsError, match=r"at most 1e\+30"):
        rows_of(huge, target="cost")


def test_a_single_row_is_set_aside(frame, fitted):
    lonely = pd.concat([frame, frame.iloc[:1].assign(hospital="lonely")])
    model, notes = fit_rows(rows_of(lonely), QUICK, provenance={})
    assert "lonely" not in model.record.environments
    assert "Environment 'lonely' has 1 row: too few, set aside." in notes
    source = fitted.labeled(lonely, "t.csv")
    assert "lonely" not in source.names
    assert fitted.diagnose_source(source)


def test_missing_or_renamed_columns_are_named(fitted, frame):
    with pytest.raises(UnknownNameError, match=r"'marker'.*'Marker'"):
        fitted.predict(frame.rename(columns={"marker": "Marker"}))


def test_an_unseen_class_in_labelled_rows(fitted, frame):
    with pytest.raises(EnvironmentsError, match="'perhaps'"):
        fitted.labeled(frame.assign(ill="perhaps"), "t.csv")


def test_predictions_stand_beside_their_rows(fitted, frame):
    expected = fitted.predict(features(frame))
    shuffled = features(frame).sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(fitted.predict(shuffled).sort_index(), expected)
    pd.testing.assert_frame_equal(fitted.predict(polars.from_pandas(features(frame))), expected)
    with pytest.raises(OptionError, match="trained on a table, got ndarray"):
        fitted.predict(np.zeros((3, 2)))


def test_predictions_of_a_file_with_an_index_of_its_own(fitted, frame, tmp_path):
    rows = features(frame).set_axis([f"row {i}" for i in range(len(frame))])
    rows.to_parquet(tmp_path / "rows.parquet")
    predict_file(fitted, tmp_path / "rows.parquet", tmp_path / "found.feather")
    found = pd.read_feather(tmp_path / "found.feather")
    assert found["row"].tolist() == list(range(1, len(frame) + 1))
    assert found["prediction"].tolist() == fitted.predict(rows)["prediction"].tolist()


def test_a_diagnosis_takes_options_and_any_table(fitted, frame):
    with_few = [str(finding) for finding in diagnose(fitted, frame, draws=40)]
    assert [str(f) for f in fitted.diagnose(polars.from_pandas(frame), draws=40)] == with_few
    with pytest.raises(EnvironmentsError, match="Expected ill of each of 360 rows, got 3"):
        fitted.diagnose(features(frame), ["yes"] * 3)


def test_diagnosis_names_the_artefact(fitted, frame):
    found = {
        finding.name: finding for finding in fitted.diagnose_source(fitted.labeled(frame, "t.csv"))
    }
    assert "scanner_artefact" in found["feature-effects"].sentence
    assert set(found["risk-profile"].table["environment"]) == set(frame["hospital"])


def test_the_strength_is_chosen_or_said_not_to_be(frame):
    _, notes = fit_rows(rows_of(frame), FitRequest(steps=10), provenance={})
    assert notes[-1].startswith("Penalty weight: ")
    assert notes[-1].endswith("(chosen by leaving environments out).")
    two = frame[frame["hospital"].isin(["Arden", "Elm"])]
    _, notes = fit_rows(rows_of(two), FitRequest(steps=10), provenance={})
    assert "With 2 environments the penalty weight cannot be chosen" in notes[0]


def test_one_environment_and_odd_layers(frame):
    one = frame[frame["hospital"] == "Arden"]
    with pytest.raises(EnvironmentsError, match="at least 2 training environments, got 1"):
        fit_rows(rows_of(one), QUICK, provenance={})
    with pytest.raises(OptionError, match=r"hidden layers of 1 to 100,000 units .* got 0\."):
        fit_rows(rows_of(frame), FitRequest(hidden=(0,)), provenance={})


def swap_classes(record):
    record["target"]["classes"] = ["a", "b", "c"]


def drop_encoder(record):
    record["encoder"] = None


def other_width(record):
    record["encoder"]["columns"] = record["encoder"]["columns"][:-1]


def no_column(record):
    del record["training"]["target_column"]


def code_in_target(record):
    record["target"] = {"__reduce__": ["os.system", ["touch marker"]]}


@pytest.mark.parametrize(
    "change", [swap_classes, drop_encoder, other_width, no_column, code_in_target]
)
def test_parts_that_do_not_fit_each_other_are_refused(fitted, tmp_path, change, monkeypatch):
    """Even where the checksums were made to fit, as somebody hostile can."""
    from invlearn import model_folder, model_record

    monkeypatch.chdir(tmp_path)
    record = json.loads(fitted.record.model_dump_json())
    change(record)
    forged = model_record.ModelRecord.model_validate(record)
    model_folder.save_model(tmp_path / "model", forged, fitted.network)
    with pytest.raises(DataFileError) as caught:
        RowsModel.load(tmp_path / "model")
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "marker").exists()


def test_a_file_that_cannot_be_written_is_said_in_one_line(tmp_path):
    frame = pd.DataFrame({"x": [1.0, 2.0]})
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"Cannot write '.*out\.csv'"):
        write_table(frame, tmp_path / "file" / "out.csv")
    write_table(frame, tmp_path / f"{240 * 'x'}.csv")


def test_a_table_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    frame = pd.DataFrame({"x": [1.0, 2.0]})
    for ending in (".csv", ".parquet", ".feather"):
        write_table(frame, tmp_path / f"t{ending}")
    with pytest.raises(UnknownNameError, match=r"file ending '\.xlsx'"):
        write_table(frame, tmp_path / "t.xlsx")

    def full(self, path, **options):
        path.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", full)
    before = (tmp_path / "t.csv").read_text()
    with pytest.raises(ValueError, match="No space left on device"):
        write_table(frame, tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_text() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t.csv", "t.feather", "t.parquet"]


def test_predicting_does_not_touch_the_global_generator(fitted, frame):
    before = torch.get_rng_state()
    fitted.predict(features(frame))
    assert torch.equal(torch.get_rng_state(), before)


def test_it_is_diagnosed_with_the_estimators_words(fitted, frame):
    expected = [finding.sentence for finding in fitted.diagnose(frame)]
    X, y, hospital = frame.drop(columns=["ill", "hospital"]), frame["ill"], frame["hospital"]
    assert [finding.sentence for finding in diagnose(fitted, X, list(y), hospital)] == expected
    with pytest.raises(UnknownNameError, match="Unknown target column 'ill'"):
        fitted.diagnose(X)
