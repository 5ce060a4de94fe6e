"""A made-up comparison of methods on rows of hospitals, and a reader of its page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pandas as pd

from invlearn.diagnostics.findings import Finding
from invlearn.diagnostics.left_out import LeftOut, compare_errors
from invlearn.metrics import METRICS
from invlearn.reports.found import Found
from invlearn.reports.own_rows import render
from invlearn.reports.own_rows_answer import own_rows_answer
from invlearn.reports.record import Answer, OwnRowsRecord
from invlearn.results import MethodInfo

PIXEL = b"\x89PNG not a real one"
CONTENDERS = (
    MethodInfo("irmv1", "IRMv1", "invariant", "Penalizes a final layer that is not best in each."),
    MethodInfo("erm", "ERM, linear", "usual", "Ordinary training on the pooled rows."),
    MethodInfo("vrex", "V-REx", "invariant", "Penalizes unequal risks."),
    MethodInfo("boosting", "Gradient boosting", "usual", "Trees, each mending the last."),
    MethodInfo("group-dro", "Group DRO", "usual", "Weights the worst environment."),
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
    contenders: Sequence[MethodInfo] = CONTENDERS,
    metric: str = "accuracy",
    helps: bool = True,
    rows: int = 400,
) -> LeftOut:
    rng = np.random.default_rng(0)
    errors = {}
    for name, level in levels.items():
        right = np.array([share_right(c.name, level, helps) for c in contenders])
        if metric == "RMSE":
            errors[name] = (rng.normal(size=(rows, 1)) * (2 - right)) ** 2
        else:
            errors[name] = (rng.random((rows, 1)) > right).astype(float)
    return compare_errors(errors, contenders, METRICS[metric], draws=200)


def failed_in(found: LeftOut, *places: tuple[str, str]) -> LeftOut:
    """The same, but for (environment, method) pairs whose training diverged."""
    values, draws = found.values.copy(), found.draws.copy()
    for environment, method in places:
        e, m = found.environments.index(environment), found.number(method)
        values[e, m] = draws[:, e, m] = np.nan
    return replace(found, values=values, draws=draws)


@dataclass(frozen=True)
class Content:
    """A comparison's record with its table, and what both were made of."""

    record: OwnRowsRecord
    found: LeftOut

    @property
    def results(self) -> pd.DataFrame:
        return self.found.table(dict.fromkeys(self.found.environments, "without some, seed 0"))

    @property
    def answer(self) -> Answer:
        return own_rows_answer(self.record)

    def change(self, **changes: Any) -> Content:
        """The same with other values in the record."""
        return replace(self, record=replace(self.record, **changes))

    def set_as(self, name: str, settings: Mapping[str, str]) -> Content:
        """The same with other settings of one method."""
        return self.change(
            methods=tuple(
                replace(method, settings=settings) if method.name == name else method
                for method in self.record.methods
            )
        )

    def measured(self, found: LeftOut) -> Content:
        """The same with other numbers."""
        return replace(self, found=found).change(overall=found.overall())


def shown(found: LeftOut) -> Found:
    """What the figures take."""
    content = make_content(found)
    return Found.read(content.record, content.results)


def make_content(found: LeftOut | None = None) -> Content:
    """A comparison of five methods in five hospitals, in the third of which a shortcut fails."""
    found = make_found(HOSPITALS) if found is None else found
    settings = {
        "irmv1": {"penalty weight": "chosen by leaving environments out: 100, 100, 10",
                  "steps": "600"},
        "erm": {"weight decay": "0.001"},
    }  # fmt: skip
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
    record = OwnRowsRecord(
        methods=tuple(replace(c, settings=settings.get(c.name, {})) for c in found.contenders),
        trials=1,
        seed=0,
        metric=found.metric.name,
        overall=found.overall(),
        draws=len(found.draws),
        title="hospitals.csv",
        target="ill",
        environment="hospital",
        task="classification" if found.metric.higher_is_better else "regression",
        classes=("healthy", "ill") if found.metric.higher_is_better else (),
        environments=dict(zip(found.environments, found.fewest, strict=True)),
        folds=tuple((name,) for name in found.environments),
        findings=(
            Finding("diversity", "The environments differ", "They do.", "Nothing to do.", "good",
                    pd.DataFrame()),
            Finding("risk-profile", "How the risk differs", "Zadar is harder than the others.",
                    "Look at how its rows were collected.", "note", profile),
            Finding("single-class", "Some hospitals have few of the ill",
                    "In 'Turku' 3 % of the rows are ill.", "Collect more of them there.",
                    "warning", pd.DataFrame()),
            Finding("feature-effects", "Which columns change their meaning between environments",
                    "The effect of 'scanner' changes its sign: it has +1.20 in 'Bergen' and -0.90 "
                    "in 'Zadar'.", "Ask how these columns come about, and train without them as a "
                    "comparison.", "warning", effects),
        ),
        columns={"age": "number", "scanner": "category", "admitted": "date", "coughs": "number",
                 "patient": "left out: a different value in every row"},
        notes=("3 of 2,003 rows had no value of “ill” and were dropped.",),
        next_command="invlearn fit hospitals.csv --target ill --environment hospital "
        "--method irmv1 --out model",
        provenance={"command": "invlearn compare hospitals.csv --target ill --environment hospital",
                    "version": "0.1.0", "commit": "", "machine": "x86_64, 2 cores",
                    "started": "2025-01-01T00:00:00Z", "seconds": "3754.2"},
    )  # fmt: skip
    return Content(record, found)


def make_alone() -> Content:
    """Measured in Zadar alone, trained on the other four hospitals."""
    content = make_content(make_found({"Zadar": HOSPITALS["Zadar"]}, rows=60))
    return content.change(
        environments=dict.fromkeys(HOSPITALS, 1400) | {"Zadar": 60},
        folds=(("Zadar",),),
    )


def make_twelve() -> Content:
    """Twelve clinics in ten rounds: two of two, eight of one."""
    names = [f"clinic {i}" for i in range(1, 13)]
    content = make_content(make_found(dict(zip(names, [0.8] * 11 + [0.45], strict=True))))
    pairs = (("clinic 1", "clinic 7"), ("clinic 2", "clinic 12"))
    paired = {name for pair in pairs for name in pair}
    return content.change(folds=(*pairs, *((name,) for name in names if name not in paired)))


def page(content: Content, answer: Answer | None = None) -> str:
    found = Found.read(content.record, content.results)
    pixels = {"by_environment": PIXEL, "worst_against_mean": PIXEL}
    return render(found, content.answer if answer is None else answer, pixels)


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
