"""Reading a device's numbers late, and products of lower precision."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest
import torch

from invlearn.environments import EvaluationSet
from invlearn.errors import DivergenceWarning, UnknownNameError
from invlearn.objectives import OBJECTIVES
from invlearn.training import Settings, Trainer, train_many
from invlearn.training.stacked_update import StackedTrainers

pytestmark = pytest.mark.filterwarnings("ignore::invlearn.errors.CollapseWarning")


def trainer(learnable, net, objective="irmv1", **settings):
    given = {"steps": 11, "lr": 0.01, "evaluate_every": 4} | settings
    return Trainer(net(), learnable(), objective, "logistic", settings=Settings(**given))


@pytest.mark.parametrize("objective", ["irmv1", "group-dro", "iga", "meta-irm"])
def test_late_reading_changes_nothing(objective, learnable, net):
    """As on a GPU, where the history is read at evaluations only."""
    late, soon = (trainer(learnable, net, objective) for _ in range(2))
    late._lazy = True
    one, other = late.run(), soon.run()
    pd.testing.assert_frame_equal(one.history, other.history)
    for p, q in zip(one.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(p, q)


def test_late_reading_finds_the_step_that_diverged(learnable, net):
    runs = []
    for lazy in (True, False):
        own = trainer(learnable, net, "erm", optimizer="SGD", lr=1e200)
        own._lazy = lazy
        with pytest.warns(DivergenceWarning):
            runs.append(own.run())
    assert runs[0].stop_reason == runs[1].stop_reason == "diverged"
    assert runs[0].steps == runs[1].steps
    assert runs[0].messages == runs[1].messages
    pd.testing.assert_frame_equal(runs[0].history, runs[1].history)
    for p, q in zip(runs[0].model.parameters(), runs[1].model.parameters(), strict=True):
        assert torch.equal(p, q)


def test_late_reading_looks_at_the_device_once_an_evaluation(learnable, net, monkeypatch):
    reads, read = [], Trainer._read
    monkeypatch.setattr(
        Trainer, "_read", lambda self: reads.append(len(self.history.pending)) or read(self)
    )
    own = trainer(learnable, net)
    own._lazy = True
    own.run()
    assert [n for n in reads if n] == [1, 3, 1, 3, 1, 2]
    assert sum(reads) == 11


def test_an_interrupt_loses_nothing_that_was_not_read_yet(learnable, net, monkeypatch):
    plan = Trainer._plan

    def interrupted(self, step):
        if step == 7:
            raise KeyboardInterrupt
        return plan(self, step)

    monkeypatch.setattr(Trainer, "_plan", interrupted)
    runs = []
    for lazy in (True, False):
        own = trainer(learnable, net)
        own._lazy = lazy
        runs.append(own.run())
    assert runs[0].stop_reason == "interrupted"
    assert len(runs[0].history) == runs[0].steps == 7
    pd.testing.assert_frame_equal(runs[0].history, runs[1].history)


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")


@needs_gpu
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_a_gpu_gives_what_the_cpu_gives(objective, loss, learnable, net):
    found = []
    for device in ("cpu", "cuda"):
        rows = learnable(loss=loss)
        measured = [EvaluationSet.from_environments(rows, "validation").to(device)]
        trainers = [
            Trainer(
                net(seed=seed).to(device),
                rows.to(device),
                without_noise(objective),
                loss,
                settings=Settings(steps=6, lr=0.01, evaluate_every=3),
                seed=seed,
                evaluations=measured,
                keep_outputs=("validation",),
            )
            for seed in range(2)
        ]
        found.append(train_many(trainers, arrangement="stacked"))
    for cpu, gpu in zip(*found, strict=True):
        for p, q in zip(cpu.model.parameters(), gpu.model.parameters(), strict=True):
            torch.testing.assert_close(p, q.cpu(), rtol=1e-9, atol=1e-9)


@needs_gpu
def test_no_step_on_a_gpu_waits_for_the_host(learnable, net):
    trainers = [
        Trainer(net(seed=seed).to("cuda"), learnable().to("cuda"), "irmv1", "logistic")
        for seed in range(2)
    ]
    stack = StackedTrainers(trainers)
    stack.make([trainer._plan(0) for trainer in trainers])
    torch.cuda.set_sync_debug_mode("error")
    try:
        stack.make([trainer._plan(1) for trainer in trainers])
    finally:
        torch.cuda.set_sync_debug_mode("default")


def without_noise(name):
    """An objective without DropGrad's noise, which devices draw differently."""
    objective = OBJECTIVES[name]
    return replace(objective, dropgrad=0.0) if "dropgrad" in objective.numbers else objective


@pytest.mark.parametrize(("precision", "apart"), [("tf32", 0.0), ("bf16", 0.05)])
def test_precision_is_that_of_products_and_parameters_keep_theirs(precision, apart, learnable, net):
    def run(precision):
        rows = learnable(sizes=(200, 300))
        rows = type(rows)(rows.x.float(), rows.y, rows.names, rows.offsets)
        settings = Settings(steps=5, lr=0.01, precision=precision)
        return Trainer(net().float(), rows, "vrex", "logistic", settings=settings).run()

    low, full = run(precision), run("float32")
    differences = []
    for p, q in zip(low.model.parameters(), full.model.parameters(), strict=True):
        assert p.dtype == torch.float32
        differences.append(float((p - q).detach().abs().max()))
    assert max(differences) <= apart
    assert (max(differences) > 0) == (apart > 0)


def test_a_misspelt_precision():
    with pytest.raises(UnknownNameError, match="bf16"):
        Settings(precision="bf61")
