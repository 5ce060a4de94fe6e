"""Rules over two groups of rows, by hand and on rows whose shortcut is known."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch

from invlearn.errors import OptionError
from invlearn.losses import get_loss
from invlearn.outputs import Outputs, SplitOutputs
from invlearn.selection import (
    groups_agree,
    lowest_worst_group,
    risks_agree,
)
from invlearn.selection.gaps import gaps
from selection.made import make_curves, make_outputs

LOW = [0.5] * 60
"""Risks well below a constant predictor's 0.7."""

inner_groups_agree = partial(groups_agree, source="inner-step", splits=("validation",))


def choose(inside, outside, risk=None, **options):
    """Step, satisfied and note of the rule on hand-made outputs."""
    made = make_outputs(inside, outside)
    risk = LOW[: len(inside)] if risk is None else risk
    choice = groups_agree(make_curves(risk), "", made, **options)
    assert choice.statistic.index.tolist() == choice.bound.index.tolist() == list(made.steps)
    return choice.step, choice.satisfied, choice.note


# One standard error of the difference is about 0.05 at these errors, so 0.1 is the bound.


def test_chooses_a_step_whose_errors_agree_within_chance():
    assert choose([0.1, 0.3, 0.6], [0.4, 0.3, 0.2]) == (10, True, None)
    assert choose([0.1, 0.3, 0.6], [0.4, 0.35, 0.2]) == (10, True, None)
    assert choose([0.1, 0.3, 0.6], [0.4, 0.5, 0.2])[1:] == (True, None)  # A crossing; see below.
    assert choose([0.5, 0.5, 0.6], [0.3, 0.2, 0.2]) == (20, False, None)


@pytest.mark.parametrize("rule", [groups_agree, inner_groups_agree])
def test_bound_is_two_sided_at_five_percent(rule):
    choice = rule(make_curves(LOW[:2]), "", make_outputs([0.5, 0.5], [0.25, 0.4]))
    found = gaps(make_outputs([0.5, 0.5], [0.25, 0.4]), "reference", ["validation"])
    assert choice.bound.tolist() == pytest.approx(1.96 * found.standard_error)
    assert choice.statistic.tolist() == pytest.approx([0.25, 0.1])
    assert choice[:2] == (10, True)


@pytest.mark.parametrize(
    ("inside", "expected"),
    [([0.1, 0.25, 0.7], 10), ([0.1, 0.2, 0.55], 20), ([0.7, 0.25, 0.1], 10), ([0.7, 0.6, 0.3], 20)],
)
def test_chooses_the_step_nearest_a_change_of_sign(inside, expected):
    # No difference of 0.15 or 0.1 is chance at 40 %; the nearer side of the crossing is taken.
    made = make_outputs(inside, [0.4] * 3, sizes=(800, 800), members=(80, 240))
    choice = groups_agree(make_curves(LOW[:3]), "", made)
    assert (choice.statistic.abs() > choice.bound).all()
    assert choice[:2] == (expected, True)


def test_leap_from_side_to_side_agrees_nowhere():
    assert choose([0.1, 0.9], [0.9, 0.1]) == (10, False, None)
    # The nearer side has to lie within three bounds, of about 0.12 each.
    assert choose([0.2, 0.9], [0.5, 0.1], min_step=0)[1]
    assert not choose([0.1, 0.9], [0.5, 0.1], min_step=0)[1]


def test_chooses_the_nearest_to_zero_among_the_last_agreeing_steps():
    inside, outside = [0.6, 0.42, 0.36, 0.30, 0.34, 0.6], [0.2, 0.42, 0.33, 0.33, 0.35, 0.2]
    assert choose(inside, outside, min_step=20) == (40, True, None)
    assert choose(inside, outside)[0] == 10
    made = make_outputs(inside, outside)
    assert groups_agree(make_curves(LOW[:6]), "", made).latest == 40


def test_patience_sets_the_last_agreeing_steps_apart():
    apart, exact, near = (0.6, 0.2), (0.3, 0.3), (0.3, 0.33)
    for failures, expected in ((9, 10), (10, 120)):
        along = [apart, exact, *[apart] * failures, near, apart]
        assert choose(*zip(*along, strict=True))[:2] == (expected, True)
    along = [apart, exact, *[apart] * 3, near, apart]
    assert choose(*zip(*along, strict=True), patience=3)[0] == 50
    assert choose(*zip(*along, strict=True), patience=4)[0] == 10
    thrice = [exact, *[apart] * 12, exact, near, *[apart] * 12, near, *[apart] * 40]
    assert choose(*zip(*thrice, strict=True), [0.5] * len(thrice))[0] == 270


