"""Rules over two groups of rows, by hand and on rows whose shortcut is known."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import chi2, chi2_contingency

from invlearn.errors import OptionError
from invlearn.losses import get_loss
from invlearn.outputs import Outputs, SplitOutputs
from invlearn.selection import (
    certify,
    groups_agree,
    lowest_worst_group,
    reference_step,
    risks_agree,
)
from invlearn.selection.groups import gaps, reference_group
from selection.made import make_curves, make_outputs

LOW = [0.5] * 60
"""Risks well below a constant predictor's 0.7."""

inner_groups_agree = partial(groups_agree, source="inner-step", splits=("validation",))


def members(*counts):
    """A group with these (inside, outside) counts by environment, and the environments."""
    group = [flag for a, b in counts for flag in [True] * a + [False] * b]
    environment = [e for e, pair in enumerate(counts) for _ in range(sum(pair))]
    return torch.tensor(group), torch.tensor(environment)


def test_certificate_is_the_chi_squared_by_hand():
    # 50 expected inside and 50 outside in each: 4 · 20² / 50 = 32.
    found = certify(*members((30, 70), (70, 30)), 2)
    assert found.statistic == pytest.approx(32)
    assert found.p_value == pytest.approx(chi2.sf(32, 1))
    assert found.frequencies == pytest.approx((0.3, 0.7))
    assert found.holds


@pytest.mark.parametrize("n_envs", [2, 3, 7])
def test_certificate_equals_the_naive_chi_squared_and_scipys(n_envs):
    rng = np.random.default_rng(n_envs)
    counts = rng.integers(5, 60, (n_envs, 2))
    found = certify(*members(*counts.tolist()), n_envs)
    expected = counts.sum(1, keepdims=True) * counts.sum(0) / counts.sum()
    assert found.statistic == pytest.approx(((counts - expected) ** 2 / expected).sum())
    theirs = chi2_contingency(counts, correction=False)
    assert (found.statistic, found.p_value) == pytest.approx((theirs.statistic, theirs.pvalue))
    assert found.frequencies == pytest.approx(counts[:, 0] / counts.sum(1))


def test_certificate_does_not_depend_on_the_order_of_rows_nor_on_the_side():
    group, environment = members((10, 40), (25, 25), (5, 60))
    order = torch.randperm(len(group), generator=torch.Generator().manual_seed(0))
    found = certify(group, environment, 3)
    assert certify(group[order], environment[order], 3) == found
    assert certify(~group, environment, 3).statistic == pytest.approx(found.statistic)


def test_equally_frequent_group_is_certified_as_rarely_as_the_level_says():
    g = torch.Generator().manual_seed(0)
    environment = torch.arange(900) % 3
    held = [certify(torch.rand(900, generator=g) < 0.2, environment, 3).holds for _ in range(400)]
    assert sum(held) <= 3


@pytest.mark.parametrize("counts", [[(0, 50), (0, 30)], [(50, 0), (30, 0)], [(20, 30), (0, 0)]])
def test_group_of_none_or_all_and_an_empty_environment_certify_nothing(counts):
    found = certify(*members(*counts), 2)
    assert (found.statistic, found.p_value, found.holds) == (0, 1, False)
    assert all(np.isfinite(found.frequencies))


def test_group_that_is_one_environment_is_certified():
    assert certify(*members((50, 0), (0, 50)), 2).statistic == pytest.approx(100)


def test_certificate_weighs_the_rows():
    group, environment = members((30, 70), (70, 30))
    plain = certify(group, environment, 2)
    # Rows of weight 3 in the first environment's group: fewer rows' worth of evidence.
    heavy = torch.where(group & (environment == 0), 3.0, 1.0)
    found = certify(group, environment, 2, heavy)
    assert found.frequencies == pytest.approx((90 / 160, 0.7))
    size = 160**2 / (30 * 9 + 70)
    f, g, mean = 90 / 160, 0.7, (size * 90 / 160 + 70) / (size + 100)
    expected = (size * (f - mean) ** 2 + 100 * (g - mean) ** 2) / (mean * (1 - mean))
    assert found.statistic == pytest.approx(expected)
    # The same rows twice are twice the evidence, equal weights of any size are none.
    again = certify(group, environment, 2, torch.full((200,), 0.3))
    assert again.statistic == pytest.approx(plain.statistic)
    twice = certify(group.repeat(2), environment.repeat(2), 2, torch.ones(400))
    assert twice.statistic == pytest.approx(2 * plain.statistic)


