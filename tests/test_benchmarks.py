"""The benchmarks compare what is equal, and compute what they quote."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from invlearn.environments import EvaluationSet
from invlearn.features import ChannelImages
from invlearn.kernels import linear
from invlearn.means import seeded_generator
from invlearn.models import MLP
from invlearn.objectives import get_objective
from invlearn.training import PenaltySchedule, Settings, Trainer


@pytest.fixture(scope="module", autouse=True)
def benchmarks():
    folder = str(Path(__file__).parent.parent / "benchmarks")
    sys.path.insert(0, folder)
    yield
    sys.path.remove(folder)


def test_made_rows_are_sorted_and_colored():
    import common

    rows = common.make_environments(200, n_envs=3, n_channels=10, n_classes=10, pixels=4)
    assert len(rows) == 3
    for _, x, y in rows:
        assert isinstance(x, ChannelImages)
        assert bool((x.channel[1:] >= x.channel[:-1]).all())
        assert len(x.runs()) == 10
        assert set(y.tolist()) == set(range(10))
        assert 0.7 < (x.channel == y).float().mean() < 0.97


def test_interleaved_takes_turns_and_leaves_warmup_out():
    import common

    seen = []
    seconds = common.interleaved(
        {"a": lambda: seen.append("a"), "b": lambda: seen.append("b")}, repeats=3, warmup=1
    )
    assert "".join(seen) == "abababab"
    assert [len(values) for values in seconds.values()] == [3, 3]
    assert common.median_ratio([2.0, 3.0, 10.0], [1.0, 1.0, 2.0]) == 3.0


def test_peak_rise_sees_a_large_block():
    import common

    assert common.peak_rise(lambda: torch.ones(16 * 2**20)) == pytest.approx(64, abs=24)


@pytest.mark.parametrize("classes", [2, 10])
def test_the_published_step_is_the_exact_one(monkeypatch, classes):
    import common
    import step

    monkeypatch.setattr(step, "HIDDEN", 16)
    problem = step.Problem(300, classes)
    problem.exact()
    problem.plain()
    assert common.gradient_difference(problem.model, problem.dense_model) < 1e-4
    assert problem.drift() < 1e-4


def test_needed_operations_are_counted(monkeypatch):
    import step

    # Forward and weights; then forward, weights and inputs of both other layers.
    assert step.needed_operations(7, (5, 3, 3, 2)) == 2 * 7 * (2 * 15 + 3 * 9 + 3 * 6)
    multiplied = []

    def multiply(x, weight):
        multiplied.append(2 * len(x) * weight.numel())
        return linear(x, weight)

    monkeypatch.setattr(step, "HIDDEN", 8)
    step.products(multiply, 5_000)
    assert sum(multiplied) == step.product_operations(5_000)


@pytest.mark.parametrize("power", [1, 2])
def test_slope_reads_the_upper_half(power):
    import growth

    sizes = [10, 100, 1_000, 10_000]
    assert growth.slope(sizes, [99.0, 98.0, 3e3**power, 3e4**power]) == pytest.approx(power)
    assert growth.slope([10], [1.0]) is None


def test_growth_compares_equal_gradients():
    import growth

    assert growth.check_equal(growth.make_rows(50)) < 1e-4
    assert growth.row_sizes(10**6) == [1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 500_000]


def test_growth_measures_every_axis_and_draws_them(tmp_path):
    import growth
    import growth_figures

    record = {
        "rows": growth.sweep("rows", [20, 40], growth.row_calls, 1),
        "environments": growth.sweep("environments", [2, 3], small_environments, 1),
        "width": {"erm": {"sizes": [32, 64], "seconds": [0.1, 0.2], "slope": 1.0}},
        "runs": growth.measure_runs([1, 2], 1, steps=2),
        "memory": {"wide": {"irmv1": {"sizes": [10, 20], "extra_mib": [1.0, 2.0]}}},
        "memory_budget_mib": {"wide": 256.0},
    }
    assert set(record["rows"]) == {*growth.OBJECTIVES, growth.PLAIN}
    assert set(record["environments"]) == {*growth.OBJECTIVES, *growth.ONE_PAIR}
    assert all(min(line["seconds"]) > 0 for line in record["rows"].values())
    assert len(record["runs"]) == 4
    line = record["runs"]["linear, stacked"]
    assert line["seconds_per_run_step"][1] == pytest.approx(line["seconds"][1] / 4)
    assert growth.measure_memory("irmv1", 300, (8,), growth.BUDGET, 1) >= 0
    paths = growth_figures.draw_all(record, tmp_path)
    assert len(paths) == 5
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)


def small_environments(size):
    import growth

    rows = growth.make_rows(20, size)
    objectives = growth.OBJECTIVES | growth.ONE_PAIR
    return {name: growth.stepper(growth.make_trainer(o, rows)) for name, o in objectives.items()}


def test_meta_step_compares_equal_gradients(monkeypatch):
    import meta_step
    from common import make_environments

    monkeypatch.setattr(meta_step, "HIDDEN", 8)
    rows = make_environments(60)
    names = [name for name in meta_step.VARIANTS if not name.startswith("TorchOpt")]
    steps = {name: meta_step.VARIANTS[name](rows) for name in names}
    seconds, apart = meta_step.measure_time(steps, 1)
    assert apart < 1e-4
    assert [len(values) for values in seconds.values()] == [1] * len(names)


def test_the_published_loop_is_its_schedule_by_the_library(monkeypatch):
    import common
    import time_to_result

    monkeypatch.setattr(time_to_result, "HIDDEN", (8,))
    monkeypatch.setattr(time_to_result, "ANNEAL", 2)
    rows = common.make_environments(100, pixels=6)
    test = EvaluationSet.from_environments(rows, "test")
    data = SimpleNamespace(train=rows, validation=rows, test=test, loss="logistic")
    plain, recorder = time_to_result.plain_loop(data, seed=3, steps=4)
    assert recorder.steps == [0, 4]
    model = MLP(12, (8,), generator=seeded_generator(3, 1))
    objective = get_objective("irmv1", penalty_weight=time_to_result.WEIGHT)
    settings = Settings(
        steps=4,
        lr=time_to_result.LR,
        l2=0.00110794568,
        schedule=PenaltySchedule("step", start=2, before=1.0, at_anneal="rescale"),
    )
    Trainer(model, rows, objective, "logistic", settings=settings).run()
    for mine, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-5)


def test_time_to_result_needs_data(monkeypatch):
    import time_to_result

    monkeypatch.delenv("INVLEARN_DATA", raising=False)
    monkeypatch.setattr(sys, "argv", ["time_to_result.py"])
    with pytest.raises(SystemExit, match="INVLEARN_DATA"):
        time_to_result.main()


def test_time_to_result_averages_trials():
    import time_to_result

    trials = [
        {
            "seed": s,
            "seconds": 2.0 + s,
            "accuracy": {
                rule: dict.fromkeys(time_to_result.SHOWN, 65.0 + s + i)
                for i, rule in enumerate(time_to_result.RULES)
            },
        }
        for s in (2, 0)
    ]
    found = time_to_result.side(trials, 8.0)
    honest, oracle = time_to_result.RULES
    assert found["mean_accuracy"][honest]["p_e=0.9"] == 66.0
    assert found["mean_accuracy"][oracle]["p_e=0.9"] == 67.0
    assert found["reaches_target"] == {honest: True, oracle: True}
    assert (found["mean_training_seconds"], found["wall_seconds_per_trial"]) == (3.0, 4.0)


def test_the_table_says_what_was_met_missed_or_not_measured():
    runner = importlib.import_module("all")
    record = {
        "ratio_median": 2.6257,
        "fraction_of_product_rate": 0.5,
        "ten_class_over_two_class": 1.4,
        "machine": "one",
        "threads": 2,
        "commit": "",
        "started": "now",
    }
    text = runner.table({"step": record})
    assert "| at least 1.9 | 2.63 | met |" in text
    assert "| at most 1.3 | 1.4 | **missed** |" in text
    assert "| at least 0.8 | 0.5 | **missed** |" in text
    assert "not measured" in text


def test_an_interrupted_commands_words_are_held_to_its_folder(tmp_path):
    import interrupt

    work = tmp_path / ".invlearn-unfinished"
    work.mkdir()
    (work / "vrex-000.run.json").write_text("{}")
    script = (
        "import time\ntry:\n    time.sleep(600)\nexcept KeyboardInterrupt:\n"
        "    print('One finished run is kept in OUT')\n    raise SystemExit(130)"
    )
    found = interrupt.interrupt([sys.executable, "-c", script], tmp_path, 1.5, group=True)
    assert (found["exit"], found["runs kept"], found["said truly"]) == (130, 1, True)
    assert (found["ended before"], found["processes left"]) == (False, 0)
    (work / "vrex-001.run.json").write_text("{}")
    found = interrupt.interrupt([sys.executable, "-c", script], tmp_path, 1.5, group=False)
    assert (found["runs kept"], found["said truly"]) == (2, False)