def test_any_number_of_steps_without_agreement_may_come_first():
    along = [*[(0.6, 0.2)] * 30, (0.3, 0.3), (0.6, 0.2)]
    assert choose(*zip(*along, strict=True))[:2] == (300, True)


def test_agreement_before_the_risk_beats_a_constant_is_refused():
    inside, outside = [0.5, 0.6, 0.4, 0.3, 0.6], [0.5, 0.2, 0.2, 0.3, 0.1]
    assert choose(inside, outside, [0.69, 0.6, 0.6, 0.6, 0.5]) == (30, True, None)
    assert choose(inside, outside, [0.69, 0.6, 0.6, 0.67, 0.5])[:2] == (40, False)
    assert choose(inside, outside, [0.70, 0.6, 0.6, 0.67, 0.5], margin=0.04)[:2] == (30, True)


def test_no_step_better_than_a_constant_leaves_the_last_step():
    assert choose([0.3] * 3, [0.3] * 3, [0.7] * 3) == (20, False, None)


def test_considers_no_step_before_min_step():
    inside, outside = [0.3, 0.6, 0.35, 0.6], [0.3, 0.2, 0.35, 0.2]
    inside[2] = 0.36  # Step 0 agrees more nearly.
    assert choose(inside, outside, min_step=0)[0] == 0
    assert choose(inside, outside)[0] == 20  # Step 0 is the untrained model.
    assert choose(inside, outside, min_step=30)[:2] == (30, False)


def test_step_that_was_kept_but_not_measured_is_refused():
    made = make_outputs([0.3, 0.3], [0.3, 0.3])
    curves = make_curves(LOW[:2])
    assert groups_agree(curves[curves["step"] < 10], "", made, min_step=0).step == 0


@pytest.mark.parametrize(
    ("rule", "misled"),
    [(groups_agree, "mislead the reference"), (inner_groups_agree, "a pooled step hurts")],
)
def test_uncertified_groups_leave_the_choice_to_agreeing_risks_and_say_so(rule, misled):
    curves = pd.concat(
        [make_curves([0.6, 0.5]), make_curves([0.5] * 3, spread=0.1).query("step == 20")]
    )
    choice = rule(curves, "", make_outputs([0.6, 0.6, 0.3], [0.3] * 3, members=(40, 40)))
    fallback = risks_agree(curves)
    assert choice[:2] == fallback[:2] == (10, True)
    assert choice.statistic is None  # The fallback's has other units.
    assert str(choice.note).startswith(
        "not identifiable from these environments: no difference was"
    )
    assert "(20.0 %, 20.0 %); 'risks agree' chose instead" in str(choice.note)
    assert ("reference" in str(choice.note)) == (rule is groups_agree)


def test_certificate_of_an_inner_step_counts_at_its_own_step():
    made = make_outputs([0.3, 0.3], [0.3, 0.3])
    split = made.splits["validation"]
    raised = split.raised.clone()
    raised[0] = torch.arange(len(split.y)) % 5 == 0  # As frequent in each environment.
    made = replace(made, splits={"validation": replace(split, raised=raised)})
    assert inner_groups_agree(make_curves(LOW[:2]), "", made)[:2] == (10, True)


@pytest.mark.parametrize("rule", [groups_agree, inner_groups_agree])
def test_missing_outputs_say_how_to_keep_them(rule):
    with pytest.raises(
        OptionError,
        match=r"Expected the outputs of the run beside its results, got none\. Train with "
        r"keep_outputs=\('train', 'validation'\)\.",
    ):
        rule(make_curves(LOW[:2]))


@pytest.mark.parametrize("rule", [groups_agree, inner_groups_agree])
def test_outputs_of_training_rows_alone_are_refused(rule):
    made = make_outputs([0.3, 0.3], [0.3, 0.3], splits=("train",))
    with pytest.raises(
        OptionError,
        match=r"Expected outputs for validation rows, found none\. Keep that split's\.",
    ):
        rule(make_curves(LOW[:2]), "", made)


def without(made, field):
    splits = {name: replace(split, **{field: None}) for name, split in made.splits.items()}
    return replace(made, splits=splits)


def test_missing_reference_is_told_of_the_rule_that_needs_none():
    made = without(make_outputs([0.3, 0.3], [0.3, 0.3]), "reference")
    curves = make_curves(LOW[:2])
    with pytest.raises(
        OptionError,
        match=r"Expected the outputs of a reference ERM, found none\. Pass "
        r"outputs\.with_reference\(\.\.\.\), or use the rule 'inner-step-groups-agree'\.",
    ):
        groups_agree(curves, "", made)
    assert inner_groups_agree(curves, "", made)[:2] == (10, True)


