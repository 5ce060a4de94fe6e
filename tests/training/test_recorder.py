"""What a run keeps of its outputs: what evaluation sees, and which rows a pooled step hurts."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call

from invlearn.environments import Environments, EvaluationSet
from invlearn.errors import DivergenceWarning, OptionError
from invlearn.evaluation import forward
from invlearn.losses import get_loss
from invlearn.training import Settings, Trainer
from invlearn.training.recorder import Recorder

pytestmark = pytest.mark.filterwarnings("ignore::invlearn.errors.CollapseWarning")

BOTH = ("train", "validation")


def sets_of(data, validation):
    return [
        EvaluationSet.from_environments(data, "train"),
        EvaluationSet.from_environments(validation, "validation"),
    ]


def shared_set(loss="logistic", split="validation", seed=3):
    """Two environments over 12 rows of features, some rows in both or twice."""
    g = torch.Generator().manual_seed(seed)
    rows = (torch.tensor([3, 0, 7, 7]), torch.tensor([1, 3, 11, 5, 2]))
    targets = tuple(
        torch.randint(0, 3 if loss == "softmax" else 2, (len(r),), generator=g) for r in rows
    )
    x = torch.randn(12, 4, generator=g, dtype=torch.float64)
    return EvaluationSet(x, ("a", "b"), rows, targets, split)


@pytest.mark.parametrize("loss", ["logistic", "softmax", "squared"])
def test_kept_outputs_are_what_evaluation_sees(loss, rows, model):
    data, validation = rows(loss), rows(loss, sizes=(11, 8), weights=True, seed=1)
    net = model(loss)
    recorder = Recorder(data, sets_of(data, validation), get_loss(loss), BOTH)
    expected = {"train": [], "validation": []}
    # A regression's errors are differences of outputs and targets, which half precision ruins.
    kind = torch.float64 if loss == "squared" else torch.float16
    for step in (0, 5):
        recorder.measure(net, step)
        for name, source in (("train", data), ("validation", validation)):
            expected[name].append(forward(net, source.x).to(kind))
        with torch.no_grad():
            for p in net.parameters():
                p.mul_(1.5)
    kept = recorder.outputs
    assert kept.steps == (0, 5)
    for name, source in (("train", data), ("validation", validation)):
        split = kept.splits[name]
        assert split.z.dtype == kind
        assert torch.equal(split.z, torch.stack(expected[name]))
        assert torch.equal(split.y, source.y)
        assert torch.equal(split.environment, source.index)
        assert split.names == source.names
    assert kept.splits["train"].weights is None
    assert torch.equal(kept.splits["validation"].weights, validation.weights)
    assert kept.splits["train"].raised is None
    assert kept.splits["validation"].raised.shape == (2, 19)


def test_sets_that_share_features_keep_a_row_for_each_use(rows, model):
    data, shared, net = rows(), shared_set(), model()
    recorder = Recorder(data, [shared], get_loss("logistic"), ("validation",))
    recorder.measure(net, 0)
    split = recorder.outputs.splits["validation"]
    assert split.environment.tolist() == [0] * 4 + [1] * 5
    order = [3, 0, 7, 7, 1, 3, 11, 5, 2]
    assert torch.equal(split.z[0], forward(net, shared.x)[order].half())
    assert torch.equal(split.y, torch.cat(shared.targets))
    alone = Environments.from_parts(
        {n: (shared.x[r], y) for n, r, y in zip("ab", shared.rows, shared.targets, strict=True)}
    )
    flat = Recorder(
        data,
        [EvaluationSet.from_environments(alone, "validation")],
        get_loss("logistic"),
        ("validation",),
    )
    flat.measure(net, 0)
    assert torch.equal(flat.outputs.splits["validation"].raised, split.raised)


def losses_after(net, loss, data, x, y, size):
    """Losses of rows after a step of this size down mean_e R_e, written out."""
    parameters = {name: p.detach().requires_grad_() for name, p in net.named_parameters()}
    total = torch.zeros((), dtype=torch.float64)
    for e, (_, x_e, y_e) in enumerate(data):
        losses = loss.value(functional_call(net, parameters, (x_e,)), y_e)
        a, b = data.offsets[e : e + 2]
        share = torch.ones(b - a).double() if data.weights is None else data.weights[a:b]
        total = total + share @ losses / share.sum() / len(data)
    gradient = torch.autograd.grad(total, [*parameters.values()])
    moved = {
        name: p.detach() - size * g
        for (name, p), g in zip(parameters.items(), gradient, strict=True)
    }
    return loss.value(functional_call(net, moved, (x,)), y)


@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("loss", ["logistic", "softmax", "squared"])
def test_raised_rows_are_those_whose_loss_a_small_step_raises(loss, weights, rows, model):
    data = rows(loss, weights=weights)
    validation = rows(loss, sizes=(40, 25), seed=1)
    net = model(loss)
    recorder = Recorder(data, sets_of(data, validation), get_loss(loss), ("validation",))
    recorder.measure(net, 0)
    raised = recorder.outputs.splits["validation"].raised[0]
    up, down = (
        losses_after(net, get_loss(loss), data, validation.x, validation.y, size)
        for size in (1e-6, -1e-6)
    )
    change = up - down
    assert bool((change.abs() > 1e-12).all())
    assert torch.equal(raised, change > 0)
    assert 0 < int(raised.sum()) < len(raised)


def test_pooled_gradient_reads_at_most_so_many_rows_of_each_environment(rows):
    data = rows(sizes=(2100, 30))
    recorder = Recorder(data, sets_of(data, rows()), get_loss("logistic"), BOTH)
    assert recorder.pooled.sizes == (2000, 30)
    again = Recorder(data, sets_of(data, rows()), get_loss("logistic"), BOTH)
    assert torch.equal(recorder.pooled.x, again.pooled.x)


def test_nothing_is_kept_unless_asked(rows, model):
    data = rows()
    recorder = Recorder(data, sets_of(data, rows(seed=1)), get_loss("logistic"))
    recorder.measure(model(), 0)
    assert recorder.outputs is None
    assert set(recorder.curves["split"]) == {"train", "validation"}
    unmeasured = Recorder(data, sets_of(data, rows(seed=1)), get_loss("logistic"), BOTH)
    assert unmeasured.outputs is None


def test_training_rows_alone_may_be_kept(rows, model):
    data = rows()
    recorder = Recorder(data, sets_of(data, rows(seed=1)), get_loss("logistic"), ("train",))
    recorder.measure(model(), 0)
    assert list(recorder.outputs.splits) == ["train"]
    assert recorder.outputs.splits["train"].raised is None


def test_same_step_is_measured_once(rows, model):
    data = rows()
    recorder = Recorder(data, sets_of(data, rows(seed=1)), get_loss("logistic"), BOTH)
    recorder.measure(model(), 0)
    recorder.measure(model(seed=5), 0)
    assert recorder.outputs.steps == (0,)
    assert recorder.outputs.splits["train"].z.shape[0] == 1


@pytest.mark.parametrize(
    ("keep", "splits"),
    [
        (("validaton",), ("train", "validation")),
        ("validation", ("train", "validation")),
        (("validation",), ("train",)),
        (("validation",), ("validation", "validation")),
    ],
)
def test_splits_to_keep_have_to_be_there_once(keep, splits, rows):
    data = rows()
    sets = [EvaluationSet.from_environments(data, split) for split in splits]
    with pytest.raises(
        OptionError,
        match=r"Expected keep_outputs to name splits with one evaluation set each, got .* "
        r"with sets for \[.*\]\. Pass a tuple such as \('validation',\)\.",
    ):
        Recorder(data, sets, get_loss("logistic"), keep)


class Moody(nn.Module):
    """A model that counts calls, draws random numbers and gives other outputs in training mode."""

    def __init__(self, net):
        super().__init__()
        self.net, self.drop = net, nn.Dropout(0.5)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        if self.training:
            self.calls += 1
            x = x * torch.rand(())
        return self.net(self.drop(x))


def test_measuring_leaves_modes_parameters_gradients_and_random_numbers_alone(rows, model):
    data, net = rows(), Moody(model())
    net.train()
    net.drop.eval()
    before = copy.deepcopy(net.state_dict())
    state = torch.get_rng_state()
    recorder = Recorder(data, sets_of(data, rows(seed=1)), get_loss("logistic"), BOTH)
    recorder.measure(net, 0)
    assert {name: m.training for name, m in net.named_modules()} == {
        name: not name.startswith("drop") for name, _ in net.named_modules()
    }
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(p.grad is None and p.requires_grad for p in net.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    again = Recorder(data, sets_of(data, rows(seed=1)), get_loss("logistic"), BOTH)
    again.measure(net.eval(), 0)
    for split in BOTH:
        assert torch.equal(again.outputs.splits[split].z, recorder.outputs.splits[split].z)
    assert torch.equal(again.raised[0], recorder.raised[0])


def test_modes_are_restored_when_measuring_fails(rows, model):
    class Failing(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net, self.calls = net, 0

        def forward(self, x):
            self.calls += 1
            if self.calls == 3:  # After both sets: inside the pooled gradient.
                raise RuntimeError("no memory")
            return self.net(x)

    data, net = rows(), Failing(model()).train()
    recorder = Recorder(data, sets_of(data, rows(seed=1)), get_loss("logistic"), BOTH)
    with pytest.raises(RuntimeError, match="no memory"):
        recorder.measure(net, 0)
    assert all(module.training for module in net.modules())
    # Nothing of it was recorded, so it can be measured again.
    assert recorder.outputs is None
    assert recorder.curves.empty
    recorder.measure(net, 0)
    assert recorder.outputs.steps == (0,)


def test_model_without_forward_mode_has_no_rows_raised(rows, model):
    class Reverse(torch.autograd.Function):
        @staticmethod
        def forward(x):
            return x.clone()

        @staticmethod
        def setup_context(ctx, inputs, output):
            pass

        @staticmethod
        def backward(ctx, grad):
            return grad

    class Net(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, x):
            return Reverse.apply(self.net(x))

    data = rows()
    recorder = Recorder(data, sets_of(data, rows(seed=1)), get_loss("logistic"), BOTH)
    recorder.measure(Net(model()), 0)
    assert not recorder.outputs.splits["validation"].raised.any()


def trainer_of(net, data, validation, *, loss="logistic", **settings):
    return Trainer(
        net,
        data,
        "erm",
        loss,
        settings=Settings(**{"steps": 8, "lr": 0.01, "evaluate_every": 2, **settings}),
        evaluations=sets_of(data, validation),
        keep_outputs=BOTH,
    )


def assert_same(one, other):
    assert one.steps == other.steps
    for split in BOTH:
        assert torch.equal(one.splits[split].z, other.splits[split].z)
    assert torch.equal(one.splits["validation"].raised, other.splits["validation"].raised)


@pytest.mark.parametrize("through_a_file", [False, True])
def test_resumed_run_keeps_the_outputs_of_one_that_went_on(
    through_a_file, learnable, net, tmp_path
):
    data, validation = learnable(), learnable(seed=1)
    straight = trainer_of(net(), data, validation).run()
    assert straight.outputs.steps == (0, 2, 4, 6, 8)
    stopped = trainer_of(net(), data, validation)
    stopped.run(until=5)
    saved = stopped.state_dict()
    if through_a_file:
        torch.save(saved, tmp_path / "state.pt")
        saved = torch.load(tmp_path / "state.pt")
    resumed = trainer_of(net(seed=9), data, validation)
    resumed.load_state_dict(saved)
    assert_same(resumed.run().outputs, straight.outputs)
    assert_same(stopped.run().outputs, straight.outputs)
    assert len(saved["recorder"]["raised"]) == 3  # Going on leaves what was saved alone.


def test_diverged_run_keeps_outputs_up_to_its_last_finite_step(learnable, net):
    trainer = trainer_of(
        net(()),
        learnable(loss="squared"),
        learnable(loss="squared", seed=1),
        loss="squared",
        steps=100,
        lr=1e6,
        optimizer="SGD",
        evaluate_every=10,
    )
    with pytest.warns(DivergenceWarning):
        run = trainer.run()
    assert run.outputs.steps == tuple(run.curves["step"].unique()) == (0, 10, 20)
    for split in BOTH:
        assert len(run.outputs.splits[split].z) == 3
    assert len(run.outputs.splits["validation"].raised) == 3
