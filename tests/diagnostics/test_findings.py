"""Rows of environments as diagnostics read them, and the words of findings."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from diagnostics.made import linear, make_environments, make_rows
from invlearn.diagnostics.findings import (
    Finding,
    Findings,
    draw_rows,
    environment_rows,
    listed,
    predicted_rows,
    too_few,
    unanswered,
    usable,
)
from invlearn.environments import Environments
from invlearn.errors import OptionError
from invlearn.losses import get_loss


def test_rows_of_weight_zero_are_dropped():
    envs = Environments.from_parts(
        {
            "a": (torch.arange(3.0), torch.tensor([0, 1, 2]), torch.tensor([1.0, 0.0, 3.0])),
            "b": (torch.arange(2.0), torch.tensor([5, 6]), torch.tensor([2.0, 2.0])),
        }
    )
    first, second = predicted_rows(linear([2.0]).float(), envs, seen=["b"])
    assert first.y.tolist() == [0, 2]
    assert first.x.tolist() == [[0.0], [2.0]]
    assert first.z.tolist() == [[0.0], [4.0]]
    assert first.shares.tolist() == [0.25, 0.75]
    assert second.shares.tolist() == [0.5, 0.5]
    assert (first.label, second.label) == ("'a' (new)", "'b'")


def test_shares_without_weights():
    parts = environment_rows(make_environments(n=50))
    assert [rows.name for rows in parts] == ["e0", "e1", "e2"]
    assert all(rows.shares.tolist() == [0.02] * 50 for rows in parts)


def test_outputs_have_to_be_finite():
    model = linear([float("nan"), 0.0, 0.0])
    message = (
        "Expected finite outputs, got NaN or infinity in environment 'e0'. "
        "Look for a training run that diverged."
    )
    with pytest.raises(OptionError, match=re.escape(message)):
        predicted_rows(model, make_environments(n=5))


def test_draws_rows_in_order_and_keeps_their_weights():
    rows = make_rows(np.arange(100.0), torch.arange(100), shares=np.arange(1, 101) / 5050)
    drawn = draw_rows(rows, 10, np.random.default_rng(0))
    assert len(drawn) == 10
    assert drawn.y.tolist() == sorted(set(drawn.y.tolist()))
    assert drawn.z[:, 0].tolist() == drawn.y.tolist()
    expected = (drawn.y + 1.0) / (drawn.y + 1).sum()
    assert torch.allclose(drawn.shares, expected.double())
    again = draw_rows(rows, 10, np.random.default_rng(0))
    assert again.y.tolist() == drawn.y.tolist()
    assert draw_rows(rows, 100, np.random.default_rng(0)) is rows


def test_usable_says_what_is_missing():
    few = make_rows(torch.zeros(19), torch.arange(19) % 2, "few")
    one = make_rows(torch.zeros(20), torch.ones(20, dtype=torch.int64), "one")
    both = make_rows(torch.zeros(20), torch.arange(20) % 2, "both")
    logistic = get_loss("logistic")
    kept, without = usable([few, one, both], logistic)
    assert [rows.name for rows in kept] == ["one", "both"]
    assert without == " Without 'few' (fewer than 20 rows)."
    kept, without = usable([few, one, both], logistic, varied=True)
    assert [rows.name for rows in kept] == ["both"]
    assert without == " Without 'few' (fewer than 20 rows), 'one' (one class only)."
    flat = make_rows(torch.zeros(20), torch.ones(20), "flat")
    kept, without = usable([flat], get_loss("squared"), varied=True)
    assert not kept
    assert without == " Without 'flat' (one target value only)."
    assert too_few(2, [both], "") == "it needs 2 environments with rows enough, there are 1."
    assert too_few(1, [], without) == (
        "it needs 1 environment with rows enough, there are 0."
        " Without 'flat' (one target value only)."
    )


def test_words():
    assert listed(["a"]) == "a"
    assert listed(["a", "b"]) == "a and b"
    assert listed(list("abcdefg")) == "a, b, c, d, e and 2 more"
    finding = unanswered("name", "Title", "why not.")
    assert (finding.level, finding.action, len(finding.table)) == ("note", "Nothing to do.", 0)
    assert finding.sentence == "Left out: why not."


def test_a_model_in_training_mode_is_read_in_evaluation_mode():
    model = nn.Sequential(nn.Dropout(0.5), linear([1.0, 0.0, 0.0])).train()
    rows = predicted_rows(model, make_environments(n=30))[0]
    assert torch.allclose(rows.z[:, 0], rows.x[:, 0])
    assert model.training


def test_what_a_notebook_shows_is_the_sentence_and_the_numbers():
    table = pd.DataFrame({"environment": ["<north>"], "risk": [0.123456]})
    one = Finding("risk", "A & B", "It is 3 < 4.", "Nothing to do.", "note", table)
    assert repr(one) == "Finding(risk, note: It is 3 < 4.)"
    page = Findings([one, one])._repr_html_()
    assert page.count("<h4>A &amp; B (note)</h4><p>It is 3 &lt; 4. Nothing to do.</p>") == 2
    assert "&lt;north&gt;" in page
    assert "0.123<" in page
