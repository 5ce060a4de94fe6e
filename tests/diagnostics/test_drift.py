"""How far training on one environment moves a representation."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from diagnostics.made import linear, make_environments, two_layers
from invlearn.diagnostics.drift import representation_drift
from invlearn.diagnostics.findings import predicted_rows
from invlearn.losses import get_loss

CAUSE_ONLY = [[1.0, 0, 0], [0.5, 0, 0]]
BOTH = [[1.0, 0, 0], [0, 1.0, 0]]


def drift_of(model, envs, task="squared"):
    rows = predicted_rows(model, envs)
    return representation_drift(model, rows, get_loss(task), rng=np.random.default_rng(0))


def test_drift_is_noted_where_other_features_serve():
    """The model suits the first environments exactly; in the last its target turns around."""
    # Half the cause and half the shortcut is the best there is at a strength of 1.
    model = nn.Sequential(linear([[0.1, 0.1, 0.0]]), linear([5.0]))
    before = [p.detach().clone() for p in model.parameters()]
    finding = drift_of(model, make_environments(strengths=(1.0, 1.0, -1.0)))
    assert finding.table["times the least change"].min() == 1
    assert finding.table["similarity"].idxmin() == 2
    assert finding.level == "note"
    assert finding.sentence.startswith("A few training steps on 'e2' change")
    for parameter, old in zip(model.parameters(), before, strict=True):
        assert torch.equal(parameter, old)
        assert parameter.grad is None


def test_no_drift_in_environments_that_are_alike():
    envs = make_environments(strengths=(0.0, 0.0), n=3000)
    finding = drift_of(two_layers(CAUSE_ONLY, [0.4, 0.2]), envs)
    assert finding.level == "good"
    assert finding.table["rows"].tolist() == [2000, 2000]
    assert "At most 2000 rows" in finding.sentence


def test_drift_is_left_out():
    envs = make_environments(n=40)
    assert "one layer" in drift_of(linear([1.0, 0, 0]), envs).sentence
    dead = nn.Sequential(linear(np.zeros((2, 3))), linear([1.0, 1.0]))
    assert "constant ones in a" in drift_of(dead, envs).sentence
    one = drift_of(two_layers(BOTH, [1.0, 0.0]), envs.select(["e0"]))
    assert one.sentence == "Left out: it needs 2 environments with rows enough, there are 1."
