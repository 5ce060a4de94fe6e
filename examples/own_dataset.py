"""A dataset and a method of one's own, compared with those built in."""

from typing import Annotated

import numpy as np
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from invlearn import BenchmarkRequest, Environments, compare, register_dataset, register_method

FLIPPED = {"north": 0.05, "south": 0.25, "new": 0.9}


def wards(seed: int, rows: Annotated[int, "Rows of every ward."] = 500):
    """Wards whose scanner tells the illness in two of them and misleads in the third."""
    rng = np.random.default_rng(seed)
    parts = {}
    for name, flipped in FLIPPED.items():
        cause = rng.normal(size=rows)
        ill = cause + rng.normal(size=rows) > 0
        scan = np.where(rng.random(rows) < flipped, ~ill, ill)
        parts[name] = (np.column_stack([cause, 2.0 * scan - 1.0]), ill)
    made = Environments.from_parts(parts)
    train, validation = made.select(["north", "south"]).split(0.3, seed=seed)
    return train, validation, made.select(["new"])


register_dataset("wards", wards)
register_method("nearest", make_pipeline(StandardScaler(), KNeighborsClassifier(25)))

if __name__ == "__main__":
    methods = ["erm", "vrex", "nearest"]
    made = compare(BenchmarkRequest("wards", methods, trials=1, steps=200), jobs=1)
    print(made.record.recipe.notice)
    test = made.results[(made.results.split == "test") & (made.results.selection == "last")]
    print(test[test.metric == "accuracy"].set_index("method")["value"].round(2))