def test_environment_without_weight_certifies_nothing():
    found = certify(*members((20, 30), (30, 10)), 2, torch.tensor([1.0] * 50 + [0.0] * 40))
    assert (found.statistic, found.p_value, found.frequencies) == (0, 1, (0.4, 0))


def tiny(loss, y, z, reference, *, environment, weights=None, raised=None):
    """Outputs of one split from plain lists; z and reference [n] or [n, k]."""
    split = SplitOutputs(
        names=tuple(f"e{e}" for e in range(max(environment) + 1)),
        environment=torch.tensor(environment),
        y=torch.tensor(y),
        z=torch.tensor([z]).reshape(1, len(y), -1).half(),
        weights=None if weights is None else torch.tensor(weights),
        raised=None if raised is None else torch.tensor([raised]),
        reference=torch.tensor(reference).reshape(len(y), -1).half(),
    )
    return Outputs(get_loss(loss), (0,), {"train": split})


def test_gap_by_hand():
    outputs = tiny(
        "logistic",
        [1, 1, 1, 0, 0, 0],
        [1.0, -1.0, 1.0, -1.0, 1.0, 1.0],  # Wrong: rows 1, 4, 5.
        [-1.0, -1.0, 1.0, -1.0, -1.0, 1.0],  # The group: rows 0, 1, 5.
        environment=[0, 0, 0, 1, 1, 1],
    )
    found = gaps(outputs, "reference", ["train"])
    assert found.difference == pytest.approx([2 / 3 - 1 / 3])
    # Each mean has the variance p (1 − p) / n = (2 / 9) / 3.
    assert found.standard_error == pytest.approx([np.sqrt(4 / 27)])
    assert found.worst == pytest.approx([2 / 3])
    assert found.certificate.frequencies == pytest.approx((2 / 3, 1 / 3))
    assert found.certified.tolist() == [False]


def test_gap_with_row_weights_by_hand():
    outputs = tiny(
        "logistic",
        [1, 1, 1, 1],
        [1.0, -1.0, 1.0, -1.0],
        [-1.0, -1.0, 1.0, 1.0],
        environment=[0, 1, 0, 1],
        weights=[3.0, 1.0, 1.0, 1.0],
    )
    found = gaps(outputs, "reference", ["train"])
    assert found.difference == pytest.approx([1 / 4 - 1 / 2])
    inside = (3 / 4 * 1 / 4) ** 2 + (1 / 4 * 3 / 4) ** 2
    outside = 2 * (1 / 2 * 1 / 2) ** 2
    assert found.standard_error == pytest.approx([np.sqrt(inside + outside)])
    assert found.worst == pytest.approx([1 / 2])
    assert found.certificate.frequencies == pytest.approx((3 / 4, 1 / 2))


def test_weights_count_like_repeated_rows_in_the_means():
    y, z, reference = [1, 1, 0, 0, 1], [1.0, -1.0, 1.0, -1.0, 1.0], [-1.0, -1.0, 1.0, -1.0, 1.0]
    twice = [0, 1, 1, 2, 2, 2, 3, 4]
    weighted = tiny(
        "logistic", y, z, reference, environment=[0] * 5, weights=[1.0, 2.0, 3.0, 1.0, 1.0]
    )
    again = [[column[i] for i in twice] for column in (y, z, reference)]
    repeated = tiny("logistic", *again, environment=[0] * 8)
    one, other = (gaps(o, "reference", ["train"]) for o in (weighted, repeated))
    assert one.difference == pytest.approx(other.difference)
    assert one.worst == pytest.approx(other.worst)


