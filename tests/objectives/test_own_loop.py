"""An objective in a training loop of one's own, against the trainer; and batches it refuses."""

from __future__ import annotations

import copy

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from conftest import make_model, make_rows
from invlearn.environments import Environments
from invlearn.errors import EnvironmentsError, OptionError, UnknownNameError
from invlearn.losses import get_loss
from invlearn.means import seeded_generator
from invlearn.models import MLP
from invlearn.objectives import OBJECTIVES, get_objective
from invlearn.objectives.group_dro import GroupDRO
from invlearn.objectives.irmv1 import IRMv1
from invlearn.objectives.meta_irm import MetaIRM
from invlearn.objectives.vrex import VREx
from invlearn.training import Batch, Engine, PenaltySchedule, Settings, Trainer
from invlearn.training.settings import draw_batch

# A few steps need not beat a constant, and PAIR may head for the risk alone in them.
pytestmark = [
    pytest.mark.filterwarnings("ignore::invlearn.errors.CollapseWarning"),
    pytest.mark.filterwarnings("ignore::invlearn.errors.NoEffectWarning"),
]

SIZES, SEED = (30, 41, 26), 3
BY_OUTPUTS = [name for name in OBJECTIVES if name != "meta-irm"]


def batch_and_generator(rows, objective, step=0, batch_size=None):
    """The trainer's batch of a step, and a generator that draws what the trainer draws in it."""
    batch = draw_batch(rows, Settings(batch_size=batch_size), objective.folds, SEED, step)
    cut = seeded_generator(SEED, 1, step)
    return batch, cut if objective.folds > 1 else torch.Generator().manual_seed(batch.seed)


def labels(rows):
    return [rows.names[e] for e in rows.index.tolist()]


def outputs_and_features(net, x):
    h = x
    for layer in net.layers[:-1]:
        h = layer(h).relu()
    return net.layers[-1](h), h


def assert_gradients(net, wanted, rtol=1e-10):
    for p, want in zip(net.parameters(), wanted, strict=True):
        torch.testing.assert_close(p.grad, want, rtol=rtol, atol=rtol)


def engine_step(net, rows, objective, loss, state, batch):
    net.zero_grad()
    terms, new = Engine(net, get_loss(loss), objective, micro_batch=None).step(batch, state)
    gradients = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    return terms, gradients, new


@pytest.mark.parametrize("name", BY_OUTPUTS)
@pytest.mark.parametrize("loss", ["squared", "logistic", "softmax"])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_batch_has_the_trainers_gradient(name, loss, weighted):
    objective, net = OBJECTIVES[name], make_model(loss)
    rows = make_rows(loss, SIZES, weighted)
    batch, generator = batch_and_generator(rows, objective)
    state = objective.init(3, torch.zeros((), dtype=torch.float64))
    terms, wanted, new = engine_step(net, rows, objective, loss, state, batch)
    z, h = outputs_and_features(net, rows.x)
    memory = objective.begin(labels(rows))
    total = objective.on_batch(
        z,
        rows.y,
        labels(rows),
        h,
        loss=loss,
        weights=rows.weights,
        parameters=net.parameters(),
        memory=memory,
        generator=generator,
    )
    total.backward()
    torch.testing.assert_close(total.detach(), terms.total, rtol=1e-12, atol=1e-12)
    assert_gradients(net, wanted)
    torch.testing.assert_close(memory.state, new)


