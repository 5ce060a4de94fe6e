"""The chosen models are trained again, and compared."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest

from invlearn.comparison import similarity
from invlearn.comparison.compare import compare
from invlearn.comparison.recipes import get_recipe
from invlearn.comparison.requests import BenchmarkRequest
from invlearn.comparison.runner import Task, Work, run_unit
from invlearn.comparison.similarity import Chosen, measure_similarity
from invlearn.comparison.trials import Trials
from invlearn.datasets import load_benchmark
from invlearn.errors import OptionError
from invlearn.evaluation import evaluate
from invlearn.learning import evaluation_sets
from invlearn.losses import get_loss
from invlearn.methods import get_network, trial_seed

SIZES = (("rows_per_environment", 300), ("test_rows", 300), ("validation_rows", 300))
TRIALS = Trials("colored-digits", SIZES, get_recipe("colored-digits"), 3, 20)
META = get_network("meta-irm")
META = replace(META, plan=get_recipe("colored-digits").plan(META, steps=20))


def test_retrained_model_is_the_chosen_one(monkeypatch):
    kept = []
    train = similarity.train
    monkeypatch.setattr(
        similarity, "train", lambda *a, **k: kept.append(train(*a, **k)) or kept[-1]
    )
    (outcome,) = run_unit(Work(TRIALS, {"meta-irm": META}), [Task("meta-irm", "000")])
    measure_similarity(TRIALS, Chosen(META, "000", 10))

    benchmark = load_benchmark("colored-digits", seed=trial_seed(3, 0), **dict(SIZES))
    found = evaluate(
        kept[0].model,
        evaluation_sets(benchmark.train, benchmark.validation),
        get_loss(benchmark.loss),
    )
    was = outcome.tables["curves"].query("step == 10")
    for m in found:
        row = was[(was["environment"] == m.environment) & (was["split"] == m.split)]
        assert float(row.loc[row["metric"] == m.metric, "value"].iloc[0]) == m.value


def test_similarity_has_both_kinds_for_meta_irm():
    table = measure_similarity(TRIALS, Chosen(META, "000", 5))
    assert set(table["kind"]) == {"inner-step", "representation"}
    inner = table[table["kind"] == "inner-step"]
    assert set(inner["environment"]) == {"p_e=0.1", "p_e=0.2"}
    assert inner["value"].dropna().between(0, 1).all()


def test_compare_writes_similarity_and_keeps_outputs(tmp_path):
    request = BenchmarkRequest(
        "colored-digits",
        ["erm", "meta-irm"],
        trials=1,
        steps=4,
        dataset_options=dict(SIZES),
        keep_outputs=True,
        similarity=1,
    )
    compare(request, tmp_path / "out", jobs=1)
    written = pd.read_csv(tmp_path / "out" / "similarity.csv")
    assert set(written["method"]) == {"erm", "meta-irm"}
    names = sorted(p.name for p in (tmp_path / "out" / "outputs").iterdir())
    assert names == ["erm-000.npz", "meta-irm-000.npz"]


def test_similarity_without_a_competitor_is_left_out(tmp_path):
    request = BenchmarkRequest(
        "colored-digits", ["erm-grayscale"], trials=1, steps=2, similarity=1,
        dataset_options=dict(SIZES),
    )  # fmt: skip
    compare(request, tmp_path / "out", jobs=1)
    assert not (tmp_path / "out" / "similarity.csv").exists()


def test_a_negative_count_is_refused(tmp_path):
    request = BenchmarkRequest("colored-digits", ["erm"], similarity=-1)
    with pytest.raises(OptionError, match="in 0 or more trials, got -1"):
        compare(request, tmp_path / "out")


def test_resume_runs_again_what_lost_its_outputs(tmp_path):
    request = BenchmarkRequest(
        "colored-digits", ["erm"], trials=1, steps=2, dataset_options=dict(SIZES), keep_outputs=True
    )
    lost = []

    def stop(done, total, what):
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare(request, tmp_path / "out", jobs=1, progress=stop)
    for path in (tmp_path / "out").glob(".*/*.npz"):
        path.unlink()
        lost.append(path)
    assert lost
    made = compare(request, tmp_path / "out", jobs=1, resume=True)
    assert "groups-agree" in {rule.name for rule in made.record.rules}


def test_ablation_takes_meta_irms_settings_and_its_own_part():
    recipe = get_recipe("colored-digits")
    whole = recipe.plan(get_network("meta-irm"))
    ablated = recipe.plan(get_network("meta-irm-no-std"))
    assert ablated.settings == whole.settings
    assert ablated.objective == replace(whole.objective, std_weight=0.0)
    assert recipe.plan(get_network("meta-irm-first-order")).objective.first_order
    assert recipe.plan(get_network("meta-irm-same-environment")).objective.same_environment
