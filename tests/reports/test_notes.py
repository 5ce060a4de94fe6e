from __future__ import annotations

import pytest

from invlearn.reports import layout
from invlearn.reports.notes import Note, notes, numbered, unsatisfied
from invlearn.reports.tables import footnotes


@pytest.fixture
def summary(experiment):
    return experiment.summary


def entry(objective: str, trials: list[int], note: str, selection: str = "risks-agree"):
    return {"selection": selection, "method": objective, "trials": trials, "note": note}


def gathered(summary) -> list[Note]:
    return notes(layout.rule("risks-agree", summary), summary)


def test_notes_that_differ_in_numbers_are_one(summary):
    summary["notes"] = [
        entry("vrex", [2], "no: as frequent (3 %, 3 %); so."),
        entry("vrex", [0, 1], "no: as frequent (1 %, 2 %); so"),
        entry("irmv1", [0], "no: as frequent (1 %, 2 %); so"),
        entry("vrex", [3], "something else"),
        entry("vrex", [4], "unread", selection="last"),
    ]
    assert gathered(summary) == [
        Note("vrex", "V-REx", (0, 1, 2), "no: as frequent; so",
             "no: as frequent (trial 0: 1 %, 2 %; trial 1: 1 %, 2 %; trial 2: 3 %, 3 %); so"),
        Note("irmv1", "IRMv1", (0,), "no: as frequent; so", "no: as frequent (1 %, 2 %); so"),
        Note("vrex", "V-REx", (3,), "something else", "something else"),
    ]  # fmt: skip
    assert [note.gist for note in gathered(summary)] == ["no", "no", "something else"]


def test_the_same_note_stays_as_it_is(summary):
    summary["notes"] = [entry("new", [1, 0], "as frequent (1 %)")]
    assert gathered(summary) == [
        Note("new", "new", (0, 1), "as frequent", "as frequent (1 %)"),
    ]


def test_older_summaries_have_none(summary):
    assert "notes" not in summary
    assert gathered(summary) == []


def test_unsatisfied(summary):
    summary["unsatisfied"] = [
        {"selection": "risks-agree", "method": "erm", "trials": [0]},
        {"selection": "last", "method": "vrex", "trials": [0]},
        {"selection": "risks-agree", "method": "erm", "trials": [2]},
        {"selection": "risks-agree", "method": "irmv1", "trials": []},
    ]
    assert unsatisfied(layout.rule("risks-agree", summary), summary) == {"erm": (0, 2)}


@pytest.mark.parametrize(
    ("trials", "expected"),
    [
        ([4], "trial 4"),
        ([0, 1, 2], "trials 0, 1, 2"),
        ([2, 3, 4, 5], "trials 2 to 5"),
        ([0, 1, 2, 4], "trials 0, 1, 2, 4"),
    ],
)
def test_numbered(trials, expected):
    assert numbered(trials) == expected


def test_footnotes_hold_both(statistics, summary):
    assert footnotes(layout.rule("risks-agree", summary), summary) == [
        "In 4 runs no step satisfied the rule and the last step was taken "
        "(ERM: trials 0, 1, 2; V-REx: trial 1).",
        "ERM, grayscale, trials 0, 1, 2: not identifiable from these environments: the rows are as "
        "frequent in each (trial 0: 27 %; trial 1: 28 %; trial 2: 29 %); 'last' chose instead.",
    ]
