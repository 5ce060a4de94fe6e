"""Any loss: torch's own and functions of one's own."""

from __future__ import annotations

import pickle
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from invlearn.errors import EnvironmentsError, OptionError
from invlearn.losses import LOSSES, Custom, Logistic, Softmax, Squared, get_loss

WEIGHTS = torch.tensor([1.0, 3.0, 0.5])

G = torch.Generator().manual_seed(0)
ONE, THREE = (torch.randn(7, k, generator=G, dtype=torch.float64) for k in (1, 3))
BINARY, CLASSES = torch.tensor([0, 1, 1, 0, 1, 0, 1]), torch.tensor([0, 2, 1, 0, 1, 2, 1])
NUMBERS = torch.randn(7, generator=G)
SHARES = THREE.softmax(1).flip(0).float()


def absolute(z, y):
    return (z[:, 0] - y).abs()


def named(value):
    """The same in every process, which a function's text is not."""
    return getattr(value, "__name__", str(value))


@pytest.mark.parametrize(
    ("function", "found"),
    [
        (F.cross_entropy, Softmax()),
        (nn.CrossEntropyLoss(reduction="sum"), Softmax()),
        (F.binary_cross_entropy_with_logits, Logistic()),
        (nn.BCEWithLogitsLoss(), Logistic()),
        (F.mse_loss, Squared()),
        (nn.MSELoss(), Squared()),
    ],
    ids=named,
)
def test_torchs_losses_without_options_are_the_closed_forms(function, found):
    assert get_loss(function) == found
    assert get_loss(function, torch.zeros(3)) == found


CASES = {  # name: (function, what it is like, outputs, targets, torch's rows, as torch wants them)
    "label smoothing": (
        nn.CrossEntropyLoss(label_smoothing=0.1),
        "softmax",
        THREE,
        CLASSES,
        lambda: F.cross_entropy(THREE, CLASSES, reduction="none", label_smoothing=0.1),
    ),
    "class weights": (
        nn.CrossEntropyLoss(weight=WEIGHTS),
        "softmax",
        THREE,
        CLASSES,
        lambda: WEIGHTS[CLASSES] * F.cross_entropy(THREE, CLASSES, reduction="none"),
    ),
    "partial": (
        partial(F.cross_entropy, ignore_index=2),
        "softmax",
        THREE,
        CLASSES,
        lambda: (CLASSES != 2) * F.cross_entropy(THREE, CLASSES, reduction="none"),
    ),
    "positive weight": (
        nn.BCEWithLogitsLoss(pos_weight=torch.tensor(2.0)),
        "logistic",
        ONE,
        BINARY,
        lambda: (1 + BINARY) * Logistic().value(ONE, BINARY),
    ),
    "several labels": (
        nn.BCEWithLogitsLoss(),
        None,
        THREE,
        (SHARES > 0.3).long(),
        lambda: F.binary_cross_entropy_with_logits(
            THREE, (SHARES > 0.3).double(), reduction="none"
        ).mean(1),
    ),
    "a share": (
        nn.BCEWithLogitsLoss(),
        None,
        ONE,
        0.9 * BINARY,
        lambda: F.binary_cross_entropy_with_logits(
            ONE[:, 0], 0.9 * BINARY.double(), reduction="none"
        ),
    ),
    "a column": (
        nn.BCEWithLogitsLoss(),
        None,
        ONE,
        BINARY[:, None].float(),
        lambda: Logistic().value(ONE, BINARY),
    ),
    "probabilities": (
        F.cross_entropy,
        None,
        THREE,
        SHARES,
        lambda: F.cross_entropy(THREE, SHARES.double(), reduction="none"),
    ),
    "huber": (
        nn.HuberLoss(delta=0.5),
        "squared",
        ONE,
        NUMBERS,
        lambda: F.huber_loss(ONE[:, 0], NUMBERS.double(), reduction="none", delta=0.5),
    ),
    "absolute": (
        F.l1_loss,
        "squared",
        THREE,
        SHARES,
        lambda: (THREE - SHARES).abs().mean(1),
    ),
    "one's own": (absolute, None, ONE, NUMBERS, lambda: (ONE[:, 0] - NUMBERS).abs()),
    "one's own column": (
        lambda z, y: (z - y[:, None]).abs(),
        None,
        ONE,
        NUMBERS,
        lambda: (ONE[:, 0] - NUMBERS).abs(),
    ),
    "one's own, of whole numbers": (
        lambda z, y: F.cross_entropy(z, y, reduction="none") ** 2,
        None,
        THREE,
        CLASSES,
        lambda: F.cross_entropy(THREE, CLASSES, reduction="none") ** 2,
    ),
    "one's own module": (nn.PairwiseDistance(), None, THREE, SHARES, None),
}


