"""Settings refuse what cannot be meant, and batches are a pure function of seed and step."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from invlearn.environments import Environments
from invlearn.errors import OptionError, UnknownNameError
from invlearn.training import PenaltySchedule, Settings
from invlearn.training.settings import draw_batch


def numbered(sizes):
    """Environments whose only feature is the row's number within its environment."""
    return Environments.from_parts(
        {f"e{e}": (torch.arange(n).double(), torch.arange(n) % 2) for e, n in enumerate(sizes)}
    )


@pytest.mark.parametrize("name", ["steps", "evaluate_every", "memory_budget"])
def test_counts_below_one_are_refused(name):
    with pytest.raises(
        OptionError, match=rf"Expected {name} of 1 or more, a whole number, got 0\."
    ):
        Settings(**{name: 0})


def test_counts_may_be_numpys():
    steps = Settings(steps=np.int64(20)).steps
    assert (steps, type(steps)) == (20, int)


@pytest.mark.parametrize("size", [0, 2.5])
def test_empty_batches_and_parts_of_a_row_are_refused(size):
    text = rf"Expected batch_size as a whole number of 1 or more, got {size}; None takes all\."
    with pytest.raises(OptionError, match=text):
        Settings(batch_size=size)


@pytest.mark.parametrize("lr", [-0.1, 0.0, float("inf"), float("nan")])
def test_learning_rates_that_are_not_positive_are_refused(lr):
    with pytest.raises(OptionError, match=rf"Expected a positive lr .* got lr={lr}, l2=0\.0"):
        Settings(lr=lr)


@pytest.mark.parametrize("l2", [-1e-3, float("inf"), float("nan")])
def test_negative_l2_is_refused(l2):
    with pytest.raises(OptionError, match=rf"l2 of 0 or more, got lr=0\.001, l2={l2}"):
        Settings(l2=l2)


def test_misspelt_row_scheme_is_told_the_nearest():
    with pytest.raises(
        UnknownNameError, match=r"Unknown row scheme 'eqal'\. Did you mean 'equal'\?"
    ):
        Settings(rows="eqal")


@pytest.mark.parametrize(("got", "meant"), [("adam", "Adam"), ("Adm", "Adam")])
def test_misspelt_optimizer_is_told_the_nearest(got, meant):
    with pytest.raises(
        UnknownNameError, match=rf"Unknown optimizer '{got}'\. Did you mean '{meant}.*Known: .*SGD"
    ):
        Settings(optimizer=got)


@pytest.mark.parametrize("options", [{"weight_deca": 1e-4}, {"betas": 0.9}])
def test_option_the_optimizer_does_not_take_is_refused(options, net):
    with pytest.raises(OptionError, match=r"torch\.optim\.Adam does not take \{'.*\}: ") as error:
        Settings(optimizer_options=options).make_optimizer(net())
    assert next(iter(options)) in str(error.value)


def test_frozen_parameters_are_not_optimized(net):
    model = net()
    model.layers[0].weight.requires_grad_(False)
    optimizer = Settings().make_optimizer(model)
    assert len(optimizer.param_groups[0]["params"]) == len(list(model.parameters())) - 1


@pytest.mark.parametrize(
    ("rows", "batch_size", "counts"),
    [
        ("equal", 5, (5, 5, 5)),
        ("equal", 20, (10, 20, 20)),
        ("equal", 100, (10, 30, 60)),
        ("proportional", 10, (3, 9, 18)),
        ("proportional", 50, (10, 30, 60)),
        ("proportional", 1, (1, 1, 2)),
    ],
)
def test_rows_of_each_environment_in_a_step(rows, batch_size, counts):
    settings = Settings(batch_size=batch_size, rows=rows)
    assert draw_batch(numbered((10, 30, 60)), settings, 1, 0, 0).rows.sizes == counts


def test_proportional_keeps_a_row_of_every_environment():
    settings = Settings(batch_size=10, rows="proportional")
    assert draw_batch(numbered((2, 1000)), settings, 1, 0, 0).rows.sizes == (1, 20)


