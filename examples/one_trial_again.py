"""One trial of a benchmark again: the same data, seeds and numbers as within the whole."""

from dataclasses import replace

import numpy as np

from invlearn import BenchmarkRequest, compare

small = {"rows_per_environment": 200, "validation_rows": 100, "test_rows": 100}
whole = BenchmarkRequest(
    "colored-digits", ["erm", "irmv1"], trials=3, steps=30, dataset_options=small
)
results = compare(whole, jobs=1).results
again = compare(replace(whole, trial=2), jobs=1).results

then = results[results["problem"] == 2].reset_index(drop=True)
places = ["method", "environment", "split", "metric", "selection", "step"]
assert then[places].equals(again[places])
print("numbers:", len(again), "furthest apart:", np.abs(then["value"] - again["value"]).max())
