from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure

from invlearn.reports.drawing import png
from invlearn.reports.figures import (
    accuracy_by_environment,
    agreement,
    draw_all,
    training_curves,
)


def titles(figure: Figure) -> str:
    heads = [figure.get_suptitle(), *(ax.get_title() for ax in figure.axes)]
    return " ".join(" ".join(heads).split())


def legend(figure: Figure) -> list[str]:
    return [entry.get_text() for entry in figure.legends[0].get_texts()]


def test_accuracy_by_environment(experiment):
    figure = accuracy_by_environment(experiment.results, experiment.record, "risks-agree")
    ax = figure.axes[0]
    assert len(ax.containers) == 4
    lines = [container.lines[0] for container in ax.containers]
    looks = {(line.get_marker(), str(line.get_linestyle())) for line in lines}
    assert len(looks) == 4
    mine = experiment.results.query(
        "method == 'erm' and selection == 'risks-agree' and split == 'test' "
        "and metric == 'accuracy'"
    )
    expected = 100 * mine.groupby("environment")["value"].mean()
    np.testing.assert_allclose(lines[0].get_ydata().astype(float), expected)
    assert np.abs(lines[0].get_xdata() - np.arange(1, 10) / 10).max() < 0.02
    assert "how often color disagrees" in ax.get_xlabel()
    assert ax.get_ylabel() == "accuracy in %"
    assert {"trained on", "target", "guessing"} <= set(legend(figure))
    assert "ERM, grayscale (reference, not a competitor)" in legend(figure)
    assert "Risks agree" in titles(figure)
    assert "oracle" not in titles(figure)


@pytest.mark.parametrize("name", ["oracle", "last (oracle hyperparameters)"])
def test_oracle_is_in_the_title(experiment, name):
    figure = accuracy_by_environment(experiment.results, experiment.record, name)
    assert "oracle: looked at the test environment" in titles(figure)


def test_oracle_headline_in_every_title(experiment):
    experiment.change(headline="oracle")
    drawn = draw_all(experiment.results, experiment.curves, experiment.record)
    assert "ORACLE" in titles(drawn["training_curves"])
    assert all("oracle" in titles(figure) for figure in drawn.values())


def test_named_environments(experiment):
    names = {"p_e=0.1": "north", "p_e=0.2": "south", "p_e=0.9": "west"}
    keep = experiment.results["environment"].isin(list(names))
    results = experiment.results[keep].replace({"environment": names})
    experiment.change_dataset(
        training_environments=("north", "south"),
        test_environments=("north", "south", "west"),
        target="west",
    )
    ax = accuracy_by_environment(results, experiment.record, "last").axes[0]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["north", "south", "west"]
    assert ax.get_xlabel() == "test environment"


def test_one_trial_draws_no_bars(build):
    one = build(trials=1)
    ax = accuracy_by_environment(one.results, one.record, "last").axes[0]
    bars = ax.containers[0].lines[2][0].get_segments()
    assert all(np.isnan(bar).any() or len(bar) == 0 for bar in bars)


def test_training_curves(experiment):
    figure = training_curves(experiment.curves, experiment.record, experiment.results)
    panels = [ax for ax in figure.axes if ax.axison]
    assert [ax.get_title().split("\n")[0] for ax in panels] == [
        "ERM", "IRMv1", "V-REx", "ERM, grayscale",
    ]  # fmt: skip
    assert len(panels[0].lines) == 2 * (3 + 1) + 1
    chosen = panels[0].lines[-1]
    assert list(chosen.get_xdata()) == [150, 150, 150]
    assert "the test curves were not used for choosing" in titles(figure)


def test_agreement(experiment):
    figure = agreement(experiment.curves, experiment.record, experiment.results)
    ax = figure.axes[0]
    lines = [line for line in ax.lines if line.get_linestyle() != "None"]
    assert len(lines) == 4
    mine = experiment.curves.query("method == 'erm' and split == 'validation' and metric == 'risk'")
    spread = mine.groupby(["step", "problem"])["value"].std(ddof=0).groupby("step").mean()
    np.testing.assert_allclose(lines[0].get_ydata(), spread, atol=1e-12)


def test_curves_figures_work_without_results(experiment):
    assert png(training_curves(experiment.curves, experiment.record))
    assert png(agreement(experiment.curves, experiment.record))


def test_draw_all_leaves_out_what_there_is_nothing_to_draw_of(experiment):
    curves = experiment.curves
    results, record = experiment.results, experiment.record
    assert set(draw_all(results, curves.head(0), record)) == {"by_environment"}
    without = curves[curves["split"] != "validation"]
    assert set(draw_all(results, without, record)) == {"by_environment", "training_curves"}


def test_nan_values_and_dollars_are_drawn(experiment):
    experiment.change_title(1, "$IRM_{v1")
    for frame in (experiment.results, experiment.curves):
        frame["value"] = frame["value"].mask(frame["method"] == "vrex")
    drawn = draw_all(experiment.results, experiment.curves, experiment.record)
    assert all(png(figure) for figure in drawn.values())


def test_no_pyplot():
    code = "import sys, invlearn.reports; print('matplotlib.pyplot' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