def test_no_batch_size_takes_the_rows_as_they_are():
    data = numbered((10, 30))
    assert draw_batch(data, Settings(), 1, 0, 0).rows is data


def test_rows_are_drawn_without_replacement_and_kept_in_order():
    data = numbered((10, 30, 60))
    for step in range(20):
        for _, x, _ in draw_batch(data, Settings(batch_size=9), 1, 0, step).rows:
            numbers = x[:, 0].tolist()
            assert numbers == sorted(set(numbers))


def test_targets_and_weights_travel_with_their_rows():
    g = torch.Generator().manual_seed(0)
    x, w = torch.randn(50, 2, generator=g), torch.rand(50, generator=g)
    data = Environments.from_parts({"a": (x, x[:, 0], w), "b": (x, x[:, 1], 2 * w)})
    rows = draw_batch(data, Settings(batch_size=7), 1, 3, 4).rows
    assert torch.equal(rows.y, torch.cat([rows.x[:7, 0], rows.x[7:, 1]]))
    for i in range(7):
        assert rows.weights[i] == w[(x == rows.x[i]).all(1)]


def test_every_row_comes_up_about_equally_often():
    counts = torch.zeros(30)
    for step in range(300):
        rows = draw_batch(numbered((30, 30)), Settings(batch_size=10), 1, 0, step).rows
        counts[rows.x[:10, 0].long()] += 1
    assert 60 < counts.min() <= counts.max() < 140  # 100 each, standard deviation 8.


@pytest.mark.parametrize("folds", [1, 2])
def test_batch_is_a_pure_function_of_seed_and_step(folds):
    data, settings = numbered((20, 31)), Settings(batch_size=8)

    def drawn(seed, step):
        batch = draw_batch(data, settings, folds, seed, step)
        fold = [] if batch.fold is None else batch.fold.tolist()
        return batch.rows.x[:, 0].tolist(), fold

    forwards = [drawn(0, step) for step in range(6)]
    torch.manual_seed(99)
    assert [drawn(0, step) for step in reversed(range(6))] == forwards[::-1]
    assert len({str(batch) for batch in forwards}) == 6
    assert drawn(1, 0) != drawn(0, 0)


def test_halves_are_drawn_anew_at_every_step_of_the_full_batch():
    data = numbered((20, 31))
    folds = [draw_batch(data, Settings(), 2, 0, step).fold.tolist() for step in range(5)]
    assert len({str(fold) for fold in folds}) == 5


def test_trap_a_batch_too_small_to_be_halved_is_refused():
    with pytest.raises(OptionError, match=r"at least 2 rows of every environment .* got 1.*Raise"):
        draw_batch(numbered((20, 31)), Settings(batch_size=1), 2, 0, 0)


@pytest.mark.parametrize("averaging", [-0.1, 1.0, math.nan])
def test_a_decay_outside_its_range(averaging):
    with pytest.raises(OptionError, match=rf"averaging of 0 or more .* got {averaging}"):
        Settings(averaging=averaging)


def test_a_run_of_another_length_keeps_its_course():
    settings = Settings(
        steps=400,
        lr=0.1,
        schedule=PenaltySchedule("step", start=133, before=1.0),
        lr_factor=lambda step: step / 400,
        averaging=0.5,
    )
    short = settings.with_steps(60)
    assert (short.steps, short.schedule.start, short.evaluate_every) == (60, 19, 2)
    assert (short.lr, short.averaging) == (0.1, 0.5)
    assert [short.lr_factor(step) for step in (0, 30, 59)] == [0.0, 0.5, 393 / 400]
    assert settings.with_steps(6).evaluate_every == 1
    assert Settings(steps=400).with_steps(800) == Settings(steps=800, evaluate_every=20)
    with pytest.raises(OptionError, match=r"Expected steps of 1 or more, a whole number, got 0"):
        settings.with_steps(0)
