"""The answer: helped, did not, at what price."""

from dataclasses import replace

import numpy as np
import pytest

from invlearn import EnvironmentsError
from invlearn.diagnostics.left_out import compare_errors
from invlearn.metrics import METRICS
from invlearn.results import MethodInfo
from reports.made import make_content

FOUR = [
    MethodInfo("linear", "Linear", "usual", ""),
    MethodInfo("boosting", "Boosting", "usual", ""),
    MethodInfo("vrex", "V-REx", "invariant", ""),
    MethodInfo("irmv1", "IRMv1", "invariant", ""),
]


def told(found):
    return make_content(found).answer


def answer(rates, n=1000, metric="accuracy"):
    rng = np.random.default_rng(0)
    errors = {
        name: np.stack([rng.permutation(np.arange(n) < round(r * n)) for r in row], 1).astype(float)
        for name, row in rates.items()
    }
    return told(compare_errors(errors, FOUR, METRICS[metric]))


def test_it_helps_at_a_price():
    easy = (0.1, 0.1, 0.2, 0.3)
    found = answer({"b": (0.6, 0.5, 0.2, 0.49)} | dict.fromkeys("acde", easy), n=4000)
    assert found.helps
    assert found.recommended == "vrex"
    assert found.headline.startswith("Invariance training helps here: in the environment where")
    assert "V-REx did better than the usual methods" in found.headline
    assert "IRMv1" not in found.headline
    text = " ".join(found.sentences)
    assert "Linear 40.0 % [" in text
    assert "(in b), " in text
    assert "the best there is Boosting" in text
    assert "+30.0 points" in text
    assert "Its price: on average over environments V-REx is \N{MINUS SIGN}2.0 points" in text
    assert "Not clearly better than the usual methods there: IRMv1 51.0 %" in text


def test_it_does_not_help_and_says_so_first():
    found = answer({"a": (0.1, 0.12, 0.1, 0.2), "b": (0.12, 0.2, 0.12, 0.2)})
    assert found.outcome == "as good"
    assert found.recommended == "linear"
    assert found.headline.startswith("Pooled training is as good or better here: use Linear.")
    assert "Linear is the best of the usual methods" in found.sentences[-1]


def test_a_clear_but_tiny_gain_is_none():
    gain = {"a": (0.02, 0.3, 0.012, 0.3), "b": (0.02, 0.3, 0.012, 0.3)}
    found = answer(gain, n=20_000)
    assert not found.helps


def test_chance_is_no_gain():
    found = answer({"a": (0.3, 0.3, 0.26, 0.3), "b": (0.3, 0.3, 0.26, 0.3)}, n=50)
    assert found.outcome == "undecided"
    assert found.headline.startswith("V-REx and IRMv1 may or may not do better")
    assert found.recommended in ("linear", "boosting")


def test_a_failed_training_is_said_and_takes_no_part():
    rng = np.random.default_rng(0)
    errors = {name: (rng.random((500, 4)) < 0.2).astype(float) for name in "ab"}
    errors["b"][:, 2] = np.nan
    found = told(compare_errors(errors, FOUR, METRICS["accuracy"]))
    assert "V-REx failed: its training diverged without b." in found.sentences[-1]
    errors["a"][:, :2] = np.nan
    with pytest.raises(EnvironmentsError, match="none did"):
        told(compare_errors(errors, FOUR, METRICS["accuracy"]))


def test_nothing_to_compare_with_decides_nothing():
    rng = np.random.default_rng(0)
    errors = {name: (rng.random((500, 4)) < 0.2).astype(float) for name in "ab"}
    errors["b"][:, 2:] = np.nan
    found = told(compare_errors(errors, FOUR, METRICS["accuracy"]))
    assert found.outcome == "undecided"
    assert found.headline.startswith("No invariant method finished")


def test_one_environment_is_named():
    found = answer({"b": (0.6, 0.5, 0.2, 0.49)})
    assert found.headline == (
        "Invariance training helps here: in b, V-REx did better than the usual methods."
    )
    assert "average" not in " ".join(found.sentences)


def test_an_error_is_better_when_lower():
    found = answer({"a": (0.5, 0.6, 0.1, 0.9), "b": (0.5, 0.6, 0.1, 0.9)}, metric="RMSE")
    assert found.helps
    assert found.recommended == "vrex"
    assert "RMSE of the usual methods" in found.sentences[0]
    assert "is better too: +0.391 [" in " ".join(found.sentences)


@pytest.mark.parametrize("percent", [True, False])
@pytest.mark.parametrize("higher", [True, False])
def test_a_new_metric_is_shown_by_what_its_entry_says(percent, higher, monkeypatch):
    """A unit comes from its being a share, what is better from its direction."""
    sign = -1.0 if higher else 1.0
    made = replace(
        METRICS["accuracy"],
        name="score",
        meaning="made up",
        of_mean=lambda mean: higher + sign * mean,
        higher_is_better=higher,
        percent=percent,
    )
    monkeypatch.setitem(METRICS, "score", made)
    easy = (0.1, 0.1, 0.2, 0.3)
    rates = {"b": (0.6, 0.5, 0.2, 0.49)} | dict.fromkeys("acde", easy)
    found = answer(rates, n=4000, metric="score")
    assert (found.outcome, found.recommended) == ("helps", "vrex")
    text = " ".join(found.sentences)
    value = 0.4 if higher else 0.6
    assert f"Linear {made.show(value)} [" in text
    assert ("+30.0 points [" in text) == percent
    assert ("+0.3 [" in text) != percent