@pytest.mark.parametrize("name", CASES)
def test_a_function_gives_every_rows_loss(name):
    function, like, z, y, rows = CASES[name]
    loss = get_loss(function, y)
    assert isinstance(loss, Custom)
    assert loss.like == (None if like is None else LOSSES[like])
    assert loss.kind == ("unknown" if like is None else LOSSES[like].kind)
    loss.check(y, z.shape[1])
    loss.check_values(z, y)
    want = function(z, y.double()) if rows is None else rows()
    torch.testing.assert_close(loss.value(z, y), want, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", CASES)
def test_its_derivatives_are_autograds_twice(name):
    function, _, z, y, _ = CASES[name]
    loss = get_loss(function, y)
    leaf = z.clone().requires_grad_()
    (want,) = torch.autograd.grad(loss.value(leaf, y).sum(), leaf)
    torch.testing.assert_close(loss.output_gradient(z, y), want)
    assert torch.autograd.gradcheck(lambda z: loss.dummy_gradient(z, y), (leaf,))


def test_what_it_is_like_gives_errors_and_probabilities():
    smooth = get_loss(nn.CrossEntropyLoss(label_smoothing=0.1))
    torch.testing.assert_close(smooth.probabilities(THREE), THREE.softmax(1))
    assert smooth.errors(THREE, CLASSES).equal(Softmax().errors(THREE, CLASSES))
    assert smooth.constant_risk(CLASSES) == float("inf")
    with pytest.raises(EnvironmentsError, match="whole-number targets 0 to 2"):
        smooth.check(torch.tensor([3]), 3)
    focal = get_loss(lambda z, y: F.cross_entropy(z, y, reduction="none") ** 2, like=Softmax())
    assert focal.kind == "classes"
    with pytest.raises(OptionError, match="over classes, got 'custom'"):
        get_loss(absolute).probabilities(ONE)


@pytest.mark.parametrize("function", [F.huber_loss, nn.HuberLoss(delta=2.0), absolute], ids=named)
def test_a_loss_survives_a_pickle(function):
    loss = pickle.loads(pickle.dumps(get_loss(function)))
    torch.testing.assert_close(loss.value(ONE, NUMBERS), get_loss(function).value(ONE, NUMBERS))


def test_a_module_stays_as_it_is():
    module = nn.CrossEntropyLoss(weight=WEIGHTS)
    get_loss(module).value(THREE, CLASSES)
    assert module.reduction == "mean"
    assert module.weight.dtype == torch.float32


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (
            lambda z, y: (z[:, 0] - y).abs().mean(),
            r"one loss per row, shape \(7,\), from '<lambda>' on outputs \(7, 1\) of "
            r"torch\.float64 and targets \(7,\) of torch\.float64, got shape \(\)\. .* "
            "reduction='none'",
        ),
        (lambda z, y: z - y, r"got shape \(7, 7\)\. Bring targets to the outputs' shape"),
        (lambda z, y: 3.0, r"got a float\. Return the rows' losses"),
        (
            lambda z, y: z[:, 3] - y,
            r"the function '<lambda>' fails on them: .*out of bounds.*[^.]\. Mend it, or what",
        ),
    ],
)
def test_what_is_no_loss_of_rows_is_refused(function, text):
    with pytest.raises(OptionError, match=text):
        get_loss(function).value(ONE, NUMBERS)


def test_a_copy_that_would_not_learn_is_refused():
    class Tempered(nn.CrossEntropyLoss):
        def __init__(self):
            super().__init__()
            self.temperature = nn.Parameter(torch.ones(()))

        def forward(self, outputs, targets):
            return super().forward(outputs / self.temperature, targets)

    with pytest.raises(OptionError, match=r"to learn, got a Tempered: .* Let it have no `reduct"):
        get_loss(Tempered())
    frozen = get_loss(Tempered().requires_grad_(False), like=Softmax())
    torch.testing.assert_close(frozen.value(THREE, CLASSES), Softmax().value(THREE, CLASSES))


def test_what_it_is_like_is_a_loss():
    with pytest.raises(OptionError, match=r"'absolute' is like as a Loss, got 'squared'\. Look it"):
        Custom(absolute, like="squared")


def test_losses_that_are_not_finite_are_refused_where_outputs_are():
    loss = get_loss(lambda z, y: z[:, 0].abs() / (y > 0))
    y = torch.tensor([1.0, 0.0])
    with pytest.raises(
        OptionError,
        match=r"finite losses from '<lambda>', got inf in row 1, for the output \[2\.0\] and the "
        r"target 0\.0\. Mend the function there",
    ):
        loss.check_values(torch.tensor([[1.0], [2.0]]), y)
    loss.check_values(torch.tensor([[1.0], [torch.nan]]), y)


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        (nn.HuberLoss, r"got the class HuberLoss\. Call it: HuberLoss\(\)"),
        (3, r"as a name \(squared, .*\), a Loss or a function of outputs and targets, got 3\."),
        (None, "got None"),
    ],
)
def test_what_is_no_loss_at_all_is_refused(asked, text):
    with pytest.raises(OptionError, match=text):
        get_loss(asked)
