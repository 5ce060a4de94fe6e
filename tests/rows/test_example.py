"""The generated hospitals are what they claim to be."""

import numpy as np
import pandas as pd

from invlearn.rows.example import AGREEMENT, HOSPITALS, hospitals


def test_the_artefact_agrees_as_often_as_said():
    frame = hospitals(rows=4000)
    agrees = (frame["scanner_artefact"] > 0) == (frame["ill"] == "yes")
    # The artefact's own noise turns about one in fifty over.
    found = agrees.groupby(frame["hospital"]).mean()
    for name, share in zip(HOSPITALS, AGREEMENT, strict=True):
        assert abs(found[name] - (0.023 + 0.954 * share)) < 0.03


def test_without_a_shift_the_artefact_is_noise():
    frame = hospitals(rows=4000, shift=False)
    agrees = (frame["scanner_artefact"] > 0) == (frame["ill"] == "yes")
    assert (agrees.groupby(frame["hospital"]).mean() - 0.5).abs().max() < 0.03


def test_seeds():
    pd.testing.assert_frame_equal(hospitals(rows=20), hospitals(rows=20))
    assert not hospitals(rows=20)["marker"].equals(hospitals(rows=20, seed=1)["marker"])
    assert 0.02 < np.isnan(hospitals(rows=500)["age"]).mean() < 0.08