@pytest.mark.parametrize("name", BY_OUTPUTS)
def test_a_single_row_of_several_targets_has_it_too(name):
    if OBJECTIVES[name].folds > 1:
        pytest.skip("it cuts rows into halves")
    y = torch.randn(12, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = torch.randn(12, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    bounds = {"a": slice(5), "b": slice(5, 11), "c": slice(11, 12)}
    rows = Environments.from_parts({e: (x[at], y[at]) for e, at in bounds.items()}, min_rows=1)
    net, objective, huber = MLP(4, (5,), 2).double(), OBJECTIVES[name], nn.HuberLoss(delta=0.7)
    start = objective.init(3, torch.zeros((), dtype=torch.float64))
    terms, wanted, _ = engine_step(net, rows, objective, huber, start, Batch(rows))
    memory = objective.begin(rows.names)
    total = objective.on_model(net, rows.x, y, labels(rows), loss=huber, memory=memory)
    total.backward()
    torch.testing.assert_close(total.detach(), terms.total, rtol=1e-12, atol=1e-12)
    assert_gradients(net, wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_outputs_of_low_precision_are_taken(name, dtype):
    rows, objective, found = make_rows(sizes=SIZES), OBJECTIVES[name], []
    if name == "meta-irm":  # DropGrad's noise is drawn in the gradient's type.
        objective = MetaIRM(dropgrad=0.0)
    for kind in (torch.float64, dtype):
        net = make_model().to(dtype).to(kind)  # The same rounded parameters.
        memory, generator = objective.begin(rows.names), torch.Generator().manual_seed(0)
        total = objective.on_model(
            net,
            rows.x.to(dtype).to(kind),
            rows.y,
            labels(rows),
            loss="logistic",
            memory=memory,
            generator=generator,
        )
        total.backward()
        assert total.dtype == torch.float64
        assert {p.grad.dtype for p in net.parameters()} == {kind}
        found.append(total.detach())
    torch.testing.assert_close(found[1], found[0], rtol=50 * torch.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("weighted", [False, True])
def test_a_loop_of_steps_ends_where_the_trainer_does(name, weighted):
    rows = make_rows(sizes=SIZES, weights=weighted)
    objective, net = OBJECTIVES[name], make_model()
    trained = copy.deepcopy(net)
    settings = Settings(steps=4, lr=0.01, batch_size=15, evaluate_every=4)
    trainer = Trainer(trained, rows, name, "logistic", settings=settings, seed=SEED)
    trainer.run()
    memory, optimizer = objective.begin(rows.names), torch.optim.Adam(net.parameters(), lr=0.01)
    for step in range(4):
        batch, generator = batch_and_generator(rows, objective, step, 15)
        own = batch.rows
        total = objective.on_model(
            net,
            own.x,
            own.y,
            labels(own),
            loss=F.binary_cross_entropy_with_logits,
            weights=own.weights,
            memory=memory,
            generator=generator,
        )
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    for got, want in zip(net.parameters(), trained.parameters(), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", ["irmv1", "group-dro", "pair", "fishr", "coral"])
def test_the_order_of_rows_does_not_matter(name):
    rows, objective, net = make_rows(sizes=SIZES), OBJECTIVES[name], make_model()
    order = torch.randperm(rows.n_rows, generator=torch.Generator().manual_seed(0))
    named, found = np.array(labels(rows)), []
    for at in (torch.arange(rows.n_rows), order):
        net.zero_grad()
        memory = objective.begin(rows.names)
        total = objective.on_model(
            net, rows.x[at], rows.y[at], named[at], loss="logistic", memory=memory
        )
        total.backward()
        found.append([p.grad.clone() for p in net.parameters()])
    assert_gradients(net, found[0], 1e-9)


@pytest.mark.parametrize(
    "form",
    [
        lambda index: index,
        lambda index: index.to(torch.int32),
        lambda index: index.double(),
        lambda index: index.tolist(),
        lambda index: index.numpy(),
        lambda index: list(index),
        lambda index: tuple(f"e{i}" for i in index),
        lambda index: np.array(["x", "y", "z"])[index],
        lambda index: pd.Series(["x", "y", "z"])[index.numpy()],  # With an index of its own.
    ],
)
def test_labels_of_any_kind(form):
    rows, net, totals = make_rows(sizes=SIZES), make_model(), []
    for given in (form(rows.index), labels(rows)):
        totals.append(VREx().on_model(net, rows.x, rows.y, given, loss="logistic").detach())
    assert totals[0].equal(totals[1])


def test_targets_and_weights_may_be_lists_and_arrays():
    rows, net = make_rows(sizes=SIZES, weights=True), make_model()
    z = net(rows.x)
    totals = [
        VREx().on_batch(z, y, rows.index, loss="logistic", weights=w).detach()
        for y, w in (
            (rows.y, rows.weights),
            (rows.y.tolist(), rows.weights.tolist()),
            (rows.y.numpy(), rows.weights.numpy()),
        )
    ]
    for total in totals[1:]:  # Floats are of torch's default type.
        torch.testing.assert_close(total, totals[0], rtol=1e-6, atol=0)


def test_the_strength_of_a_step_follows_a_schedule():
    rows, net = make_rows(sizes=SIZES), make_model()
    schedule, z = PenaltySchedule("step", start=2, before=1.0), net(rows.x)
    for step in (1, 2):
        weight = schedule.weight(step, 50.0)
        totals = [
            IRMv1(50.0).on_batch(z, rows.y, rows.index, loss="logistic", strength=weight),
            IRMv1(weight).on_batch(z, rows.y, rows.index, loss="logistic"),
        ]
        assert totals[0].detach() == totals[1].detach()
    with pytest.raises(OptionError, match=r"no strength for GroupDRO, which has no penalty, got 2"):
        GroupDRO().on_batch(z, rows.y, rows.index, loss="logistic", strength=2.0)


WITH_A_TOTAL = {
    name: objective
    for name, objective in OBJECTIVES.items()
    if name not in ("and-mask", "sand-mask", "pair", "meta-irm")  # Their gradient is no total's.
} | {"group-dro": GroupDRO(0.0)}  # Its weights follow the risks but are not differentiated.


@pytest.mark.parametrize("name", WITH_A_TOTAL)
def test_dropout_and_batch_norm_are_differentiated_as_they_ran(name):
    rows, objective = make_rows(sizes=SIZES), WITH_A_TOTAL[name]
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Dropout(0.3), nn.Linear(6, 1)
    ).double()

    def total():
        torch.manual_seed(1)  # Of dropout, and of random halves.
        memory = objective.begin(rows.names)
        return objective.on_model(net, rows.x, rows.y, labels(rows), loss="logistic", memory=memory)

    def moved(direction, by):
        with torch.no_grad():
            for p, d in zip(net.parameters(), direction, strict=True):
                p += by * d

    total().backward()
    direction = [torch.randn_like(p) for p in net.parameters()]
    slope = sum(float((p.grad * d).sum()) for p, d in zip(net.parameters(), direction, strict=True))
    moved(direction, 1e-6)
    up = float(total().detach())
    moved(direction, -2e-6)
    assert slope == pytest.approx((up - float(total().detach())) / 2e-6, rel=1e-4)


@pytest.mark.parametrize("name", ["iga", "and-mask", "pair"])
def test_a_combined_gradient_is_scaled_and_added_to(name):
    rows, objective, net = make_rows(sizes=SIZES), OBJECTIVES[name], make_model()
    total = objective.on_model(net, rows.x, rows.y, rows.index, loss="logistic")
    total.backward()
    once = [p.grad.clone() for p in net.parameters()]
    total = objective.on_model(net, rows.x, rows.y, rows.index, loss="logistic")
    (3 * total + sum(p.square().sum() for p in net.parameters())).backward()
    want = [4 * g + 2 * p.detach() for g, p in zip(once, net.parameters(), strict=True)]
    assert_gradients(net, want)


@pytest.mark.parametrize("name", ["group-dro", "fishr"])
def test_what_is_carried_can_be_saved(name):
    rows, net = make_rows(sizes=SIZES), make_model()
    objective = OBJECTIVES[name]
    totals = []
    memory = objective.begin(rows.names)
    for _ in range(3):
        saved = memory.state_dict()
        z, h = outputs_and_features(net, rows.x)
        total = objective.on_batch(z, rows.y, labels(rows), h, loss="logistic", memory=memory)
        totals.append(total.detach())
    again = objective.begin(rows.names)
    again.load_state_dict(saved)
    total = objective.on_batch(z, rows.y, labels(rows), h, loss="logistic", memory=again)
    assert total.detach() == totals[-1] != totals[0]
    with pytest.raises(EnvironmentsError, match=r"for the environments \['a', 'b'\], got it for"):
        objective.begin(["a", "b"]).load_state_dict(saved)
    with pytest.raises(EnvironmentsError, match=r"Expected what V-REx carried .*, of \w+\. Begin"):
        VREx().begin(rows.names).load_state_dict(saved)


def test_what_another_objective_carries_is_refused():
    rows, net = make_rows(sizes=SIZES), make_model()
    fixed, moving = MetaIRM(), MetaIRM(rate="curvature")
    pairs = [(GroupDRO(), moving), (moving, GroupDRO()), (fixed, moving), (moving, fixed)]
    for objective, other in pairs:  # Of three environments, three numbers each.
        memory = other.begin(rows.names)
        with pytest.raises(OptionError, match=rf"memory that {objective.title} began with, got an"):
            objective.on_model(net, rows.x, rows.y, labels(rows), loss="logistic", memory=memory)


def test_groups_may_be_missing_in_a_batch_and_environments_may_not():
    rows, net = make_rows(sizes=SIZES), make_model()
    two = rows.index < 2
    z, y, index = net(rows.x)[two], rows.y[two], rows.index[two]
    by_groups = GroupDRO(over="groups")
    memory = by_groups.begin([0, 1, 2])
    total = by_groups.on_batch(z, y, index, loss="logistic", memory=memory)
    rows_risks = F.binary_cross_entropy_with_logits(z[:, 0], y.double(), reduction="none")
    risks = torch.stack([rows_risks[index == 0].mean(), rows_risks[index == 1].mean(), 0 * total])
    q = torch.softmax(0.01 * risks, 0)
    torch.testing.assert_close(memory.state.exp(), q.detach())
    torch.testing.assert_close(total, (q * risks).sum())
    with pytest.raises(EnvironmentsError, match=r"got none of '2', which GroupDRO began with\. D"):
        GroupDRO().on_batch(z, y, index, loss="logistic", memory=GroupDRO().begin([0, 1, 2]))
    with pytest.raises(UnknownNameError, match="Unknown environment '1'"):
        GroupDRO().on_batch(z, y, index, loss="logistic", memory=GroupDRO().begin([0, 5]))


Z, Y, E = torch.zeros(4, 1, requires_grad=True), torch.tensor([0, 1, 0, 1]), [0, 0, 1, 1]
Z3, H = torch.zeros(4, 3, requires_grad=True), torch.zeros(4, 2, requires_grad=True)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "text"),
    [
        ((Z, Y, [0] * 4), {}, EnvironmentsError,
         r"V-REx needs rows of at least 2 environments in every batch, got 1 \(0\)\. Draw each"),
        ((Z[:0], Y[:0], []), {}, EnvironmentsError, r"Expected rows in a batch, got none\. Skip"),
        ((Z, Y, E[:3]), {}, EnvironmentsError,
         r"everywhere in a batch, got {'outputs': 4, 'targets': 4, 'environments': 3}\. Pass one"),
        ((Z, Y[:3], E), {}, EnvironmentsError, "'targets': 3"),
        ((Z, Y, E), {"weights": [1.0]}, EnvironmentsError, "'weights': 1"),
        ((Z, Y, E), {"weights": [1, 1, 1, -1]}, EnvironmentsError, "with a least of -1.0"),
        ((Z, Y, E), {"weights": [1, 1, 0, 0]}, OptionError,
         "positive sum of row weights in every mean of a step, got 0 in environment '1'"),
        ((Z, Y, E), {"weights": [1, 1, 1, torch.nan]}, EnvironmentsError, "weights of a batch"),
        ((Z, Y, "north"), {}, EnvironmentsError, "label per row, got 'north'. Pass a list"),
        ((Z, Y, 3), {}, EnvironmentsError, "label per row, got 3"),
        ((Z, Y, torch.tensor(E)[:, None]), {}, EnvironmentsError,
         r"label per row, shape \[n\], got shape \(4, 1\)\. Flatten"),
        ((Z, Y, {0: "a", 1: "b"}), {}, EnvironmentsError, "label per row, got {0: 'a', 1: 'b'}"),
        ((Z, Y, ["a", None, "b", "b"]), {}, EnvironmentsError, "label in every row, 1 have none"),
        ((Z, Y, torch.tensor([0, torch.nan, 1, 1])), {}, EnvironmentsError, "1 have none"),
        ((Z, Y + 1, E), {}, EnvironmentsError, "targets 0 and 1 for the logistic loss, got values"),
        ((Z, Y[:, None], E), {}, EnvironmentsError, r"the logistic loss, got shape \(4, 1\)"),
        ((Z, ["no", "yes"] * 2, E), {}, EnvironmentsError, "Expected numbers in targets"),
        ((Z, Y, E), {"loss": "squared"}, EnvironmentsError, r"float targets with 1 column\(s\)"),
        ((Z3, Y, E), {}, OptionError, "Expected one output for the logistic loss, got 3"),
        ((Z, Y, E), {"loss": "softmax"}, OptionError, "two outputs for the softmax loss, got 1"),
        ((Z3, Y + 2, E), {"loss": F.cross_entropy}, EnvironmentsError,
         r"targets 0 to 2 for the softmax loss, got 2, 3 .* the model an output for each"),
        ((Z3[None], Y, E), {}, OptionError, r"outputs as a tensor \[n\] or \[n, k\], got shape"),
        (((Z, H), Y, E), {}, OptionError,
         r"or \[n, k\], got a tuple\. Flatten them; of a model that gives .*, pass these alone"),
        ((Z, Y, E), {"loss": lambda z, y: z.sum()}, OptionError, r"one loss per row, shape \(4,\)"),
        ((Z, Y, E), {"loss": lambda z, y: z[:, 0] / 0}, OptionError, "finite losses from '<lam"),
        ((Z, Y, E), {"memory": {}}, OptionError, r"as objective\.begin\(environments\) makes it"),
        ((Z, Y, E), {"memory": GroupDRO().begin(E)}, OptionError,
         r"Expected the memory that V-REx began with, got another: Memory\("),
        ((Z, Y, E), {"strength": -1.0}, OptionError, "0 or more, got -1"),
    ],
)  # fmt: skip
def test_batches_that_do_not_fit_are_refused(arguments, options, error, text):
    with pytest.raises(error, match=text):
        VREx().on_batch(*arguments, **{"loss": "logistic", **options})


@pytest.mark.parametrize(
    ("name", "options", "error", "text"),
    [
        ("fishr", {"features": H}, OptionError,
         r"Fishr carries a state from batch to batch, expected memory, got None\. Once before"),
        ("group-dro", {}, OptionError, r"memory = objective\.begin\(environments\)"),
        ("coral", {}, OptionError,
         r"CORAL reads features, .* Expected features \[4, d\], got None\. Pass features=h, or"),
        ("coral", {"features": H[:3]}, OptionError, r"\[4, d\], got shape \(3, 2\)"),
        ("coral", {"features": H.detach()}, OptionError,
         "Expected features that training changes, which CORAL penalizes, got some without"),
        ("iga", {}, OptionError,
         r"IGA combines gradients in the parameters, got none that learns\. Pass parameters=model"),
        ("coral", {"features": [[0.0]] * 4}, OptionError, r"\[4, d\], got a list\. Pass f"),
        ("pair", {"parameters": [torch.ones(1)]}, OptionError, "got none that learns"),
        ("pair", {"parameters": nn.Linear(1, 1).named_parameters()}, OptionError, "got none that"),
        ("meta-irm", {}, OptionError,
         r"meta-IRM takes steps with the model itself: .* Use on_model\(model, inputs, targets"),
    ],
)  # fmt: skip
def test_what_an_objective_needs_beside_outputs_is_said(name, options, error, text):
    with pytest.raises(error, match=text):
        OBJECTIVES[name].on_batch(Z, Y, E, loss="logistic", **options)


def test_outputs_cut_from_the_parameters_are_refused():
    other = nn.Parameter(torch.ones(2))
    for outputs, parameters in ((Z, [other]), (Z.detach(), [other]), (Z, other)):
        with pytest.raises(OptionError, match=r"got outputs without a graph back to them\. Pass"):
            OBJECTIVES["and-mask"].on_batch(outputs, Y, E, loss="logistic", parameters=parameters)


@pytest.mark.parametrize("labels", [[], ["a"]])
def test_too_few_environments_to_begin_with_are_refused(labels):
    with pytest.raises(EnvironmentsError, match=r"at least 2 environments to begin with, got \d"):
        GroupDRO().begin(labels)


@pytest.mark.parametrize("hyper", [3, ["penalty_weight"], "penalty_weight"])
def test_hyperparameters_are_a_dict(hyper):
    with pytest.raises(OptionError, match=r"as a dict of options of IRMv1 by name, got .*\. Write"):
        get_objective("irmv1", hyper)


def test_halves_of_a_single_row_are_refused():
    with pytest.raises(OptionError, match="at least 2 rows of every environment in each step"):
        OBJECTIVES["irmv1-split"].on_batch(Z, Y, [0, 0, 0, 1], loss="logistic")


def test_one_environment_serves_what_compares_none():
    total = OBJECTIVES["erm"].on_batch(Z, Y, [0] * 4, loss="logistic")
    assert float(total.detach()) == pytest.approx(np.log(2))


def test_a_batch_of_one_row_may_have_a_number_as_target():
    total = OBJECTIVES["erm"].on_batch(Z[:1], torch.tensor(3.0), ["a"], loss="squared")
    assert float(total.detach()) == 9.0


def test_on_model_refuses_a_model_that_does_not_learn():
    net, rows = make_model().requires_grad_(False), make_rows()
    with pytest.raises(OptionError, match="with trainable parameters, got none"):
        OBJECTIVES["ib-erm"].on_model(net, rows.x, rows.y, rows.index, loss="logistic")


def test_on_model_says_how_a_layer_is_named():
    rows = make_rows()
    net = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 1), nn.LayerNorm(1)).double()
    options = {"loss": "logistic", "features": "1"}
    with pytest.raises(
        OptionError, match=r"Name the layer, features='name' \(in Settings, or of o"
    ):
        OBJECTIVES["coral"].on_model(net, rows.x, rows.y, rows.index, loss="logistic")
    total = OBJECTIVES["coral"].on_model(net, rows.x, rows.y, rows.index, **options)
    assert total.requires_grad


def test_on_model_refuses_features_that_no_training_changes():
    net = nn.Linear(4, 1).double()
    rows = make_rows(sizes=SIZES)
    with pytest.raises(OptionError, match="Give the network a hidden layer"):
        OBJECTIVES["coral"].on_model(net, rows.x, rows.y, rows.index, loss="logistic")
