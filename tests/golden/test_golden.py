"""The commands give what they gave when `golden.json` was recorded."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

spec = importlib.util.spec_from_file_location("record", Path(__file__).with_name("record.py"))
record = importlib.util.module_from_spec(spec)
spec.loader.exec_module(record)


@pytest.fixture(scope="module")
def golden():
    return json.loads(record.GOLDEN.read_text(encoding="utf-8"))


def test_every_command_is_recorded(golden):
    assert list(record.COMMANDS) == list(golden)


@pytest.mark.parametrize("command", record.COMMANDS)
def test_a_command_gives_what_it_gave(golden, command):
    found = record.measure(command)
    assert found.keys() == golden[command].keys()
    assert record.moved(found, golden[command]) == {}


def test_a_number_that_moved_is_seen():
    assert record.moved({"a": 2.0, "b": "x"}, {"a": 2.000001, "b": "x"}) == {}
    assert record.moved({"a": 2.0, "b": "x"}, {"a": 2.00001, "b": "y"}) == {
        "a": (2.00001, 2.0),
        "b": ("y", "x"),
    }
