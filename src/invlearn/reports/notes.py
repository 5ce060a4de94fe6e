"""What a rule said about its runs, gathered into few words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from invlearn.reports.benchmark import BenchmarkRecord, Rule
from invlearn.selection import Note


@dataclass(frozen=True)
class Gathered:
    """A note that a rule made of some trials of one method.

    note: without numbers; numbers: each trial's own.
    """

    method: str
    title: str
    note: Note
    numbers: Mapping[int, str]

    @property
    def trials(self) -> tuple[int, ...]:
        """The trials, in their order."""
        return tuple(self.numbers)

    @property
    def text(self) -> str:
        """The note with the numbers of each trial, once where they are the same."""
        different = set(self.numbers.values())
        own = [f"trial {trial}: {numbers}" for trial, numbers in self.numbers.items()]
        said = different.pop() if len(different) == 1 else "; ".join(own)
        return str(self.note._replace(numbers=said))


def notes(rule: Rule, record: BenchmarkRecord) -> list[Gathered]:
    """List a rule's notes, one entry per method and note, whatever its numbers."""
    found: dict[tuple[str, Note], dict[int, str]] = {}
    for said in record.said:
        if said.selection == rule.name:
            runs = found.setdefault((said.method, said.note._replace(numbers="")), {})
            runs |= dict.fromkeys(said.problems, said.note.numbers)
    return [
        Gathered(method, record.method(method).title, note, dict(sorted(runs.items())))
        for (method, note), runs in found.items()
    ]


def unsatisfied(rule: Rule, record: BenchmarkRecord) -> dict[str, tuple[int, ...]]:
    """List the trials in which no step satisfied the rule, by method."""
    found: dict[str, tuple[int, ...]] = {}
    for entry in record.unsatisfied:
        if entry.selection == rule.name and entry.problems:
            found[entry.method] = (*found.get(entry.method, ()), *entry.problems)
    return found


def numbered(trials: Sequence[int]) -> str:
    """Write trials with their numbers, four or more in a row as a range.

    Examples
    --------
    >>> numbered([2]), numbered([0, 2]), numbered([0, 1, 2, 3])
    ('trial 2', 'trials 0, 2', 'trials 0 to 3')
    """
    if len(trials) > 3 and list(trials) == list(range(trials[0], trials[-1] + 1)):
        return f"trials {trials[0]} to {trials[-1]}"
    word = "trial" if len(trials) == 1 else "trials"
    return f"{word} {', '.join(str(trial) for trial in trials)}"
