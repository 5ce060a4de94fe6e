"""Penalty schedules: the weight at every step, and what happens where it sets in."""

from __future__ import annotations

import pytest

from invlearn.errors import OptionError, UnknownNameError
from invlearn.objectives import get_objective
from invlearn.training import PUBLISHED, PenaltySchedule, Settings, Trainer


def weights(schedule, steps, full=100.0):
    return [schedule.weight(step, full) for step in range(steps)]


def test_constant_uses_the_full_weight_from_the_start():
    assert weights(PenaltySchedule(), 4) == [100.0] * 4
    assert weights(PenaltySchedule("constant", start=2, before=1.0), 4) == [100.0] * 4


def test_step_uses_the_full_weight_from_its_start_on():
    schedule = PenaltySchedule("step", start=3, before=1.0)
    assert weights(schedule, 6) == [1.0, 1.0, 1.0, 100.0, 100.0, 100.0]
    assert weights(PenaltySchedule("step"), 2) == [100.0, 100.0]


def test_linear_ramps_from_before_at_start_to_full_at_end():
    schedule = PenaltySchedule("linear", start=2, end=6, before=20.0)
    assert weights(schedule, 8) == [20.0, 20.0, 20.0, 40.0, 60.0, 80.0, 100.0, 100.0]


def test_linear_may_ramp_downwards():
    schedule = PenaltySchedule("linear", start=0, end=4, before=4.0)
    assert weights(schedule, 5, full=0.0) == [4.0, 3.0, 2.0, 1.0, 0.0]


def test_weight_before_defaults_to_zero():
    assert weights(PenaltySchedule("step", start=1), 2) == [0.0, 100.0]


def test_trap_the_published_weight_before_the_anneal_is_one_not_zero():
    irm = PUBLISHED["irm-paper"]
    assert [irm.weight(step, 91257.0) for step in (0, 189, 190, 500)] == [1, 1, 91257, 91257]
    assert all(schedule.weight(0, 1e4) == 1.0 for schedule in PUBLISHED.values())


def test_published_schedules_say_what_their_codes_do_at_the_anneal():
    assert PUBLISHED["irm-paper"].at_anneal == "rescale"
    assert PUBLISHED["rex-paper"].at_anneal == "rescale"
    assert PUBLISHED["domainbed"].at_anneal == "reset-optimizer"
    assert PUBLISHED["domainbed"].start == 500


@pytest.mark.parametrize(
    ("weight", "scale"), [(0.0, 1.0), (0.5, 1.0), (1.0, 1.0), (4.0, 0.25), (1e4, 1e-4)]
)
def test_rescale_divides_the_loss_only_above_one(weight, scale):
    assert PenaltySchedule(at_anneal="rescale").loss_scale(weight) == scale


@pytest.mark.parametrize("at_anneal", ["nothing", "reset-optimizer"])
def test_loss_is_not_scaled_without_rescale(at_anneal):
    assert PenaltySchedule(at_anneal=at_anneal).loss_scale(1e6) == 1.0


@pytest.mark.parametrize("kind", ["step", "linear"])
def test_optimizer_is_reset_at_the_start_and_at_no_other_step(kind):
    schedule = PenaltySchedule(kind, start=3, end=5, at_anneal="reset-optimizer")
    assert [schedule.resets(step) for step in range(6)] == [False] * 3 + [True] + [False] * 2


def test_constant_schedule_never_resets():
    schedule = PenaltySchedule("constant", at_anneal="reset-optimizer")
    assert not any(schedule.resets(step) for step in range(3))


@pytest.mark.parametrize("at_anneal", ["nothing", "rescale"])
def test_only_reset_optimizer_resets(at_anneal):
    schedule = PenaltySchedule("step", start=2, at_anneal=at_anneal)
    assert not any(schedule.resets(step) for step in range(4))


def test_misspelt_kind_is_told_the_nearest():
    with pytest.raises(
        UnknownNameError, match=r"Unknown penalty schedule 'liner'. Did you mean 'linear'\?"
    ):
        PenaltySchedule("liner")


