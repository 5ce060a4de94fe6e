from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from invlearn.diagnostics.findings import Finding
from invlearn.diagnostics.held_out import METRICS, Contender, HeldOut, compare_errors
from invlearn.errors import OutputError, UnknownNameError
from invlearn.reports.drawing import png
from invlearn.reports.own_rows import OwnRows, render, write_own_rows
from invlearn.reports.own_rows_figures import (
    by_environment,
    in_order,
    short_names,
    spread,
    worst_against_mean,
)
from invlearn.reports.verdict import verdict

EVIL = "<script>alert(1)</script>"
PIXEL = b"\x89PNG not a real one"
CONTENDERS = (
    Contender("irmv1", "IRMv1", "invariant", "Penalizes a final layer that is not best in each."),
    Contender("erm", "ERM, linear", "usual", "Ordinary training on the pooled rows."),
    Contender("vrex", "V-REx", "invariant", "Penalizes unequal risks."),
    Contender("boosting", "Gradient boosting", "usual", "Trees, each mending the last."),
    Contender("group-dro", "Group DRO", "usual", "Weights the worst environment."),
)
HOSPITALS = {"Bergen": 0.8, "Leiden": 0.78, "Porto": 0.83, "Turku": 0.76, "Zadar": 0.45}


def share_right(name: str, level: float, helps: bool) -> float:
    """What a method reaches where the shortcut is worth `level`."""
    causal = 0.72 if helps else 0.5
    return {
        "erm": level,
        "boosting": level + 0.01,
        "group-dro": 0.6 * level + 0.2,
        "irmv1": 0.15 * level + 0.85 * causal,
        "vrex": 0.3 * level + 0.7 * causal - 0.02,
    }.get(name, 0.5 * level + 0.3)


def make_found(
    levels: dict[str, float],
    contenders: Sequence[Contender] = CONTENDERS,
    metric: str = "accuracy",
    helps: bool = True,
    rows: int = 400,
) -> HeldOut:
    rng = np.random.default_rng(0)
    errors = {}
    for name, level in levels.items():
        right = np.array([share_right(c.name, level, helps) for c in contenders])
        if metric == "RMSE":
            errors[name] = (rng.normal(size=(rows, 1)) * (2 - right)) ** 2
        else:
            errors[name] = (rng.random((rows, 1)) > right).astype(float)
    shares = {name: np.ones(rows) for name in levels}
    return compare_errors(errors, shares, contenders, METRICS[metric], draws=200)


def make_content(found: HeldOut | None = None) -> OwnRows:
    """A comparison of five methods in five hospitals, in the third of which a shortcut fails."""
    found = make_found(HOSPITALS) if found is None else found
    effects = pd.DataFrame(
        {
            "feature": ["coughs", "scanner"] + [f"blood value {i}" for i in range(8)],
            **{f"effect in {e}": np.linspace(1.2, -0.9, 10) for e in found.environments[:5]},
            "verdict": ["flips"] * 2 + ["steady"] * 8,
        }
    )
    profile = pd.DataFrame(
        {
            "environment": ["Bergen", "Zadar"],
            "rows": [1400, 400],
            "risk": [0.51234, np.nan],
            "largest weight": [12345.6, 1.0],
            "new": [True, False],
        }
    )
    return OwnRows(
        title="hospitals.csv",
        target="ill",
        environment="hospital",
        task="classification" if found.metric.higher_is_better else "regression",
        classes=("healthy", "ill") if found.metric.higher_is_better else (),
        found=found,
        verdict=verdict(found),
        findings=(
            Finding("collapse", "The model says something", "It does.", "Nothing to do.", "good",
                    pd.DataFrame()),
            Finding("risk-profile", "How the risk differs", "Zadar is harder than the others.",
                    "Look at how its rows were collected.", "note", profile),
            Finding("calibration", "Probabilities are too sure",
                    "Of those said to be ill with 90 %, 70 % are.", "Recalibrate in each hospital.",
                    "warning", pd.DataFrame()),
            Finding("feature-effects", "Which columns change their meaning between environments",
                    "The effect of 'scanner' changes its sign: it has +1.20 in 'Bergen' and -0.90 "
                    "in 'Zadar'.", "Ask how these columns come about, and train without them as a "
                    "comparison.", "warning", effects),
        ),
        columns={"age": "number", "scanner": "category", "admitted": "date", "coughs": "number",
                 "patient": "left out: a different value in every row"},
        notes=("3 of 2,003 rows had no value of “ill” and were dropped.",),
        settings={"irmv1": {"penalty weight": "chosen by leaving environments out: 100, 100, 10",
                            "steps": "600"},
                  "erm": {"weight decay": "0.001"}},
        next_command="invlearn fit hospitals.csv --target ill --environment hospital "
        "--method irmv1 --out model",
        provenance={"command": "invlearn compare hospitals.csv --target ill --environment hospital",
                    "version": "0.1.0", "commit": "", "machine": "x86_64, 2 cores",
                    "started": "2025-01-01T00:00:00Z", "seconds": "3754.2", "seed": "0"},
    )  # fmt: skip


