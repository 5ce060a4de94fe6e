"""What today's commands give from fixed seeds, in a small file: `python tests/golden/record.py`.

The runs are so short that another processor, whose products round otherwise, gives the same
numbers within `TOLERANCE`; rounding grows with the steps. A change that only moves code leaves them
alone. A change that is meant to move a number records them anew in a commit of its own, which says
which and why.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from unittest.mock import patch

import pandas as pd
from matplotlib.figure import Figure
from typer.testing import CliRunner

from invlearn.cli import app

GOLDEN = Path(__file__).with_name("golden.json")

TOLERANCE = 1e-6
"""Relative to a value, or absolute where it is below 1."""

TINY = [
    "--data", "rows_per_environment=300", "--data", "validation_rows=200", "--data", "test_rows=100"
]  # fmt: skip
ROWS = ["--target", "ill", "--environment", "hospital"]

Values = dict[str, float | str]


def measure(command: str) -> Values:
    """The numbers and words that one of `COMMANDS` leaves, by what they are."""
    with (
        tempfile.TemporaryDirectory() as folder,
        chdir(folder),
        patch.object(Figure, "savefig"),  # A third of the time, for no number.
    ):
        _run("example hospitals --rows 40 --output hospitals.csv")
        return COMMANDS[command]()


def _run(text: str, *more: str) -> None:
    result = CliRunner().invoke(app, [*text.split(), *more])
    if result.exit_code:
        raise RuntimeError(f"invlearn {text}\n{result.output}\n{result.exception!r}")


def _benchmark(text: str, *more: str) -> Values:
    """Risks and dummy gradients at the last step, and the step that every rule chose."""
    _run(text, *more)
    table = pd.read_csv(f"{text.rpartition('--out ')[2]}/results.csv")
    out: Values = {}
    last = table[(table["selection"] == "last") & (table["metric"] != "accuracy")]
    for row in last.to_dict("records"):
        key = f"{row['method']}: {row['split']} {row['environment']}, {row['metric']}"
        out[key] = float(row["value"])
    for (method, rule), step in (
        table.groupby(["method", "selection"], sort=False)["step"].first().items()
    ):
        out[f"{method}: step by {rule}"] = int(step)
    return out


def _search(text: str, *more: str) -> Values:
    _run(text, *more)
    table = pd.read_csv("search/search.csv")
    best = json.loads(Path("search/search.json").read_text())["best"]
    drawn = {
        f"{row['method']}, draw {row['draw']}: {name}": float(value)
        for row in table.to_dict("records")
        for name, value in row.items()
        if name not in ("method", "draw", "trial") and not math.isnan(value)
    }
    return drawn | {f"best of {method}": float(found["draw"]) for method, found in best.items()}


def _own_rows(text: str, *more: str) -> Values:
    _run(text, *more)
    folder = Path(text.rpartition("--out ")[2].split()[0])
    out: Values = {}
    for row in pd.read_csv(folder / "results.csv").to_dict("records"):
        for end in ("value", "low", "high"):
            out[f"{row['method']}: {row['environment']}, {row['metric']}, {end}"] = float(row[end])
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    for row in summary["overall"]:
        for what in ("worst", "mean"):
            for end, number in zip(("value", "low", "high"), row[what], strict=True):
                out[f"{row['method']}: ({what}), {summary['metric']}, {end}"] = float(number)
    out["outcome"] = summary["answer"]["outcome"]
    out["recommended"] = summary["answer"]["recommended"]
    for method in summary["methods"]:
        for what, text in method["settings"].items():
            out[f"{method['name']}: {what}"] = text
    return out


def _model() -> Values:
    """A classifier's probabilities and findings, and a regressor's predictions."""
    _run("fit hospitals.csv --steps 10 --output ill", *ROWS)
    _run("fit hospitals.csv --target dose --environment hospital --steps 10 --objective irmv1 "
         "--penalty-weight 10 --output dose_model")  # fmt: skip
    out: Values = {}
    for model in ("ill", "dose_model"):
        _run(f"predict {model} hospitals.csv --output {model}.csv")
        for row in pd.read_csv(f"{model}.csv")[::12].to_dict("records"):
            number = next(v for k, v in row.items() if k != "row" and isinstance(v, float))
            out[f"{model}: row {row['row']}"] = number
    _run("diagnose ill hospitals.csv --output findings.json")
    for finding in json.loads(Path("findings.json").read_text(encoding="utf-8"))["findings"]:
        out[f"{finding['name']}: level"] = finding["level"]
        for number, row in enumerate(finding["table"]):
            for name, value in row.items():
                if isinstance(value, int | float) and not isinstance(value, bool):
                    out[f"{finding['name']}: {number}, {name}"] = value
    return out


COMMANDS: dict[str, Callable[[], Values]] = {
    "compare colored-digits": lambda: _benchmark(
        "compare colored-digits --objectives erm,irmv1,vrex,mmrex,meta-irm --trials 1 "
        "--steps 6 --jobs 1 --out digits", *TINY,
    ),
    "compare linear-sem": lambda: _benchmark(
        "compare linear-sem --objectives erm,irmv1,irmv1-split,vrex,mmrex,iga,group-dro "
        "--trials 1 --steps 8 --jobs 1 --out sem"
    ),
    "search": lambda: _search(
        "search colored-digits --objectives irmv1,meta-irm --draws 2 --trials 1 --steps 8 "
        "--score late-risk --jobs 1 --out search", *TINY,
    ),
    "compare hospitals.csv": lambda: _own_rows(
        "compare hospitals.csv --steps 10 --jobs 1 --out own "
        "--objectives erm-pooled,irmv1,vrex,group-dro,meta-irm", *ROWS,
    ),
    "compare hospitals.csv, a regression": lambda: _own_rows(
        "compare hospitals.csv --target dose --environment hospital --steps 10 --jobs 1 "
        "--objectives erm,vrex,iga --out dose"
    ),
    "fit, predict, diagnose": _model,
}  # fmt: skip


def moved(found: Values, golden: Values) -> dict[str, tuple[float | str, float | str]]:
    """What differs, as (recorded, found)."""
    return {key: (golden[key], v) for key, v in found.items() if not _alike(golden[key], v)}


def _alike(a: float | str, b: float | str) -> bool:
    if isinstance(a, str) or isinstance(b, str):
        return a == b
    return math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=TOLERANCE)


def main() -> None:
    """Write the file."""
    found = {
        command: {
            key: float(f"{v:.10g}") if isinstance(v, float) else v
            for key, v in measure(command).items()
        }
        for command in COMMANDS
    }
    text = json.dumps(found, indent=0, ensure_ascii=False) + "\n"
    part = GOLDEN.with_suffix(".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, GOLDEN)


if __name__ == "__main__":
    main()
