"""Losses: their values against torch's, their dummy gradients against autograd's."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F

from invlearn.errors import EnvironmentsError, OptionError, UnknownNameError
from invlearn.losses import LOSSES, Custom, Logistic, Softmax, Squared, get_loss

N = 23


def huber(z, y):
    return F.huber_loss(z[:, 0], y, reduction="none")


def mse(z, y):
    return F.mse_loss(z, y.reshape(z.shape), reduction="none").mean(1)


def bce(z, y):
    return F.binary_cross_entropy_with_logits(z[:, 0], y.to(z.dtype), reduction="none")


def cross_entropy(z, y):
    return F.cross_entropy(z, y, reduction="none")


CASES = {  # name: (loss, outputs, classes or None, torch's value of every row)
    "squared": (Squared(), 1, None, mse),
    "squared-3": (Squared(), 3, None, mse),
    "logistic": (Logistic(), 1, 2, bce),
    "softmax": (Softmax(), 4, 4, cross_entropy),
    "softmax-2": (Softmax(), 2, 2, cross_entropy),
    "softmax-per-class": (Softmax(dummy="per-class"), 4, 4, cross_entropy),
    "custom": (Custom(huber), 1, None, huber),
}


def rows_of(name, dtype=torch.float64, seed=0):
    loss, outputs, classes, reference = CASES[name]
    g = torch.Generator().manual_seed(seed)
    z = 2 * torch.randn(N, outputs, generator=g, dtype=torch.float64)
    if classes is None:
        shape = (N,) if outputs == 1 else (N, outputs)
        y = torch.randn(shape, generator=g, dtype=torch.float64).to(dtype)
    else:
        y = torch.randint(0, classes, (N,), generator=g)
    return loss, z.to(dtype), y, reference


def dummy_by_autograd(loss, reference, z, y):
    """Each row's loss differentiated in its own dummy scale (one for each class if so asked)."""
    per_class = getattr(loss, "dummy", "scalar") == "per-class"
    scale = torch.ones(len(z), z.shape[1] if per_class else 1, dtype=z.dtype, requires_grad=True)
    return torch.autograd.grad(reference(z * scale, y).sum(), scale)[0]


@pytest.mark.parametrize("name", CASES)
def test_value_is_torchs_for_every_row(name):
    loss, z, y, reference = rows_of(name)
    assert loss.value(z, y).shape == (N,)
    torch.testing.assert_close(loss.value(z, y), reference(z, y), rtol=1e-12, atol=1e-14)


TYPES = pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5)], ids=["f64", "f32"]
)


@pytest.mark.parametrize("name", CASES)
@TYPES
def test_output_gradient_is_each_rows_derivative_in_its_outputs(name, dtype, tolerance):
    loss, z, y, reference = rows_of(name, dtype)
    got = loss.output_gradient(z, y)
    assert got.dtype == dtype
    z = z.requires_grad_()
    want = torch.stack([torch.autograd.grad(v, z, retain_graph=True)[0][i] for i, v in
                        enumerate(reference(z, y))])  # fmt: skip
    torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", CASES)
@TYPES
def test_dummy_gradient_is_the_derivative_in_a_dummy_scale(name, dtype, tolerance):
    loss, z, y, reference = rows_of(name, dtype)
    got = loss.dummy_gradient(z, y)
    assert got.dtype == dtype
    assert got.ndim == 2
    torch.testing.assert_close(
        got, dummy_by_autograd(loss, reference, z, y), rtol=tolerance, atol=tolerance
    )


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("derivative", ["output_gradient", "dummy_gradient"])
def test_the_derivatives_are_differentiable_themselves(name, derivative):
    loss, z, y, _ = rows_of(name)
    z = z[:6].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda z: getattr(loss, derivative)(z, y[:6]), (z,))


def test_per_class_dummies_add_up_to_the_scalar_one():
    _, z, y, _ = rows_of("softmax")
    per_class = Softmax(dummy="per-class").dummy_gradient(z, y)
    assert per_class.shape == (N, 4)
    torch.testing.assert_close(per_class.sum(1, keepdim=True), Softmax().dummy_gradient(z, y))


@pytest.mark.parametrize("loss", [Squared(), Logistic()], ids=lambda loss: loss.name)
def test_outputs_may_come_flat(loss):
    _, z, y, _ = rows_of(loss.name)
    assert loss.value(z[:, 0], y).equal(loss.value(z, y))
    assert loss.output_gradient(z[:, 0], y).equal(loss.output_gradient(z, y)[:, 0])
    assert loss.dummy_gradient(z[:, 0], y).equal(loss.dummy_gradient(z, y))


