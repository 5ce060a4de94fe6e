from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from invlearn.errors import OptionError
from invlearn.reports.drawing import png
from invlearn.reports.figures import draw_all
from invlearn.reports.similarity import (
    draw_similarity,
    inner_step_similarity,
    representation_similarity,
)

LAYERS = ["layers.0", "layers.1", "layers.2"]


@pytest.fixture
def table(similarity):
    return similarity


def title(figure):
    return " ".join(figure.axes[0].get_title().split())


def legend(figure):
    return [entry.get_text() for entry in figure.legends[0].get_texts()]


def bars(container):
    return [float(bar[1][1] - bar[0][1]) / 2 for bar in container.lines[2][0].get_segments()]


def test_inner_step(table, experiment):
    figure = inner_step_similarity(table, experiment.record)
    ax = figure.axes[0]
    assert [label.get_text() for label in ax.get_xticklabels()] == LAYERS
    assert ax.get_xlabel() == "layer, from the input to the output"
    assert ax.get_ylabel() == "PWCCA similarity"
    assert ax.get_ylim() == (0, 1.05)
    assert legend(figure) == ["IRMv1", "V-REx"]
    assert title(figure) == (
        "Similarity of every layer before and after the inner step mean over trials and "
        "training environments, bars one standard deviation selection rule: Risks agree"
    )
    mine = table.query("kind == 'inner-step' and method == 'vrex'").groupby("layer")["value"]
    container = ax.containers[1]
    np.testing.assert_allclose(container.lines[0].get_ydata().astype(float), mine.mean())
    np.testing.assert_allclose(bars(container), mine.std(ddof=0), atol=1e-12)
    shifts = [c.lines[0].get_xdata() - np.arange(3) for c in ax.containers]
    np.testing.assert_allclose(shifts, [[-0.1] * 3, [0.1] * 3])


def test_representation(table, experiment):
    figure = representation_similarity(table, experiment.record)
    ax = figure.axes[0]
    assert ax.get_xlabel() == (
        "test environment compared with p_e=0.1 (p_e: how often color disagrees with the label)"
    )
    assert legend(figure) == ["IRMv1: output", "V-REx: features"]
    assert title(figure) == (
        "Similarity of the representations in p_e=0.1 and in other test environments "
        "mean over trials, bars one standard deviation selection rule: Risks agree"
    )
    first = ax.containers[0]
    np.testing.assert_allclose(first.lines[0].get_xdata().astype(float), np.arange(2, 10) / 10)
    expected = 1 - 0.6 * np.arange(1, 9) / 8 - 0.02
    np.testing.assert_allclose(first.lines[0].get_ydata().astype(float), expected)
    np.testing.assert_allclose(bars(first), np.std([0, 0.02, 0.04]))


def test_a_method_looks_as_in_the_other_figures(table, experiment):
    lines = [c.lines[0] for c in inner_step_similarity(table, experiment.record).axes[0].containers]
    assert [line.get_marker() for line in lines] == ["s", "^"]


def test_named_environments_and_two_representations(table, experiment):
    experiment.change_dataset(test_environments=("north", "south", "west"), target="west")
    table["environment"] = table["environment"].replace({"p_e=0.2": "west", "p_e=0.3": "south"})
    table = table[table["environment"].isin(["south", "west"])]
    more = table[table["kind"] == "representation"].assign(layer="logits")
    figure = representation_similarity(pd.concat([table, more]), experiment.record)
    ax = figure.axes[0]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["south", "west"]
    assert ax.get_xlabel() == "test environment compared with north"
    assert legend(figure) == [
        "IRMv1: output", "IRMv1: logits", "V-REx: features", "V-REx: logits",
    ]  # fmt: skip
    looks = {(str(c.lines[0].get_linestyle()), c.lines[0].get_marker()) for c in ax.containers}
    assert len(looks) == 4


@pytest.mark.parametrize("draw", [inner_step_similarity, representation_similarity])
def test_titles_say_oracle(draw, table, experiment):
    experiment.change(headline="oracle")
    assert "oracle: looked at the test environment" in title(draw(table, experiment.record))


@pytest.mark.parametrize("draw", [inner_step_similarity, representation_similarity])
def test_one_value_has_no_bar_and_nan_is_left_out(draw, table, experiment):
    one = table.query("problem == 0").drop_duplicates(["method", "kind", "layer", "environment"])
    one = one[(one["kind"] == "representation") | (one["environment"] == "p_e=0.1")]
    diverged = one.assign(trial=1, value=float("nan"))
    figure = draw(pd.concat([one, diverged]), experiment.record)
    drawn = figure.axes[0].containers[0].lines[2][0].get_segments()
    assert all(np.isnan(bar).any() or len(bar) == 0 for bar in drawn)
    values = figure.axes[0].containers[0].lines[0].get_ydata().astype(float)
    assert np.isfinite(values).all()
    assert png(figure)


def test_only_the_kinds_that_were_measured(table, experiment):
    record, both = experiment.record, ["inner_step_similarity", "representation_similarity"]
    assert list(draw_similarity(table, record)) == both
    assert list(draw_similarity(table[table["kind"] == "inner-step"], record)) == both[:1]
    assert draw_similarity(table.head(0), record) == {}
    drawn = draw_all(experiment.results, experiment.curves, record, None, table)
    assert list(drawn)[-2:] == both
    with pytest.raises(OptionError, match="missing: kind"):
        draw_similarity(table.drop(columns="kind"), record)


@pytest.mark.parametrize("draw", [inner_step_similarity, representation_similarity])
def test_errors(draw, table, experiment):
    columns = "method, problem, kind, layer, environment, value"
    text = (
        f"Expected similarities with the columns {columns}; missing: problem, layer. "
        "Pass the table as it was made, or read it by read_table."
    )
    with pytest.raises(OptionError, match=f"^{re.escape(text)}$"):
        draw(table.drop(columns=["problem", "layer"]), experiment.record)
    kind = "inner-step" if draw is inner_step_similarity else "representation"
    for rows, got in ((table[table["kind"] != kind], True), (table.head(0), False)):
        other = {"inner-step": "representation", "representation": "inner-step"}[kind]
        text = (
            f"Expected similarities of the kind '{kind}', got {other if got else 'none'}. "
            "Leave this figure out, or measure them first."
        )
        with pytest.raises(OptionError, match=f"^{re.escape(text)}$"):
            draw(rows, experiment.record)
