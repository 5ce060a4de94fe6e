from __future__ import annotations

from dataclasses import replace

import pytest

from invlearn.reports.answer import benchmark_answer
from invlearn.reports.benchmark import Said, Unsatisfied
from invlearn.reports.record import Answer
from invlearn.reports.tables import table
from invlearn.selection import Note

ERM = (0.86, 0.86, 0.18)
GOOD = (0.71, 0.72, 0.66)
GUESS = (0.70, 0.70, 0.50)
GRAY = (0.73, 0.73, 0.73)


def ask(experiment) -> Answer:
    record, results = experiment.record, experiment.results
    return benchmark_answer(table(results, record, record.main_rule(results)), record)


def words(one: Answer) -> str:
    return " ".join(one.sentences).replace("\N{NO-BREAK SPACE}", " ")


def test_it_helps(build):
    one = ask(build({"erm": ERM, "irmv1": GOOD, "vrex": GUESS, "erm-grayscale": GRAY}))
    assert one.headline == "IRMv1 did better than ERM in p_e=0.9."
    assert (one.outcome, one.helps, one.recommended) == ("helps", True, "")
    said = words(one)
    assert "in training and 19.6 ± 0.8 % in p_e=0.9, not clearly above guessing (50 %)" in said
    assert "on which none of them was trained: IRMv1 65.2 ± 0.8 %" in said
    assert "IRMv1 lost 14.3 points" in said
    assert "Not clearly above guessing (50 %) in p_e=0.9: V-REx 50.0 ± 0.8 %" in said
    assert "being above ERM there is no success" in said
    assert "with information a user lacks: ERM, grayscale" in said


def test_it_does_not_help(build):
    one = ask(build({"erm": GRAY, "irmv1": (0.73, 0.73, 0.735), "vrex": GOOD}))
    assert one.headline == "No method did better than ERM in p_e=0.9."
    assert "Not clearly better than ERM there: IRMv1" in words(one)
    assert (one.outcome, one.helps) == ("as good", False)


def test_invariant_methods_at_chance(build):
    one = ask(build({"erm": ERM, "irmv1": GUESS, "vrex": GUESS}))
    assert one.headline == "No method did better than ERM in p_e=0.9."
    assert "V-REx 50.0 ± 0.8 %; being above ERM there is no success" in words(one)


def test_only_the_reference_helps(build):
    one = ask(build({"erm": ERM, "irmv1": GUESS, "erm-grayscale": GRAY}))
    assert one.headline == "Only the reference did better than ERM in p_e=0.9; no competitor did."
    assert "ERM, grayscale 71.9 ± 0.8 %" in words(one)


def test_only_erm(build):
    one = ask(build({"erm": ERM}))
    assert one.headline.startswith("Only ERM was run")
    assert one.outcome == "undecided"


def test_no_erm(build):
    one = ask(build({"irmv1": GOOD}))
    assert one.headline == "There is no ERM run to compare with."
    assert one.outcome == "undecided"
    assert "IRMv1 65.2 ± 0.8 %" in words(one)


def test_no_finished_trial(build):
    experiment = build({"erm": ERM, "irmv1": GOOD})
    frame = experiment.results
    frame["value"] = frame["value"].mask(frame["method"] == "irmv1")
    assert "Without a finished trial: IRMv1." in words(ask(experiment))


def test_noise_is_not_success(build):
    experiment = build({"erm": GRAY, "irmv1": (0.76, 0.76, 0.76)}, trials=2)
    frame = experiment.results
    frame["value"] += 0.1 * (frame["problem"] - 0.5)
    assert ask(experiment).headline == "No method did better than ERM in p_e=0.9."


def test_one_trial_and_oracle_are_said(build):
    experiment = build({"erm": ERM, "irmv1": GOOD}, trials=1)
    experiment.change(headline="oracle")
    assert ask(experiment).headline == "Oracle result: IRMv1 did better than ERM in p_e=0.9."
    said = words(ask(experiment))
    assert "This is an oracle result" in said
    assert "One trial only" in said
    assert "(n=1)" in said


def test_unsatisfied_runs_are_said(build):
    experiment = build({"erm": ERM, "irmv1": GOOD})
    experiment.change(unsatisfied=(Unsatisfied("risks-agree", "irmv1", (1,)),))
    assert "In 1 run no step satisfied the rule" in words(ask(experiment))


def test_notes_are_said(experiment, statistics):
    assert (
        "In 3 runs (ERM, grayscale) the rule said “not identifiable from these environments”: the "
        "rows are as frequent in each; 'last' chose instead."
    ) in ask(experiment).sentences
    more = replace(experiment.record.said[0], method="irmv1")
    plain = Said("risks-agree", "erm", (2,), Note("plain"))
    other = Said("last", "erm", (2,), Note("of another rule"))
    experiment.change(said=(*experiment.record.said, more, plain, other))
    said = words(ask(experiment))
    assert "In 4 runs (3 of ERM, grayscale and 1 of IRMv1) the rule said “not identifiable" in said
    assert said.endswith("In 1 run (ERM) the rule said “plain”.")
    assert "another rule" not in said


@pytest.mark.parametrize("trials", [1, 3])
def test_regression_lower_is_better(build, trials):
    experiment = build({"erm": ERM, "irmv1": GOOD}, trials=trials, regression=True)
    one = ask(experiment)
    assert one.headline == "IRMv1 did better than ERM in p_e=0.9."
    assert "IRMv1's risk is higher by 0.14" in words(one)
    assert "guessing" not in words(one)