def test_targets_as_a_column_do_not_broadcast_against_outputs():
    _, z, y, reference = rows_of("squared")
    assert Squared().value(z, y[:, None]).shape == (N,)
    torch.testing.assert_close(Squared().value(z, y[:, None]), reference(z, y))
    torch.testing.assert_close(
        Squared().dummy_gradient(z, y[:, None]), Squared().dummy_gradient(z, y)
    )


def test_logistic_takes_float_targets_of_zero_and_one():
    _, z, y, _ = rows_of("logistic")
    Logistic().check(y.double(), 1)
    assert Logistic().value(z, y.double()).equal(Logistic().value(z, y))
    assert Logistic().errors(z, y.double()).equal(Logistic().errors(z, y))


@pytest.mark.parametrize("name", ["logistic", "softmax"])
def test_classification_losses_stay_finite_at_large_logits(name):
    loss, z, y, _ = rows_of(name, torch.float32)
    z = z.sign() * 1e4
    assert loss.value(z, y).isfinite().all()
    assert loss.dummy_gradient(z, y).isfinite().all()


def test_several_outputs_for_the_logistic_loss_are_refused():
    with pytest.raises(OptionError, match=r"one output per row .* got shape \(5, 2\)\. Build"):
        Logistic().value(torch.zeros(5, 2), torch.zeros(5))


# The best constant predictor.


def test_constant_risk_of_classes_is_the_best_over_a_grid_of_probabilities():
    y = torch.tensor([0, 0, 0, 1, 2, 2])
    steps = 12  # The grid holds the true shares 1/2, 1/6 and 1/3.
    risks = []
    for counts in itertools.product(range(1, steps), repeat=3):
        if sum(counts) == steps:
            z = (torch.tensor(counts, dtype=torch.float64) / steps).log().expand(len(y), 3)
            risks.append(float(Softmax().value(z, y).mean()))
    assert Softmax().constant_risk(y) == pytest.approx(min(risks), abs=1e-12)


def test_constant_risk_of_two_classes_is_the_best_over_a_grid_of_logits():
    y = torch.tensor([0] * 7 + [1] * 3)
    grid = torch.linspace(-3, 3, 6001, dtype=torch.float64)
    risks = [float(Logistic().value(z.expand(len(y), 1), y).mean()) for z in grid[::10]]
    assert Logistic().constant_risk(y) <= min(risks)
    assert Logistic().constant_risk(y) == pytest.approx(min(risks), abs=1e-5)


def test_constant_risk_of_one_class_is_zero():
    assert Logistic().constant_risk(torch.ones(4)) == 0
    assert Softmax().constant_risk(torch.full((4,), 2)) == 0


@pytest.mark.parametrize("columns", [1, 3])
def test_constant_risk_of_a_regression_is_the_least_found_by_descent(columns):
    g = torch.Generator().manual_seed(1)
    y = torch.randn(40, columns, generator=g, dtype=torch.float64) * torch.arange(1, columns + 1)
    y = y[:, 0] if columns == 1 else y
    z = torch.zeros(columns, dtype=torch.float64, requires_grad=True)
    for _ in range(200):
        risk = Squared().value(z.expand(40, columns), y).mean()
        (slope,) = torch.autograd.grad(risk, z)
        z = (z - 0.4 * columns * slope).detach().requires_grad_()
    assert Squared().constant_risk(y) == pytest.approx(float(risk.detach()), rel=1e-10)


def test_constant_risk_of_a_custom_loss_is_unknown():
    assert Custom(huber).constant_risk(torch.zeros(3)) == float("inf")


# Errors of 0 and 1.


def test_errors_are_zero_or_one_for_classes():
    z = torch.tensor([[2.0], [-1.0], [0.5], [-3.0]])
    assert Logistic().errors(z, torch.tensor([1, 0, 0, 1])).tolist() == [0, 0, 1, 1]
    z = torch.tensor([[0.0, 1.0, 2.0], [3.0, 1.0, 2.0]])
    assert Softmax().errors(z, torch.tensor([2, 1])).tolist() == [0, 1]


def test_errors_of_a_regression_are_its_losses():
    for name in ("squared", "squared-3", "custom"):
        loss, z, y, _ = rows_of(name)
        assert loss.kind == ("unknown" if name == "custom" else "numbers")
        assert loss.errors(z, y).equal(loss.value(z, y))


# Probabilities.


