"""A dataset and methods that somebody else writes: a file, a call, and they work everywhere."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from invlearn import DATASETS, BenchmarkRequest, RowsRequest, compare, load_benchmark
from invlearn.cli import app
from invlearn.errors import OptionError, OutputError
from invlearn.ground.machine import WORKER_CALLS
from invlearn.methods import METHODS

DATASET = '''
"""Wards whose scanner predicts the illness in two of them and misleads in the third."""

from typing import Annotated

import numpy as np

from invlearn import Environments, register_dataset

FLIPPED = {"north": 0.1, "south": 0.2, "new": 0.9}


def wards(
    seed: int,
    rows: Annotated[int, "Rows of every ward."] = 200,
    noise: Annotated[float, "Share of wrong diagnoses."] = 0.25,
):
    """Symptoms [two numbers], and a scanner that flips."""
    rng = np.random.default_rng(seed)
    parts = {}
    for name, flipped in FLIPPED.items():
        cause = rng.normal(size=(rows, 2))
        ill = (cause.sum(1) > 0) ^ (rng.random(rows) < noise)
        scan = ill ^ (rng.random(rows) < flipped)
        parts[name] = (np.column_stack([cause, scan]), ill)
    made = Environments.from_parts(parts)
    train, validation = made.select(["north", "south"]).split(0.3, seed=seed)
    return train, validation, made.select(["new"])


register_dataset("wards", wards)
'''

METHODS_FILE = """
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from invlearn import register_method

