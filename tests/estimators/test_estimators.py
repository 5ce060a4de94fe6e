"""What the estimators learn, and what they refuse."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from torch import nn

from invlearn import (
    MLP,
    EnvironmentsError,
    InvariantClassifier,
    InvariantRegressor,
    OptionError,
    UnknownNameError,
)
from invlearn.errors import InterruptedWarning, SingleEnvironmentWarning
from invlearn.objectives import OBJECTIVES
from invlearn.objectives.irmv1 import IRMv1
from invlearn.objectives.meta_irm import MetaIRM

QUICK = {"steps": 60, "random_state": 0}


def held_out(make, frame, test, **fit):
    columns = ["cause", "shortcut"]
    model = make.fit(frame[columns], frame["ill"], environments=frame["hospital"], **fit)
    return model.score(test[columns], test["ill"])


@pytest.mark.parametrize("objective", ["vrex", "meta-irm"])
def test_holds_where_pooled_training_fails(table, objective):
    frame = table(n=400)
    test = table(agreement=(0.1,), n=1000, seed=9)
    pooled = held_out(InvariantClassifier("erm", random_state=0), frame, test)
    invariant = held_out(
        InvariantClassifier(
            objective, penalty_weight="auto", network="linear", steps=200, random_state=0
        ),
        frame,
        test,
    )
    assert pooled < 0.68 < 0.72 < invariant


def test_the_chosen_strength_has_the_lowest_worst_risk(table):
    frame = table(n=300)
    model = InvariantClassifier(penalty_weight="auto", network="linear", **QUICK)
    held_out(model, frame, frame)
    scores = model.penalty_scores_
    assert set(scores["environment"]) == {"h0", "h1", "h2"}
    worst = scores.groupby("strength")["risk"].max()
    assert worst.index.tolist() == [0.0, 100.0, 1000.0]
    assert model.penalty_weight_ == worst.idxmin()


def test_without_a_shift_the_choice_costs_nothing():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(600, 2))
    y = (X[:, 0] + 0.1 * rng.normal(size=600) > 0).astype(int)
    model = InvariantClassifier(penalty_weight="auto", network="linear", steps=200, random_state=0)
    model.fit(X, y, environments=np.repeat([0, 1, 2], 200))
    assert model.score(X, y) > 0.95


def test_where_pooled_training_is_never_worse_it_is_chosen():
    # A linear IRMv1 shrinks outputs that are sure for good reason.
    rng = np.random.default_rng(0)
    X = rng.normal(size=(900, 2))
    y = (X[:, 0] > 0).astype(int)
    model = InvariantClassifier(
        "irmv1", penalty_weight="auto", network="linear", steps=200, random_state=0
    )
    model.fit(X, y, environments=np.repeat([0, 1, 2], 300))
    assert model.penalty_weight_ == 0.0
    assert model.score(X, y) > 0.95


@pytest.mark.filterwarnings("ignore::invlearn.CollapseWarning")  # In five steps.
def test_many_environments_are_left_out_in_five_groups(table):
    frame = table(agreement=(0.9,) * 8, n=20)
    model = InvariantClassifier(
        "meta-irm", penalty_weight="auto", network="linear", steps=5, random_state=0
    )
    held_out(model, frame, frame)
    scores = model.penalty_scores_
    assert len(scores) == 8 * 3
    assert set(scores["strength"]) == {0.0, *OBJECTIVES["meta-irm"].strengths(8)}


def test_meta_irm_strength_follows_the_number_of_pairs():
    assert OBJECTIVES["meta-irm"].strengths(3) == (15.0, 60.0)
    assert MetaIRM(convention="mean").strengths(3) == (2.5, 10.0)
    assert MetaIRM(same_environment=True).strengths(3) == (7.5, 30.0)


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
@pytest.mark.parametrize("make", [InvariantClassifier, InvariantRegressor])
def test_every_objective_by_name_and_as_an_object(make, name, rows):
    X, y, hospital = rows
    own = OBJECTIVES[name]
    if own.strength:  # By name the weakest for so many environments, which follows from the rows.
        own = own.with_numbers({own.strength: own.strengths(3)[0]})
    outputs = [
        make(objective, steps=10, random_state=0).fit(X, y, environments=hospital)._outputs(X)
        for objective in (name, own)
    ]
    np.testing.assert_array_equal(*outputs)
    assert np.isfinite(outputs[0]).all()


def test_regression_is_in_the_targets_unit():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 3))
    y = 1e6 + 5e4 * X[:, 0]
    model = InvariantRegressor(network="linear", random_state=0)
    model.fit(X, y, environments=np.repeat(list("abc"), 100))
    assert model.score(X, y) > 0.99
    assert abs(model.predict(X).mean() - 1e6) < 1e4


def test_units_of_the_columns_do_not_matter(rows):
    X, y, hospital = rows
    plain = InvariantClassifier(**QUICK).fit(X, y, environments=hospital)
    scaled = InvariantClassifier(**QUICK).fit(1e6 * X + 1e7, y, environments=hospital)
    np.testing.assert_allclose(
        scaled.decision_function(1e6 * X + 1e7), plain.decision_function(X), atol=1e-3
    )


def test_own_network_on_images():
    def network(n_features, n_outputs, generator):
        return torch.nn.Sequential(
            torch.nn.Flatten(), MLP(16, (4,), n_outputs, generator=generator)
        )

    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 4, 4))
    y = (X[:, 0, 0] > 0).astype(int)
    model = InvariantClassifier("erm", network=network, steps=200, random_state=0)
    model.fit(X, y, environments=np.repeat([0, 1], 30))
    assert model.score(X, y) > 0.9


def test_warm_start_goes_on(rows):
    X, y, hospital = rows
    model = InvariantClassifier("erm", warm_start=True, steps=20, random_state=0)
    risks = []
    for _ in range(3):
        model.fit(X, y, environments=hospital)
        risks.append(model.history_["total"].iloc[[0, -1]].tolist())
    assert risks[1][0] < risks[0][0]
    assert risks[2][0] < risks[1][0]
    model.set_params(hidden=(5,))
    with pytest.raises(OptionError, match="of the shape of the last fit"):
        model.fit(X, y, environments=hospital)


@pytest.mark.parametrize("rule", [True, "risks-agree", "lowest-validation-risk"])
def test_early_stopping_reads_training_environments_only(rule, rows):
    X, y, hospital = rows
    model = InvariantClassifier(early_stopping=rule, steps=150, random_state=0)
    model.fit(X, y, environments=hospital)
    assert model.selection_ is not None
    assert set(model.curves_["split"]) == {"train", "validation"}
    assert set(model.curves_["environment"]) == {"h0", "h1", "h2"}


def test_an_oracle_cannot_stop(rows):
    X, y, hospital = rows
    with pytest.raises(OptionError, match="reads validation rows"):
        InvariantClassifier(early_stopping="oracle").fit(X, y, environments=hospital)


def test_no_environments_is_erm_and_says_so(rows):
    X, y, _ = rows
    with pytest.warns(SingleEnvironmentWarning, match=r"V-REx is replaced by ERM.*'infer'"):
        model = InvariantClassifier(**QUICK).fit(X, y)
    erm = InvariantClassifier("erm", **QUICK).fit(X, y)
    np.testing.assert_array_equal(model.decision_function(X), erm.decision_function(X))
    assert model.penalty_weight_ == 0.0


def test_one_environment_given_is_refused(rows):
    X, y, _ = rows
    with pytest.raises(EnvironmentsError, match="at least 2 training environments, got 1"):
        InvariantClassifier(**QUICK).fit(X, y, environments=["a"] * len(X))


@pytest.mark.parametrize(
    ("environments", "says"),
    [
        ("hospital", r"environments=frame\['hospital'\]"),
        (["a", "b"], "Expected 600 environment labels, one per row"),
        ([None] * 600, "600 have none"),
        (pd.Series(["a"] * 300 + [np.nan] * 300, dtype=object), "first: row 300"),
        (np.zeros((600, 2)), "one per row"),
    ],
)
def test_environments_of_another_kind(rows, environments, says):
    X, y, _ = rows
    with pytest.raises(EnvironmentsError, match=says):
        InvariantClassifier(**QUICK).fit(X, y, environments=environments)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"objective": "vrx"}, UnknownNameError, "Did you mean 'vrex'"),
        ({"network": "mpl"}, UnknownNameError, "Did you mean 'mlp'"),
        ({"penalty_weight": "atuo"}, UnknownNameError, "Did you mean 'auto'"),
        ({"keep_interrupted": "yes"}, OptionError, "keep_interrupted as True or False"),
        ({"penalty_weight": -1.0}, OptionError, "0 or more"),
        ({"hyper": {"inner": 1}}, UnknownNameError, "option of V-REx"),
        ({"steps": 0}, OptionError, "whole number of 1 or more"),
        ({"steps": 1.5}, OptionError, "whole number"),
        ({"hidden": 32}, OptionError, r"such as \(32,\)"),
        ({"hidden": np.array([4, 0])}, OptionError, r"such as \(32,\)"),
        ({"lr": "x"}, OptionError, "lr as a number"),
        ({"batch_size": 2.5}, OptionError, "batch_size as a whole number"),
        ({"hyper": {"penalty_weight": "x"}}, OptionError, "weight of V-REx to be a finite number"),
        ({"hyper": ["penalty_weight"]}, OptionError, "hyper as options of the objective by name"),
        ({"loss": "squared"}, OptionError, "over classes for a classifier, got 'squared'. Use 'l"),
        ({"loss": "huber"}, UnknownNameError, "Unknown loss 'huber'"),
        ({"network": 3}, OptionError, "network as 'mlp'"),
        ({"device": "cuda:77", "penalty_weight": "auto"}, OptionError, "device of this machine"),
        ({"batch_size": "all"}, UnknownNameError, "batch size"),
        ({"early_stopping": "risk-agree"}, UnknownNameError, "Did you mean 'risks-agree'"),
        ({"device": "cuda:77"}, OptionError, "device of this machine"),
        ({"warm_start": True, "penalty_weight": "auto"}, OptionError, "as a number"),
        ({"hyper": {"penalty_weight": 1.0}, "penalty_weight": "auto"}, OptionError, "got both"),
    ],
)
def test_parameters_outside_their_domain(rows, options, error, says):
    X, y, hospital = rows
    with pytest.raises(error, match=says):
        InvariantClassifier(**options).fit(X, y, environments=hospital)


def test_auto_needs_three_environments(rows):
    X, y, hospital = rows
    two = hospital != "h2"
    with pytest.raises(EnvironmentsError, match="needs at least 3 training environments, got 2"):
        InvariantClassifier(penalty_weight="auto").fit(X[two], y[two], environments=hospital[two])


def test_one_class_in_an_environment_is_named(rows):
    X, y, hospital = rows
    y = y.where(hospital != "h1", 0)
    with pytest.raises(EnvironmentsError, match="'h1' holds one class only"):
        InvariantClassifier(**QUICK).fit(X, y, environments=hospital)


@pytest.mark.parametrize("factor", [1e160, 1e-200])
def test_columns_and_targets_of_any_size(rows, factor):
    X, y, hospital = rows
    plain = InvariantClassifier(**QUICK).fit(X, y, environments=hospital)
    sized = InvariantClassifier(**QUICK).fit(factor * X, y, environments=hospital)
    np.testing.assert_allclose(
        sized.decision_function(factor * X), plain.decision_function(X), atol=1e-3
    )
    target = X["cause"] + 3
    regressor = InvariantRegressor(**QUICK).fit(X, target, environments=hospital)
    found = InvariantRegressor(**QUICK).fit(X, factor * target, environments=hospital)
    np.testing.assert_allclose(found.predict(X) / factor, regressor.predict(X), rtol=1e-3)


def test_labels_of_mixed_types(rows):
    X, y, _ = rows
    labels = [1, "1", 1.0, True, "b", ("c", 2)] * 100
    model = InvariantClassifier(**QUICK).fit(X, y, environments=labels)
    assert model.environments_ == {"1": 300, "True": 100, "b": 100, "('c', 2)": 100}


def test_environments_and_weights_go_by_name(rows):
    X, y, _ = rows
    with pytest.raises(TypeError, match="positional"):
        InvariantClassifier(**QUICK).fit(X, y, np.ones(len(X)))


def test_own_network_keeps_its_precision(rows):
    class Single(MLP):
        def forward(self, x):
            return torch.nn.functional.linear(x.float(), self.layers[0].weight)

    class Holder(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return self.inner(x)

    def network(n_features, n_outputs, generator):
        return Holder(Single(n_features, (), n_outputs, generator=generator))

    X, y, hospital = rows
    model = InvariantClassifier("erm", network=network, **QUICK).fit(X, y, environments=hospital)
    assert model.score(X, y) > 0.6


def test_warm_start_keeps_its_classes(rows):
    X, y, hospital = rows
    model = InvariantClassifier("erm", warm_start=True, steps=5).fit(X, y, environments=hospital)
    with pytest.raises(OptionError, match="classes of the last fit"):
        model.fit(X, np.array(["a", "b"])[y], environments=hospital)


@pytest.mark.filterwarnings("ignore::invlearn.CollapseWarning")  # In three steps.
@pytest.mark.parametrize(
    "network", [torch.nn.Linear, lambda n_features, n_outputs: torch.nn.Linear(n_features, 1)]
)
def test_random_state_holds_for_a_network_that_draws_its_weights_itself(network, rows):
    X, y, hospital = rows
    a, b, other = (
        InvariantClassifier(network=network, steps=3, random_state=seed)
        .fit(X, y, environments=hospital)
        .decision_function(X)
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, other)


@pytest.mark.filterwarnings("ignore::invlearn.CollapseWarning")
def test_a_module_is_where_every_fit_starts(rows):
    X, y, hospital = rows
    mine = torch.nn.Linear(2, 1)
    torch.nn.init.ones_(mine.weight)
    model = clone(InvariantClassifier("erm", network=mine, steps=1, lr=1e-9, random_state=0))
    for _ in range(2):
        model.fit(X, y, environments=hospital)
        torch.testing.assert_close(model.network_.weight, torch.ones(1, 2))
    assert torch.equal(mine.weight, torch.ones(1, 2))


def test_a_network_of_another_width_is_refused(rows):
    X, _, hospital = rows
    y = np.digitize(X["cause"], [-0.5, 0.5])
    for width in (2, 7):
        model = InvariantClassifier(network=lambda n, width=width: torch.nn.Linear(n, width))
        with pytest.raises(OptionError, match="Expected 3 outputs, one per class"):
            model.fit(X, y, environments=hospital)


def test_a_warm_start_trains_in_training_mode_too(rows):
    modes = []

    class Watched(torch.nn.Linear):
        def forward(self, x):
            modes.append(self.training)
            return super().forward(x)

    X, y, hospital = rows
    model = InvariantClassifier(
        "erm", network=lambda n: Watched(n, 1), warm_start=True, steps=50, random_state=0
    )
    for _ in range(2):
        modes.clear()
        model.fit(X, y, environments=hospital)
        assert any(modes)


def focal(z, y):
    return F.cross_entropy(z, y, reduction="none") ** 2


def huge(z, y):
    return (z[:, 0] - y).abs()


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize(
    "loss",
    ["softmax", nn.CrossEntropyLoss(), nn.CrossEntropyLoss(label_smoothing=0.1), F.cross_entropy,
     focal],
)  # fmt: skip
def test_a_loss_over_classes_sees_a_logit_per_class(rows, loss, n_classes):
    X, _, hospital = rows
    y = np.digitize(X["cause"], [0.0, 1.0][: n_classes - 1])
    model = clone(InvariantClassifier(loss=loss, **QUICK)).fit(X, y, environments=hospital)
    assert model.network_(torch.zeros(1, 2)).shape == (1, n_classes)
    assert model.score(X, y) > 0.8
    p = pickle.loads(pickle.dumps(model)).predict_proba(X)
    np.testing.assert_allclose(p.sum(1), 1)
    assert (model.classes_[p.argmax(1)] == model.predict(X)).all()
    if n_classes == 2:
        assert ((model.decision_function(X) > 0) == (p[:, 1] > 0.5)).all()


def test_a_weighted_cross_entropy_of_two_classes_has_one_output(rows):
    X, y, hospital = rows
    often = {}
    for weight in (1.0, 9.0):
        loss = nn.BCEWithLogitsLoss(pos_weight=torch.tensor(weight))
        model = InvariantClassifier(loss=loss, **QUICK).fit(X, y, environments=hospital)
        often[weight] = model.predict(X).mean()
    assert model.network_(torch.zeros(1, 2)).shape == (1, 1)
    assert often[9.0] > often[1.0] + 0.1
    y = np.arange(len(y)) % 3
    with pytest.raises(EnvironmentsError, match="targets 0 and 1 for the logistic loss"):
        model.fit(X, y, environments=hospital)


@pytest.mark.parametrize("loss", [nn.HuberLoss(delta=0.1), F.l1_loss, huge])
def test_a_loss_over_numbers_that_wild_rows_do_not_move(rows, loss):
    X, _, hospital = rows
    y = (10 + 2 * X["cause"]).to_numpy()
    wild = y.copy()
    wild[::20] += 1000
    model = clone(InvariantRegressor("erm", loss=loss, steps=300, random_state=0))
    model.fit(X, wild, environments=hospital)
    usual = InvariantRegressor("erm", steps=300, random_state=0).fit(X, wild, environments=hospital)
    errors = [np.median(np.abs(m.predict(X) - y)) for m in (model, usual)]
    assert errors[0] < errors[1] / 2
    pickle.loads(pickle.dumps(model)).predict(X)
    with pytest.raises(OptionError, match=r"over numbers for a regressor, got 'softmax'\. Use 's"):
        InvariantRegressor(loss=nn.CrossEntropyLoss()).fit(X, y, environments=hospital)


def test_options_of_an_objective_go_by_hyper(rows):
    X, y, hospital = rows
    hyper = {"convention": "domainbed", "penalty_weight": 3.0}
    model = InvariantClassifier("irmv1", hyper=hyper, **QUICK).fit(X, y, environments=hospital)
    own = InvariantClassifier(IRMv1(3.0, convention="domainbed"), **QUICK)
    assert (model.predict_proba(X) == own.fit(X, y, environments=hospital).predict_proba(X)).all()


class Interrupted(torch.nn.Linear):
    """A network during whose training Ctrl-C is pressed."""

    steps_left = 12

    def forward(self, x):
        if self.training:
            self.steps_left -= 1
        if self.steps_left < 0:
            raise KeyboardInterrupt
        return super().forward(x)


def test_an_interrupted_fit_raises_and_leaves_the_estimator_as_it_was(rows):
    X, y, hospital = rows
    model = InvariantClassifier("erm", network=Interrupted, steps=50, random_state=0)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, y, environments=hospital)
    with pytest.raises(NotFittedError):
        model.predict(X)
    model.set_params(network="linear").fit(X, y, environments=hospital)
    before = model.predict_proba(X)
    model.set_params(network=Interrupted)
    with pytest.raises(KeyboardInterrupt):
        model.fit(7 * X, y, environments=hospital)
    model.set_params(network="linear")
    np.testing.assert_array_equal(model.predict_proba(X), before)


def test_an_interrupted_fit_is_kept_where_asked(rows):
    X, y, hospital = rows
    model = InvariantClassifier(
        "erm", network=Interrupted, steps=50, keep_interrupted=True, random_state=0
    )
    with pytest.warns(InterruptedWarning, match=r"after 12 of 50 steps.*keep_interrupted=True"):
        model.fit(X, y, environments=hospital)
    assert (model.n_iter_, model.stop_reason_) == (12, "interrupted")
    assert model.predict(X).shape == (600,)


def test_a_fit_interrupted_before_its_first_step_is_not_kept(rows, monkeypatch):
    monkeypatch.setattr(Interrupted, "steps_left", 0)
    X, y, hospital = rows
    model = InvariantClassifier("erm", network=Interrupted, keep_interrupted=True)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, y, environments=hospital)