@pytest.mark.parametrize("name", [n for n, (loss, *_) in CASES.items() if loss.kind == "classes"])
def test_probabilities_are_those_whose_logarithm_is_the_loss(name):
    loss, z, y, _ = rows_of(name)
    p = loss.probabilities(z)
    assert p.shape == (N, CASES[name][2])
    torch.testing.assert_close(p.sum(1), torch.ones(N, dtype=z.dtype))
    torch.testing.assert_close(-p[torch.arange(N), y].log(), loss.value(z, y))
    assert (p.argmax(1) != y).equal(loss.errors(z, y).bool())
    assert loss.logits(z).softmax(1).equal(p)


@pytest.mark.parametrize("name", ["squared", "custom"])
def test_probabilities_of_targets_that_are_no_classes_are_refused(name):
    loss, z, _, _ = rows_of(name)
    with pytest.raises(
        OptionError, match=rf"loss over classes, got '{name}': its .* Use 'logistic' or 'softmax'"
    ):
        loss.probabilities(z)


# Targets of another kind.


@pytest.mark.parametrize(
    ("y", "text"),
    [
        (torch.tensor([1, 2, 1]), r"0 and 1 for the logistic loss, got values 1, 2\. Map"),
        (torch.tensor([0.0, 0.5]), r"got values 0, 0\.5\. Map the two classes to 0 and 1"),
        (torch.arange(9), r"got values 0, 1, 2, 3, 4, \.\.\."),
        (
            torch.zeros(4, 1),
            r"got shape \(4, 1\)\. Map the two classes to 0 and 1, in one column \[n",
        ),
    ],
)
def test_logistic_targets_other_than_zero_and_one_are_refused(y, text):
    with pytest.raises(EnvironmentsError, match=text):
        Logistic().check(y, 1)


def test_logistic_wants_one_output():
    with pytest.raises(OptionError, match=r"one output for the logistic loss, got 2\. Use 's"):
        Logistic().check(torch.tensor([0, 1]), 2)


def test_trap_binary_labels_on_a_softmax_over_one_column_are_refused():
    y = torch.tensor([0, 1, 1])
    z = torch.randn(3, 1)
    assert (z.softmax(1) == 1).all()  # Whatever the labels: nothing would be learned.
    with pytest.raises(
        OptionError, match=r"at least two outputs for the softmax loss, got 1\. .*the logistic loss"
    ):
        Softmax().check(y, 1)


@pytest.mark.parametrize(
    ("y", "text"),
    [
        (
            torch.tensor([0, 3, 1]),
            r"targets 0 to 2 for the softmax loss, got 0, 1, 3 of type torch.int64\. Number",
        ),
        (torch.tensor([1, -1]), "got -1, 1"),
        (torch.tensor([0.0, 1.0]), "Expected whole-number targets 0 to 2"),
        (torch.zeros(4, 2, dtype=torch.int64), r"got \(4, 2\)"),
        (torch.tensor([0, -100]), r"got -100, 0 .* leave out rows of no class"),
    ],
)
def test_softmax_targets_out_of_range_are_refused(y, text):
    with pytest.raises(EnvironmentsError, match=text):
        Softmax().check(y, 3)


@pytest.mark.parametrize(
    ("y", "outputs", "text"),
    [
        (torch.tensor([0, 1]), 1, r"float targets with 1 column\(s\) .*got torch\.int64 with 1"),
        (torch.zeros(4, 2), 3, r"float targets with 3 column\(s\) .*got torch\.float32 with 2"),
        (torch.zeros(4), 2, r"with 2 column\(s\) .* with 1\. .* an output for each column"),
        (torch.zeros(4, 2, 3), 2, r"with 2 column\(s\) .* with 6\."),
    ],
)
def test_squared_targets_of_another_kind_or_width_are_refused(y, outputs, text):
    with pytest.raises(EnvironmentsError, match=text):
        Squared().check(y, outputs)


@pytest.mark.parametrize("name", CASES)
def test_right_targets_pass_the_check(name):
    loss, z, y, _ = rows_of(name)
    loss.check(y, z.shape[1])


# Names.


def test_losses_are_found_by_name_and_pass_through_as_instances():
    assert all(get_loss(name) is loss for name, loss in LOSSES.items())
    custom = Custom(huber)
    assert get_loss(custom) is custom


def test_an_unknown_loss_suggests_the_nearest():
    with pytest.raises(UnknownNameError, match=r"Unknown loss 'logstic'\. Did you mean 'logistic'"):
        get_loss("logstic")


def test_an_unknown_dummy_suggests_the_nearest():
    with pytest.raises(UnknownNameError, match=r"Unknown dummy 'class'\. Did you mean 'per-class'"):
        Softmax(dummy="class")
