"""The page of a comparison on a user's own rows."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from invlearn.diagnostics.findings import Finding
from invlearn.errors import EnvironmentsError, OptionError, UnknownNameError
from invlearn.reports.found import Found
from invlearn.reports.own_rows import write_own_rows
from invlearn.reports.own_rows_figures import by_environment
from invlearn.results import MethodInfo
from reports.made import (
    CONTENDERS,
    HOSPITALS,
    Content,
    Page,
    failed_in,
    make_alone,
    make_content,
    make_found,
    make_twelve,
    page,
    shown,
)

EVIL = "<script>alert(1)</script>"


def write(content: Content, folder: Path) -> Path:
    return write_own_rows(content.record, content.results, folder)


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
        "Some hospitals have few of the ill warning",
        "How the risk differs note",
        "The environments differ looks good",
        "Each of the 5 environments was left out in turn.",
        "drawing the measured rows again with replacement, 200 times",
        "penalty weight: chosen by leaving environments out: 100, 100, 10",
        "3 of 2,003 rows had no value",
        "Train IRMv1 on the rows of all environments:",
        "invlearn fit hospitals.csv",
        "When not to trust this. The worst of 5 environments, which are few,",
        "invlearn compare hospitals.csv",
        "1 h 2 min",
    ]
    # The contents at the top name some of it too.
    places = [words.index(part, words.index("The answer")) for part in story[:4]]
    places += [words.rindex(part) for part in story[4:]]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("outcome", "opening", "why"),
    [
        (
            "as good",
            "No: invariance training does not do better than the usual methods on these rows.",
            "the usual method that is enough here",
        ),
        (
            "undecided",
            "Not decided: these rows cannot tell whether invariance training helps.",
            "a usual method, as long as nothing is shown to be better",
        ),
    ],
)
def test_that_it_does_not_help_is_said_first(outcome, opening, why):
    content = make_content(make_found(HOSPITALS, helps=False))
    answer = replace(content.answer, outcome=outcome)
    words = Page(page(content, answer)).words
    best = content.record.method(answer.recommended)
    assert best.kind == "usual"
    assert words.index(opening) < words.index(answer.headline)
    assert f"Recommended: {best.title}, {why}." in words
    assert "Yes:" not in words
    assert ("more rows might show one that does" in words) == (outcome == "undecided")


def test_what_is_recommended_of_the_family_needs_no_excuse():
    words = Page(page(make_content())).words
    assert "Recommended: IRMv1." in words
    assert "No:" not in words
    assert "Not decided:" not in words


@pytest.mark.parametrize("metric", ["accuracy", "RMSE"])
def test_the_table_holds_every_number_and_marks_the_best(metric):
    found = make_found(HOSPITALS, metric=metric)
    content = make_content(found)
    shown_found = Found.read(content.record, content.results)
    rows = Page(page(content)).rows_of("method")
    assert rows[0][1].startswith("worst")
    assert [name.split()[0] for name in rows[0][3:]] == list(HOSPITALS)
    assert rows[0][3] == "Bergen 400 rows"
    assert rows[1][0] == "Usual methods"
    assert rows[5][0] == "Invariant methods"
    shown = rows[2:5] + rows[6:]
    order = ["erm", "boosting", "group-dro", "irmv1", "vrex"]
    assert [c.name for c in shown_found.methods] == order
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
    worst = content.found.worst("erm")
    said = f"{show(worst.value)} ({show(worst.low)} to {show(worst.high)})"
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
        *others, last = content.record.findings
        text = page(content.change(findings=(*others, replace(last, level=level))))
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
    text = page(make_content().change(findings=(), notes=(), columns={}, provenance={}))
    words = Page(text).words
    assert 'href="#findings"' not in text
    assert "What looks suspicious" not in words
    assert "Things to know" not in words
    assert "Other columns" not in words
    assert words.endswith("Run it again seed0 Made by invariant-learn.")


def test_where_it_comes_from_is_in_words():
    made = {"command": "invlearn x", "jobs": 2, "seconds": 61.4, "seconds_of_all_runs": 3754.2}
    text = page(make_content().change(provenance={**made, "runs_resumed": 3, "commit": ""}))
    assert Page(text).words.endswith(
        "invlearn x seed0runs at a time2took1 min 1 sall runs one after another1 h 2 min"
        "runs taken over3 Made by invariant-learn."
    )


def test_columns_are_counted_and_many_are_folded():
    content = make_content()
    words = Page(page(content)).words
    assert "Other columns: 2 as number, 1 as category, 1 as date, 1 left out." in words
    assert "left out: a different value in every row" in words
    text = page(content.change(columns={f"c{i}": "number" for i in range(9)}))
    assert "<summary>All 9 columns</summary>" in text


def test_one_environment_is_not_told_as_several():
    content = make_alone()
    parsed = Page(page(content))
    for said in (
        "is “Zadar”, which none was trained on?",
        "5,660 rows from 5 environments",
        "measured in one of them, “Zadar” (60 rows)",
        "Each method in “Zadar”, which it had not seen",
        "trained on the rows of the other 4 environments and measured on the rows of “Zadar”. So",
        "The 4 environments trained on",
        "Leiden: 1,400 rows",
        "other rows of the same environment.",
        "“Zadar” is one environment: what is best there need not be best in the next.",
    ):
        assert said in parsed.words
    for untrue in (
        "in turn.",
        "1 environments",
        "other 0",
        "The worst",
        "Worst",
        "band",
        "Which were left out together",
        "in one only",
    ):
        assert untrue not in parsed.words.replace("each is left out in turn.", "")
    rows = parsed.rows_of("method")
    assert rows[0] == ["method", "Zadar 60 rows"]
    assert [len(row) for row in rows] == [2] * 8
    show = content.found.metric.show
    assert [show(content.found.values[0].max()) in row[1] for row in rows if "★" in row[1]] == [
        True
    ]
    tags = parsed.tags
    assert [tag for tag, _ in tags].count("img") == 1
    assert "#both" not in {attributes.get("href") for _, attributes in tags}
    assert "summary" not in {attributes.get("class") for _, attributes in tags}


def test_the_second_picture_goes_where_it_would_repeat_the_first(tmp_path):
    for content in (make_content(), make_alone()):
        write(content, tmp_path)
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["by_environment.png"]


def test_environments_left_out_together():
    words = Page(page(make_twelve())).words
    assert "The 12 environments were left out 1 or 2 at a time, in 10 rounds. In each" in words
    assert "trained on the rows of the other 10 or 11 environments and measured in each" in words
    assert "clinic 2, clinic 12" in words
    assert "in turn" not in words
    assert "trained on</summary>" not in page(make_twelve())
    assert "Which were left out together" not in Page(page(make_content())).words


CHOSEN = "that was chosen by leaving environments out once more, inside the training environments"


@pytest.mark.parametrize(
    ("environments", "folds", "said"),
    [
        ("ab", ("a", "b"), "its default was taken: choosing it takes at least three environments "
         "to train on, one of them to be left out in turn, and here there was one."),
        ("abc", ("a", "b", "c"), "and here there were two."),
        ("abc", ("a",), "and here there were two."),
        ("abcd", ("a", "b", "c", "d"), f"{CHOSEN}. The environment left out"),
        ("abcdef", ("a", "b"), f"{CHOSEN}. The environment left out"),
        ("abcdefg", ("a", "b"), f"{CHOSEN} (more than five of them in five groups). The envi"),
        ("abcdefgh", ("ab", "c"), f"{CHOSEN} (more than five of them in five groups). Those left"),
        ("abcd", ("a", "bc"), f"{CHOSEN} where those were three or more. Those left out"),
    ],
)  # fmt: skip
def test_how_a_strength_was_set(environments, folds, said):
    measured = [name for fold in folds for name in fold]
    content = make_content(make_found(dict.fromkeys(measured, 0.7), rows=30)).change(
        environments=dict.fromkeys(environments, 30),
        folds=tuple(map(tuple, folds)),
    )
    words = Page(page(content)).words
    assert said in words
    assert (CHOSEN in words) != ("its default was taken" in words)


@pytest.mark.parametrize(
    ("name", "task", "kind"),
    [
        ("linear", "classification", "LogisticRegression"),
        ("linear", "regression", "Ridge"),
        ("boosting", "classification", "HistGradientBoostingClassifier"),
        ("boosting", "regression", "HistGradientBoostingRegressor"),
    ],
)
def test_what_this_library_does_not_fit_is_said_to_be_scikit_learns(name, task, kind):
    contenders = [
        MethodInfo(name, "A usual one", "usual", ""),
        MethodInfo("erm-pooled", "ERM (pooled network)", "usual", ""),
        CONTENDERS[0],
    ]
    metric = "accuracy" if task == "classification" else "RMSE"
    content = make_content(make_found(HOSPITALS, contenders, metric))
    words = Page(page(content, replace(content.answer, recommended=name))).words
    assert f"A usual one is scikit-learn's {kind}, which invlearn fit does not have" in words
    assert "its pooled network, in the table above “ERM (pooled network)”." in words
    assert "Train A usual one" not in words
    words = Page(page(content, replace(content.answer, recommended="erm-pooled"))).words
    assert "Train ERM (pooled network) on the rows of all environments:" in words
    assert "scikit-learn" not in words


def test_the_checks_are_of_the_rows():
    words = Page(page(make_content())).words
    assert "Checks of the rows of all environments together, warnings first." in words
    assert "recommended kind" not in words


@pytest.mark.parametrize("metric", ["accuracy", "RMSE"])
def test_a_failed_method_has_no_number_and_is_never_best(metric, tmp_path):
    found = failed_in(make_found(HOSPITALS, metric=metric), ("Porto", "vrex"), ("Zadar", "vrex"))
    content = make_content(found)
    text = write(content, tmp_path).read_text(encoding="utf-8")
    assert not re.search(r"\bnan\b", text)
    rows = Page(text).rows_of("method")
    failed = next(row for row in rows if row[0].startswith("V-REx"))
    assert failed[1:3] == ["failed in Porto", "failed"]
    assert [cell == "failed" for cell in failed[3:]] == [False, False, True, False, True]
    for column in range(1, 8):
        assert sum(row[column].startswith("★") for row in rows if len(row) > 2) >= 1
    assert "failed: the training diverged" in Page(text).words
    assert "failed" not in Page(page(make_content())).words


def test_where_all_failed_none_is_best():
    found = make_found(HOSPITALS)
    content = make_content(found)
    lost = failed_in(found, *(("Porto", method.name) for method in CONTENDERS))
    rows = Page(page(content.measured(lost), content.answer)).rows_of("method")
    assert [row[5] for row in rows[2:5]] == ["failed"] * 3
    assert not any("★" in row[column] for row in rows if len(row) > 2 for column in (1, 2, 5))


def test_two_environments_are_warned_of():
    words = Page(page(make_content(make_found({"a": 0.8, "b": 0.7})))).words
    assert "With two environments every model was trained in one only" in words
    assert "trained on the rows of the other environment and" in words
    assert "every model was trained in one only" not in Page(page(make_content())).words


def test_a_regression_says_so():
    text = page(make_content(make_found(HOSPITALS, metric="RMSE")))
    words = Page(text).words
    assert "the typical size of an error, in the unit of the target" in words
    assert "Further left is better" in words
    assert "Bottom left is best" in words
    assert "with the classes" not in words
    assert "Further right is better" in Page(page(make_content())).words


def test_several_trainings_are_said():
    words = Page(page(make_content().change(trials=3))).words
    assert (
        "nor another seed of the training: each method was trained 3 times, with seeds of its "
        "own, and the rows' errors averaged."
    ) in words
    assert "nor another seed of the training. The methods" in Page(page(make_content())).words


def test_many_classes_are_cut():
    content = make_content().change(classes=tuple(f"k{i}" for i in range(20)))
    assert "k10, k11 and 8 more" in Page(page(content)).words


@pytest.mark.parametrize("evil", [EVIL, "$x$", "\"><img src=x onerror='a'>", "{{ 7 * 7 }}", "a\nb"])
def test_hostile_names_show_as_text(evil, tmp_path):
    contenders = [*CONTENDERS[1:], MethodInfo("irmv1", evil, "invariant", evil)]
    found = make_found({evil: 0.8, f"{evil}2": 0.7, f"{evil * 9}3": 0.6, "d": 0.5}, contenders)
    content = make_content(found).set_as("irmv1", {evil: evil}).change(
        title=evil, target=evil, environment=evil, classes=(evil, "b"),
        columns={evil: f"left out: {evil}"}, notes=(evil,),
        next_command=evil, provenance={evil: evil, "command": evil, "version": evil},
        findings=(Finding("effects", evil, evil, evil, "warning", pd.DataFrame({evil: [evil]})),),
    )  # fmt: skip
    path = write(content, tmp_path)
    text = path.read_text(encoding="utf-8")
    parsed = Page(text)
    plain = " ".join(evil.split())
    assert parsed.words.count(plain) > 20
    assert [plain] in parsed.rows_of(plain)
    assert "script" not in {tag for tag, _ in parsed.tags}
    assert [tag for tag, _ in parsed.tags].count("img") == 2
    labels = [label.get_text() for label in by_environment(shown(found)).axes[0].get_yticklabels()]
    assert labels[0] == plain.replace("$", r"\$")


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
    path = write(content, tmp_path / "a" / "report")
    assert path == tmp_path / "a" / "report" / "report.html"
    files = sorted(str(file.relative_to(path.parent)) for file in path.parent.rglob("*.*"))
    assert files == ["figures/by_environment.png", "figures/worst_against_mean.png", "report.html"]
    first = path.read_bytes()
    assert write(content, path.parent).read_bytes() == first


def test_a_lone_surrogate_does_not_stop_the_report(tmp_path):
    content = make_content().change(notes=("broken \udc80 byte",))
    assert "broken ? byte" in write(content, tmp_path).read_text(encoding="utf-8")


def test_errors(tmp_path):
    content = make_content()
    with pytest.raises(UnknownNameError, match=r"Unknown method 'irmv2'\. Did you mean 'irmv1'\?"):
        content.record.method("irmv2")
    for wrong in (
        {"environments": {"Bergen": 400}},
        {"folds": (("Leidn",), *content.record.folds)},
    ):
        with pytest.raises(UnknownNameError, match=r"Unknown environment '(Leiden|Leidn)'\. "):
            write(content.change(**wrong), tmp_path)
    for folds in (content.record.folds[1:], (tuple(HOSPITALS),)):
        expected = (
            "Expected folds in which every environment that was measured in is left out and at "
            f"least one is trained on, got {[list(fold) for fold in folds]} of Bergen, Leiden, "
            "Porto, Turku, Zadar. Give the folds that were trained."
        )
        with pytest.raises(EnvironmentsError, match="^" + re.escape(expected) + "$"):
            write(content.change(folds=folds), tmp_path)
    other = replace(content.answer, recommended="ermm")
    with pytest.raises(UnknownNameError, match=r"Unknown method 'ermm'\. Did you mean 'erm'\?"):
        page(content, other)
    with pytest.raises(UnknownNameError, match=r"Known: classification, regression\."):
        write(content.change(task="regresion"), tmp_path)
    twice = pd.concat([content.results, content.results.head(1)])
    with pytest.raises(OptionError, match=r"^Expected one value per \(method, problem, "):
        write_own_rows(content.record, twice, tmp_path)
    assert list(tmp_path.iterdir()) == []
