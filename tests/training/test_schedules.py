"""Penalty schedules: the weight at every step, and what happens where it sets in."""

from __future__ import annotations

import pytest

from invlearn.errors import OptionError, UnknownNameError
from invlearn.training import PUBLISHED, PenaltySchedule


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