def test_reference_is_taken_where_its_errors_depend_most_on_the_environment():
    # Its errors: none, unequally frequent, the same and as many hard rows, all rows.
    made = make_outputs([0, 1, 1, 1], [0, 0, 0.25, 1], splits=("train", "validation"))
    assert reference_step(made) == 10
    assert reference_step(replace(made, steps=(5, 7, 9, 11))) == 7


def test_reference_step_reads_the_rows_of_all_splits_together():
    first = make_outputs([0, 0.5, 1], [0, 0, 0])
    second = make_outputs([0, 1, 0], [0, 0, 0], sizes=(2000, 2000), members=(200, 600))
    both = replace(first, splits={"train": second.splits["validation"], **first.splits})
    assert reference_step(first) == 20
    assert reference_step(both) == 10


def test_reference_step_weighs_the_rows():
    made = make_outputs([0, 1, 0], [0, 0, 0.05])
    split = made.splits["validation"]
    assert reference_step(made) == 10
    # The group's rows count for nothing: what is wrong outside of it is left.
    weights = (split.reference[:, 0].sign() == (2.0 * split.y - 1)).float()
    assert reference_step(replace(made, splits={"v": replace(split, weights=weights)})) == 20


def test_gap_of_several_classes_by_hand():
    outputs = tiny(
        "softmax",
        [0, 1, 2, 2],
        [[3.0, 0, 0], [3, 0, 0], [0, 0, 3], [0, 3, 0]],  # Wrong: rows 1 and 3.
        [[0.0, 3, 0], [0, 0, 3], [0, 0, 3], [0, 0, 3]],  # The group: rows 0 and 1.
        environment=[0, 1, 0, 1],
    )
    found = gaps(outputs, "reference", ["train"])
    assert found.difference == pytest.approx([0])
    assert found.worst == pytest.approx([1 / 2])


def test_gap_of_a_regression_compares_squared_errors_of_rows_above_and_below_the_median():
    outputs = tiny(
        "squared",
        [0.0, 0, 0, 0, 0],
        [1.0, 2, 3, 4, 0],
        [0.0, 1, 2, 3, 4],  # The median error is 4: rows 3 and 4 are worse.
        environment=[0, 0, 1, 1, 1],
    )
    found = gaps(outputs, "reference", ["train"])
    assert reference_group(outputs.splits["train"], outputs).tolist() == [0, 0, 0, 1, 1]
    assert found.difference == pytest.approx([(16 + 0) / 2 - (1 + 4 + 9) / 3])
    outside = sum((v - 14 / 3) ** 2 for v in (1, 4, 9)) / 9
    assert found.standard_error == pytest.approx([np.sqrt(2 * 8**2 / 4 + outside)])


def test_gap_reads_the_rows_of_its_splits_together():
    outputs = make_outputs([0.5], [0.1])
    other = make_outputs([0.2], [0.3], sizes=(50, 70), members=(5, 20)).splits["validation"]
    both = replace(outputs, splits={"train": other, **outputs.splits})
    found = gaps(both, "reference", ["train", "validation"])
    inside, outside = 0.5 * 80 + 0.2 * 25, 0.1 * 320 + 0.3 * 95
    assert found.difference == pytest.approx([inside / 105 - round(outside) / 415], abs=0.003)
    assert found.certificate.frequencies == pytest.approx((25 / 250, 80 / 270))


def test_inner_steps_groups_are_those_of_every_step():
    outputs = make_outputs([0.5, 0.5], [0.1, 0.1])
    split = outputs.splits["validation"]
    raised = torch.stack([split.raised[0], ~split.raised[0]])
    outputs = replace(outputs, splits={"validation": replace(split, raised=raised)})
    found = gaps(outputs, "inner-step", ["validation"])
    assert found.difference == pytest.approx([0.4, -0.4])
    none = replace(split, raised=torch.zeros_like(raised))
    found = gaps(replace(outputs, splits={"validation": none}), "inner-step", ["validation"])
    assert found.certified.tolist() == [False, False]
    assert np.isnan(found.difference).all()


