from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from invlearn.errors import OptionError
from invlearn.reports import write_report
from invlearn.reports.benchmark import Warned
from invlearn.reports.html import render

PIXEL = b"\x89PNG not a real one"
NAMES = ("by_environment", "training_curves", "agreement")
LEVELS = ("inner_step_similarity", "representation_similarity")


def page(experiment, figures=NAMES, statistics=None) -> str:
    drawn = dict.fromkeys(figures, PIXEL)
    return render(experiment.results, experiment.curves, experiment.record, drawn, statistics)


def texts(html: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", html).split()).replace("&#39;", "'")


class Outline(HTMLParser):
    """Every tag with its attributes, and whether tags are closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "img", "br", "link"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def outline(text: str) -> Outline:
    found = Outline()
    found.feed(text)
    assert found.open == []
    return found


def test_the_page_is_self_contained_and_accessible(experiment, statistics):
    figures = ("by_environment", "training_curves", "selection_statistic", *LEVELS)
    text = page(experiment, figures, statistics)
    tags = outline(text).tags
    assert [tag for tag, _ in tags].count("img") == 5
    assert ("html", {"lang": "en"}) in tags
    assert not {"script", "link", "iframe"} & {tag for tag, _ in tags}
    for tag, attributes in tags:
        if "src" in attributes:
            assert attributes["src"].startswith("data:image/png;base64,")
            assert len(attributes["alt"]) > 40
        if "href" in attributes:
            assert attributes["href"].startswith("#")
        if tag == "th":
            assert attributes["scope"] in {"row", "col"}
    identifiers = {attributes["id"] for _, attributes in tags if "id" in attributes}
    anchors = {attributes["href"][1:] for _, attributes in tags if "href" in attributes}
    assert anchors <= identifiers
    count = [tag for tag, _ in tags]
    assert count.count("caption") == count.count("table") == 6
    assert "url(" not in text


def test_the_answer_comes_before_the_tables(experiment):
    text = page(experiment)
    assert text.index("IRMv1 did better than ERM in p_e=0.9.") < text.index("<table")


def test_oracle_is_said_at_every_oracle_table(experiment):
    text = page(experiment)
    sections = re.findall(r'<div class="oracle">(.*?)</table>', text, flags=re.DOTALL)
    assert len(sections) == 2
    for section in sections:
        assert section.count("oracle: looked at the test environment") >= 2
    assert "oracle: looked" not in text[: text.index('<div class="oracle">')]


def test_oracle_headline_is_said_everywhere(experiment):
    experiment.change(headline="oracle")
    text = page(experiment)
    for name in ("answer", "results", "curves"):
        heading = re.search(rf'<h2 id="{name}">(.*?)</h2>', text, flags=re.DOTALL)
        assert heading is not None
        assert "oracle: looked at the test environment" in heading[1]
    assert "This is an oracle result" in text
    assert "they were not used for choosing" not in text


def test_oracle_recipe_is_said(experiment):
    experiment.tune_on_the_test_environment()
    text = page(experiment)
    assert "hyperparameters (oracle: chosen by looking at the test environment)" in text
    assert "they were not used for choosing" not in text


@pytest.mark.parametrize("place", ["title", "warning", "dataset", "command", "environment"])
def test_everything_is_escaped(experiment, place):
    evil = "<script>alert('x')</script>\"><img src=x>"
    record = experiment.record
    if place == "title":
        first, second, *others = record.methods
        experiment.change(methods=(first, replace(second, title=evil), *others))
    elif place == "warning":
        experiment.change(warnings=(Warned("erm", 0, evil),))
    elif place == "dataset":
        experiment.change_dataset(name=evil, options={evil: evil})
    elif place == "command":
        experiment.change(provenance={**record.provenance, "command": evil})
    else:
        experiment.change_dataset(target=evil)
    text = page(experiment)
    outline(text)
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "<img src=x" not in text


def test_references_are_set_apart(experiment):
    text = page(experiment)
    assert 'class="reference first-reference"' in text
    assert "reference, not a competitor" in text


def test_regression_and_one_trial(build):
    text = page(build(trials=1, regression=True))
    outline(text)
    assert "Risk, lower is better" in text
    assert "Accuracy in %" not in text
    assert "(n=1)" in text
    assert "± 0.0" not in text


def test_nan_values(experiment):
    frame = experiment.results
    frame["value"] = frame["value"].mask(frame["method"] == "vrex")
    text = page(experiment)
    assert "<td>0 of 3</td>" in text
    assert not re.search(r">\s*nan", text)
    assert "Without a finished trial: V-REx." in text


def test_warnings_are_grouped(experiment):
    experiment.change(warnings=tuple(Warned("vrex", trial, "stopped") for trial in (0, 2)))
    assert "<strong>V-REx</strong>, trials 0, 2: stopped" in page(experiment)


def test_how_to_run_again(experiment):
    text = page(experiment)
    assert "invlearn run small --seed 0" in text
    assert "12 min 34 s" in text
    assert "<dt>evaluated steps</dt><dd>60</dd>" in text


def test_the_rules_statistic(experiment, statistics):
    text = page(experiment, ("selection_statistic",), statistics)
    assert text.index('id="curves"') < text.index("<figure>") < text.index('id="words"')
    assert 'href="#curves"' in text
    assert (
        "What “Risks agree” sees: error here, less error there, one thin line per trial. In the "
        "gray band (the trials' mean) it is small enough for the rule. Where it changes sign "
        "between two steps, the one nearer to zero may count although it lies outside. Filled "
        "marks are the chosen steps; crosses, where no step satisfied the rule and the last was "
        "taken. Only training environments were read."
    ) in texts(text)
    (alt,) = re.findall(r'alt="([^"]*)"', text)
    assert alt.startswith(
        "Small line charts, one per method: error here, less error there against the training "
        "step, with the rule's band and the chosen steps. Risks agree. ERM: step 200; no step "
        "satisfied the rule in 3 of 3 trials. IRMv1: step 150."
    )
    assert "<img" not in page(experiment, ("selection_statistic",))
    unbounded = page(experiment, ("selection_statistic",), statistics.assign(bound=float("nan")))
    assert "band" not in unbounded[unbounded.index("Small line charts") :].partition("</figure>")[0]
    assert "one thin line per trial; values far above the rest are cut off. Filled" in texts(
        unbounded
    )


def test_the_statistic_of_an_oracle(experiment, statistics):
    experiment.tune_on_the_test_environment()
    statistics["value"] = statistics["value"].abs()
    text = texts(page(experiment, ("selection_statistic",), statistics))
    assert "Oracle: the test environment was looked at while choosing." in text
    assert "Only training environments were read" not in text
    assert "changes sign" not in text


def test_notes(experiment, statistics):
    text = page(experiment)
    note = (
        "ERM, grayscale, trials 0, 1, 2: not identifiable from these environments: the rows are "
        "as frequent in each (trial 0: 27 %; trial 1: 28 %; trial 2: 29 %); 'last' chose instead."
    )
    assert texts(text).count(note) == 1
    assert note in texts(text[text.index('id="results"') : text.index('id="rules"')])
    assert "In 3 runs (ERM, grayscale) the rule said" in texts(text[: text.index('id="results"')])


def test_the_two_levels(experiment):
    text = page(experiment, LEVELS)
    outline(text)
    assert '<a href="#levels">What the two levels do</a>' in text
    assert '<h2 id="levels">What the two levels do</h2>' in text
    said = texts(text)
    assert "an inner step adapts the model to one training environment" in said
    assert "Similarity (PWCCA) is 1 where one representation is a linear map of the other" in said
    assert "How much the inner step changes each layer." in said
    assert "The same rows, seen in another environment." in said
    experiment.change(headline="oracle")
    heading = re.search(r'<h2 id="levels">(.*?)</h2>', page(experiment, LEVELS), flags=re.DOTALL)
    assert heading is not None
    assert "oracle: looked at the test environment" in heading[1]


def test_one_level_only(experiment):
    text = page(experiment, ("representation_similarity",))
    assert '<h2 id="levels">How the representations change</h2>' in text
    assert "inner step" not in texts(text)
    assert 'id="levels"' not in page(experiment)


def test_figures_that_are_missing_are_left_out(experiment):
    text = page(experiment, figures=())
    assert "<img" not in text
    assert 'href="#curves"' not in text


def test_write_report(experiment, tmp_path):
    args = (experiment.results, experiment.curves, experiment.record, tmp_path / "report")
    path = write_report(*args)
    assert path == tmp_path / "report" / "report.html"
    files = sorted(str(file.relative_to(path.parent)) for file in path.parent.rglob("*.*"))
    assert files == [
        "figures/agreement.png",
        "figures/by_environment.png",
        "figures/training_curves.png",
        "report.html",
    ]
    first = path.read_bytes()
    assert write_report(*args).read_bytes() == first
    outline(first.decode())


def test_write_report_with_everything(experiment, statistics, similarity, tmp_path):
    args = (experiment.results, experiment.curves, experiment.record, tmp_path)
    path = write_report(*args, statistics, similarity)
    assert sorted(file.name for file in (tmp_path / "figures").iterdir()) == [
        "by_environment.png",
        "inner_step_similarity.png",
        "representation_similarity.png",
        "selection_statistic.png",
        "training_curves.png",
    ]
    text = path.read_text()
    outline(text)
    assert text.count("<img") == 5
    with pytest.raises(OptionError, match=r"^Expected statistics .* missing: bound\."):
        write_report(*args, statistics.drop(columns="bound"))
    with pytest.raises(OptionError, match=r"^Expected similarities .*; missing: kind\."):
        write_report(*args, None, similarity.drop(columns="kind"))
