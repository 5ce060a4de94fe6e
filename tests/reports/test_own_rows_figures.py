"""The figures of a comparison on a user's own rows."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from invlearn.reports.drawing import png
from invlearn.reports.own_rows_figures import (
    by_environment,
    descriptions,
    short_names,
    spread,
    worst_against_mean,
)
from invlearn.results import MethodInfo
from reports.made import CONTENDERS, HOSPITALS, failed_in, make_found, shown


def test_by_environment_draws_every_number():
    found = make_found(HOSPITALS)
    figure = by_environment(shown(found))
    ax = figure.axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == list(HOSPITALS)
    legend = [entry.get_text() for entry in figure.legends[0].get_texts()]
    assert legend == [
        "ERM, linear (usual)", "Gradient boosting (usual)", "Group DRO (usual)", "IRMv1", "V-REx"
    ]  # fmt: skip
    lines = ax.get_lines()
    drawn = np.array([line.get_xdata()[0] for line in lines]).reshape(5, 5)
    order = [found.number(c.name) for c in shown(found).methods]
    np.testing.assert_allclose(drawn, 100 * found.values[:, order])
    heights = np.array([line.get_ydata()[0] for line in lines]).reshape(5, 5)
    assert (np.diff(heights.ravel()) > 0).all()
    np.testing.assert_array_equal(np.round(heights), np.arange(5)[:, None] * np.ones(5))
    first = ax.collections[0].get_segments()[0]
    low, high = np.quantile(found.draws[:, 0, order[0]], [0.025, 0.975])
    np.testing.assert_allclose(first[:, 0], [100 * low, 100 * high])
    assert ax.get_ylim()[0] > ax.get_ylim()[1]
    markers = {line.get_marker() for line in lines}
    assert len(markers) == 5
    hollow = [line.get_markerfacecolor() == "white" for line in lines[:5]]
    assert hollow == [True, True, True, False, False]


def test_ten_methods_look_different():
    contenders = [
        MethodInfo(f"m{i}", f"Method {i}", "usual" if i < 3 else "invariant", "") for i in range(10)
    ]
    found = make_found(HOSPITALS, contenders)
    lines = by_environment(shown(found)).axes[0].get_lines()[:10]
    assert len({(line.get_marker(), line.get_color()) for line in lines}) == 10
    # Without color the shape and whether it is filled are left; the legend's order is the bands'.
    assert len({(line.get_marker(), line.get_markerfacecolor()) for line in lines}) == 10


def test_figures_grow_with_what_they_hold():
    small = by_environment(shown(make_found({"a": 0.8, "b": 0.7}, CONTENDERS[:2], rows=20)))
    large = by_environment(shown(make_found({f"e{i}": 0.7 for i in range(40)}, rows=20)))
    per_line = 72 * (large.get_figheight() - 1.6) / (40 * 5)
    assert small.get_figheight() < 3
    assert per_line > 6  # points: a marker's size, so that markers do not overlap
    assert large.axes[0].xaxis.get_tick_params()["labeltop"]
    assert not small.axes[0].xaxis.get_tick_params().get("labeltop", False)


def label_boxes(figure: Figure) -> list[Bbox]:
    # Of the words alone: an annotation's own extent has its line to the point in it.
    return [Text.get_window_extent(text) for text in figure.axes[0].texts]


def assert_apart(boxes: list[Bbox]) -> None:
    edges = sorted((box.y0, box.y1) for box in boxes)
    assert all(below[1] <= above[0] for below, above in pairwise(edges))


@pytest.mark.parametrize("metric", ["accuracy", "RMSE"])
def test_worst_against_mean(metric):
    found = make_found(HOSPITALS, metric=metric)
    figure = worst_against_mean(shown(found))
    ax = figure.axes[0]
    scale = 100 if metric == "accuracy" else 1
    for line, text in zip(ax.get_lines(), shown(found).methods, strict=True):
        assert line.get_xdata()[0] == pytest.approx(scale * found.mean(text.name).value)
        assert line.get_ydata()[0] == pytest.approx(scale * found.worst(text.name).value)
    figure.draw_without_rendering()
    names = {text.get_text(): text for text in ax.texts}
    assert set(names) == {
        "ERM, linear (usual)", "Gradient boosting (usual)", "Group DRO (usual)", "IRMv1", "V-REx"
    }  # fmt: skip
    boxes = label_boxes(figure)
    assert_apart(boxes)
    inside = figure.get_window_extent()
    assert all(box.x1 <= inside.x1 and box.y0 >= 0 and box.y1 <= inside.y1 for box in boxes)
    better = "accuracy in %" if metric == "accuracy" else "RMSE, lower is better"
    assert ax.get_xlabel() == f"mean over environments: {better}"


def test_many_labels_at_one_place_do_not_overlap():
    contenders = [MethodInfo(f"m{i}", f"Method {i}", "invariant", "") for i in range(12)]
    figure = worst_against_mean(shown(make_found({"a": 0.8, "b": 0.7}, contenders, rows=30)))
    figure.draw_without_rendering()
    assert_apart(label_boxes(figure))


def test_spread_keeps_order_gap_and_range():
    rng = np.random.default_rng(0)
    for _ in range(50):
        wanted = sorted(rng.uniform(-0.1, 1.1, 7))
        places = np.array(spread(wanted, 0.15))
        assert np.diff(places).min() >= 0.15 - 1e-12
        assert places.max() <= 1
        assert places.min() >= -1e-12
    assert spread([0.1, 0.5, 0.9], 0.2) == [0.1, 0.5, 0.9]


def test_an_interval_that_leaves_its_number_out_is_drawn():
    # The worst of many environments in drawn rows lies below the worst in the rows.
    found = make_found({f"e{i}": 0.8 for i in range(30)}, rows=30)
    found = replace(found, draws=np.minimum(found.draws, found.values.min() - 0.05))
    assert found.worst("erm").high < found.worst("erm").value
    for figure in (by_environment(shown(found)), worst_against_mean(shown(found))):
        assert png(figure).startswith(b"\x89PNG")


def test_axes_do_not_inflate_small_differences():
    found = make_found({"a": 0.8, "b": 0.8})
    same = replace(found, values=np.full((2, 5), 0.8), draws=np.full((200, 2, 5), 0.8))
    for figure in (by_environment(shown(same)), worst_against_mean(shown(same))):
        low, high = figure.axes[0].get_xlim()
        assert high - low == pytest.approx(10)
    right = replace(found, values=np.ones((2, 5)), draws=np.ones((200, 2, 5)))
    assert by_environment(shown(right)).axes[0].get_xlim()[1] == 102


def test_short_names():
    long = "St. Mary's Hospital of the Southern District"
    assert short_names(["north", long]) == ["north", "St. Mary's Hos…rn District"]
    alike = [f"Northern Hospital {x} of the City" for x in ("1", "10")]
    assert short_names(alike) == ["…1 of the City", "…10 of the City"]
    hidden = [f"{'n' * 20}{x}{'s' * 20}" for x in "ab"]
    assert short_names([*hidden, "c"]) == ["no. 1", "no. 2", "c"]
    assert short_names(["a b", "北京", "c\x00"]) == ["a b", "no. 2", "no. 3"]
    assert short_names(["a b", "a  b"]) == ["no. 1", "no. 2"]
    assert short_names(["a\n b", "Zürich", "Łódź"]) == ["a b", "Zürich", "Łódź"]


def words_in(figure: Figure) -> list[str]:
    figure.draw_without_rendering()
    return [text.get_text() for text in figure.axes[0].texts]


@pytest.mark.parametrize("metric", ["accuracy", "RMSE"])
def test_a_failed_method_is_said_and_bends_no_axis(metric):
    found = make_found(HOSPITALS, metric=metric)
    failed = failed_in(found, ("Porto", "vrex"), ("Zadar", "vrex"))
    dots = by_environment(shown(failed))
    ax = dots.axes[0]
    assert words_in(dots) == ["V-REx: failed"] * 2
    heights = [text.get_position()[1] for text in ax.texts]
    assert [round(height) for height in heights] == [2, 4]
    assert heights == [line.get_ydata()[0] for line in ax.get_lines()[14::10]]
    assert np.isfinite(ax.get_xlim()).all()
    assert len(ax.collections) == 23
    assert "V-REx" in [entry.get_text() for entry in dots.legends[0].get_texts()]
    both = worst_against_mean(shown(failed))
    names = words_in(both)
    assert "V-REx: failed" in names
    assert len(names) == 5
    assert len(both.axes[0].get_lines()) == 4
    # Its label is beyond the worst point, which is on the other side for errors.
    assert names.index("V-REx: failed") == (0 if metric == "accuracy" else 4)
    assert_apart(label_boxes(both))
    words = descriptions(shown(failed))
    assert "V-REx: worst failed in Porto, mean failed" in words["worst_against_mean"]
    assert "failed in Porto" in words["by_environment"]
    assert "nan" not in " ".join(words.values())


def test_all_methods_may_have_failed():
    found = make_found({"a": 0.8, "b": 0.7})
    failed = failed_in(found, *((e, c.name) for e in "ab" for c in CONTENDERS))
    assert len(words_in(by_environment(shown(failed)))) == 10
    assert len(words_in(worst_against_mean(shown(failed)))) == 5
    for figure in (by_environment(shown(failed)), worst_against_mean(shown(failed))):
        assert png(figure).startswith(b"\x89PNG")


def test_one_environment():
    found = make_found({"Zadar": 0.45})
    assert by_environment(shown(found)).legends[0].get_title().get_text() == (
        "The environment left out, with 95 % intervals"
    )
    words = descriptions(shown(found))["by_environment"]
    assert words.startswith("Dot plot of the accuracy of every method in the one left-out envir")
    others = [MethodInfo(f"m{i}", f"Method {i}", "invariant", "") for i in range(70)]
    assert (
        "Method 69: " in descriptions(shown(make_found({"Zadar": 0.4}, others)))["by_environment"]
    )
