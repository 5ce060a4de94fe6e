"""The command line on one's own rows: what it prints, what it refuses, and whatever may come."""

import json

import numpy as np
import pandas as pd
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from invlearn.cli import app
from invlearn.rows.example import hospitals
from tables.mutations import changed, valid_table

NAMES = ["--target", "ill", "--environment", "hospital"]


@pytest.fixture
def invlearn(tmp_path, monkeypatch):
    """Run the command in an empty folder, on a terminal of 200 columns."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


@pytest.fixture
def table(tmp_path):
    hospitals(rows=40).to_csv(tmp_path / "h.csv", index=False)


def test_from_an_example_to_a_diagnosis(invlearn, tmp_path):
    assert invlearn("example", "hospitals", "--rows", "40", "--output", "h.csv").exit_code == 0
    fit = invlearn("fit", "h.csv", *NAMES, "--steps", "20", "--output", "model")
    assert fit.exit_code == 0, fit.output
    assert "Fitted 'ill' on 240 rows of 6 environments; model in 'model'." in fit.stdout
    predict = invlearn("predict", "model", "h.csv", "--output", "p.csv")
    assert predict.exit_code == 0, predict.output
    found = pd.read_csv(tmp_path / "p.csv")
    assert found["row"].tolist() == list(range(1, 241))
    assert set(found["prediction"]) == {"yes", "no"}
    diagnose = invlearn("diagnose", "model", "h.csv", "--output", "d.json")
    assert diagnose.exit_code == 0, diagnose.output
    assert "How the model does in each environment" in diagnose.stdout
    assert len(json.loads((tmp_path / "d.json").read_text())["findings"]) == 9


def test_compare(invlearn, table, tmp_path):
    result = invlearn(
        "compare", "h.csv", *NAMES, "--test-environment", "Farhill", "--objectives",
        "erm-pooled,vrex", "--steps", "10", "--jobs", "1", "--out", "out",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "Farhill" in result.stdout
    assert "Gradient boosting" in result.stdout
    assert "scanner_artefact" in result.stdout
    assert (tmp_path / "out" / "report.html").exists()
    for figure in (tmp_path / "out" / "figures").iterdir():
        with Image.open(figure) as image:
            assert min(image.size) > 100


def test_images_from_comparison_to_prediction(invlearn, tmp_path):
    rng = np.random.default_rng(0)
    for place in ("rome", "oslo", "lima"):
        for label, level in (("dark", 40), ("light", 180)):
            folder = tmp_path / "photos" / place / label
            folder.mkdir(parents=True)
            for i in range(8):
                pixels = rng.integers(0, 70, (16, 16), dtype=np.uint8) + np.uint8(level)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    result = invlearn(
        "compare", "photos", "--objectives", "erm-pooled,vrex", "--steps", "5", "--jobs", "1",
        "--test-environment", "lima", "--out", "out",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    fit = invlearn("fit", "photos", "--penalty-weight", "1", "--steps", "20", "--output", "model")
    assert fit.exit_code == 0, fit.output
    predict = invlearn("predict", "model", "photos", "--output", "p.csv")
    assert predict.exit_code == 0, predict.output
    found = pd.read_csv(tmp_path / "p.csv")
    right = [name.split("/")[1] for name in found["file"]] == found["prediction"]
    assert right.mean() > 0.9
    assert invlearn("diagnose", "model", "photos").exit_code == 0
    table = invlearn("predict", "model", "p.csv", "--output", "q.csv")
    assert table.exit_code == 2
    assert "Error:" in table.stderr


MISTAKES = {
    "no target": (["fit", "h.csv", "--environment", "hospital", "--output", "m"],
                  "got no target. For instance --target ill"),
    "misspelled": (["fit", "h.csv", "--target", "il", "--environment", "hospital", "--output", "m"],
                 "did you mean 'ill'"),
    "no file": (["fit", "g.csv", *NAMES, "--output", "m"], "g.csv"),
    "weight": (["fit", "h.csv", *NAMES, "--penalty-weight", "big", "--output", "m"],
               "--penalty-weight as a number"),
    "hidden": (["fit", "h.csv", *NAMES, "--hidden", "32,x", "--output", "m"], "--hidden"),
    "objective": (["fit", "h.csv", *NAMES, "--objective", "vrx", "--output", "m"], "'vrex'"),
    "output in use": (["fit", "h.csv", *NAMES, "--output", "."], "Expected a new or empty folder"),
    "no model": (["predict", "nowhere", "h.csv", "--output", "p.csv"], "nowhere"),
    "ending": (["example", "hospitals", "--output", "h.xls"], "file ending '.xls'"),
    "example": (["example", "hospital", "--output", "i.csv"], "Did you mean 'hospitals'"),
    "for a benchmark": (["compare", "h.csv", *NAMES, "--recipe", "x"], "got --recipe"),
    "for rows": (["compare", "colored-digits", "--target", "y"], "got --target"),
    "task": (["compare", "h.csv", *NAMES, "--task", "regression"], "number"),
    "environment": (["compare", "h.csv", *NAMES, "--test-environment", "Elmo"], "'Elm'"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_one_line_and_write_nothing(invlearn, table, tmp_path, name):
    arguments, says = MISTAKES[name]
    before = sorted(path.name for path in tmp_path.iterdir())
    result = invlearn(*arguments)
    assert result.exit_code == 2, result.output
    assert says in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.fixture
def no_start(monkeypatch):
    """Calls of a command without what every one starts with: reading all options, asking git."""
    command = typer.main.get_command(app)
    monkeypatch.setattr("typer.testing._get_command", lambda _: command)
    monkeypatch.setattr("invlearn.ground.machine.commit", lambda: "")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("first", [0, 250, 500, 750])
def test_a_thousand_changed_tables_end_in_a_model_or_in_one_line(
    first, invlearn, no_start, tmp_path
):
    """Whatever happened to the file: no traceback, and nothing half written."""
    path = tmp_path / "t.csv"
    valid_table().to_csv(path, index=False)
    data = path.read_bytes()
    ends = {0: 0, 2: 0}
    for seed in range(first, first + 250):
        path.write_bytes(changed(data, seed))
        model = f"model{seed}"
        result = invlearn(
            "fit", "t.csv", "--target", "ill", "--environment", "site", "--steps", "2",
            "--penalty-weight", "1", "--output", model,
        )  # fmt: skip
        assert result.exit_code in ends, (seed, result.output, result.exception)
        assert "Traceback" not in result.output
        if result.exit_code == 2:
            assert len(result.stderr.strip().splitlines()) == 1, (seed, result.stderr)
            assert result.stderr.startswith("Error: ")
        assert (tmp_path / model).exists() == (result.exit_code == 0)
        ends[result.exit_code] += 1
    assert min(ends.values()) > 25
    leftovers = {p.name for p in tmp_path.iterdir() if not p.name.startswith("model")}
    assert leftovers == {"t.csv"}


@pytest.mark.filterwarnings("ignore")
def test_changed_tables_compared_and_predicted(invlearn, no_start, undrawn, tmp_path):
    path = tmp_path / "t.csv"
    table = valid_table()
    table = pd.concat([table.assign(site=site) for site in "abc"])
    table.to_csv(path, index=False)
    names = ["--target", "ill", "--environment", "site"]
    made = invlearn(
        "fit", "t.csv", *names, "--steps", "2", "--penalty-weight", "1", "--output", "m"
    )
    assert made.exit_code == 0, made.output
    data = path.read_bytes()
    ends = {"compare": [], "predict": [], "diagnose": []}
    for seed in range(12):
        path.write_bytes(changed(data, 5000 + seed))
        for command in (
            ["compare", "t.csv", *names, "--objectives", "vrex", "--steps", "1", "--jobs", "1",
             "--out", f"out{seed}"],
            ["predict", "m", "t.csv", "--output", f"p{seed}.csv"],
            ["diagnose", "m", "t.csv", "--output", f"d{seed}.json"],
        ):  # fmt: skip
            result = invlearn(*command)
            assert result.exit_code in (0, 2), (seed, command, result.output, result.exception)
            if result.exit_code == 2:
                assert len(result.stderr.strip().splitlines()) == 1, (seed, result.stderr)
            ends[command[0]].append(result.exit_code)
    assert all(set(codes) == {0, 2} for codes in ends.values())
