"""An objective that somebody else writes: one file, one call, and it works everywhere."""

from __future__ import annotations

import importlib
import sys
import warnings

import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

import invlearn.objectives as registry
from invlearn import InvariantClassifier, Settings, Trainer, train_many
from invlearn.cli import app
from invlearn.errors import OptionError
from invlearn.ground.machine import WORKER_CALLS
from invlearn.training.alike import fitting

FILE = '''
"""Standard deviation of the risks in place of their variance."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from invlearn.objectives import register_objective
from invlearn.objectives.base import MeanObjective, Range, Terms, number


@dataclass(frozen=True)
class StdREx(MeanObjective):
    """mean_e R_e + b Std_e(R_e)."""

    penalty_weight: float = number(1.0, Range(0.1, 10.0, log=True))
    title: ClassVar[str] = "Std-REx"
    summary: ClassVar[str] = "Penalizes the standard deviation of the risks."
    source: ClassVar[str] = "a stranger"
    strength: ClassVar[str] = "penalty_weight"
    table_strengths: ClassVar[tuple[float, ...]] = (1.0, 3.0)

    def value(self, means, state):
        risks = means["risk"]
        variance = (risks - risks.mean()).square().mean()
        apart = variance > 0
        spread = torch.where(apart, torch.where(apart, variance, 1.0).sqrt(), 0.0)
        return Terms(risks.mean() + self.penalty_weight * spread, risks, spread), state


register_objective("std-rex", StdREx())
'''


@pytest.fixture
def stranger(tmp_path, monkeypatch):
    """The objective's module in a package of its own, registered by importing it."""
    package = tmp_path / "theirs"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "std_rex.py").write_text(FILE.lstrip())
    assert len(FILE.strip().splitlines()) <= 40
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    calls = list(WORKER_CALLS)
    yield importlib.import_module("theirs.std_rex")
    del registry.OBJECTIVES["std-rex"], sys.modules["theirs.std_rex"]
    WORKER_CALLS[:] = calls


def invlearn(text):
    result = CliRunner().invoke(app, text.split())
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.filterwarnings("ignore::invlearn.errors.CollapseWarning")  # Six steps.
def test_it_trains_alone_and_in_a_stack(stranger, rows, model):
    def trainers():
        settings = Settings(steps=6, lr=0.01)
        return [
            Trainer(model(seed=r), rows(seed=r), "std-rex", "logistic", settings=settings, seed=r)
            for r in range(3)
        ]

    alone = [trainer.run() for trainer in trainers()]
    assert all(fitting(trainers()))
    together = train_many(trainers(), arrangement="stacked")
    for one, other in zip(together, alone, strict=True):
        assert (one.history["penalty_weight"] == 1.0).all()
        for p, q in zip(one.model.parameters(), other.model.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-9)


def test_it_is_compared_on_a_benchmark_in_worker_processes(stranger, forked_workers):
    assert "std-rex" in invlearn("objectives")
    invlearn("compare linear-sem --objectives erm,std-rex --trials 2 --steps 6 --jobs 2 --out sem")
    table = pd.read_csv("sem/results.csv")
    assert set(table.get("method", table.get("objective"))) == {"erm", "std-rex"}


def test_it_is_compared_on_own_rows_in_worker_processes(stranger, forked_workers):
    invlearn("example hospitals --rows 30 --output hospitals.csv")
    invlearn(
        "compare hospitals.csv --target ill --environment hospital --steps 5 --jobs 2 --out own "
        "--objectives erm-pooled,std-rex"
    )
    assert "std-rex" in set(pd.read_csv("own/results.csv")["method"])


def test_an_estimator_fits_with_it(stranger, rows):
    data = rows(sizes=(30, 40, 35))
    names = [data.names[i] for i in data.index]
    estimator = InvariantClassifier("std-rex", penalty_weight="auto", steps=5, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Five steps learn nothing.
        estimator.fit(data.x.numpy(), data.y.numpy(), environments=names)
    assert set(estimator.penalty_scores_["strength"]) == {0.0, 1.0, 3.0}


def test_a_name_that_is_taken_and_a_class_are_refused(stranger):
    with pytest.raises(OptionError, match=r"'vrex' is V-REx\. Choose another\."):
        registry.register_objective("vrex", stranger.StdREx())
    registry.register_objective("std-rex", stranger.StdREx())  # The same one again does no harm.
    with pytest.raises(OptionError, match=r"Expected an instance of an Objective .*Call its class"):
        registry.register_objective("other", stranger.StdREx)
