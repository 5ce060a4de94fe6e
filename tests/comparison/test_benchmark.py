"""The comparison as a whole, tiny: what it leaves, resumes and refuses."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from invlearn.comparison import benchmark as module
from invlearn.comparison import references
from invlearn.comparison.benchmark_record import make_record
from invlearn.comparison.compare import compare
from invlearn.comparison.recipes import Recipe, describe_plan, get_recipe
from invlearn.comparison.requests import BenchmarkRequest
from invlearn.comparison.runner import Kept, Task, Work, run_unit
from invlearn.comparison.selecting import select_all
from invlearn.comparison.store import Store
from invlearn.comparison.trials import Trials
from invlearn.datasets import load_benchmark
from invlearn.errors import EnvironmentsError, InvlearnError, OptionError, UnknownNameError
from invlearn.learning import evaluation_sets, train
from invlearn.learning.plan import Layers
from invlearn.learning.reference import reference_within
from invlearn.methods import Usual, get_method, get_network, known_methods
from invlearn.objectives import get_objective
from invlearn.problem import without_shortcut
from invlearn.reports.benchmark import BenchmarkRecord, Said, Unsatisfied, Warned
from invlearn.reports.record import from_json
from invlearn.results import ORACLE_SUFFIX, RESULT_COLUMNS
from invlearn.selection import RULES, Note
from invlearn.training import PenaltySchedule

SMALL = {"rows_per_environment": 200, "validation_rows": 100, "test_rows": 100}
TINY = BenchmarkRequest(
    "colored-digits",
    ("erm", "erm-grayscale", "irmv1"),
    trials=2,
    dataset_options=SMALL,
    steps=12,
)
COLUMNS = list(RESULT_COLUMNS)
SWEEP = [f"p_e=0.{i}" for i in range(1, 10)]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare") / "out"
    return compare(TINY, folder, jobs=1, command="invlearn compare colored-digits")


def same(one, two):
    pd.testing.assert_frame_equal(one.results, two.results, check_exact=True)
    pd.testing.assert_frame_equal(one.curves, two.curves, check_exact=True)
    results = [(c.folder / "results.csv").read_bytes() for c in (one, two)]
    assert results[0] == results[1]


def test_folder_holds_the_tables_the_report_and_nothing_unfinished(done):
    names = {path.name for path in done.folder.iterdir()}
    assert names >= {"results.csv", "curves.parquet", "summary.json", "report.html", "figures"}
    assert not names & {"plan.json", "runs"}
    assert list((done.folder / "figures").iterdir())
    assert "<html" in (done.folder / "report.html").read_text(encoding="utf-8")


def test_one_trial_again_has_the_numbers_that_it_has_among_others(done):
    again = compare(replace(TINY, trial=1), jobs=1)
    assert set(again.results["problem"]) == {1}
    assert (again.record.trials, again.record.seeds) == (1, done.record.seeds[1:])
    for one, all_of in ((again.results, done.results), (again.curves, done.curves)):
        own = all_of[all_of["problem"] == 1].reset_index(drop=True)
        pd.testing.assert_frame_equal(one, own, rtol=1e-9)
    assert again.record.provenance["command"].split("--objectives")[1].split() == (
        f"{','.join(TINY.methods)} --trial 1 --seed 0 --steps 12".split()
        + [w for name, n in SMALL.items() for w in ("--data", f"{name}={n}")]
    )


def test_a_trial_below_0_is_refused():
    with pytest.raises(OptionError, match=r"Expected the number of one trial, 0 or more, got -1"):
        compare(replace(TINY, trial=-1))


def test_a_million_trials_are_asked_about_before_they_are_laid_out(tmp_path):
    asked = []

    def agree(text):
        asked.append(text)
        return False

    many = replace(TINY, trials=10**12)
    with pytest.raises(OptionError, match=r"Expected no more than 10,000 runs unless they are "):
        compare(many, tmp_path / "out", jobs=2, agree=agree)
    (text,) = asked
    assert text == (
        "3,000,000,000,000 runs (1,000,000,000,000 trials, 3 methods): at a second each, 2 at a "
        "time, some 17,361,111 days"
    )
    assert not list(tmp_path.iterdir())
    with pytest.raises(OptionError, match=r"add --yes \(agree= in Python\)\."):
        compare(many, jobs=1)


def test_results_are_long_with_a_row_per_number(done):
    table = pd.read_csv(done.folder / "results.csv")
    assert set(table) >= set(COLUMNS)
    assert set(table["method"]) == {"erm", "erm-grayscale", "irmv1"}
    assert set(table["problem"]) == {0, 1}
    assert not table.duplicated([c for c in COLUMNS if c not in ("value", "step")]).any()
    assert np.isfinite(table["value"]).all()
    np.testing.assert_allclose(table["value"], done.results["value"], rtol=1e-9)


def test_test_environments_are_named_after_their_flip_probability(done):
    table = done.results
    assert table.loc[table["split"] == "test", "environment"].unique().tolist() == SWEEP
    for split in ("train", "validation"):
        names = table.loc[table["split"] == split, "environment"].unique().tolist()
        assert names == ["p_e=0.1", "p_e=0.2"]


def test_every_rule_that_applies_selects_once_per_run(done):
    chosen = done.results.groupby("selection")[["method", "problem"]].apply(
        lambda rows: len(rows.drop_duplicates())
    )
    names = {name.removesuffix(ORACLE_SUFFIX) for name in chosen.index}
    assert names == set(RULES) - {"leave-one-environment-out"}
    assert set(chosen) == {6}
    steps = done.results.groupby(["method", "problem", "selection"])["step"].nunique()
    assert set(steps) == {1}


def test_curves_hold_every_evaluated_step(done):
    curves = pd.read_parquet(done.folder / "curves.parquet")
    pd.testing.assert_frame_equal(curves, done.curves, check_exact=True)
    assert {0, 12} <= set(curves["step"])
    last = done.results[done.results["selection"].str.startswith("last")]
    assert set(last["step"]) == {12}


def test_summary_is_json_that_says_where_the_numbers_come_from(done):
    summary = json.loads((done.folder / "summary.json").read_text(encoding="utf-8"))
    assert summary["provenance"]["command"] == "invlearn compare colored-digits"
    for key in ("version", "torch", "python", "machine", "started"):
        assert summary["provenance"][key]
    assert summary["provenance"]["seconds"] > 0
    assert summary["answer"]["outcome"] in ("helps", "as good")
    again = from_json(BenchmarkRecord, (done.folder / "summary.json").read_text(encoding="utf-8"))
    assert (again.dataset.target, again.seeds) == (done.record.dataset.target, done.record.seeds)
    assert summary["provenance"]["jobs"] == 1
    assert [m["name"] for m in summary["methods"]] == list(TINY.methods)
    assert summary["dataset"]["target"] == "p_e=0.9"
    assert summary["dataset"]["test_environments"] == SWEEP
    assert summary["dataset"]["options"] | SMALL == summary["dataset"]["options"]
    assert len(set(summary["seeds"])) == summary["trials"] == 2
    assert summary["headline"] in {rule["name"] for rule in summary["rules"]}
    assert [m["kind"] for m in summary["methods"]] == ["usual", "reference", "invariant"]


def test_a_notebook_shows_the_headline_rules_table(done):
    assert list(done.overview.index) == [method.title for method in done.record.ordered]
    shown = done.record.dataset.shown
    assert list(done.overview.columns) == ["training", *shown, "trials"]
    assert done.overview.columns.name == done.record.main_rule(done.results).title
    assert done.answer.headline in done._repr_html_()


def test_runs_are_identical_over_processes(done, tmp_path, forked_workers):
    same(compare(TINY, tmp_path / "out", jobs=2), done)


def test_interrupted_comparison_resumes_to_the_same_results(done, tmp_path):
    folder = tmp_path / "out"

    def stop(finished, total, what):
        if finished:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare(TINY, folder, jobs=1, progress=stop)
    (work,) = folder.iterdir()
    assert len(list(work.glob("*.run.json"))) == 1
    with pytest.raises(InvlearnError, match=r"holds the unfinished runs of a comparison"):
        compare(TINY, folder, jobs=1)
    with pytest.raises(InvlearnError, match=r"unfinished runs of another comparison"):
        compare(replace(TINY, steps=13), folder, jobs=1, resume=True)

    (kept,) = work.glob("*.run.json")
    record = json.loads(kept.read_text())
    record["facts"]["messages"] = ["from before"]
    kept.write_text(json.dumps(record))
    seen = []
    resumed = compare(
        TINY, folder, jobs=1, resume=True, progress=lambda n, total, _: seen.append((n, total))
    )
    assert seen == [(n, 6) for n in range(1, 7)]
    assert [w.message for w in resumed.record.warnings].count("from before") == 1
    assert not work.exists()
    same(resumed, done)


def test_finished_comparison_is_not_overwritten(done):
    before = (done.folder / "results.csv").read_bytes()
    for resume in (False, True):
        with pytest.raises(InvlearnError, match="already holds results"):
            compare(TINY, done.folder, jobs=1, resume=resume)
    assert (done.folder / "results.csv").read_bytes() == before


BAD = {
    "dataset": ({"dataset": "colored-digit"}, r"dataset 'colored-digit'. Did you mean 'colored-di"),
    "method": ({"methods": ("irmv2",)}, r"objective 'irmv2'. Did you mean 'irmv1'\?"),
    "option": ({"dataset_options": {"test_row": 3}}, r"'test_row'. Did you mean 'test_rows'\?"),
    "option value": ({"dataset_options": {"test_rows": "many"}}, "a whole number, got 'many'"),
    "recipe": ({"recipe": "nobodys"}, "Unknown recipe for colored-digits 'nobodys'"),
    "hyper": ({"hyper": {"irmv1": {"penalty_wieght": 1.0}}}, "Did you mean 'penalty_weight'"),
    "hyper's method": ({"hyper": {"vrex": {"penalty_weight": 1.0}}}, "method in a hyperparameter"),
    "weight": ({"hyper": {"irmv1": {"penalty_weight": -1.0}}}, "0 or more, got -1.0"),
    "trials": ({"trials": 0}, "Expected at least one trial, got 0"),
    "steps": ({"steps": 0}, "Expected steps of 1 or more, a whole number, got 0"),
    "one environment": (
        {"dataset_options": {"training_p": "0.1"}},
        r"IRMv1 needs at least 2 training environments, got 1 \(p_e=0\.1\)",
    ),
    "left out": (
        {"leave_one_out": True},
        "IRMv1 with an environment left out needs at least 3 training environments, got 2",
    ),
    "reference": (
        {"dataset": "linear-sem", "dataset_options": {"setting": "FOS"}},
        "'erm-grayscale' needs features without the shortcut; linear-sem with these options has",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_request_is_refused_with_nothing_written(what, tmp_path):
    changes, text = BAD[what]
    with pytest.raises((OptionError, UnknownNameError, EnvironmentsError), match=text):
        compare(replace(TINY, **changes), tmp_path / "out", jobs=1)
    assert list(tmp_path.iterdir()) == []


def test_leaving_environments_out_adds_the_rule_of_that_name(tmp_path):
    request = BenchmarkRequest(
        "colored-digits",
        ("irmv1",),
        trials=1,
        dataset_options=SMALL | {"training_p": "0.1,0.2,0.3"},
        steps=12,
        leave_one_out=True,
    )
    made = compare(request, tmp_path / "out", jobs=1)
    chosen = made.results[
        made.results["selection"].str.removesuffix(ORACLE_SUFFIX) == "leave-one-environment-out"
    ]
    assert set(chosen["split"]) == {"train", "validation", "test", "left-out"}
    held = made.curves[made.curves["split"] == "left-out"]
    assert set(held["environment"]) == {"p_e=0.1", "p_e=0.2", "p_e=0.3"}


def made_up(oracle):
    return Recipe(
        "made-up",
        oracle,
        "Made up.",
        {
            "hidden": [4],
            "settings": {"steps": 7, "lr": 0.1, "l2": 0.5},
            "methods": {
                "irmv1": {
                    "hyper": {"penalty_weight": 5.0},
                    "options": {"estimator": "split"},
                    "schedule": {"kind": "step", "start": 3},
                    "settings": {"lr": 0.2},
                    "hidden": [8, 8],
                }
            },
        },
    )


def planned(dataset, *names, steps=None):
    recipe = get_recipe(dataset)
    methods = {name: get_network(name) for name in names}
    return {n: replace(m, plan=recipe.plan(m, steps=steps)) for n, m in methods.items()}


def selected(curves, recipe):
    runs = curves.groupby(["method", "problem"], sort=False)
    return [select_all(run, None, recipe, "p_e=0.9") for _, run in runs]


def told(method, trial, unsatisfied, notes, messages):
    facts = {"unsatisfied": unsatisfied, "notes": notes}
    return Kept(Task(method, f"{trial:03d}"), {}, facts, messages=messages)


def described(recipe, rules, runs):
    return make_record(
        TINY, load_benchmark("linear-sem", seed=0), recipe, (), list(rules), runs, {}
    )


@pytest.mark.parametrize("oracle", [True, False])
def test_trap_results_of_an_oracle_recipe_say_so_in_every_selection(oracle, done):
    results = pd.concat([one.results for one in selected(done.curves, made_up(oracle))])
    labels = set(results["selection"])
    assert labels
    if oracle:
        assert all("oracle" in label for label in labels)
        assert all(label.endswith(ORACLE_SUFFIX) for label in labels)
    else:
        assert {label for label in labels if "oracle" in label} == {"oracle"}
    every = described(made_up(oracle), RULES.values(), ())
    shown = replace(every, headline="risks-agree").shown_rules(results)
    assert {rule.name for rule in shown} == labels
    assert all(rule.explanation and "-" not in rule.title for rule in shown)
    for rule in shown:
        assert rule.oracle == (oracle or rule.name == "oracle")
        assert ("oracle" in rule.heading) == rule.oracle


def test_trap_the_irm_papers_recipe_is_an_oracle():
    assert get_recipe("colored-mnist", "irm-paper").oracle


def test_rules_that_fell_back_are_listed_with_their_trials(done):
    curves = done.curves.copy()
    curves.loc[curves["metric"] == "constant_risk", "value"] = 0.0  # Nothing can beat it.
    runs = [
        told(one.method, one.problem, one.unsatisfied, one.notes, ("slow",))
        for one in selected(curves, made_up(False))
    ]
    record = described(made_up(False), [RULES["last"]], runs)
    assert record.unsatisfied == tuple(
        Unsatisfied("risks-agree", name, (0, 1)) for name in TINY.methods
    )
    assert record.warnings[:2] == (Warned("erm", 0, "slow"), Warned("erm-grayscale", 0, "slow"))
    assert record.said == ()


def test_the_same_note_of_several_trials_is_one():
    note = Note("not identifiable", numbers="3 %")
    other = note._replace(numbers="4 %")
    # A kept run's note comes back from JSON as a list.
    runs = [
        told("vrex", trial, (), {"last": list(other) if trial == 1 else note}, ())
        for trial in range(3)
    ]
    assert described(made_up(False), [RULES["last"]], runs).said == (
        Said("last", "vrex", (0, 2), note),
        Said("last", "vrex", (1,), other),
    )


def test_plan_takes_a_methods_own_settings_over_the_common_ones():
    plan = made_up(False).plan(get_network("irmv1"))
    assert plan.objective == get_objective("irmv1-split", penalty_weight=5.0)
    assert plan.objective.penalty_weight == 5.0
    assert plan.network == Layers((8, 8))
    assert plan.settings.schedule == PenaltySchedule("step", start=3)
    assert (plan.settings.steps, plan.settings.lr, plan.settings.l2) == (7, 0.2, 0.5)


def test_plan_of_a_method_the_recipe_does_not_name_is_the_common_one():
    plan = made_up(False).plan(get_network("vrex"))
    assert plan.objective == get_objective("vrex")
    assert plan.network == Layers((4,))
    assert (plan.settings.steps, plan.settings.lr) == (7, 0.1)


def test_steps_and_hyperparameters_of_the_request_win():
    plan = made_up(False).plan(get_network("irmv1"), steps=2, hyper={"penalty_weight": 9.0})
    assert (plan.settings.steps, plan.objective.penalty_weight) == (2, 9.0)
    assert plan.settings.schedule == PenaltySchedule("step", start=0)  # 3 of 7 before.


@pytest.mark.parametrize(
    "method", [name for name, method in known_methods().items() if not isinstance(method, Usual)]
)
@pytest.mark.parametrize(("dataset", "name"), [("colored-digits", None), ("colored-mnist", None)])
def test_every_methods_plan_is_valid_and_plain_data(dataset, name, method):
    described = describe_plan(get_recipe(dataset, name).plan(get_network(method)))
    json.dumps(described)
    assert "" not in described.values()  # An estimator by the convention is not one called ''.


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"methods": ()}, "Expected at least one method, got none"),
        ({"seed": -1}, "Expected a seed of 0 or more, got -1"),
        ({"dataset_options": {"seed": 3}}, "Unknown option of colored-digits 'seed'"),
        ({"dataset_options": {"name": "x"}}, "Unknown option of colored-digits 'name'"),
    ],
)
def test_odd_requests_are_refused_too(change, text, tmp_path):
    with pytest.raises(InvlearnError, match=text):
        compare(replace(TINY, **change), tmp_path / "out", jobs=1)
    assert not (tmp_path / "out").exists()


def test_jobs_below_one_are_refused(tmp_path):
    with pytest.raises(InvlearnError, match="got jobs=0"):
        compare(TINY, tmp_path / "out", jobs=0)


def test_trap_every_test_environment_is_reported_alone(done):
    tests = done.results[(done.results["split"] == "test") & (done.results["metric"] == "accuracy")]
    assert set(tests["environment"]) == set(SWEEP)
    cell = ["method", "problem", "environment", "selection"]
    assert not tests.duplicated(cell).any()


def test_summary_says_what_was_given_by_hand(tmp_path):
    request = replace(TINY, methods=("irmv1",), trials=1, hyper={"irmv1": {"penalty_weight": 3.0}})
    record = compare(request, tmp_path / "out", jobs=1).record
    assert "Given by hand instead: irmv1.penalty_weight=3, steps=12." in record.recipe.note
    assert record.provenance["command"].startswith("invlearn compare colored-digits")


def test_methods_of_a_trial_share_their_reference():
    options = tuple(sorted(TINY.dataset_options.items()))
    asked = (TINY.dataset, options, get_recipe(TINY.dataset, "default"), 12, 5)
    references.shared_reference.cache_clear()
    shared = references.shared_reference(*asked, False)
    assert references.shared_reference(*asked, False) is shared
    benchmark = load_benchmark(TINY.dataset, seed=5, **dict(options))
    plan = get_recipe(TINY.dataset, "default").plan(get_network("erm"), steps=12)
    for removed, data in ((False, benchmark), (True, without_shortcut(benchmark))):
        expected = references.trial_reference(plan, data, 5)
        found = references.shared_reference(*asked, removed)
        assert found.keys() == expected.keys() == {"train", "validation"}
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert references.shared_reference.cache_info().currsize == 2


def test_the_reference_within_a_whole_run_is_that_of_the_run_half_as_long():
    benchmark = load_benchmark(TINY.dataset, seed=5, **SMALL)
    plan = get_recipe(TINY.dataset, "default").plan(get_network("erm"))
    plan = replace(plan, settings=replace(plan.settings, steps=40))
    sets = evaluation_sets(benchmark.train, benchmark.validation)
    run = train(plan, benchmark.train, benchmark.loss, 1, 5, evaluations=sets, keep_outputs=True)
    found = reference_within(plan, plan, run.outputs)
    expected = references.trial_reference(plan, benchmark, 5)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    other = replace(plan, network=Layers((3,)))
    assert reference_within(plan, other, run.outputs) is None
    odd = replace(plan, settings=replace(plan.settings, steps=42))  # Not measured at 21.
    assert reference_within(odd, odd, run.outputs) is None


def test_a_process_takes_the_reference_that_another_left(tmp_path, monkeypatch):
    store = Store(tmp_path)
    store.begin({})
    trials = Trials(TINY.dataset, tuple(SMALL.items()), get_recipe(TINY.dataset), 7, 40)
    work = Work(trials, planned(TINY.dataset, "erm", "irmv1", steps=40), store)
    run_unit(work, [Task("erm", "000")])
    references.shared_reference.cache_clear()
    monkeypatch.setattr(references, "trial_reference", None)  # Nothing is trained again.
    (left,) = run_unit(work, [Task("irmv1", "000")])
    monkeypatch.undo()
    (alone,) = run_unit(replace(work, store=None), [Task("irmv1", "000")])
    pd.testing.assert_frame_equal(left.tables["results"], alone.tables["results"])


def arranged(dataset, names, trials, processes):
    benchmark = load_benchmark(dataset, seed=0)
    tasks = [Task(name, f"{trial:03d}") for trial in range(trials) for name in names]
    methods = {"linear": get_method("linear")} | planned(dataset, *(set(names) - {"linear"}))
    return module.arrange(tasks, methods=methods, benchmark=benchmark, processes=processes)


def test_units_begin_with_what_leaves_references_and_then_with_the_long_ones():
    units = arranged("colored-digits", ("irmv1", "erm", "meta-irm"), 2, 2)
    assert [task for unit in units for task in unit] == [
        (name, f"{trial:03d}") for name in ("erm", "meta-irm", "irmv1") for trial in range(2)
    ]


@pytest.mark.parametrize(("processes", "sizes"), [(1, [5]), (2, [3, 2]), (8, [1] * 5)])
def test_small_runs_are_trained_together(processes, sizes):
    assert [len(unit) for unit in arranged("linear-sem", ["vrex"], 5, processes)] == sizes


def test_a_model_without_steps_comes_last_and_alone():
    units = arranged("linear-sem", ["linear", "vrex"], 2, 1)
    assert [[task.method for task in unit] for unit in units] == [
        ["vrex"] * 2,
        ["linear"],
        ["linear"],
    ]


def test_runs_trained_together_agree_with_those_trained_alone():
    work = Work(
        Trials("linear-sem", (), get_recipe("linear-sem"), 0, 60),
        planned("linear-sem", "vrex", steps=60),
    )
    tasks = [Task("vrex", f"{trial:03d}") for trial in range(3)]
    together = run_unit(work, tasks)
    alone = [outcome for task in tasks for outcome in run_unit(work, [task])]
    for one, other in zip(together, alone, strict=True):
        pd.testing.assert_frame_equal(
            one.tables["curves"], other.tables["curves"], rtol=1e-4, atol=1e-4
        )


def test_what_one_would_use_anyway_takes_part_on_a_table(tmp_path):
    request = BenchmarkRequest("linear-sem", ("erm", "linear", "boosting"), trials=2, steps=4)
    made = compare(request, tmp_path / "out", jobs=1)
    chosen = made.results.groupby("method")["selection"].unique()
    assert set(chosen["linear"]) == set(chosen["boosting"]) == set(chosen["erm"])
    page = (made.folder / "report.html").read_text()
    assert "Gradient boosting" in page
    with pytest.raises(OptionError, match="rows of a table for 'linear', got images"):
        compare(replace(TINY, methods=("erm", "linear")), tmp_path / "other", jobs=1)
    assert not (tmp_path / "other").exists()


def test_a_device_that_is_not_there_is_named(tmp_path):
    with pytest.raises(OptionError, match=r"device.*'cuda'|'cuda'.*device"):
        compare(replace(TINY, device="cuda"), tmp_path / "out")
    with pytest.raises(OptionError, match="tpu"):
        compare(replace(TINY, device="tpu"), tmp_path / "out")
    with pytest.raises(UnknownNameError, match="bf16"):
        compare(replace(TINY, precision="bf61"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
