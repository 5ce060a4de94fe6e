"""Rows of three hospitals: a cause, and a shortcut whose strength differs between them."""

import numpy as np
import pandas as pd
import pytest


def make_table(agreement=(0.95, 0.8, 0.65), n=200, seed=0):
    rng = np.random.default_rng(seed)
    parts = []
    for e, share in enumerate(agreement):
        cause = rng.normal(size=n)
        ill = (rng.random(n) < 1 / (1 + np.exp(-3 * cause))).astype(int)
        agrees = rng.random(n) < share
        shortcut = np.where(agrees, 2 * ill - 1, 1 - 2 * ill) + 0.3 * rng.normal(size=n)
        parts.append(
            pd.DataFrame({"cause": cause, "shortcut": shortcut, "ill": ill, "hospital": f"h{e}"})
        )
    return pd.concat(parts, ignore_index=True)


@pytest.fixture
def table():
    return make_table


@pytest.fixture
def rows():
    frame = make_table()
    return frame[["cause", "shortcut"]], frame["ill"], frame["hospital"]
