"""What was compared, how, and what was found beside the table: what report and console are made of.

`to_json` and `from_json` are the only way into summary.json and back.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, TypeVar

import pandas as pd
from pydantic import PlainSerializer, PlainValidator, TypeAdapter

from invlearn.diagnostics.findings import Finding
from invlearn.errors import unknown_name
from invlearn.results import MethodInfo, Overall

KINDS = ("usual", "invariant", "reference")
"""Of methods, in the order in which every table and figure has them."""


@dataclass(frozen=True)
class Answer:
    """What a comparison says, in words.

    Attributes
    ----------
    headline : str
    sentences : tuple of str
        What is behind it.
    outcome : 'helps', 'as good' or 'undecided'
        Whether a method is clearly better than what it is compared with; or none is; or nothing
        can be said.
    recommended : str
        Name of the method to go on with; empty for a benchmark, after which nothing is fitted.
    """

    headline: str
    sentences: tuple[str, ...]
    outcome: str
    recommended: str = ""

    @property
    def helps(self) -> bool:
        """Whether a method is clearly better."""
        return self.outcome == "helps"


def listed(parts: Sequence[str]) -> str:
    """Write parts as a sentence lists them.

    Examples
    --------
    >>> listed(["a"]), listed(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


@dataclass(frozen=True, kw_only=True)
class Record:
    """What every comparison has.

    Attributes
    ----------
    methods : tuple of MethodInfo
    trials : int
        Trainings of each method on each problem, with seeds of their own.
    seed : int
    provenance : {what: value}
        Such as command, version, commit, machine, started, seconds; empty values are not shown.
    """

    methods: tuple[MethodInfo, ...]
    trials: int
    seed: int
    provenance: Mapping[str, str | int | float]

    @property
    def ordered(self) -> list[MethodInfo]:
        """The methods as every table and figure has them."""
        return sorted(self.methods, key=lambda method: KINDS.index(method.kind))

    def method(self, name: str) -> MethodInfo:
        """Look a method up by name.

        Raises
        ------
        UnknownNameError
            It took no part.
        """
        for method in self.methods:
            if method.name == name:
                return method
        raise unknown_name("method", name, [method.name for method in self.methods])


def _plain(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    return [finding.plain() for finding in findings]


def _findings(plain: Iterable[Any]) -> tuple[Finding, ...]:
    return tuple(
        one if isinstance(one, Finding) else Finding(**one | {"table": pd.DataFrame(one["table"])})
        for one in plain
    )


@dataclass(frozen=True, kw_only=True)
class OwnRowsRecord(Record):
    """A comparison on a user's own rows.

    Attributes
    ----------
    title : str
        Of the page, for instance the file's name.
    target, environment : str
        Names of columns.
    task : 'classification' or 'regression'
    classes : tuple of str
        Empty for a regression.
    metric : str
    environments : {environment: rows}
        All that took part, measured in or only trained on.
    folds : tuple of tuples of str
        The environments left out together in each round; the methods were trained on all others.
    overall : tuple of Overall
        Every method over the environments left out.
    draws : int
        Of the rows, for the intervals.
    findings : tuple of Finding
        Of the rows of all environments; may be empty.
    columns : {column: 'number', 'category', 'date', 'text' or 'left out: reason'}
    notes : tuple of str
        Things to know: rows dropped, environments set aside.
    next_command : str
        The command that goes on from here.
    """

    title: str
    target: str
    environment: str
    task: str
    classes: tuple[str, ...]
    metric: str
    environments: Mapping[str, int]
    folds: tuple[tuple[str, ...], ...]
    overall: tuple[Overall, ...]
    draws: int
    findings: Annotated[
        tuple[Finding, ...], PlainValidator(_findings), PlainSerializer(_plain)
    ] = ()
    columns: Mapping[str, str]
    notes: tuple[str, ...] = ()
    next_command: str = ""


AnyRecord = TypeVar("AnyRecord", bound=Record)


def to_json(record: Record, answer: Answer) -> str:
    """Write a record as summary.json has it, the answer on top; NaN becomes null."""
    plain = json.loads(TypeAdapter(type(record)).dump_json(record))
    return json.dumps({"answer": asdict(answer)} | plain, indent=1, ensure_ascii=False) + "\n"


def from_json(kind: type[AnyRecord], text: str) -> AnyRecord:
    """Read a record that `to_json` wrote; its answer is made anew from it.

    Raises
    ------
    pydantic.ValidationError
        Something is missing, or of another type.
    """
    return TypeAdapter(kind).validate_json(text)
