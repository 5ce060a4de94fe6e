from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from invlearn.errors import OptionError, UnknownNameError
from invlearn.reports.drawing import png
from invlearn.reports.figures import draw_all
from invlearn.reports.statistic import describe, selection_statistic
from invlearn.results import ORACLE_SUFFIX


def title(figure):
    return " ".join(figure.get_suptitle().split())


def legend(figure):
    return [entry.get_text() for entry in figure.legends[0].get_texts()]


def panels(figure):
    return {ax.get_title().split("\n")[0]: ax for ax in figure.axes if ax.axison}


def marks(ax, symbol):
    found = [line for line in ax.lines if line.get_marker() == symbol]
    return [tuple(point) for line in found for point in line.get_xydata()]


def band(ax):
    points = ax.collections[0].get_paths()[0].vertices
    return points[:, 1].min(), points[:, 1].max()


def test_one_panel_per_method(experiment, statistics):
    figure = selection_statistic(statistics, experiment.record, experiment.results)
    assert list(panels(figure)) == ["ERM", "IRMv1", "V-REx", "ERM, grayscale"]
    assert title(figure) == (
        "What the rule sees while training; only training environments were read "
        "selection rule: Risks agree"
    )
    label = " ".join(figure.get_supylabel().split())
    assert label == "error here, less error there (logarithmic outside the band)"
    assert legend(figure) == [
        "small enough for the rule", "one trial", "chosen step, per trial",
        "no step satisfied the rule: last step",
    ]  # fmt: skip


def test_lines_band_and_marks(statistics, experiment):
    axes = panels(selection_statistic(statistics, experiment.record))
    ax = axes["IRMv1"]
    lines = [line for line in ax.lines if len(line.get_xdata()) == 5]
    assert len(lines) == 3
    np.testing.assert_allclose(lines[1].get_ydata(), [0.91, 0.61, 0.31, 0.01, -0.29])
    np.testing.assert_allclose(band(ax), (-0.02, 0.02))
    np.testing.assert_allclose(marks(ax, "o"), [(150, 0), (150, 0.01), (150, 0.02)], atol=1e-12)
    assert marks(ax, "X") == []


def test_unsatisfied_runs_are_marked_otherwise(statistics, experiment):
    axes = panels(selection_statistic(statistics, experiment.record))
    assert marks(axes["ERM"], "o") == []
    np.testing.assert_allclose(marks(axes["ERM"], "X"), [(200, 0.9)] * 3)
    np.testing.assert_allclose(marks(axes["V-REx"], "X"), [(150, 0.01)])
    assert len(marks(axes["V-REx"], "o")) == 2


def test_noted_runs_are_not_drawn(statistics, experiment):
    ax = panels(selection_statistic(statistics, experiment.record))["ERM, grayscale"]
    assert [line for line in ax.lines if len(line.get_xdata()) == 5] == []
    (words,) = [" ".join(text.get_text().split()) for text in ax.texts]
    assert words == "not drawn, trials 0, 1, 2: not identifiable from these environments"
    experiment.change(said=experiment.record.said[:1])
    ax = panels(selection_statistic(statistics, experiment.record))["ERM, grayscale"]
    assert len([line for line in ax.lines if len(line.get_xdata()) == 5]) == 2
    assert ax.texts[0].get_text().startswith("not drawn, trial 0:")
    experiment.change(said=())
    ax = panels(selection_statistic(statistics, experiment.record))["ERM, grayscale"]
    assert len(ax.texts) == 0


def test_the_band_of_a_statistic_of_one_sign_starts_at_zero(statistics, experiment):
    statistics["value"] = statistics["value"].abs()
    ax = panels(selection_statistic(statistics, experiment.record))["IRMv1"]
    np.testing.assert_allclose(band(ax), (0, 0.02))
    assert -0.02 < ax.get_ylim()[0] < 0
    assert (ax.get_yticks() >= 0).all()


def test_early_steps_do_not_squash_the_crossing(statistics, experiment):
    many = pd.concat([statistics.assign(step=statistics["step"] + 1000 * k) for k in range(20)])
    many["chosen"] &= many["step"] <= 200
    start = many["method"].eq("irmv1") & many["problem"].eq(0) & many["step"].eq(0)
    many.loc[start.to_numpy(), "value"] = 1e6
    ax = panels(selection_statistic(many, experiment.record))["IRMv1"]
    assert ax.get_ylim()[1] < 3
    assert ax.get_yscale() == "symlog"
    bottom, top = ax.get_ylim()
    height = ax.transAxes.inverted().transform(ax.transData.transform([(0, -0.02), (0, 0.02)]))
    assert bottom < -0.02 < 0.02 < top
    assert height[1, 1] - height[0, 1] > 0.1


