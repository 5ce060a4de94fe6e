"""A polars table with row weights; a year whose weights are all zero is left out, and said."""

import warnings

import numpy as np
import polars as pl

from invlearn import InvariantRegressor

rng = np.random.default_rng(0)
dose = rng.normal(size=300)
rows = pl.DataFrame(
    {
        "dose": dose,
        "age": rng.uniform(20, 80, 300),
        "effect": 3 * dose + rng.normal(size=300),
        "year": np.repeat([2023, 2024, 2025], 100),
        "trust": rng.uniform(0.5, 1.5, 300),
    }
)
X, y, year = rows.select("dose", "age"), rows["effect"], rows["year"]

model = InvariantRegressor("vrex", network="linear", steps=200, random_state=0)
model.fit(X, y, environments=year, sample_weight=rows["trust"])
print(f"R² {model.score(X, y):.2f}")

with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    model.fit(X, y, environments=year, sample_weight=rows["trust"] * (year != 2024))
print(said[0].message)
print(model.choices_)
