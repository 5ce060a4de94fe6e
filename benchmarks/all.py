"""Run the speed benchmarks one after another and write a table of their claims.

    python benchmarks/all.py [SCRIPT ...] [--table-only] [--results results] [--quick]

Those on Colored MNIST need INVLEARN_DATA and are left out without it. The table is of all records
in the folder, those of earlier calls too. Every claim is read from the
records that the scripts leave in the folder; `--quick` runs them at sizes that show that they
work, not how fast anything is.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RECORDS = {
    "step": "step.json",
    "meta_step": "meta_step.json",
    "growth": "growth.json",
    "time_to_result": "time_to_result.json",
    "grid": "grid.json",
}
NEEDS_DATA = ("time_to_result", "grid")
QUICK = {
    "step": ["--rows", "1000", "--repeats", "2"],
    "meta_step": ["--rows", "300", "--repeats", "2", "--children", "0"],
    "growth": [
        *("--max-rows", "2000", "--max-environments", "5", "--max-width", "64"),
        *("--max-runs", "2", "--repeats", "2"),
    ],
    "time_to_result": ["--seeds", "2", "--naive-seeds", "1", "--steps", "3"],
    "grid": ["--trials", "1", "--steps", "3"],
}


@dataclass(frozen=True)
class Claim:
    """What is claimed of a figure in a record.

    at_least, at_most : the bound; neither for a figure that is only quoted.
    """

    text: str
    script: str
    read: Callable[[Mapping[str, Any]], float]
    at_least: float | None = None
    at_most: float | None = None

    def row(self, record: Mapping[str, Any]) -> str:
        """Its line of the table."""
        value = self.read(record)
        target, verdict = "–", "quoted"
        if self.at_least is not None:
            target = f"at least {self.at_least:g}"
            verdict = "met" if value >= self.at_least else "**missed**"
        if self.at_most is not None:
            target = f"at most {self.at_most:g}"
            verdict = "met" if value <= self.at_most else "**missed**"
        return f"| {self.text} | {target} | {value:.3g} | {verdict} | `{RECORDS[self.script]}` |"


def variant(name: str, figure: str) -> Callable[[Mapping[str, Any]], float]:
    """A figure of meta_step's variant at the largest number of rows."""

    def read(record: Mapping[str, Any]) -> float:
        rows = record["rows_per_environment"]
        largest = rows[max(rows, key=int)]["variants"]
        return float(largest[name][figure])

    return read


def steepest(axis: str, *left_out: str) -> Callable[[Mapping[str, Any]], float]:
    """The largest slope along an axis of growth, some lines left out."""
    return lambda record: max(
        float(line["slope"]) for name, line in record[axis].items() if name not in left_out
    )


def slope_of(axis: str, name: str) -> Callable[[Mapping[str, Any]], float]:
    """The slope of one line of growth."""
    return lambda record: float(record[axis][name]["slope"])


def stacking(problem: str) -> Callable[[Mapping[str, Any]], float]:
    """How many times faster the most runs train stacked than one by one."""

    def read(record: Mapping[str, Any]) -> float:
        runs = record["runs"]
        one, stacked = (
            runs[f"{problem}, {how}"]["seconds"][-1] for how in ("one by one", "stacked")
        )
        return float(one / stacked)

    return read


def over_budget(record: Mapping[str, Any]) -> float:
    """MiB by which the wide model's steps exceed the memory budget, at most."""
    lines = record["memory"]["wide"].values()
    return max(float(mib) for line in lines for mib in line["mib_over_budget"])