def choose(inside, outside, risk=None, **options):
    """Step, satisfied and note of the rule on hand-made outputs."""
    made = make_outputs(inside, outside)
    risk = LOW[: len(inside)] if risk is None else risk
    choice = groups_agree(make_curves(risk), "", made, **options)
    assert choice.statistic.index.tolist() == choice.bound.index.tolist() == list(made.steps)
    return choice.step, choice.satisfied, choice.note


# One standard error of the difference is about 0.05 at these errors, so 0.1 is the bound.


def test_chooses_a_step_whose_errors_agree_within_chance():
    assert choose([0.1, 0.3, 0.6], [0.4, 0.3, 0.2]) == (10, True, "")
    assert choose([0.1, 0.3, 0.6], [0.4, 0.35, 0.2]) == (10, True, "")
    assert choose([0.1, 0.3, 0.6], [0.4, 0.5, 0.2])[1:] == (True, "")  # A crossing; see below.
    assert choose([0.5, 0.5, 0.6], [0.3, 0.2, 0.2]) == (20, False, "")


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
    assert choose([0.1, 0.9], [0.9, 0.1]) == (10, False, "")
    # The nearer side has to lie within three bounds, of about 0.12 each.
    assert choose([0.2, 0.9], [0.5, 0.1], min_step=0)[1]
    assert not choose([0.1, 0.9], [0.5, 0.1], min_step=0)[1]


def test_chooses_the_nearest_to_zero_among_the_last_agreeing_steps():
    inside, outside = [0.6, 0.42, 0.36, 0.30, 0.34, 0.6], [0.2, 0.42, 0.33, 0.33, 0.35, 0.2]
    assert choose(inside, outside, min_step=20) == (40, True, "")
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
    assert choose(inside, outside, [0.69, 0.6, 0.6, 0.6, 0.5]) == (30, True, "")
    assert choose(inside, outside, [0.69, 0.6, 0.6, 0.67, 0.5])[:2] == (40, False)
    assert choose(inside, outside, [0.70, 0.6, 0.6, 0.67, 0.5], margin=0.04)[:2] == (30, True)


def test_no_step_better_than_a_constant_leaves_the_last_step():
    assert choose([0.3] * 3, [0.3] * 3, [0.7] * 3) == (20, False, "")


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
    assert choice.note.startswith("not identifiable from these environments: no difference was")
    assert "(20.0 %, 20.0 %); 'risks agree' chose instead" in choice.note
    assert ("reference" in choice.note) == (rule is groups_agree)


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
    assert choice.note.startswith("not identifiable from these environments")
    assert np.isnan(gaps(outputs, "reference", ["validation"]).difference).all()


def test_lowest_worst_group_leaves_it_to_agreeing_risks_without_a_certificate():
    outputs = make_outputs([0.3] * 3, [0.3] * 3, members=(40, 40))
    choice = lowest_worst_group(make_curves(LOW[:3]), "", outputs)
    assert choice.step == risks_agree(make_curves(LOW[:3])).step
    assert choice.note.startswith("not identifiable from these environments")
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
    assert choice.note == ""
    assert abs(choice.step - 150) <= 20
    found = gaps(outputs, "reference", ["validation"])
    assert found.certificate.frequencies == pytest.approx(corruption, abs=0.02)


@pytest.mark.parametrize("n_envs", [2, 3])
def test_without_a_shortcut_it_says_not_identifiable(n_envs):
    outputs = known_truth((None,) * n_envs)
    choice = groups_agree(make_curves(LOW[:31], environments=n_envs), "", outputs)
    assert choice.note.startswith("not identifiable from these environments")
    assert choice.step == risks_agree(make_curves(LOW[:31], environments=n_envs)).step


def test_equally_strong_shortcut_in_every_environment_is_not_identifiable():
    choice = groups_agree(make_curves(LOW[:31]), "", known_truth((0.15, 0.15)))
    assert choice.note.startswith("not identifiable from these environments")


def test_unequal_label_noise_is_certified_but_no_step_agrees():
    outputs = known_truth((None, None), noise=(0.15, 0.35))
    assert gaps(outputs, "reference", ["validation"]).certificate.holds
    choice = groups_agree(make_curves(LOW[:31]), "", outputs)
    assert (choice.satisfied, choice.note) == (False, "")
