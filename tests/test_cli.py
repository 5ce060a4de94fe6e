"""The command line: one clear line for a mistake, a table for a result."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys

import pandas as pd
import pytest
from typer.testing import CliRunner

from invlearn.cli import app
from invlearn.datasets import DATASETS
from invlearn.methods import known_methods

TINY = [
    "compare", "colored-digits", "--trials", "1", "--steps", "4", "--jobs", "1",
    "--data", "rows_per_environment=100", "--data", "validation_rows=60", "--data", "test_rows=60",
]  # fmt: skip


@pytest.fixture
def invlearn(tmp_path, monkeypatch):
    """Run the command in an empty folder, on a terminal of 200 columns."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


def test_compare_prints_the_answer_a_table_and_where_the_report_is(invlearn, tmp_path):
    result = invlearn(*TINY, "--objectives", "erm, irmv1", "--out", "out")
    assert result.exit_code == 0, result.output
    assert re.search(r"^ *ERM( +\d+\.\d \(n=1\)){4} +1 *$", result.stdout, re.MULTILINE)
    assert "IRMv1" in result.stdout
    assert "test p_e=0.9" in result.stdout
    assert re.match(r"(IRMv1|No method) did better than ERM in p_e=0\.9\.\n", result.stdout)
    assert "One trial only: how much the numbers vary is unknown." in result.stdout
    assert len(re.findall(r"^ *method ", result.stdout, re.MULTILINE)) == 1
    assert "oracle" not in result.stdout
    assert result.stderr.startswith("training: 0 of 2, ")
    assert f"Report: {os.path.join('out', 'report.html')}" in result.stdout
    assert (tmp_path / "out" / "results.csv").exists()


def test_compare_prints_a_table_for_every_rule_if_asked(invlearn, tmp_path):
    result = invlearn(*TINY, "--objectives", "erm", "--all-rules")
    rules = pd.read_csv(next(tmp_path.glob("*/results.csv")))["selection"].unique()
    assert len(rules) > 3
    assert len(re.findall(r"^ *method ", result.stdout, re.MULTILINE)) == len(rules)
    assert "[oracle: looked at the test environment]" in result.stdout


def test_compare_names_its_own_folder_where_none_is_given(invlearn, tmp_path):
    result = invlearn(*TINY, "--objectives", "erm")
    assert result.exit_code == 0, result.output
    (folder,) = tmp_path.iterdir()
    assert re.fullmatch(r"invlearn-colored-digits-\d{8}-\d{6}", folder.name)


def test_existing_results_are_refused(invlearn, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "results.csv").write_text("precious")
    result = invlearn(*TINY, "--objectives", "erm", "--out", "out")
    assert result.exit_code == 2
    assert "Error: 'out' already holds results (results.csv); they are never" in result.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["results.csv"]
    assert (tmp_path / "out" / "results.csv").read_text() == "precious"


