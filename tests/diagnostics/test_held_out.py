"""Methods compared in environments they were not trained on."""

import numpy as np
import pytest

from invlearn.diagnostics.held_out import METRICS, Contender, compare_errors

THREE = [
    Contender("linear", "Linear", "usual", ""),
    Contender("trees", "Trees", "usual", ""),
    Contender("vrex", "V-REx", "invariant", ""),
]


def errors_of(rates, n=400, seed=0):
    """0-1 errors with such frequencies exactly, the methods' rows drawn apart."""
    rng = np.random.default_rng(seed)
    out = {}
    for name, row in rates.items():
        columns = [rng.permutation(np.arange(n) < round(rate * n)) for rate in row]
        out[name] = np.stack(columns, 1).astype(float)
    return out


def compared(rates, metric="accuracy", **options):
    errors = errors_of(rates)
    ones = {name: np.ones(len(rows)) for name, rows in errors.items()}
    return compare_errors(errors, ones, THREE, METRICS[metric], **options)


RATES = {"a": (0.1, 0.2, 0.3), "b": (0.5, 0.4, 0.3), "c": (0.2, 0.2, 0.25)}


def test_values():
    found = compared(RATES)
    np.testing.assert_allclose(found.values, 1 - np.array(list(RATES.values())))
    assert found.worst_environment("linear") == "b"
    assert found.worst("linear").value == pytest.approx(0.5)
    assert found.worst("vrex").value == pytest.approx(0.7)
    assert found.mean("trees").value == pytest.approx(1 - 0.8 / 3)
    assert found.best(["linear", "trees"], "worst") == "trees"
    assert found.best(["linear", "trees", "vrex"], "mean") == "linear"


def test_intervals_are_those_of_a_proportion():
    found = compared(RATES, draws=4000)
    low, high = found.cell("a", "linear")[1:]
    error = 1.96 * np.sqrt(0.1 * 0.9 / 400)
    assert low == pytest.approx(0.9 - error, abs=0.004)
    assert high == pytest.approx(0.9 + error, abs=0.004)


def test_gain_is_against_the_best_of_the_others_and_widens_with_tests():
    found = compared(RATES)
    gain = found.gain("vrex", ["linear", "trees"], "worst")
    assert gain.value == pytest.approx(0.7 - 0.6)
    assert gain.low > 0
    wide = found.gain("vrex", ["linear", "trees"], "worst", tests=10)
    assert wide.low < gain.low < gain.high < wide.high
    mean = found.gain("vrex", ["linear", "trees"], "mean")
    assert mean.value == pytest.approx((0.7 + 0.7 + 0.75) / 3 - (0.9 + 0.5 + 0.8) / 3)


def test_paired_draws_know_what_methods_have_in_common():
    """Methods that err on the same rows differ for certain where one errs on more."""
    errors = errors_of({"a": (0.3,), "b": (0.3,)})
    worse = {name: np.concatenate([e, e, np.maximum(e, [[1.0]] * 4 + [[0.0]] * 396)], 1)
             for name, e in errors.items()}  # fmt: skip
    ones = {name: np.ones(400) for name in errors}
    found = compare_errors(worse, ones, THREE, METRICS["accuracy"])
    assert found.gain("linear", ["trees"], "mean") == (0, 0, 0)
    gain = found.gain("vrex", ["linear"], "mean")
    assert gain.high - gain.low < 0.02 < found.mean("vrex").high - found.mean("vrex").low


def test_a_regression_counts_the_root_of_squared_errors():
    errors = {"a": np.tile([[4.0, 1.0, 9.0]], (10, 1)), "b": np.tile([[4.0, 16.0, 9.0]], (10, 1))}
    ones = {"a": np.ones(10), "b": np.ones(10)}
    found = compare_errors(errors, ones, THREE, METRICS["RMSE"])
    np.testing.assert_allclose(found.values, [[2, 1, 3], [2, 4, 3]])
    assert found.worst_environment("trees") == "b"
    assert found.worst("trees").value == 4
    assert found.best(["linear", "trees", "vrex"], "worst") == "linear"
    assert found.gain("vrex", ["linear"], "mean").value == -1


def test_weights_make_classes_count_alike():
    wrong = np.array([[1.0, 0.0, 0.0]] * 10 + [[0.0, 0.0, 0.0]] * 90)
    shares = np.array([1 / 10] * 10 + [1 / 90] * 90)
    found = compare_errors({"a": wrong}, {"a": shares}, THREE, METRICS["balanced accuracy"])
    assert found.values[0].tolist() == pytest.approx([0.5, 1, 1])


def test_the_table_is_long():
    table = compared(RATES).table()
    assert list(table.columns) == ["method", "environment", "rows", "metric", "value", "low",
                                   "high"]  # fmt: skip
    assert len(table) == 3 * (3 + 2)
    assert table.loc[table["environment"] == "(worst)", "value"].round(6).tolist() == [
        0.5,
        0.6,
        0.7,
    ]
    assert (table["low"] <= table["high"]).all()
