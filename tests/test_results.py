"""The columns of a comparison's tables, today's and those of committed results."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from invlearn.errors import OptionError
from invlearn.results import (
    CURVE_COLUMNS,
    RESULT_COLUMNS,
    SIMILARITY_COLUMNS,
    STATISTIC_COLUMNS,
    check_cells,
    check_columns,
    read_table,
)

COMMITTED = Path(__file__).parents[1] / "results"


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("colored-digits/results.csv", RESULT_COLUMNS),
        ("colored-digits/curves.parquet", CURVE_COLUMNS),
        ("colored-digits/statistics.parquet", STATISTIC_COLUMNS),
        ("colored-mnist-similarity/similarity.csv", SIMILARITY_COLUMNS),
        ("hospitals/results.csv", RESULT_COLUMNS),
    ],
)
def test_committed_tables_are_read_under_the_names_of_today(name, columns):
    table = read_table(COMMITTED / name)
    assert set(table.columns) == set(columns)
    assert table["value"].notna().any()
    assert table["method"].notna().all()


def test_a_committed_search_is_read():
    table = read_table(COMMITTED / "colored-digits-search" / "search.csv")
    assert {"method", "draw", "trial"} <= set(table.columns)


def test_what_is_written_is_read_as_it_is(tmp_path):
    row = ("vrex", "without north, seed 0", "north", "test", "RMSE", 1.5, 1.0, 2.0, None, "last")
    table = pd.DataFrame([row], columns=list(RESULT_COLUMNS))
    table.to_csv(tmp_path / "results.csv", index=False)
    pd.testing.assert_frame_equal(
        read_table(tmp_path / "results.csv"), table.astype({"step": float})
    )


def test_what_is_missing_or_twice_is_named():
    table = pd.DataFrame([("erm", 0)], columns=["method", "problem"])
    expected = (
        r"^Expected curves with the columns method, problem, environment, .*; missing: "
        r"environment, split, metric, value, step\. Pass the table as it was made, or "
        r"read it by read_table\.$"
    )
    with pytest.raises(OptionError, match=expected):
        check_columns("curves", table, CURVE_COLUMNS)
    full = table.reindex(columns=list(RESULT_COLUMNS))
    check_cells(full)
    with pytest.raises(OptionError, match=r"^Expected one value per \(method, .*'method': 'erm'"):
        check_cells(pd.concat([full, full.assign(value=2.0)]))