MISTAKES = {
    "dataset": (["compare", "colored-digit"], "Unknown dataset 'colored-digit'. Did you mean"),
    "objective": ([*TINY, "--objectives", "erm,irmv2"], "'irmv2'. Did you mean 'irmv1'?"),
    "recipe": ([*TINY, "--recipe", "nobodys"], "Unknown recipe for colored-digits 'nobodys'."),
    "recipe file": ([*TINY, "--recipe", "no.toml"], "at 'no.toml', it cannot be read: No such"),
    "data without =": ([*TINY, "--data", "rows"], "Expected --data NAME=VALUE, got 'rows'."),
    "data without name": ([*TINY, "--data", "=3"], "Expected --data NAME=VALUE, got '=3'."),
    "data name": ([*TINY, "--data", "test_row=3"], "'test_row'. Did you mean 'test_rows'?"),
    "data value": ([*TINY, "--data", "test_rows=x"], "to be a whole number, got 'x'."),
    "hyper without =": ([*TINY, "--hyper", "irmv1"], "Expected --hyper NAME=VALUE, got 'irmv1'."),
    "hyper without dot": (
        [*TINY, "--hyper", "penalty_weight=3"],
        "Expected --hyper METHOD.NAME=NUMBER, got 'penalty_weight=3'. "
        "For instance irmv1.penalty_weight=1000.",
    ),
    "hyper value": (
        [*TINY, "--hyper", "irmv1.penalty_weight=big"],
        "Expected --hyper METHOD.NAME=NUMBER, got 'irmv1.penalty_weight=big'.",
    ),
    "hyper name": (
        [*TINY, "--hyper", "irmv1.penalty=3"],
        "Unknown hyperparameter of IRMv1 'penalty'. Did you mean 'penalty_weight'?",
    ),
    "hyper of a model": (
        ["compare", "linear-sem", "--objectives", "linear", "--hyper", "linear.alpha=1"],
        "hyperparameters of a method that trains a network, got some of 'linear'. Set them",
    ),
    "negative weight": ([*TINY, "--hyper", "irmv1.penalty_weight=-1"], "0 or more, got -1.0."),
    "trials": ([*TINY, "--trials", "0"], "Expected at least one trial, got 0."),
    "one and several": (
        [*TINY, "--trial", "1", "--trials", "2"],
        "Expected --trial or --trials, got both. --trial 1 runs that one alone.",
    ),
    "very many": ([*TINY, "--trials", "1000000"], "Ask for fewer, or add --yes"),
    "steps": ([*TINY, "--steps", "0"], "Expected steps of 1 or more, a whole number, got 0."),
    "environments": (
        [*TINY, "--objectives", "irmv1", "--data", "training_p=0.1"],
        "IRMv1 needs at least 2 training environments, got 1 (p_e=0.1).",
    ),
}


@pytest.mark.parametrize("what", MISTAKES)
def test_mistake_gives_one_clear_message_and_leaves_nothing(what, invlearn, tmp_path):
    arguments, text = MISTAKES[what]
    result = invlearn(*arguments, "--out", "out")
    assert result.exit_code == 2
    assert result.stdout == ""
    said = " ".join(result.stderr.split())  # A narrow terminal wraps it.
    assert said.startswith("Error: ")
    assert text in said
    assert said.count("Error") == 1
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []


def test_text_that_is_not_a_number_is_refused_by_its_option(invlearn, tmp_path):
    result = invlearn(*TINY, "--trials", "many")
    assert result.exit_code == 2
    assert "--trials" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["datasets", "objectives"])
def test_lists_fit_a_terminal_of_80_columns(invlearn, monkeypatch, name):
    monkeypatch.setenv("COLUMNS", "80")
    lines = invlearn(name).stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert not any("…" in line for line in lines)
    # No narrow columns: a text takes a few lines.
    paragraphs = "\n".join(line.rstrip() for line in lines).split("\n\n")
    assert name == "datasets" or max(len(one.splitlines()) for one in paragraphs) <= 5


def test_datasets_lists_the_whole_registry(invlearn):
    result = invlearn("datasets")
    assert result.exit_code == 0
    for name, dataset in DATASETS.items():
        assert name in result.stdout
        assert all(option in result.stdout for option in dataset.options)


def test_objectives_lists_the_whole_registry(invlearn):
    result = invlearn("objectives")
    assert result.exit_code == 0
    first = [line.split(" ")[0] for line in result.stdout.splitlines() if line.strip()]
    assert [name for name in first if name] == list(known_methods())
    assert "std_weight=0, " in result.stdout  # An ablation's own.


def test_no_arguments_show_the_help(invlearn):
    result = invlearn()
    assert all(command in result.output for command in ("compare", "datasets", "objectives"))


BROKEN_OFF = """
import signal, time
from rich.console import Console
from invlearn.cli.common import reported
signal.signal(signal.SIGINT, signal.default_int_handler)  # A shell's '&' has it ignored.
with reported(Console(stderr=True), lambda: "Nothing was written."):
    print("ready", flush=True)
    try:
        time.sleep(600)
    except KeyboardInterrupt:
        raise RuntimeError("under vmap")
"""


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_what_an_interruption_breaks_off_is_reported_as_one():
    process = subprocess.Popen(
        [sys.executable, "-c", BROKEN_OFF],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (130, "Interrupted. Nothing was written.\n")
