"""Records into summary.json and back, and the pages that are made of what came back."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pydantic import ValidationError

from invlearn.errors import UnknownNameError
from invlearn.reports.benchmark import BenchmarkRecord, Warned
from invlearn.reports.html import render
from invlearn.reports.record import Answer, OwnRowsRecord, from_json, to_json
from reports.made import HOSPITALS, failed_in, make_content, make_found, page

ANSWER = Answer("It “helps”.", ("Why.",), "helps", "vrex")


def test_a_benchmarks_record_comes_back_whole(experiment, statistics):
    experiment.change(seeds=(3, 4), warnings=(Warned("erm", 1, "a warning"),))
    text = to_json(experiment.record, ANSWER)
    again = from_json(BenchmarkRecord, text)
    assert again == experiment.record
    tables = experiment.results, experiment.curves
    assert render(*tables, again, {}, statistics) == render(
        *tables, experiment.record, {}, statistics
    )
    assert json.loads(text)["answer"]["headline"] == "It “helps”."


def test_an_own_rows_record_makes_the_same_page_again():
    content = make_content(failed_in(make_found(HOSPITALS), ("Porto", "vrex")))
    text = to_json(content.record, content.answer)
    again = content.change(**vars(from_json(OwnRowsRecord, text)))
    assert page(again) == page(content)
    assert again.answer == content.answer
    assert next(iter(json.loads(text))) == "answer"


def test_numbers_that_are_none_are_null():
    content = make_content(failed_in(make_found(HOSPITALS), ("Porto", "vrex")))
    text = to_json(content.record, ANSWER)
    assert "NaN" not in text
    (failed,) = [each for each in json.loads(text)["overall"] if each["failed"]]
    assert failed["worst"] == [None, None, None]
    (again,) = [each for each in from_json(OwnRowsRecord, text).overall if each.failed]
    assert np.isnan(again.worst).all()
    assert again.worst_gain is None


def test_a_record_that_lacks_something_is_refused(experiment):
    plain = json.loads(to_json(experiment.record, ANSWER))
    del plain["seed"]
    with pytest.raises(ValidationError, match="seed"):
        from_json(BenchmarkRecord, json.dumps(plain))


def test_methods_in_order(experiment):
    assert [method.name for method in experiment.record.ordered] == [
        "erm", "irmv1", "vrex", "erm-grayscale",
    ]  # fmt: skip
    assert [method.name for method in make_content().record.ordered] == [
        "erm", "boosting", "group-dro", "irmv1", "vrex",
    ]  # fmt: skip
    with pytest.raises(UnknownNameError, match="Did you mean 'irmv1'"):
        experiment.record.method("irmv2")
