"""The output folder: refused when in use, resumable, each file whole or not there."""

from __future__ import annotations

import json
import math
import os

import numpy as np
import pandas as pd
import pytest
import torch

from invlearn.comparison.store import Store
from invlearn.errors import OutputError

PLAN = {"plans": {"erm": {"hidden": (3, 3)}}, "jobs": [{"trial": 0}]}


def held(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("parts", [(), ("new",), ("deep", "down", "below")])
def test_check_accepts_a_free_folder_and_writes_nothing(parts, tmp_path):
    Store.check(tmp_path.joinpath(*parts), resume=False)
    assert held(tmp_path) == []


def test_folder_with_other_files_is_accepted(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    Store.check(tmp_path, resume=False)


def test_file_instead_of_a_folder_is_refused(tmp_path):
    path = tmp_path / "taken"
    path.write_text("mine")
    with pytest.raises(
        OutputError, match=r"Expected a folder, '.*taken' is a file\. Choose another"
    ):
        Store.check(path, resume=False)
    assert path.read_text() == "mine"


def test_folder_below_a_file_is_refused(tmp_path):
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(
        OutputError, match=r"Cannot write to '.*below': '.*taken' is not a writable folder\. Choose"
    ):
        Store.check(tmp_path / "taken" / "deep" / "below", resume=False)


def test_folder_without_write_permission_is_refused(tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    if os.access(closed, os.W_OK):
        pytest.skip("this user may write everywhere")
    with pytest.raises(OutputError, match=r"'.*closed' is not a writable folder.* permissions"):
        Store.check(closed / "new", resume=False)


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("name", ["results.csv", "summary.json", "curves.parquet", "report.html"])
def test_existing_results_are_never_overwritten(name, resume, tmp_path):
    (tmp_path / name).write_text("precious")
    with pytest.raises(
        OutputError, match=rf"already holds results \({name}\); they are never overwritten\. Choose"
    ):
        Store.check(tmp_path, resume=resume)
    assert (tmp_path / name).read_text() == "precious"


def test_unfinished_runs_need_resume(tmp_path):
    Store.check(tmp_path, resume=False).begin(PLAN)
    with pytest.raises(OutputError, match=r"holds the unfinished runs of a comparison\. Add --res"):
        Store.check(tmp_path, resume=False)
    Store.check(tmp_path, resume=True)


def test_unfinished_runs_of_another_plan_are_refused(tmp_path):
    Store.check(tmp_path, resume=False).begin(PLAN)
    other = {**PLAN, "jobs": [{"trial": 1}]}
    store = Store.check(tmp_path, resume=True)
    store.begin(PLAN)
    with pytest.raises(
        OutputError, match=r"unfinished runs of another comparison\. Repeat its command exactly"
    ):
        store.begin(other)
    assert json.loads((tmp_path / ".invlearn-unfinished" / "plan.json").read_text())["jobs"] == [
        {"trial": 0}
    ]


def test_resuming_what_was_never_begun_begins_it(tmp_path):
    store = Store.check(tmp_path / "new", resume=True)
    store.begin(PLAN)
    assert store.load_run("erm-000") is None


def table():
    rng = np.random.default_rng(0)
    values = [*rng.normal(size=20), 0.1, 1 / 3, 5e-324, 1.7976931348623157e308, math.inf, math.nan]
    return pd.DataFrame(
        {
            "method": "erm",
            "problem": 0,
            "environment": [f"p_e=0.{i}" for i in range(len(values))],
            "value": values,
            "step": range(len(values)),
        }
    )


def test_runs_come_back_bit_for_bit(tmp_path):
    store = Store.check(tmp_path / "out", resume=False)
    store.begin(PLAN)
    empty, facts = table().iloc[:0], {"messages": ["a warning, “quoted”"], "seconds": 1 / 3}
    store.save_run("erm-000", {"curves": table(), "none": empty}, facts)
    again = Store.check(tmp_path / "out", resume=True)
    tables, found = again.load_run("erm-000")
    curves = tables["curves"]
    pd.testing.assert_frame_equal(curves, table(), check_exact=True)
    assert curves["value"].to_numpy().tobytes() == table()["value"].to_numpy().tobytes()
    assert tables["none"].empty
    assert list(tables["none"].columns) == list(empty.columns)
    assert found == facts
    assert again.load_run("erm-001") is None


def test_finish_drops_the_unfinished_and_nothing_else(tmp_path):
    store = Store.check(tmp_path, resume=False)
    store.begin(PLAN)
    store.save_run("erm-000", {"curves": table()}, {})
    store.write("results.csv", "a")
    store.finish()
    assert held(tmp_path) == ["results.csv"]


def test_interruption_while_the_results_are_written_can_be_resumed(tmp_path):
    plan = {"what": 1}
    Store.check(tmp_path, resume=False).begin(plan)
    (tmp_path / "report.html").write_text("half of the results")
    Store.check(tmp_path, resume=True)


def test_finish_copes_with_what_a_killed_write_left(tmp_path):
    store = Store(tmp_path)
    store.begin({})
    (tmp_path / ".invlearn-unfinished" / ".writing-abc").write_text("")
    store.finish()
    assert list(tmp_path.iterdir()) == []


def test_other_files_of_the_folder_are_left_alone(tmp_path):
    mine = tmp_path / "runs" / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    store = Store.check(tmp_path, resume=False)
    store.begin(PLAN)
    store.finish()
    assert mine.read_text() == "mine"


def test_damaged_run_is_named(tmp_path):
    store = Store.check(tmp_path, resume=False)
    store.begin(PLAN)
    store.save_run("erm-000", {"curves": table()}, {})
    (tmp_path / ".invlearn-unfinished" / "erm-000.run.json").write_text("{")
    with pytest.raises(OutputError, match=r"Expected JSON in .*erm-000.* it is damaged"):
        store.load_run("erm-000")


def test_references_come_back_for_other_processes(tmp_path):
    store = Store.check(tmp_path, resume=False)
    store.begin(PLAN)
    assert store.load_reference("reference-000") is None
    reference = {"train": torch.randn(5, 1).half(), "validation": torch.randn(3, 2)}
    store.save_reference("reference-000", reference)
    found = Store(tmp_path).load_reference("reference-000")
    assert found.keys() == reference.keys()
    assert all(torch.equal(found[name], z) for name, z in reference.items())
    assert all(found[name].dtype == z.dtype for name, z in reference.items())


def test_an_interrupted_folder_says_what_it_keeps(tmp_path):
    folder = tmp_path / "out"
    nothing = "No run was finished: nothing is kept."
    store = Store.check(folder, resume=False)
    assert store.left() == nothing
    store.begin(PLAN)
    assert store.left() == nothing
    assert not folder.exists()
    store.begin(PLAN)
    store.save_run("erm-000", {}, {})
    assert store.left() == (
        f"One finished run is kept in '{folder}': repeat the command with --out '{folder}' "
        "--resume."
    )
    store.save_run("erm-001", {}, {})
    assert store.left().startswith(f"2 finished runs are kept in '{folder}': repeat the")
    store.finish()
    assert store.left() == f"All was done: the results are in '{folder}'."


def test_what_another_process_has_begun_is_left_alone(tmp_path, monkeypatch):
    store = Store.check(tmp_path, resume=False)
    store.begin(PLAN)
    monkeypatch.setattr("invlearn.comparison.store._BEGUN", {})
    before = held(tmp_path)
    assert store.left() == "No run was finished: nothing is kept."
    assert held(tmp_path) == before


def test_a_folder_that_holds_other_files_stays(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    store = Store.check(tmp_path, resume=False)
    store.begin(PLAN)
    store.left()
    assert held(tmp_path) == ["notes.txt"]
