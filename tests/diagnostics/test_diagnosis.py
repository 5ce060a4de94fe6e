"""The whole diagnosis: order, marks, seeds, and rows on which little can be found out."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import nn

from diagnostics.made import NAMES, linear, make_environments, two_layers
from invlearn.diagnostics.diagnosis import diagnose
from invlearn.environments import Environments
from invlearn.errors import EnvironmentsError, OptionError
from invlearn.features import ChannelImages
from invlearn.losses import Custom, get_loss
from invlearn.models import MLP

BOTH = [[1.0, 0, 0], [0, 1.0, 0]]
ALL = {
    "risk-profile",
    "collapse",
    "calibration",
    "dummy-gradient",
    "invariance-gap",
    "feature-effects",
    "feature-reliance",
    "representation-similarity",
    "diversity",
}


def found(model, envs, task, **options):
    loss = get_loss(task) if isinstance(task, str) else task
    findings = diagnose(model, envs, loss, draws=60, **options)
    by_name = {finding.name: finding for finding in findings}
    assert set(by_name) == ALL
    assert len(findings) == len(ALL)
    levels = [finding.level for finding in findings]
    assert levels == sorted(levels, key=["warning", "note", "good"].index)
    for finding in findings:
        assert finding.title
        assert finding.sentence.endswith(".")
        assert finding.action.endswith((".", "there."))
        assert "nan" not in finding.sentence.lower().split()
        numbers = finding.table.select_dtypes("number")
        if finding.name == "feature-effects":
            numbers = numbers.fillna(0.0)  # An effect that was not measured.
        assert np.isfinite(numbers.to_numpy()).all(), finding
    return by_name


@pytest.mark.parametrize("task", ["squared", "logistic", "softmax"])
@pytest.mark.parametrize("weights", [False, True])
def test_a_shortcut_is_found_and_a_cause_is_not(task, weights):
    envs = make_environments(task, strengths=(1.5, 0.2, -1.0), n=2000, weights=weights)
    scale = 1.0 if task == "squared" else 2.0

    def model(hidden):
        if task == "softmax":
            return two_layers(hidden, [[-scale, -scale], [0, 0], [scale, scale]], [0, 0.6, 0])
        return two_layers(hidden, [scale, scale])

    short = found(
        model([[0.5, 0, 0], [0, 0.6, 0]]), envs, task, feature_names=NAMES, seen=["e0", "e1"]
    )
    for name in ("risk-profile", "calibration", "invariance-gap", "feature-effects"):
        assert short[name].level == "warning", name
    assert short["collapse"].level == "warning"
    assert "'e2' (new)" in short["collapse"].sentence
    assert "'shortcut'" in short["feature-reliance"].sentence
    assert short["diversity"].level == "good"
    assert short["diversity"].table["environment"].tolist() == ["e0", "e1"]
    table = short["risk-profile"].table
    assert table["trained on"].tolist() == ["seen", "seen", "new"]
    assert table.columns[1] == "trained on"

    causal = found(model([[0.5, 0, 0], [0.5, 0, 0]]), envs, task, feature_names=NAMES)
    for name in ("risk-profile", "collapse", "invariance-gap"):
        assert causal[name].level == "good", causal[name]
    assert causal["calibration"].level != "warning"  # Its scale is right for no environment.
    assert causal["feature-reliance"].level == "good"
    assert "trained on" not in causal["risk-profile"].table


def test_no_shift_no_warning_but_that_nothing_can_be_learned():
    envs = make_environments(strengths=(0.0, 0.0, 0.0), n=1500)
    findings = found(two_layers([[1.0, 0, 0], [1.0, 0, 0]], [0.5, 0.5]), envs, "squared")
    warnings = [name for name, finding in findings.items() if finding.level == "warning"]
    assert warnings == ["diversity"]


def test_equal_seeds_give_equal_findings():
    envs = make_environments("logistic", n=300)
    model = two_layers(BOTH, [1.0, 1.0])
    first, again, other = (
        found(model, envs, "logistic", seed=seed)["risk-profile"].table for seed in (0, 0, 1)
    )
    assert first.equals(again)
    assert not first.equals(other)


def test_the_model_the_rows_and_the_global_generator_are_left_alone():
    envs = make_environments(n=60)
    model = MLP(3, (4,), generator=torch.Generator().manual_seed(0)).double().train()
    before = [p.detach().clone() for p in model.parameters()]
    x, state, numpy_state = envs.x.clone(), torch.get_rng_state(), np.random.get_state()[1].copy()
    found(model, envs, "squared")
    for parameter, old in zip(model.parameters(), before, strict=True):
        assert torch.equal(parameter, old)
        assert parameter.grad is None
    assert model.training
    assert torch.equal(envs.x, x)
    assert torch.equal(torch.get_rng_state(), state)
    assert (np.random.get_state()[1] == numpy_state).all()


def test_one_environment():
    envs = make_environments("logistic").select(["e0"])
    findings = found(two_layers(BOTH, [1.0, 1.0]), envs, "logistic")
    for name in ("diversity", "feature-effects", "representation-similarity"):
        assert findings[name].level == "note"
        assert findings[name].sentence.startswith("Left out: ")
        assert findings[name].table.empty
    assert findings["risk-profile"].level == "note"


def test_few_rows_one_class_and_constant_columns():
    few = found(linear([1.0, 1.0, 0.0]), make_environments("logistic", n=10), "logistic")
    for finding in few.values():
        assert finding.level == "note"
        assert finding.sentence.startswith("Left out: ")
    envs = make_environments("logistic", n=60)
    y = envs.y.clone()
    y[:60] = 1
    x = envs.x.clone()
    x[:, 2] = 4.0
    single = Environments(x, y, envs.names, envs.offsets)
    findings = found(two_layers(BOTH, [1.0, 1.0]), single, "logistic")
    assert findings["collapse"].sentence.endswith(" Without 'e0' (one class only).")
    assert len(findings["risk-profile"].table) == 3
    ones = Environments(x, torch.ones_like(y), envs.names, envs.offsets)
    findings = found(two_layers(BOTH, [1.0, 1.0]), ones, "logistic")
    assert findings["diversity"].sentence == "Left out: the targets are all the same."


def test_no_environment_was_seen():
    findings = found(linear([1.0, 0, 0]), make_environments(n=60), "squared", seen=["elsewhere"])
    assert findings["diversity"].sentence == (
        "Left out: it needs 2 environments with rows enough, there are 0."
    )
    assert set(findings["collapse"].table["trained on"]) == {"new"}


def test_custom_losses_and_several_targets():
    envs = make_environments(n=60)
    found(two_layers(BOTH, [0.5, 0.5]), envs, Custom(lambda z, y: (z[:, 0] - y).square()))
    both = Environments(envs.x, torch.stack([envs.y, -envs.y], 1), envs.names, envs.offsets)
    findings = found(linear([[0.5, 0.5, 0], [-0.5, -0.5, 0]]), both, "squared")
    assert "one target column" in findings["calibration"].sentence


def test_constant_and_single_precision_models():
    envs = make_environments("logistic", n=60)
    found(linear([0.0, 0.0, 0.0]), envs, "logistic")
    single = Environments(envs.x.float(), envs.y, envs.names, envs.offsets)
    model = nn.Sequential(nn.BatchNorm1d(3), MLP(3, (5,), generator=torch.Generator()))
    found(model, single, "logistic")


def test_images():
    y = torch.arange(120) % 2
    images = ChannelImages(torch.rand(120, 4), torch.arange(120) % 2, 2)
    envs = Environments.from_parts(
        {"a": (images[slice(0, 60)], y[:60]), "b": (images[slice(60, 120)], y[60:])}
    )
    model = MLP(8, (5,), generator=torch.Generator().manual_seed(0))
    findings = found(model, envs, "logistic")
    assert set(findings["feature-reliance"].table["feature"]) == {
        "rows 1-2, columns 1-2 (center)", "channel 1", "channel 2"
    }  # fmt: skip
    assert set(findings["feature-effects"].table["feature"]) == {"average 1", "average 2"}
    odd = envs.with_features(ChannelImages(torch.rand(120, 3), torch.arange(120) % 2, 2))
    model = MLP(6, (5,), generator=torch.Generator().manual_seed(0))
    findings = found(model, odd, "logistic")
    assert findings["feature-reliance"].sentence.startswith("Left out: rows are neither")
    assert findings["feature-effects"].sentence.startswith("Left out: Expected rows of columns")


def test_the_color_that_misleads_is_named_and_progress_is_told():
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(360) % 2
    sign = torch.tensor([1.0, 1.0, -1.0]).repeat_interleave(120)
    x = torch.randn(360, 3, 8, 8, generator=generator)
    x[:, 2] += ((y - 0.5) * sign * (torch.rand(360, generator=generator) < 0.8))[:, None, None]
    envs = Environments.from_arrays(x, y, np.repeat(list("abc"), 120))
    model = nn.Sequential(nn.Conv2d(3, 1, 8), nn.Flatten())
    with torch.no_grad():
        model[0].weight[:, :2], model[0].weight[:, 2], model[0].bias[:] = 0.0, 3 / 64, 0.0
    told = []
    findings = found(model, envs, "logistic", progress=lambda *said: told.append(said))
    assert (
        "'channel blue' helps in 'a' and 'b' and misleads in 'c'"
        in findings["feature-reliance"].sentence
    )
    assert findings["feature-effects"].level == "warning"
    assert "'average blue'" in findings["feature-effects"].sentence
    assert [done for done, _, _ in told] == list(range(10))
    assert told[0] == (0, 9, "risk profile")
    assert told[6][2] == "feature reliance"
    with pytest.raises(OptionError, match="Leave them out: patches and channels are named by"):
        diagnose(model, envs, get_loss("logistic"), feature_names=["a"])


def test_a_reference_is_used():
    envs = make_environments("logistic", strengths=(1.0, -1.0))
    findings = found(linear([1.0, 0, 0]), envs, "logistic", reference=linear([0.0, 1.0, 0.0]))
    assert findings["diversity"].table["frequency"].tolist()[1] > 0.7


def test_what_is_refused():
    envs = make_environments(n=30)
    with pytest.raises(OptionError, match="Expected at least 40 bootstrap draws, got 10"):
        diagnose(linear([1.0, 0, 0]), envs, get_loss("squared"), draws=10)
    with pytest.raises(OptionError, match="got 1 names for 3 columns"):
        diagnose(linear([1.0, 0, 0]), envs, get_loss("squared"), feature_names=["a"])
    with pytest.raises(EnvironmentsError, match=re.escape("Expected targets 0 and 1")):
        diagnose(linear([1.0, 0, 0]), envs, get_loss("logistic"))
    with pytest.raises(OptionError, match="Expected finite outputs"):
        diagnose(linear([float("inf"), 0, 0]), envs, get_loss("squared"))
