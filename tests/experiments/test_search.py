"""The search reads training environments only and keeps the setting with the lowest score."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from invlearn.errors import InvlearnError
from invlearn.experiments import search as module
from invlearn.experiments.search import best, search

TINY = {"rows_per_environment": 200, "validation_rows": 100, "test_rows": 50}


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    """Ten steps instead of the recipe's."""
    draw_plan = module.draw_plan

    def short(plan, rng):
        drawn, values = draw_plan(plan, rng)
        settings = module.replace(drawn.settings, steps=10)
        return module.replace(drawn, settings=settings), values

    monkeypatch.setattr(module, "draw_plan", short)


def test_search_writes_its_runs_and_the_best(tmp_path):
    table = search(
        "colored-digits",
        ["irmv1", "vrex"],
        tmp_path / "out",
        draws=3,
        trials=2,
        dataset_options=TINY,
        command="by hand",
    )
    assert len(table) == 2 * 3 * 2
    written = pd.read_csv(tmp_path / "out" / "search.csv")
    assert written["score"].to_numpy() == pytest.approx(table["score"].to_numpy(), rel=1e-6)
    summary = json.loads((tmp_path / "out" / "search.json").read_text())
    assert summary["best"]["irmv1"] == pytest.approx(best(table, "irmv1"))
    assert summary["provenance"]["command"] == "by hand"
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["search.csv", "search.json"]


def test_methods_share_the_draws_of_common_settings(tmp_path):
    table = search(
        "colored-digits",
        ["irmv1", "mmrex"],
        tmp_path / "out",
        draws=2,
        trials=1,
        dataset_options=TINY,
    )
    for _, draw in table.groupby("draw"):
        assert draw["lr"].nunique() == 1
        assert draw["start"].nunique() == 1
        assert draw["penalty_weight"].nunique() == 2


def test_trap_search_never_evaluates_a_test_environment(tmp_path, monkeypatch):
    seen = []
    train_plan = module.train_plan

    def spy(plan, benchmark, rows, sets, seed):
        seen.extend(data.split for data in sets)
        return train_plan(plan, benchmark, rows, sets, seed)

    monkeypatch.setattr(module, "train_plan", spy)
    search("colored-digits", ["irmv1"], tmp_path / "o", draws=1, trials=1, dataset_options=TINY)
    assert seen == ["validation"]


def test_best_takes_the_lowest_mean_score():
    table = pd.DataFrame(
        {
            "objective": "irmv1",
            "draw": [0, 0, 1, 1],
            "lr": [0.1, 0.1, 0.2, 0.2],
            "penalty_weight": [1.0, 1.0, 2.0, 2.0],
            "satisfied": [True, False, True, True],
            "validation_risk": [0.5, 0.4, 0.6, 0.6],
            "score": [0.5, 0.69, 0.58, 0.58],
        }
    )
    found = best(table, "irmv1")
    assert (found["draw"], found["lr"], found["penalty_weight"]) == (1, 0.2, 2.0)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"draws": 0}, "draws=0"),
        ({"seed": -1}, "seed=-1"),
        ({"recipe": "nope"}, "Unknown recipe"),
        ({"dataset_options": {"rows": 3}}, "Unknown option"),
    ],
)
def test_bad_searches_are_refused_with_nothing_written(change, text, tmp_path):
    options = {"draws": 1, "trials": 1, "dataset_options": TINY} | change
    with pytest.raises(InvlearnError, match=text):
        search("colored-digits", ["irmv1"], tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_search_never_overwrites_another(tmp_path):
    (tmp_path / "search.csv").write_text("earlier")
    with pytest.raises(InvlearnError, match="already holds results"):
        search("colored-digits", ["irmv1"], tmp_path, draws=1, trials=1, dataset_options=TINY)
    assert (tmp_path / "search.csv").read_text() == "earlier"


@pytest.mark.parametrize(
    ("dataset", "method", "options", "text"),
    [
        ("colored-mnist", "irmv1", {"recipe": "irm-paper"}, "'irm-paper' is an oracle"),
        ("colored-digits", "erm-grayscale", {}, "'erm-grayscale' is a reference"),
        ("colored-digits", "irmv1", {"dataset_options": {"training_p": "0.1"}}, "at least 2"),
    ],
)
def test_trap_search_refuses_what_it_could_not_search_honestly(
    dataset, method, options, text, tmp_path
):
    with pytest.raises(InvlearnError, match=text):
        search(dataset, [method], tmp_path / "out", draws=1, trials=1, **options)
    assert not (tmp_path / "out").exists()
