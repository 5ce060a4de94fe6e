"""Seconds a run of the paper's table 1 takes on this machine, by `invlearn compare` itself.

Six methods on Colored MNIST by the recipe 'honest', every run in a process of one thread, as many
at a time as there are cores; wall clock of the whole command, process start, data, evaluation,
selection and report included. meta-IRM is timed apart from the single-level methods. Where the
folder of results holds the same trials, the accuracies are compared with those found there.

    INVLEARN_DATA=... python benchmarks/grid.py [--trials 10] [--seed 2029] [--steps N] [--out FILE]
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd

from common import source_of, write
from invlearn.comparison.compare import compare
from invlearn.comparison.requests import DEFAULT_METHODS, BenchmarkRequest
from invlearn.results import read_table

META = "meta-irm"
EARLIER = {"single-level": "colored-mnist-honest", META: "colored-mnist-meta-irm"}
KEYS = ["method", "problem", "environment", "split", "metric", "selection"]


def measure(methods: list[str], trials: int, seed: int, steps: int | None, earlier: Path) -> Any:
    """Seconds of one comparison, and how far its accuracies lie from earlier ones."""
    with tempfile.TemporaryDirectory() as folder:
        request = BenchmarkRequest("colored-mnist", methods, trials, seed, steps=steps)
        found = compare(
            request,
            Path(folder) / "out",
            progress=lambda done, total, what: print(f"{done} of {total}: {what}", flush=True),
        )
    source = found.record.provenance
    runs = trials * len(methods)
    record = {
        "methods": methods,
        "runs": runs,
        "processes": source["jobs"],
        "seconds": source["seconds"],
        "seconds_per_run": source["seconds"] / runs,
        "core_seconds_per_run": source["seconds_of_all_runs"] / runs,
    }
    if earlier.exists() and steps is None:
        record["against_committed"] = differences(found.results, read_table(earlier))
    return record


def differences(results: pd.DataFrame, earlier: pd.DataFrame) -> dict[str, Any]:
    """Test accuracies at the headline rule's step, new less old, over runs found in both."""
    rule = results["selection"].iloc[0]
    both = results.merge(earlier, on=KEYS, suffixes=("", "_before"))
    both = both[
        (both["selection"] == rule) & (both["split"] == "test") & (both["metric"] == "accuracy")
    ]
    apart = both["value"] - both["value_before"]
    steps = both.drop_duplicates(["method", "problem"])
    return {
        "rule": rule,
        "runs": len(steps),
        "runs_with_the_same_step": int((steps["step"] == steps["step_before"]).sum()),
        "mean_difference_in_points": 100 * float(apart.mean()),
        "largest_difference_in_points": 100 * float(apart.abs().max()),
    }


def main() -> None:
    """Time both parts and write the record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--seed", type=int, default=2029)
    parser.add_argument("--steps", type=int, help="of every run, to try the script")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if "INVLEARN_DATA" not in os.environ:
        sys.exit("Expected INVLEARN_DATA to name the folder that holds mnist/.")
    record: dict[str, Any] = {
        "trials": args.trials,
        "seed": args.seed,
        "threads": 1,
        **source_of(__file__),
    }
    parts = {"single-level": [m for m in DEFAULT_METHODS if m != META], META: [META]}
    results = Path(__file__).parent.parent / "results"
    for name, methods in parts.items():
        earlier = results / EARLIER[name] / "results.csv"
        record[name] = measure(methods, args.trials, args.seed, args.steps, earlier)
    seconds = sum(record[name]["seconds"] for name in parts)
    record["seconds"] = seconds
    record["runs_per_hour"] = 3600 * sum(record[name]["runs"] for name in parts) / seconds
    write(record, args.out)


if __name__ == "__main__":
    main()