def test_inner_step_reads_splits_that_say_what_it_raises():
    made = make_outputs([0.3, 0.3], [0.3, 0.3], splits=("train", "validation"))
    made.splits["train"] = replace(made.splits["train"], raised=None)
    with pytest.raises(
        OptionError,
        match=r"Expected outputs that say which rows' loss an inner step raises, found none for "
        r"train, validation\. Read the split 'validation'\.",
    ):
        groups_agree(make_curves(LOW[:2]), "", made, source="inner-step")


def test_validation_rows_alone_are_enough():
    both = make_outputs([0.3, 0.6], [0.3, 0.2], splits=("train", "validation"))
    alone = make_outputs([0.3, 0.6], [0.3, 0.2])
    curves = make_curves(LOW[:2])
    one, two = (groups_agree(curves, "", made) for made in (both, alone))
    assert one[:2] == two[:2]
    # Twice the rows: the bound is sqrt(2) narrower.
    assert one.bound.to_numpy() * np.sqrt(2) == pytest.approx(two.bound.to_numpy())


def test_lowest_worst_group_reads_validation_rows_alone():
    curves = make_curves(LOW[:4])
    alone = make_outputs([0.6, 0.3, 0.34, 0.6], [0.2, 0.4, 0.35, 0.2])
    by_heart = make_outputs([0.6, 0.3, 0.2, 0.0], [0.2, 0.3, 0.2, 0.0], splits=("train",))
    for made in (alone, replace(alone, splits={**alone.splits, **by_heart.splits})):
        choice = lowest_worst_group(curves, "", made)
        assert (choice.step, choice.satisfied) == (20, True)
        assert choice.statistic.tolist() == pytest.approx([0.6, 0.4, 0.35, 0.6])
        assert choice.bound is None


def test_lowest_worst_group_needs_no_crossing_and_no_low_risk():
    outputs = make_outputs([0.4, 0.3, 0.35], [0.1] * 3)
    for risk in (LOW[:3], [0.69] * 3):
        choice = lowest_worst_group(make_curves(risk), "", outputs)
        assert (choice.step, choice.satisfied) == (10, True)
    assert lowest_worst_group(make_curves(LOW[:3]), "", outputs, min_step=15).step == 20


def test_lowest_worst_group_has_to_do_better_than_a_constant():
    # Half of each group's labels are 1, so a constant errs on half of either.
    for error, satisfied in ((0.49, True), (0.5, False)):
        outputs = make_outputs([0.9, error, 0.6], [0.1] * 3, sizes=(400, 400), members=(100, 200))
        choice = lowest_worst_group(make_curves(LOW[:3]), "", outputs)
        assert (choice.step, choice.satisfied) == ((10, True) if satisfied else (20, False))
        assert choice.statistic.tolist() == pytest.approx([0.9, error, 0.6])