register_method("nearest", make_pipeline(StandardScaler(), KNeighborsClassifier(9)))
register_method("vrex-weak", "vrex", hyper={"penalty_weight": 3.0})
"""

RECIPE = "[settings]\nsteps = 8\n[methods.vrex]\nhyper = { penalty_weight = 50 }\n"


@pytest.fixture
def packaged(tmp_path, monkeypatch):
    """Their package in this folder; registered by importing it, or by its entry points."""
    package = tmp_path / "their_wards"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "data.py").write_text(DATASET.lstrip())
    (package / "methods.py").write_text(METHODS_FILE.lstrip())
    assert len(DATASET.strip().splitlines()) <= 40
    info = tmp_path / "their_wards-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-wards\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[invlearn.datasets]\nwards = their_wards.data\n"
        "[invlearn.methods]\nnearest = their_wards.methods\nbroken = their_wards.nothing\n"
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def stranger(packaged, monkeypatch):
    monkeypatch.syspath_prepend(str(packaged))
    for registry in (DATASETS, METHODS):  # Not by their entry points.
        monkeypatch.setattr(registry, "_searched", True)
    calls = list(WORKER_CALLS)
    for name in ("data", "methods"):
        importlib.import_module(f"their_wards.{name}")
    yield packaged
    DATASETS.pop("wards")
    for name in ("nearest", "vrex-weak"):
        METHODS.pop(name)
    WORKER_CALLS[:] = calls
    for name in [name for name in sys.modules if name.startswith("their_wards")]:
        del sys.modules[name]


def invlearn(text):
    result = CliRunner().invoke(app, text.split(), env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    return result.output


def test_it_is_built_with_options_as_text_or_values(stranger):
    problem = load_benchmark("wards", seed=0, rows="60")
    assert problem.train.sizes == (42, 42)
    assert (problem.loss, problem.target, problem.name) == ("logistic", "new", "wards")
    assert (problem.train.x == load_benchmark("wards", seed=0, rows=60).train.x).all()


def test_it_is_listed_and_helped_with(stranger):
    listed = invlearn("datasets")
    assert "Symptoms [two numbers], and a scanner that flips. (their_wards.data.wards)" in listed
    assert "Share of wrong diagnoses." in listed
    assert "vrex-weak" in invlearn("objectives")
    for command in ("compare", "search"):
        said = " ".join(invlearn(f"{command} --help").split())
        assert "datasets wards" in said
        assert "nearest, vrex-weak" in said


def test_it_is_compared_with_a_recipe_of_ones_own(stranger):
    Path("own.toml").write_text(RECIPE)
    said = invlearn(
        "compare wards --objectives erm,vrex,vrex-weak,nearest --trials 2 --jobs 1 --out out "
        "--recipe own.toml --data rows=60"
    )
    notice = "Settings from 'own.toml': steps; for vrex: penalty_weight; the rest from the defaults"
    assert notice in said
    assert notice in (stranger / "out" / "report.html").read_text().replace("&#39;", "'")
    table = pd.read_csv("out/results.csv")
    assert set(table["method"]) == {"erm", "vrex", "vrex-weak", "nearest"}
    last = table[table["selection"] == "last"].groupby("method")["step"].max()
    assert last.to_dict() == {"erm": 8, "vrex": 8, "vrex-weak": 8, "nearest": 0}


def test_without_a_recipe_it_has_defaults_and_says_so(stranger):
    made = compare(
        BenchmarkRequest("wards", trials=1, steps=4, dataset_options={"rows": 30}), jobs=1
    )
    assert made.record.recipe.notice == (
        "'wards' has no recipe: methods are trained with defaults, not tuned to it."
    )
    names = [method.name for method in made.record.methods]
    assert "irmv1" in names
    assert "erm-grayscale" not in names  # There is nothing to leave out.
    with pytest.raises(OptionError, match="wards with these options has none"):
        compare(BenchmarkRequest("wards", ["erm-grayscale"]), jobs=1)


def test_it_is_searched(stranger):
    Path("own.toml").write_text(RECIPE)
    said = invlearn(
        "search wards --objectives vrex-weak --draws 2 --trials 1 --jobs 1 --out found "
        "--recipe own.toml --data rows=40 --score late-risk"
    )
    assert "Settings from 'own.toml'" in said
    table = pd.read_csv("found/search.csv")
    assert set(table["start"]) <= {1, 2, 3}  # Of eight steps.
    assert "penalty_weight" not in table  # It is what makes it what it is.


def test_a_changed_recipe_file_is_another_comparison(stranger):
    own = Path("own.toml")
    own.write_text(RECIPE)
    request = BenchmarkRequest(
        "wards", ["erm", "vrex"], trials=1, recipe=own, dataset_options={"rows": 30}
    )

    def stop(done, total, what):
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare(request, "out", jobs=1, progress=stop)
    own.write_text(RECIPE.replace("vrex", "irmv1"))  # Of another method, too.
    with pytest.raises(OutputError, match="unfinished runs of another comparison"):
        compare(request, "out", jobs=1, resume=True)
    own.write_text(RECIPE + "# The same.\n")
    resumed = compare(request, "out", jobs=1, resume=True)
    assert resumed.record.provenance["runs_resumed"] == 1


def test_their_methods_compete_on_own_rows(stranger):
    invlearn("example hospitals --rows 30 --output hospitals.csv")
    request = RowsRequest("hospitals.csv", "ill", "hospital", ["nearest", "vrex-weak"], steps=3)
    made = compare(request, jobs=1)
    by_name = {method.name: method for method in made.record.methods}
    assert by_name["nearest"].settings["model"].startswith("Pipeline(")
    assert by_name["vrex-weak"].settings["penalty weight"].startswith("3 without")
    if made.answer.recommended == "vrex-weak":
        assert "--penalty-weight 3 --objective vrex" in made.record.next_command
    frame = pd.read_csv("hospitals.csv").assign(ill=range(180))
    with pytest.raises(OptionError, match="a regressor as 'nearest', got Pipeline, which predicts"):
        compare(RowsRequest(frame, "ill", "hospital", ["nearest", "vrex"]), jobs=1)


def test_an_installed_package_is_found_by_its_entry_points(packaged):
    code = (
        "import sys; from invlearn.cli import app; from invlearn.methods import get_method\n"
        "get_method('erm'); assert 'their_wards' not in sys.modules\n"
        "get_method('nearest'); app(['datasets'])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "Rows of every ward." in run.stdout
    assert "'broken' of the package 'their-wards' (their_wards.nothing) is left out" in run.stderr


NOTEBOOK = """
from sklearn.neighbors import KNeighborsClassifier
from invlearn import BenchmarkRequest, compare, register_method, register_objective
from invlearn.objectives.vrex import VREx
import their_wards.data

class Mine(VREx):
    title = "Mine"

register_objective("mine", Mine(3.0))
register_method("near", lambda seed: KNeighborsClassifier(5))
request = BenchmarkRequest(
    "wards", ["mine", "near"], trials=2, steps=3, dataset_options={"rows": 40}
)
print(sorted(compare(request, jobs=2).results.method.unique()))
"""


def test_it_reaches_worker_processes_and_so_does_what_a_notebook_defines(packaged):
    # Its main module is in no file, as a notebook's.
    run = subprocess.run([sys.executable, "-c", NOTEBOOK], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout == "['mine', 'near']\n"