META = "meta-irm"
CLAIMS = [
    Claim(
        "IRMv1 step: times as fast as the published loop", "step", lambda r: r["ratio_median"], 1.9
    ),
    Claim(
        "IRMv1 step: fraction of the rate of bare products",
        "step",
        lambda r: r["fraction_of_product_rate"],
        0.8,
    ),
    Claim(
        "IRMv1 step: ten classes in ten colors over two",
        "step",
        lambda r: r["ten_class_over_two_class"],
        at_most=1.3,
    ),
    Claim(
        "IRMv1 step, ten classes: times as fast as the published loop",
        "step",
        lambda r: r["ten_class_ratio_median"],
        1,
    ),
    Claim(
        "meta-IRM step: seconds over ERM's",
        "meta_step",
        variant("meta-IRM", "seconds_over_erm"),
        at_most=3.5,
    ),
    Claim(
        "meta-IRM step: seconds over double backward's",
        "meta_step",
        variant("meta-IRM", "seconds_over_plain"),
        at_most=1 / 1.5,
    ),
    Claim(
        "meta-IRM step: memory over double backward's",
        "meta_step",
        variant("meta-IRM", "memory_over_plain"),
        at_most=1 / 3,
    ),
    Claim(
        "Seconds by rows: steepest slope",
        "growth",
        steepest("rows", "irmv1, published loop"),
        at_most=1.05,
    ),
    Claim(
        "Seconds by environments: steepest slope, meta-IRM with all pairs apart",
        "growth",
        steepest("environments", META),
        at_most=1.05,
    ),
    Claim(
        "Seconds by environments: slope of meta-IRM with all pairs",
        "growth",
        slope_of("environments", META),
    ),
    Claim(
        "Seconds by width (two hidden layers): steepest slope",
        "growth",
        steepest("width"),
    ),
    Claim("MiB over the memory budget, whatever the rows", "growth", over_budget),
    Claim(
        "Runs trained together, linear: stacked times as fast as one by one",
        "growth",
        stacking("linear"),
        1,
    ),
    Claim(
        "Runs trained together, hidden 64: stacked times as fast as one by one",
        "growth",
        stacking("hidden 64"),
        1,
    ),
    Claim(
        "Colored MNIST, IRMv1: mean accuracy at p_e = 0.9 (%)",
        "time_to_result",
        lambda r: r["ours"]["mean_accuracy"]["lowest-worst-group"]["p_e=0.9"],
        66,
    ),
    Claim(
        "The same at the oracle's step (it looks at the test environment)",
        "time_to_result",
        lambda r: r["ours"]["mean_accuracy"]["oracle"]["p_e=0.9"],
        66,
    ),
    Claim(
        "Colored MNIST, IRMv1 whole: times as fast as the published loop "
        "with its settings (oracle hyperparameters)",
        "time_to_result",
        lambda r: r["wall_ratio_per_trial"],
        15,
    ),
    Claim(
        "Colored MNIST, table 1: seconds a run, single-level methods",
        "grid",
        lambda r: r["single-level"]["seconds_per_run"],
        at_most=12,
    ),
    Claim(
        "Colored MNIST, table 1: seconds a run, meta-IRM",
        "grid",
        lambda r: r["meta-irm"]["seconds_per_run"],
        at_most=20,
    ),
    Claim(
        "Colored MNIST, table 1: runs per hour, all six methods",
        "grid",
        lambda r: r["runs_per_hour"],
    ),
]


def command(script: str, results: Path, quick: bool) -> list[str]:
    """How a script is called."""
    out = results if script == "growth" else results / RECORDS[script]
    options = QUICK[script] if quick else []
    return [sys.executable, str(HERE / f"{script}.py"), *options, "--out", str(out)]


def table(records: Mapping[str, Mapping[str, Any]]) -> str:
    """The claims of the records there are, as Markdown; what a record lacks was not measured."""
    lines = [
        "# Speed and memory: what is claimed, what was measured",
        "",
        "Written by `python benchmarks/all.py`; ratios are taken within one run.",
        "",
        "| claim | target | measured | verdict | record |",
        "| --- | --- | --- | --- | --- |",
    ]
    for claim in CLAIMS:
        try:
            lines.append(claim.row(records[claim.script]))
        except (KeyError, TypeError):
            lines.append(f"| {claim.text} | | | not measured | `{RECORDS[claim.script]}` |")
    lines += [
        "",
        "| record | machine | threads | commit | started |",
        "| --- | --- | --- | --- | --- |",
    ]
    for script, record in records.items():
        figures = [record.get(key, "") for key in ("machine", "threads", "commit", "started")]
        lines.append(f"| `{RECORDS[script]}` | " + " | ".join(map(str, figures)) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run them all, then write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "scripts", nargs="*", choices=[*RECORDS, []], help="which to run; all of them by default"
    )
    parser.add_argument(
        "--table-only", action="store_true", help="write the table of what is there"
    )
    parser.add_argument("--results", type=Path, help="default: results; a new folder if quick")
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    if args.results is None:
        args.results = Path(tempfile.mkdtemp()) if args.quick else Path("results")
    args.results.mkdir(parents=True, exist_ok=True)
    for script in [] if args.table_only else args.scripts or RECORDS:
        if script in NEEDS_DATA and "INVLEARN_DATA" not in os.environ:
            print(f"{script}: left out, INVLEARN_DATA is not set", flush=True)
            continue
        print(f"{script} ...", flush=True)
        subprocess.run(command(script, args.results, args.quick), check=True)
    paths = {script: args.results / name for script, name in RECORDS.items()}
    records = {
        script: json.loads(path.read_text(encoding="utf-8"))
        for script, path in paths.items()
        if path.exists()
    }
    text = table(records)
    if args.quick:
        text += "\nThese sizes only show that the scripts work; no figure here means anything.\n"
    print(text)
    (args.results / "benchmarks.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