def test_the_constant_that_does_best_by_its_worse_off_group():
    split = make_outputs([0.0], [0.0]).splits["validation"]
    group = split.reference[:, 0] * (2 * split.y - 1) < 0
    y = torch.where(group, 2, torch.arange(400) % 4 // 3)  # Two in the group; else 0, at times 1.
    made = replace(split, y=y, z=torch.eye(3)[y][None], reference=torch.eye(3)[(y + group) % 3])
    outputs = Outputs(get_loss("softmax"), (0,), {"validation": made})
    assert gaps(outputs, "reference", ["validation"]).constant == pytest.approx([1.0])
    target = y.float()
    reference = torch.where(group, 9.0, target)[:, None]
    made = replace(made, y=target, z=target[None, :, None], reference=reference)
    squared = Outputs(get_loss("squared"), (0,), {"validation": made})
    found = gaps(squared, "reference", ["validation"])
    whole = float(y.double().mean())
    assert found.constant == pytest.approx(
        [max(float((y[side] - whole).square().mean()) for side in (group, ~group))]
    )


def test_lowest_worst_group_waits_while_no_step_may_be_chosen():
    outputs = make_outputs([0.5, 0.4, 0.6, 0.5, 0.45], [0.1] * 5)
    choice = lowest_worst_group(make_curves(LOW[:5]), "", outputs)
    assert (choice.step, choice.latest) == (10, 30)


@pytest.mark.parametrize("side", [slice(None, 20), slice(20, None)])
def test_group_with_no_weight_on_one_side_is_not_certified(side):
    outputs = make_outputs([0.3] * 3, [0.2] * 3, sizes=(200,), members=(20,))
    split = outputs.splits["validation"]
    weights = torch.ones(200)
    weights[side] = 0
    two = replace(split, names=("a", "b"), environment=torch.arange(200) // 20 % 2, weights=weights)
    outputs = replace(outputs, splits={"validation": two})
    choice = lowest_worst_group(make_curves(LOW[:3]), "", outputs)
    assert choice.step == risks_agree(make_curves(LOW[:3])).step
    assert choice.note.gist == "not identifiable from these environments"
    assert np.isnan(gaps(outputs, "reference", ["validation"]).difference).all()


def test_lowest_worst_group_leaves_it_to_agreeing_risks_without_a_certificate():
    outputs = make_outputs([0.3] * 3, [0.3] * 3, members=(40, 40))
    choice = lowest_worst_group(make_curves(LOW[:3]), "", outputs)
    assert choice.step == risks_agree(make_curves(LOW[:3])).step
    assert choice.note.gist == "not identifiable from these environments"
    assert choice.statistic is None


TILT = np.linspace(-1.5, 1.5, 31)
"""How much each step's predictor leans on the shortcut: not at all at step 150."""


def known_truth(corruption, *, k=2, noise=0.25, lean=TILT, rows=4000, seed=0):
    """A path of predictors from betting against a shortcut to following it.

    Rows of E environments: a shape that is the label but for label noise, seen dimly, and a
    shortcut that is the label but for its `corruption` [E] (None: there is no shortcut). The
    reference follows the shortcut (or the shape, if there is none).
    """
    rng = np.random.default_rng(seed)
    n_envs = len(corruption)
    environment = np.repeat(np.arange(n_envs), rows)

    def flipped(labels, p):
        return (labels + (rng.random(len(labels)) < p) * rng.integers(1, k, len(labels))) % k

    shape = rng.integers(0, k, n_envs * rows)
    label_noise = np.broadcast_to(noise, n_envs)[environment]
    y = flipped(shape, label_noise)
    seen = np.eye(k)[shape] + 0.3 * rng.standard_normal((len(y), k))
    shown = np.zeros_like(seen)
    if corruption[0] is not None:
        shown = np.eye(k)[flipped(y, np.array(corruption)[environment])]
    z = np.stack([seen + tilt * shown for tilt in lean])
    reference = 0.1 * seen + shown
    if k == 2:
        z, reference = z[..., 1:] - z[..., :1], reference[:, 1:] - reference[:, :1]
    split = SplitOutputs(
        names=tuple(f"e{e}" for e in range(n_envs)),
        environment=torch.from_numpy(environment),
        y=torch.from_numpy(y),
        z=torch.from_numpy(z).half(),
        reference=torch.from_numpy(reference).half(),
    )
    loss = get_loss("logistic" if k == 2 else "softmax")
    steps = tuple(range(0, 10 * len(z), 10))
    return Outputs(loss, steps, {"validation": split})


@pytest.mark.parametrize("lean", [TILT, TILT[::-1]], ids=["to", "from"])
@pytest.mark.parametrize(
    ("corruption", "k"),
    [((0.05, 0.25), 2), ((0.05, 0.15, 0.25), 2), ((0.1, 0.25), 5), ((0.1, 0.2, 0.3), 5)],
)
def test_finds_the_predictor_that_leaves_the_shortcut_alone(corruption, k, lean):
    outputs = known_truth(corruption, k=k, lean=lean)
    curves = make_curves([0.5] * len(lean), environments=len(corruption))
    choice = groups_agree(curves, "", outputs)
    assert choice.satisfied
    assert choice.note is None
    assert abs(choice.step - 150) <= 20
    found = gaps(outputs, "reference", ["validation"])
    assert found.certificate.frequencies == pytest.approx(corruption, abs=0.02)


@pytest.mark.parametrize("n_envs", [2, 3])
def test_without_a_shortcut_it_says_not_identifiable(n_envs):
    outputs = known_truth((None,) * n_envs)
    choice = groups_agree(make_curves(LOW[:31], environments=n_envs), "", outputs)
    assert choice.note.gist == "not identifiable from these environments"
    assert choice.step == risks_agree(make_curves(LOW[:31], environments=n_envs)).step


def test_equally_strong_shortcut_in_every_environment_is_not_identifiable():
    choice = groups_agree(make_curves(LOW[:31]), "", known_truth((0.15, 0.15)))
    assert choice.note.gist == "not identifiable from these environments"


def test_unequal_label_noise_is_certified_but_no_step_agrees():
    outputs = known_truth((None, None), noise=(0.15, 0.35))
    assert gaps(outputs, "reference", ["validation"]).certificate.holds
    choice = groups_agree(make_curves(LOW[:31]), "", outputs)
    assert (choice.satisfied, choice.note) == (False, None)
