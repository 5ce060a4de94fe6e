"""Misspelled names are told the nearest known one."""

from __future__ import annotations

import pytest

from invlearn.errors import unknown_name


@pytest.mark.parametrize(
    ("got", "near"), [("sgd", "SGD"), ("ADAMW", "AdamW"), ("adm", "Adam"), ("Adamw", "AdamW")]
)
def test_hint_ignores_case(got, near):
    assert f"Did you mean '{near}'?" in str(
        unknown_name("optimizer", got, ["SGD", "Adam", "AdamW"])
    )


def test_far_off_name_gets_no_hint():
    assert "Did you mean" not in str(unknown_name("objective", "zzz", ["erm"]))