def test_an_error_without_a_bound_is_drawn_where_it_comes_down_to(statistics, experiment):
    falling = statistics.assign(bound=np.nan, value=0.3 + 0.4 / (1 + statistics["step"]))
    ax = panels(selection_statistic(falling, experiment.record))["IRMv1"]
    bottom, _ = ax.get_ylim()
    assert 0.2 < bottom < 0.3 + 0.4 / (1 + falling["step"].max())
    assert not describe(falling, experiment.record).bounded
    assert describe(statistics, experiment.record).bounded


def test_no_bound_no_band(statistics, experiment):
    figure = selection_statistic(statistics.assign(bound=np.nan), experiment.record)
    ax = panels(figure)["IRMv1"]
    assert len(ax.collections) == 0
    assert ax.get_yscale() == "linear"
    assert "logarithmic" not in figure.get_supylabel()
    assert "small enough for the rule" not in legend(figure)
    assert png(figure)


@pytest.mark.parametrize("how", ["rule", "recipe", "suffix"])
def test_titles_say_oracle(how, experiment, statistics):
    if how == "rule":
        experiment.change_rule(oracle=True)
    elif how == "recipe":
        experiment.tune_on_the_test_environment()
    else:
        statistics["selection"] += ORACLE_SUFFIX
        experiment.results["selection"] += ORACLE_SUFFIX
    for results in (None, experiment.results):
        said = title(selection_statistic(statistics, experiment.record, results))
        assert "ORACLE: the test environment was looked at for choosing" in said
        assert "oracle: looked at the test environment" in said
        assert "only training environments" not in said


def test_object_columns_nan_and_missing_words(statistics, experiment):
    statistics["value"] = statistics["value"].mask(statistics["method"] == "erm")
    statistics.loc[1, "value"] = np.inf
    experiment.change_rule(statistic="")
    experiment.change_title(1, "$IRM_{v1")
    figure = selection_statistic(statistics.astype(object), experiment.record)
    assert figure.get_supylabel().startswith("the rule's statistic")
    assert png(figure)
    everything = statistics.assign(value=np.nan)
    assert png(selection_statistic(everything, experiment.record))


def test_describe(experiment, statistics):
    words = describe(statistics, experiment.record, experiment.results)
    assert words.statistic == "error here, less error there"
    assert words.sentences == (
        "ERM: step 200; no step satisfied the rule in 3 of 3 trials.",
        "IRMv1: step 150.",
        "V-REx: step 150; no step satisfied the rule in 1 of 3 trials.",
        "ERM, grayscale: not drawn, trials 0, 1, 2: not identifiable from these environments.",
    )
    assert words.crosses
    statistics["value"] = statistics["value"].abs()
    moved = statistics["step"].replace({150: 100}).where(statistics["problem"] == 0)
    words = describe(statistics.assign(step=moved.fillna(statistics["step"])), experiment.record)
    assert words.sentences[1] == "IRMv1: steps 100 to 150."
    assert not words.crosses


def test_errors(experiment, statistics):
    text = (
        "Expected the statistic of the rule 'risks-agree' along the steps, found none. "
        "Leave this figure out."
    )
    other = statistics[statistics["selection"] == "other"]
    with pytest.raises(OptionError, match=f"^{re.escape(text)}$"):
        selection_statistic(other, experiment.record, experiment.results)
    with pytest.raises(UnknownNameError, match="headline selection"):
        selection_statistic(other, experiment.record)


def test_it_takes_the_place_of_agreement(experiment, statistics):
    results, curves = experiment.results, experiment.curves
    drawn = draw_all(results, curves, experiment.record, statistics)
    assert list(drawn) == ["by_environment", "training_curves", "selection_statistic"]
    other = statistics[statistics["selection"] == "other"]
    for without in (None, other, statistics.head(0)):
        drawn = draw_all(results, curves, experiment.record, without)
        assert list(drawn) == ["by_environment", "training_curves", "agreement"]
