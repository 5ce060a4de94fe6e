"""What a rule said about its runs, gathered into few words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from invlearn.reports.layout import Rule, Summary


@dataclass(frozen=True)
class Note:
    """What a rule said about some runs of one method.

    words: what holds for all of them; text: with the numbers of each.
    """

    objective: str
    title: str
    trials: tuple[int, ...]
    words: str
    text: str

    @property
    def gist(self) -> str:
        """Give the words before the first colon."""
        return self.words.partition(":")[0]


def notes(rule: Rule, summary: Summary) -> list[Note]:
    """List a rule's notes, one entry per method and wording.

    Notes that differ in nothing but their first parenthesis, such as a run's own numbers,
    are one.
    """
    titles = {entry["name"]: str(entry["title"]) for entry in summary["methods"]}
    found: dict[tuple[str, str, str], dict[int, str]] = {}
    for entry in summary.get("notes", ()):
        if entry["selection"] == rule.name:
            before, own, after = _parts(str(entry["note"]))
            runs = found.setdefault((str(entry["method"]), before, after), {})
            runs |= dict.fromkeys(entry["trials"], own)
    return [
        Note(
            objective,
            titles.get(objective, objective),
            tuple(sorted(runs)),
            before + after,
            before + _own(runs) + after,
        )
        for (objective, before, after), runs in found.items()
    ]


def unsatisfied(rule: Rule, summary: Summary) -> dict[str, tuple[int, ...]]:
    """List the trials in which no step satisfied the rule, by objective."""
    found: dict[str, tuple[int, ...]] = {}
    for entry in summary["unsatisfied"]:
        if entry["selection"] == rule.name and entry["trials"]:
            name = str(entry["method"])
            found[name] = (*found.get(name, ()), *entry["trials"])
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


def _parts(note: str) -> tuple[str, str, str]:
    """Split a note, without its full stop, at its first parenthesis."""
    note = note.removesuffix(".")
    match = re.fullmatch(r"(.*?)\s*\(([^()]*)\)(.*)", note, flags=re.DOTALL)
    return (match[1], match[2], match[3]) if match else (note, "", "")


def _own(runs: dict[int, str]) -> str:
    """Write what the runs' parentheses hold: once where it is the same."""
    different = set(runs.values())
    if different == {""}:
        return ""
    if len(different) == 1:
        return f" ({different.pop()})"
    return f" ({'; '.join(f'trial {trial}: {own}' for trial, own in sorted(runs.items()))})"