def test_misspelt_anneal_action_is_told_the_nearest():
    with pytest.raises(
        UnknownNameError, match=r"Unknown anneal action 'rescal'. Did you mean 'rescale'\?"
    ):
        PenaltySchedule(at_anneal="rescal")


@pytest.mark.parametrize(
    "options",
    [
        {"kind": "step", "start": -1},
        {"kind": "step", "before": -0.5},
        {"kind": "linear", "start": 4, "end": 4},
        {"kind": "linear", "start": 4, "end": 3},
    ],
)
def test_impossible_start_end_and_before_are_refused(options):
    with pytest.raises(OptionError, match=r"Expected 0 <= start \(< end for a ramp\) and before"):
        PenaltySchedule(**options)


@pytest.mark.parametrize(
    ("schedule", "short"),
    [
        (PenaltySchedule("step", start=133, before=1.0, at_anneal="rescale"), 19),
        (PenaltySchedule("step", start=399), 59),
        (PenaltySchedule("step"), 0),
        (PenaltySchedule("linear", start=100, end=200), 15),
        (PenaltySchedule("linear", start=398, end=400), 59),
    ],
)
def test_a_shorter_run_has_its_penalty_at_the_same_share(schedule, short):
    found = schedule.rescaled(60, was=400)
    assert (found.start, found.before, found.at_anneal) == (
        short,
        schedule.before,
        schedule.at_anneal,
    )
    found.check(100.0, 60, "V-REx")  # What sets in in 400 steps sets in in 60.


def test_a_rescaled_ramp_ends_at_the_same_share_and_is_a_step_where_it_has_no_room():
    ramp = PenaltySchedule("linear", start=0, end=1000)
    assert weights(ramp.rescaled(8, was=2000), 6) == [0.0, 25.0, 50.0, 75.0, 100.0, 100.0]
    assert ramp.rescaled(4000, was=2000) == PenaltySchedule("linear", start=0, end=2000)
    assert weights(ramp.rescaled(1, was=2000), 1) == [100.0]
    constant = PenaltySchedule("constant", start=2)
    assert constant.rescaled(1, was=10) is constant
    for start in (399, 500):  # It never sets in: neither does it in a shorter run.
        never = PenaltySchedule("linear", start=start, end=600).rescaled(60, was=400)
        with pytest.raises(OptionError, match="sets in before the last step"):
            never.check(100.0, 60, "V-REx")


@pytest.mark.parametrize(
    ("schedule", "steps", "full"),
    [
        (PenaltySchedule("step", start=133, before=1.0), 60, 100.0),
        (PenaltySchedule("step", start=60), 60, 100.0),
        (PenaltySchedule("linear", start=59, end=80), 60, 100.0),
        (PenaltySchedule("linear", start=0, end=80), 1, 100.0),
        (PenaltySchedule("step", start=60, before=1.0), 60, 0.0),
    ],
)
def test_a_penalty_that_never_sets_in_is_refused(schedule, steps, full, net, learnable):
    text = (
        rf"Expected a penalty that sets in before the last step: V-REx keeps the weight "
        rf"{schedule.before:g} until step {schedule.start}, in a run of {steps}, and would never "
        rf"have the weight {full:g}\. Lower the schedule's start, or raise steps; "
        r"settings\.with_steps\(n\) changes both\."
    )
    objective = get_objective("vrex", penalty_weight=full)
    with pytest.raises(OptionError, match=text):
        Trainer(
            net(),
            learnable(),
            objective,
            "logistic",
            settings=Settings(steps=steps, schedule=schedule),
        )
    # Without a weight there is nothing to wait for.
    Trainer(
        net(), learnable(), "erm", "logistic", settings=Settings(steps=steps, schedule=schedule)
    )


@pytest.mark.parametrize(
    ("schedule", "full"),
    [
        (PenaltySchedule("step", start=9), 1.0),
        (PenaltySchedule("linear", start=8, end=100), 1.0),
        (PenaltySchedule("step", start=90), 0.0),
        (PenaltySchedule("step", start=90, before=3.0), 3.0),
        (PenaltySchedule("constant", start=90), 1.0),
    ],
)
def test_a_penalty_that_sets_in_or_does_not_wait_is_taken(schedule, full):
    schedule.check(full, 10, "V-REx")
