"""The answer in sentences, computed from the headline table and honest when there is none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from invlearn.metrics import Metric
from invlearn.reports.benchmark import BenchmarkRecord
from invlearn.reports.notes import Gathered, notes, unsatisfied
from invlearn.reports.record import Answer, listed
from invlearn.reports.tables import Row, Stat, Table, text


@dataclass(frozen=True)
class _Yardstick:
    """How two means are compared: beyond a hundredth, and beyond twice the standard error."""

    metric: Metric
    chance: float | None

    def better(self, a: Stat, b: Stat) -> bool:
        gain = a.mean - b.mean if self.metric.higher_is_better else b.mean - a.mean
        least = 0.01 if self.metric.percent else 0.01 * abs(b.mean)
        return gain > max(least, 2 * math.hypot(_error(a), _error(b)))

    def above_chance(self, a: Stat) -> bool:
        return self.chance is None or self.better(a, Stat(self.chance, 0.0, 1))

    def show(self, row: Row, stat: Stat) -> str:
        return f"{row.method.title} {self.number(stat)}"

    def number(self, stat: Stat) -> str:
        words = text(stat, self.metric) + " %" * self.metric.percent
        return words.replace(" ", "\N{NO-BREAK SPACE}")


def benchmark_answer(table: Table, record: BenchmarkRecord) -> Answer:
    """Say which methods do better than ERM in the target environment, and at what price.

    A method does better when the means differ by more than one percentage point
    (for risks: one percent) and by more than twice the standard error of the difference,
    and when it is above guessing by as much.

    Parameters
    ----------
    table : Table
        The headline rule's table.
    record : BenchmarkRecord

    Returns
    -------
    Answer
    """
    yard = _Yardstick(table.metric, record.dataset.chance(table.metric))
    rivals = [r for r in table.rows if r.method.kind != "reference" and r.method.name != "erm"]
    erm = next((r for r in table.rows if r.method.name == "erm" and r.target.count), None)
    finished = [r for r in rivals if r.target.count]
    outcome, headline, sentences = _compared(table, yard, finished, erm, record.dataset.target)
    if table.rule.oracle:
        headline = f"Oracle result: {headline}"
    if lost := [r.method.title for r in rivals if not r.target.count]:
        sentences.append(f"Without a finished trial: {listed(lost)}.")
    return Answer(headline, (*sentences, *_caveats(table, record)), outcome)


def _compared(
    table: Table, yard: _Yardstick, rivals: Sequence[Row], erm: Row | None, target: str
) -> tuple[str, str, list[str]]:
    if erm is None:
        numbers = listed([yard.show(r, r.target) for r in rivals]) or "nothing finished"
        return (
            "undecided",
            "There is no ERM run to compare with.",
            [f"In {target}: {numbers}. Add ERM to the methods to see what invariance bought."],
        )
    helped = [r for r in rivals if yard.better(r.target, erm.target)]
    holding = [r for r in helped if yard.above_chance(r.target)]
    guessing = [r for r in rivals if not yard.above_chance(r.target)]
    beaten = [r for r in rivals if r not in helped and r not in guessing]
    informed = [
        r
        for r in table.rows
        if r.method.kind == "reference" and r.target.count and yard.better(r.target, erm.target)
        and yard.above_chance(r.target)
    ]  # fmt: skip
    sentences = [
        f"ERM, which ignores the environments, has {yard.metric.name} {yard.number(erm.train)} in "
        f"training and {yard.number(erm.target)} in {target}"
        + ("" if yard.above_chance(erm.target) else f", not clearly above guessing{_guess(yard)}")
        + "."
    ]
    outcome = "helps" if holding else "as good" if rivals else "undecided"
    if holding:
        headline = f"{listed([r.method.title for r in holding])} did better than ERM in {target}."
        shown = listed([yard.show(r, r.target) for r in holding])
        sentences.append(f"In {target}, on which none of them was trained: {shown}.")
        if prices := [price for r in holding if (price := _price(yard, r, erm))]:
            sentences.append(f"In the training environments, against ERM: {listed(prices)}.")
    elif informed:
        headline = f"Only the reference did better than ERM in {target}; no competitor did."
    elif rivals:
        headline = f"No method did better than ERM in {target}."
    else:
        headline = "Only ERM was run; there is nothing to compare it with."
    if guessing:
        shown = listed([yard.show(r, r.target) for r in guessing])
        sentences.append(
            f"Not clearly above guessing{_guess(yard)} in {target}: {shown}"
            + ("; being above ERM there is no success." if _both(guessing, helped) else ".")
        )
    if beaten:
        shown = listed([yard.show(r, r.target) for r in beaten])
        sentences.append(f"Not clearly better than ERM there: {shown}.")
    if informed:
        shown = listed([yard.show(r, r.target) for r in informed])
        sentences.append(f"For orientation, with information a user lacks: {shown}.")
    return outcome, headline, sentences


def _caveats(table: Table, record: BenchmarkRecord) -> list[str]:
    lines = []
    if table.rule.oracle:
        lines.append(
            "This is an oracle result: the test environment was looked at while choosing, "
            "so a user would not get these numbers."
        )
    if table.trials == 1:
        lines.append("One trial only: how much the numbers vary is unknown.")
    if fallen := sum(len(trials) for trials in unsatisfied(table.rule, record).values()):
        lines.append(
            f"In {fallen} {'run' if fallen == 1 else 'runs'} no step satisfied the rule, "
            "and the last step was taken."
        )
    return lines + _said(notes(table.rule, record))


def _said(found: Sequence[Gathered]) -> list[str]:
    """Write what the rule said about runs, one sentence for each note."""
    lines = []
    for note in dict.fromkeys(each.note for each in found):
        same = [each for each in found if each.note == note]
        counts = [len(each.trials) for each in same]
        of = [f"{n} of {each.title}" for n, each in zip(counts, same, strict=True)]
        who = same[0].title if len(same) == 1 else listed(of)
        rest = str(note).removeprefix(note.gist)
        runs = "run" if sum(counts) == 1 else "runs"
        lines.append(f"In {sum(counts)} {runs} ({who}) the rule said “{note.gist}”{rest}.")
    return lines


def _price(yard: _Yardstick, row: Row, erm: Row) -> str:
    if not (row.train.count and erm.train.count):
        return ""
    change = row.train.mean - erm.train.mean
    if abs(change) < 5e-4:
        return f"{row.method.title} is the same"
    if yard.metric.percent:
        word = "lost" if change < 0 else "gained"
        return f"{row.method.title} {word} {100 * abs(change):.1f} points"
    word = "higher" if change > 0 else "lower"
    return f"{row.method.title}'s {yard.metric.name} is {word} by {abs(change):.2g}"


def _error(stat: Stat) -> float:
    """Compute the standard error of the mean; 0 where one trial cannot tell."""
    return stat.std / math.sqrt(stat.count - 1) if stat.count > 1 else 0.0


def _guess(yard: _Yardstick) -> str:
    return "" if yard.chance is None else f" ({100 * yard.chance:.0f} %)"


def _both(some: Sequence[Row], others: Sequence[Row]) -> bool:
    return any(row in others for row in some)
