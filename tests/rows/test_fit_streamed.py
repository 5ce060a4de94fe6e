"""A model fitted from a streamed file, from the command to the prediction."""

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from invlearn import InvlearnError
from invlearn.cli import app
from invlearn.rows import streamed
from invlearn.rows.example import hospitals
from invlearn.rows.fit import FitRequest, fit_streamed
from invlearn.tables import ParquetTable


@pytest.fixture
def path(tmp_path, monkeypatch):
    """A file that counts as too large to be loaded."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(streamed, "STREAMED_BEYOND", 1000)
    hospitals(rows=60).to_parquet(tmp_path / "h.parquet", index=False)
    return tmp_path / "h.parquet"


def run(*arguments):
    return CliRunner().invoke(app, list(arguments))


def test_fit_and_predict(path, monkeypatch):
    def loaded(*arguments):
        raise AssertionError("The file was loaded whole.")

    monkeypatch.setattr("invlearn.rows.files.read_table", loaded)
    monkeypatch.setattr("invlearn.rows.source.read_table", loaded)
    names = ["--target", "ill", "--environment", "hospital"]
    fit = run("fit", "h.parquet", *names, "--steps", "100", "--output", "model")
    assert fit.exit_code == 0, fit.output
    assert "Penalty weight: " in fit.stdout
    assert "on 288 rows of 6 environments" in fit.stdout
    assert "72 rows were held out, not trained on." in fit.stdout
    monkeypatch.setattr(
        ParquetTable,
        "batches",
        lambda self, *_, read=ParquetTable.batches, **__: read(self, rows=100),
    )
    predict = run("predict", "model", "h.parquet", "--output", "p.csv")
    assert predict.exit_code == 0, predict.output
    found = pd.read_csv("p.csv")
    assert found["row"].tolist() == list(range(1, 361))
    assert (found["prediction"] == pd.read_parquet(path)["ill"]).mean() > 0.7
    drawn = run("diagnose", "model", "h.parquet")
    assert drawn.exit_code == 0, drawn.output
    assert "rows were drawn" in drawn.stdout
    frame = pd.read_parquet(path)
    frame.loc[250:, "hospital"] = "Gorse"
    frame.to_parquet(path, index=False)
    late = run("predict", "model", "h.parquet", "--output", "late.csv")
    assert "The model was not trained in 'Gorse'" in late.stdout
    refused = run("predict", "model", "h.parquet", "--output", "p.parquet")
    assert refused.exit_code == 2
    assert "--output as a .csv file for 360 rows" in refused.stderr


def test_a_regression_is_in_the_targets_unit(path):
    frame = pd.read_parquet(path)
    frame["cost"] = 1e5 + 1e4 * frame["dose"]
    frame.drop(columns="ill").to_parquet(path, index=False)
    model, _ = fit_streamed(
        path, FitRequest("erm", steps=300), target="cost", environment="hospital", provenance={}
    )
    found = model.predict(frame)["prediction"]
    assert np.abs(found - frame["cost"]).mean() < 2e3


def test_what_is_refused_before_the_file_is_encoded(path, monkeypatch):
    def encoded(*arguments, **options):
        raise AssertionError("The file was encoded first.")

    monkeypatch.setattr("invlearn.rows.fit.stream_parquet", encoded)
    names = {"target": "ill", "environment": "hospital", "provenance": {}}
    for request, says in (
        (FitRequest(device="cuda:77"), "device"),
        (FitRequest("erm", penalty_weight=3.0), "no penalty weight"),
        (FitRequest("vrx"), "Did you mean 'vrex'"),
        (FitRequest(steps=0), "steps of 1 or more"),
    ):
        with pytest.raises(InvlearnError, match=says):
            fit_streamed(path, request, **names)


def test_comparisons_draw_from_it(path):
    result = run(
        "compare", "h.parquet", "--target", "ill", "--environment", "hospital", "--max-rows", "200",
        "--test-environment", "Elm", "--objectives", "vrex", "--steps", "3", "--jobs", "1",
        "--out", "out",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "200 of 360 rows were drawn" in result.stdout
