"""Methods compared in environments they were not trained on."""

import numpy as np
import pytest

from invlearn.diagnostics.left_out import compare_errors
from invlearn.metrics import METRICS
from invlearn.results import RESULT_COLUMNS, MethodInfo

THREE = [
    MethodInfo("linear", "Linear", "usual", ""),
    MethodInfo("trees", "Trees", "usual", ""),
    MethodInfo("vrex", "V-REx", "invariant", ""),
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
    return compare_errors(errors, THREE, METRICS[metric], **options)


PROBLEMS = {name: f"without {name}, seed 0" for name in "abc"}
RATES = {"a": (0.1, 0.2, 0.3), "b": (0.5, 0.4, 0.3), "c": (0.2, 0.2, 0.25)}


def test_values():
    found = compared(RATES)
    np.testing.assert_allclose(found.values, 1 - np.array(list(RATES.values())))
    assert found.worst_environment("linear") == "b"
    assert found.worst("linear").value == pytest.approx(0.5)
    assert found.worst("vrex").value == pytest.approx(0.7)
    assert found.mean("trees").value == pytest.approx(1 - 0.8 / 3)


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
    found = compare_errors(worse, THREE, METRICS["accuracy"])
    alike = found.gain("linear", ["trees"], "mean")
    assert alike.value == 0
    assert alike.high < 0.004  # The same rows: less than one more of 400 is open.
    gain = found.gain("vrex", ["linear"], "mean")
    assert gain.high - gain.low < 0.02 < found.mean("vrex").high - found.mean("vrex").low


def test_a_regression_counts_the_root_of_squared_errors():
    errors = {"a": np.tile([[4.0, 1.0, 9.0]], (10, 1)), "b": np.tile([[4.0, 16.0, 9.0]], (10, 1))}
    found = compare_errors(errors, THREE, METRICS["RMSE"])
    np.testing.assert_allclose(found.values, [[2, 1, 3], [2, 4, 3]])
    assert found.worst_environment("trees") == "b"
    assert found.worst("trees").value == 4
    assert found.worst("linear").value == 2
    assert found.gain("vrex", ["linear"], "mean").value == -1


def test_classes_count_alike():
    wrong = np.array([[1.0, 0.0, 1.0]] * 10 + [[0.0, 0.0, 0.0]] * 190)
    classes = {"a": np.array([1] * 10 + [0] * 190)}
    found = compare_errors({"a": wrong}, THREE, METRICS["balanced accuracy"], classes=classes)
    assert found.values[0].tolist() == [0.5, 1, 0.5]
    # Constants are right in one of two classes whatever rows are drawn.
    assert found.cell("a", "linear") == (0.5, 0.5, 0.5)
    assert found.gain("linear", ["vrex"], "mean").value == 0
    half = np.array([[0.0, 1.0, 0.5]] * 200)
    found = compare_errors({"a": half}, THREE, METRICS["balanced accuracy"], classes=classes)
    assert found.values[0].tolist() == [1, 0, 0.5]


def test_a_class_of_one_row_decides_nothing():
    """Its one row is half of the balanced accuracy, and no draw can tell how sure it is."""
    claimed = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        errors = {name: (rng.random((1000, 2)) < 0.2).astype(float) for name in "abcd"}
        classes = {name: (np.arange(1000) < 200).astype(int) for name in "abc"}
        classes["d"] = (np.arange(1000) < 1).astype(int)
        two = [THREE[0], THREE[2]]
        found = compare_errors(
            errors, two, METRICS["balanced accuracy"], classes=classes, draws=200
        )
        claimed += found.gain("vrex", ["linear"], "worst").low > 0
    assert claimed == 0


def test_a_failed_method_takes_no_part():
    errors = errors_of(RATES)
    errors["b"][:, 1] = np.nan
    found = compare_errors(errors, THREE, METRICS["accuracy"])
    assert found.failed() == {"trees": ["b"]}
    assert [c.name for c in found.finished("usual")] == ["linear"]
    assert np.isnan(found.worst("trees").value)
    assert found.worst_environment("trees") == "b"
    assert found.table(PROBLEMS)["value"].isna().sum() == 1
    linear, trees, vrex = found.overall()
    assert (trees.failed, trees.where) == (("b",), "b")
    assert np.isnan([trees.worst.value, trees.mean.value]).all()
    assert (trees.worst_gain, linear.worst_gain, linear.failed) == (None, None, ())
    assert vrex.worst_gain == found.gain("vrex", ["linear"], "worst", 2)


def drawn(rng, shares, n):
    """Rows of two methods that are right with such probabilities [E, 2]."""
    errors = {str(e): (rng.random((n, 2)) >= pair).astype(float) for e, pair in enumerate(shares)}
    return compare_errors(errors, [THREE[0], THREE[2]], METRICS["accuracy"], draws=200)


@pytest.mark.parametrize(
    "shares",
    [
        np.full((10, 2), 0.8),  # All alike: the lowest of ten is low by chance.
        np.array([[0.8, 0.88]] * 9 + [[0.8, 0.78]]),
        np.array([[0.85, 0.8]] * 5 + [[0.64, 0.8]]),
    ],
)
def test_intervals_of_the_worst_hold_the_truth(shares):
    """Of the environment that was picked, and of the gain, at least 95 times in a hundred."""
    rng = np.random.default_rng(0)
    held, claimed, runs = 0, 0, 100
    gain_truth = shares[:, 1].min() - shares[:, 0].min()
    for _ in range(runs):
        found = drawn(rng, shares, 100)
        picked = shares[int(found.worst_environment("linear")), 0]
        held += found.worst("linear").low <= picked <= found.worst("linear").high
        gain = found.gain("vrex", ["linear"], "worst")
        claimed += not gain.low <= gain_truth <= gain.high
    assert held >= 0.93 * runs
    assert claimed <= 0.05 * runs


def test_the_table_is_long():
    table = compared(RATES).table(PROBLEMS)
    assert list(table.columns) == list(RESULT_COLUMNS)
    assert len(table) == 3 * 3
    assert table["problem"].tolist() == list(PROBLEMS.values()) * 3
    assert table["value"].round(6).tolist()[:3] == [0.9, 0.5, 0.8]
    assert (table["low"] <= table["high"]).all()


def test_overall_is_the_worst_the_mean_and_the_gains():
    found = compared(RATES)
    every = found.overall()
    assert [o.method for o in every] == ["linear", "trees", "vrex"]
    assert [o.where for o in every] == [found.worst_environment(o.method) for o in every]
    assert [round(o.worst.value, 6) for o in every] == [0.5, 0.6, 0.7]
    assert [o.mean for o in every] == [found.mean(o.method) for o in every]
    # Of one invariant method two comparisons are made: where each does worst, and on average.
    for gain, where in ((every[2].worst_gain, "worst"), (every[2].mean_gain, "mean")):
        assert gain == found.gain("vrex", ["linear", "trees"], where, 2)
    assert every[0].mean_gain is None
    none_usual = compare_errors(
        {name: rows[:, 2:] for name, rows in errors_of(RATES).items()},
        THREE[2:],
        METRICS["accuracy"],
    )
    assert none_usual.overall()[0].worst_gain is None
