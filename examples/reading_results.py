"""Read what a comparison left: the table, the answer, and where the numbers come from."""

import json
import tempfile
from pathlib import Path

from invlearn import BenchmarkRequest, compare
from invlearn.results import read_table

small = {"rows_per_environment": 200, "validation_rows": 100, "test_rows": 100}
request = BenchmarkRequest(
    "colored-digits", ["erm", "vrex"], trials=2, steps=20, dataset_options=small
)
with tempfile.TemporaryDirectory() as folder:
    compare(request, folder, jobs=1)
    table = read_table(Path(folder, "results.csv"))
    curves = read_table(Path(folder, "curves.parquet"))
    summary = json.loads(Path(folder, "summary.json").read_text(encoding="utf-8"))

chosen = table[
    (table["selection"] == summary["headline"])
    & (table["split"] == "test")
    & (table["metric"] == "accuracy")
]
over_trials = chosen.groupby(["method", "environment"])["value"].agg(["mean", "std"])
print(over_trials.unstack("method").round(3))

risk = curves[(curves["metric"] == "risk") & (curves["split"] == "train")]
print(risk.groupby(["method", "step"])["value"].mean().unstack("method").round(3).tail(3))
print(summary["answer"]["headline"])
print({key: summary["provenance"][key] for key in ("version", "torch", "machine")})
