from __future__ import annotations

import pytest

from invlearn.reports.benchmark import Said, Unsatisfied
from invlearn.reports.notes import Gathered, notes, numbered, unsatisfied
from invlearn.reports.tables import footnotes
from invlearn.selection import Note


def said(method: str, trials: list[int], note: Note, selection: str = "risks-agree") -> Said:
    return Said(selection, method, tuple(trials), note)


def gathered(experiment, *entries: Said) -> list[Gathered]:
    experiment.change(said=entries)
    return notes(experiment.record.rule("risks-agree"), experiment.record)


FREQUENT, ELSE = Note("no", "as frequent", instead="so"), Note("something else")


def test_notes_that_differ_in_numbers_are_one(experiment):
    found = gathered(
        experiment,
        said("vrex", [2], FREQUENT._replace(numbers="3 %, 3 %")),
        said("vrex", [0, 1], FREQUENT._replace(numbers="1 %, 2 %")),
        said("irmv1", [0], FREQUENT._replace(numbers="1 %, 2 %")),
        said("vrex", [3], ELSE),
        said("vrex", [4], Note("unread"), selection="last"),
    )
    assert found == [
        Gathered("vrex", "V-REx", FREQUENT, {0: "1 %, 2 %", 1: "1 %, 2 %", 2: "3 %, 3 %"}),
        Gathered("irmv1", "IRMv1", FREQUENT, {0: "1 %, 2 %"}),
        Gathered("vrex", "V-REx", ELSE, {3: ""}),
    ]
    assert [note.trials for note in found] == [(0, 1, 2), (0,), (3,)]
    assert [note.text for note in found] == [
        "no: as frequent (trial 0: 1 %, 2 %; trial 1: 1 %, 2 %; trial 2: 3 %, 3 %); so",
        "no: as frequent (1 %, 2 %); so",
        "something else",
    ]


def test_the_same_note_stays_as_it_is(experiment):
    (found,) = gathered(experiment, said("vrex", [1, 0], FREQUENT._replace(numbers="1 %")))
    assert found.trials == (0, 1)
    assert found.text == "no: as frequent (1 %); so"


def test_a_rule_may_have_said_nothing(experiment):
    assert gathered(experiment) == []


def test_unsatisfied(experiment):
    experiment.change(
        unsatisfied=(
            Unsatisfied("risks-agree", "erm", (0,)),
            Unsatisfied("last", "vrex", (0,)),
            Unsatisfied("risks-agree", "erm", (2,)),
            Unsatisfied("risks-agree", "irmv1", ()),
        )
    )
    rule = experiment.record.rule("risks-agree")
    assert unsatisfied(rule, experiment.record) == {"erm": (0, 2)}


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


def test_footnotes_hold_both(statistics, experiment):
    assert footnotes(experiment.record.rule("risks-agree"), experiment.record) == [
        "In 4 runs no step satisfied the rule and the last step was taken "
        "(ERM: trials 0, 1, 2; V-REx: trial 1).",
        "ERM, grayscale, trials 0, 1, 2: not identifiable from these environments: the rows are as "
        "frequent in each (trial 0: 27 %; trial 1: 28 %; trial 2: 29 %); 'last' chose instead.",
    ]
