"""The information bottleneck against published codes' formulas."""

from __future__ import annotations

import pytest
import torch

from invlearn.errors import OptionError, UnknownNameError
from invlearn.objectives.ib_irm import IBERM, IBIRM, feature_variances, whole
from invlearn.objectives.irmv1 import IRMv1
from objectives.made import LOSSES, SIZES, assert_equals_slow_version

KINDS = {"ib-erm": IBERM, "ib-irm": IBIRM}


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("convention", IBERM.conventions)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("weighted", [False, True])
def test_value_and_gradient_are_those_of_the_slow_version(name, convention, loss, sizes, weighted):
    objective = KINDS[name](penalty_weight=0.7, convention=convention)
    if min(SIZES[sizes]) < objective.folds:
        return  # A single row has no halves: `random_folds` refuses it.
    assert_equals_slow_version(name, objective, loss, SIZES[sizes], weighted)


def features(*sizes):
    g = torch.Generator().manual_seed(0)
    return [torch.randn(n, 3, dtype=torch.float64, generator=g) for n in sizes]


def means_of(parts):
    return {
        "feature": torch.stack([h.mean(0) for h in parts]),
        "feature_square": torch.stack([h.square().mean(0) for h in parts]),
        "mass": torch.tensor([float(len(h)) for h in parts], dtype=torch.float64),
    }


def test_domainbed_is_torchs_variance_in_each_environment():
    parts = features(5, 9)
    got = feature_variances(means_of(parts), "domainbed")
    torch.testing.assert_close(got, torch.stack([h.var(dim=0).mean() for h in parts]))


def test_mean_is_the_populations_variance():
    parts = features(5, 9)
    wanted = torch.stack([h.var(dim=0, correction=0).mean() for h in parts])
    torch.testing.assert_close(feature_variances(means_of(parts), "mean"), wanted)


def test_the_authors_code_takes_the_variance_of_all_rows_together():
    parts = features(5, 9)
    wanted = torch.cat(parts).var(dim=0).mean()[None]
    torch.testing.assert_close(feature_variances(means_of(parts), "ib-paper"), wanted)


def test_a_single_row_has_variance_zero_where_published_codes_have_nan():
    parts = features(1, 9)
    assert float(feature_variances(means_of(parts), "domainbed")[0]) == 0.0


def test_without_a_bottleneck_ib_irm_is_irmv1():
    means = {"risk": torch.tensor([1.0, 2.0]), "dummy_gradient": torch.tensor([[1.0], [3.0]])}
    parts = means_of(features(5, 9))
    got = IBIRM(penalty_weight=2.0, bottleneck=0.0).value({**means, **parts}, None)[0]
    assert float(got.total) == float(IRMv1(penalty_weight=2.0).value(means, None)[0].total)


def test_means_of_folds_add_up_to_those_of_their_environment():
    h, w = features(6)[0], torch.tensor([1.0, 2.0, 3.0, 1.0, 1.0, 2.0], dtype=torch.float64)
    parts = [slice(0, 2), slice(2, 6)]
    mass = torch.stack([w[part].sum() for part in parts])[None]
    first = torch.stack([w[part] @ h[part] / w[part].sum() for part in parts])[None]
    got = whole({"feature": first, "mass": mass})
    torch.testing.assert_close(got["feature"][0], w @ h / w.sum())
    assert got["mass"].tolist() == [10.0]


def test_errors():
    with pytest.raises(UnknownNameError, match="convention"):
        IBERM(convention="papr")
    with pytest.raises(OptionError, match="bottleneck of IB-IRM to be a finite number, 0 or more"):
        IBIRM(bottleneck=-1.0)