def page(content: OwnRows) -> str:
    return render(content, {"by_environment": PIXEL, "worst_against_mean": PIXEL})


class Page(HTMLParser):
    """Tags with their attributes, the words that are seen, and each table's cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[list[list[str]]] = []
        self.open: list[str] = []
        self.words = ""
        self.feed(text)
        assert self.open == []
        self.words = " ".join(self.words.split())
        self.tables = [
            [[" ".join(cell.split()) for cell in row] for row in table] for table in self.tables
        ]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "img", "br"}:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in {"th", "td"}:
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        self.words += data
        if {"th", "td"} & set(self.open):
            self.tables[-1][-1][-1] += data

    def rows_of(self, column: str) -> list[list[str]]:
        """The table whose first column is headed so."""
        return next(table for table in self.tables if table[0][0] == column)


def test_the_page_is_self_contained_and_accessible():
    text = page(make_content())
    tags = Page(text).tags
    names = [tag for tag, _ in tags]
    assert not {"script", "link", "iframe"} & set(names)
    assert "url(" not in text
    assert "http" not in text
    assert names.count("caption") == names.count("table") == 5
    assert names.count("img") == 2
    assert names.count("h1") == 1
    for tag, attributes in tags:
        if "src" in attributes:
            assert str(attributes["src"]).startswith("data:image/png;base64,")
        if tag == "th":
            assert attributes["scope"] in {"row", "col", "rowgroup"}
    identifiers = {attributes["id"] for _, attributes in tags if "id" in attributes}
    anchors = {str(attributes["href"])[1:] for _, attributes in tags if "href" in attributes}
    assert anchors <= identifiers


def test_it_is_told_in_order():
    words = Page(page(make_content())).words
    story = [
        "Yes: invariance training helps on these rows.",
        "Recommended: IRMv1",
        "misleads in others.",
        "'scanner' changes its sign",
        "Each method in each environment it had not seen",
        "The worst environment against the mean",
        "What looks suspicious",
        "Probabilities are too sure warning",
        "How the risk differs note",
        "The model says something looks good",
        "Each of the 5 environments was left out in turn.",
        "drawing the measured rows again with replacement, 200 times",
        "penalty weight: chosen by leaving environments out: 100, 100, 10",
        "3 of 2,003 rows had no value",
        "Train IRMv1 on the rows of all environments:",
        "invlearn fit hospitals.csv",
        "When not to trust this. The worst of 5 environments, which are few,",
        "invlearn compare hospitals.csv",
        "1:02:34",
    ]
    # The contents at the top name some of it too.
    places = [words.index(part, words.index("The answer")) for part in story[:4]]
    places += [words.rindex(part) for part in story[4:]]
    assert places == sorted(places)


def test_that_it_does_not_help_is_said_first():
    content = make_content(make_found(HOSPITALS, helps=False))
    words = Page(page(content)).words
    assert not content.verdict.helps
    best = content.found.contenders[content.found.number(content.verdict.recommended)]
    assert best.kind == "usual"
    first = words.index("No: invariance training does not clearly help on these rows.")
    assert first < words.index(content.verdict.headline)
    assert f"Recommended: {best.title}, the usual method that is enough here." in words
    assert "Yes:" not in words


@pytest.mark.parametrize("metric", ["accuracy", "RMSE"])
def test_the_table_holds_every_number_and_marks_the_best(metric):
    found = make_found(HOSPITALS, metric=metric)
    rows = Page(page(make_content(found))).rows_of("method")
    assert rows[0][1].startswith("worst")
    assert [name.split()[0] for name in rows[0][3:]] == list(HOSPITALS)
    assert rows[0][3] == "Bergen 400 rows"
    assert rows[1][0] == "Usual methods"
    assert rows[5][0] == "Invariant methods"
    shown = rows[2:5] + rows[6:]
    order = ["erm", "boosting", "group-dro", "irmv1", "vrex"]
    assert [c.name for c in in_order(found)] == order
    values = found.values[:, [found.number(name) for name in order]]
    better = 1 if metric == "accuracy" else -1
    worst = better * (better * values).min(0)
    numbers = np.vstack([worst, values.mean(0), values])
    for column, (line, name) in enumerate(
        zip(numbers, ["worst", "mean", *HOSPITALS], strict=True), start=1
    ):
        winner = int((better * line).argmax())
        for m, value in enumerate(line):
            cell = shown[m][column].removeprefix("★ ")
            assert cell.startswith(found.metric.show(value))
            if found.metric.show(value) != found.metric.show(line[winner]):
                assert not shown[m][column].startswith("★")
            if name == "worst":
                assert cell.endswith(f" in {found.worst_environment(order[m])}")
        assert shown[winner][column].startswith("★ ")
    low, high = np.quantile(found.draws[:, 4, found.number("erm")], [0.025, 0.975])
    assert shown[0][7].endswith(f"{found.metric.show(low)} to {found.metric.show(high)}")


def test_equal_numbers_are_both_best():
    found = make_found({"a": 0.8, "b": 0.7}, CONTENDERS[:2])
    values = np.repeat(found.values[:, :1], 2, axis=1)
    rows = Page(page(make_content(replace(found, values=values)))).rows_of("method")
    assert all(cell.startswith("★") for row in (rows[2], rows[4]) for cell in row[1:])


def test_pictures_are_described_in_numbers():
    content = make_content()
    alts = [attributes["alt"] for tag, attributes in Page(page(content)).tags if tag == "img"]
    show = content.found.metric.show
    zadar = content.found.cell("Zadar", "erm")
    said = f"{show(zadar.value)} ({show(zadar.low)} to {show(zadar.high)})"
    assert f"{said} in Zadar" in str(alts[0])
    assert f"ERM, linear: worst {said} in Zadar, mean " in str(alts[1])
    many = make_found({f"clinic {i}": 0.7 for i in range(40)})
    alts = [attributes["alt"] for tag, attributes in Page(page(make_content(many))).tags
            if tag == "img"]  # fmt: skip
    assert "The table has every number" in str(alts[0])
    assert len(str(alts[0])) < 1000


def test_the_shortcut_stands_alone_only_as_a_warning():
    content = make_content()
    text = page(content)
    assert text.count("Which columns change their meaning between environments <span") == 1
    for level in ("note", "good"):
        calm = replace(content.findings[-1], level=level)
        text = page(replace(content, findings=(*content.findings[:-1], calm)))
        assert 'id="shortcut"' not in text
        assert 'href="#shortcut"' not in text
        assert "Which columns change their meaning between environments <span" in text


def test_findings_tables():
    text = page(make_content())
    parsed = Page(text)
    assert parsed.rows_of("environment") == [
        ["environment", "rows", "risk", "largest weight", "new"],
        ["Bergen", "1400", "0.512", "12,346", "yes"],
        ["Zadar", "400", "–", "1", "no"],
    ]
    assert "The numbers (10 rows)" in parsed.words
    assert text.count("<details>") == 1
    assert text.index("<details>") < text.index("effect in Bergen") < text.index("</details>")
    assert parsed.rows_of("feature")[1][:2] == ["coughs", "1.2"]


def test_without_findings_notes_or_columns():
    text = page(replace(make_content(), findings=(), notes=(), columns={}, provenance={}))
    words = Page(text).words
    assert 'href="#findings"' not in text
    assert "What looks suspicious" not in words
    assert "Things to know" not in words
    assert "Other columns" not in words
    assert words.endswith("Run it again Made by invariant-learn.")


def test_columns_are_counted_and_many_are_folded():
    content = make_content()
    words = Page(page(content)).words
    assert "Other columns: 2 as number, 1 as category, 1 as date, 1 left out." in words
    assert "left out: a different value in every row" in words
    text = page(replace(content, columns={f"c{i}": "number" for i in range(9)}))
    assert "<summary>All 9 columns</summary>" in text


def test_two_environments_are_warned_of():
    words = Page(page(make_content(make_found({"a": 0.8, "b": 0.7})))).words
    assert "every model was trained in one only" in words
    assert "trained on the rows of the other one and" in words
    assert "every model was trained in one only" not in Page(page(make_content())).words


def test_a_regression_says_so():
    text = page(make_content(make_found(HOSPITALS, metric="RMSE")))
    words = Page(text).words
    assert "the typical size of an error, in the unit of the target" in words
    assert "Further left is better" in words
    assert "Bottom left is best" in words
    assert "with the classes" not in words
    assert "Further right is better" in Page(page(make_content())).words


def test_many_classes_are_cut():
    content = replace(make_content(), classes=tuple(f"k{i}" for i in range(20)))
    assert "k10, k11 and 8 more" in Page(page(content)).words


@pytest.mark.parametrize("evil", [EVIL, "$x$", "\"><img src=x onerror='a'>", "{{ 7 * 7 }}", "a\nb"])
def test_hostile_names_show_as_text(evil, tmp_path):
    contenders = [*CONTENDERS[1:], Contender("irmv1", evil, "invariant", evil)]
    found = make_found({evil: 0.8, f"{evil}2": 0.7, f"{evil * 9}3": 0.6, "d": 0.5}, contenders)
    content = replace(
        make_content(found), title=evil, target=evil, environment=evil, classes=(evil, "b"),
        columns={evil: f"left out: {evil}"}, notes=(evil,), settings={"irmv1": {evil: evil}},
        next_command=evil, provenance={evil: evil, "command": evil, "version": evil},
        findings=(Finding("effects", evil, evil, evil, "warning", pd.DataFrame({evil: [evil]})),),
    )  # fmt: skip
    path = write_own_rows(content, tmp_path)
    text = path.read_text(encoding="utf-8")
    parsed = Page(text)
    plain = " ".join(evil.split())
    assert parsed.words.count(plain) > 20
    assert [plain] in parsed.rows_of(plain)
    assert "script" not in {tag for tag, _ in parsed.tags}
    assert [tag for tag, _ in parsed.tags].count("img") == 2
    labels = [label.get_text() for label in by_environment(found).axes[0].get_yticklabels()]
    assert labels[0] == plain.replace("$", r"\$")


def test_by_environment_draws_every_number():
    found = make_found(HOSPITALS)
    figure = by_environment(found)
    ax = figure.axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == list(HOSPITALS)
    legend = [entry.get_text() for entry in figure.legends[0].get_texts()]
    assert legend == [
        "ERM, linear (usual)", "Gradient boosting (usual)", "Group DRO (usual)", "IRMv1", "V-REx"
    ]  # fmt: skip
    lines = ax.get_lines()
    drawn = np.array([line.get_xdata()[0] for line in lines]).reshape(5, 5)
    order = [found.number(c.name) for c in in_order(found)]
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
        Contender(f"m{i}", f"Method {i}", "usual" if i < 3 else "invariant", "") for i in range(10)
    ]
    found = make_found(HOSPITALS, contenders)
    lines = by_environment(found).axes[0].get_lines()[:10]
    assert len({(line.get_marker(), line.get_color()) for line in lines}) == 10
    # Without color the shape and whether it is filled are left; the legend's order is the bands'.
    assert len({(line.get_marker(), line.get_markerfacecolor()) for line in lines}) == 10


def test_figures_grow_with_what_they_hold():
    small = by_environment(make_found({"a": 0.8, "b": 0.7}, CONTENDERS[:2], rows=20))
    large = by_environment(make_found({f"e{i}": 0.7 for i in range(40)}, rows=20))
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
    figure = worst_against_mean(found)
    ax = figure.axes[0]
    scale = 100 if metric == "accuracy" else 1
    for line, text in zip(ax.get_lines(), in_order(found), strict=True):
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
    better = "accuracy (%)" if metric == "accuracy" else "RMSE (lower is better)"
    assert ax.get_xlabel() == f"mean over environments: {better}"


def test_many_labels_at_one_place_do_not_overlap():
    contenders = [Contender(f"m{i}", f"Method {i}", "invariant", "") for i in range(12)]
    figure = worst_against_mean(make_found({"a": 0.8, "b": 0.7}, contenders, rows=30))
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
    for figure in (by_environment(found), worst_against_mean(found)):
        assert png(figure).startswith(b"\x89PNG")


def test_axes_do_not_inflate_small_differences():
    found = make_found({"a": 0.8, "b": 0.8})
    same = replace(found, values=np.full((2, 5), 0.8), draws=np.full((200, 2, 5), 0.8))
    for figure in (by_environment(same), worst_against_mean(same)):
        low, high = figure.axes[0].get_xlim()
        assert high - low == pytest.approx(10)
    right = replace(found, values=np.ones((2, 5)), draws=np.ones((200, 2, 5)))
    assert by_environment(right).axes[0].get_xlim()[1] == 102


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


def test_the_table_says_what_a_picture_calls_an_environment():
    long = "St. Mary's Hospital of the Southern District"
    found = make_found({long: 0.8, "東京": 0.7, "c": 0.6})
    head = Page(page(make_content(found))).rows_of("method")[0]
    assert head[3:] == [
        f"{long} 400 rows; in the picture: St. Mary's Hos…rn District",
        "東京 400 rows; in the picture: no. 2",
        "c 400 rows",
    ]


def test_write_own_rows(tmp_path):
    content = make_content()
    path = write_own_rows(content, tmp_path / "a" / "report")
    assert path == tmp_path / "a" / "report" / "report.html"
    files = sorted(str(file.relative_to(path.parent)) for file in path.parent.rglob("*.*"))
    assert files == ["figures/by_environment.png", "figures/worst_against_mean.png", "report.html"]
    first = path.read_bytes()
    assert write_own_rows(content, path.parent).read_bytes() == first


def test_a_lone_surrogate_does_not_stop_the_report(tmp_path):
    content = replace(make_content(), notes=("broken \udc80 byte",))
    assert "broken ? byte" in write_own_rows(content, tmp_path).read_text(encoding="utf-8")


def test_errors(tmp_path):
    content = make_content()
    with pytest.raises(UnknownNameError, match=r"Unknown method 'irmv2'\. Did you mean 'irmv1'\?"):
        write_own_rows(replace(content, settings={"irmv2": {}}), tmp_path)
    other = replace(content.verdict, recommended="ermm")
    with pytest.raises(UnknownNameError, match=r"Unknown method 'ermm'\. Did you mean 'erm'\?"):
        write_own_rows(replace(content, verdict=other), tmp_path)
    with pytest.raises(UnknownNameError, match=r"Known: classification, regression\."):
        write_own_rows(replace(content, task="regresion"), tmp_path)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    expected = (
        f"Expected a folder to write the report in, '{tmp_path / 'file'}' cannot be written: "
        "Not a directory. Name another folder, or free this one."
    )
    with pytest.raises(OutputError, match="^" + re.escape(expected) + "$"):
        write_own_rows(content, tmp_path / "file")
