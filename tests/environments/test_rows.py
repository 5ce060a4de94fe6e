"""Environments: what goes in comes out, and splits are fair."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from invlearn.environments import Environments, by_label
from invlearn.errors import EnvironmentsError, OptionError, UnknownNameError
from invlearn.features import ChannelImages

X = np.arange(12, dtype=np.float32).reshape(6, 2)
Y = np.array([0, 1, 0, 1, 1, 0])
LABELS = ["b", "a", "b", "a", "a", "b"]
ORDER = [1, 3, 4, 0, 2, 5]  # Rows of 'a', then of 'b', each as they came.
FRAME = pd.DataFrame({"u": X[:, 0], "v": X[:, 1], "label": Y, "site": LABELS})


def numbered(sizes, classes=2, seed=0):
    """Environments whose x holds each row's own number."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    x = np.arange(len(labels), dtype=np.float64)
    y = rng.integers(0, classes, len(x)) if classes else rng.normal(size=len(x))
    return Environments.from_arrays(x, y, labels)


def channel_images(n, channels=2, pixels=3):
    return ChannelImages(
        torch.arange(n * pixels, dtype=torch.float32).reshape(n, pixels),
        torch.arange(n) % channels,
        channels,
    )


# Building.


@pytest.mark.parametrize(
    "kind", [lambda a: a, lambda a: a.tolist(), torch.as_tensor], ids=["numpy", "list", "torch"]
)
def test_from_arrays_keeps_every_row_sorted_by_environment(kind):
    envs = Environments.from_arrays(kind(X), kind(Y), LABELS)
    assert envs.names == ("a", "b")
    assert envs.offsets == (0, 3, 6)
    assert envs.x.tolist() == X[ORDER].tolist()
    assert envs.y.tolist() == Y[ORDER].tolist()
    assert envs.x.is_floating_point()
    assert envs.y.dtype == torch.int64
    assert envs.weights is None


def test_from_arrays_takes_pandas_objects_by_position():
    index = [5, 3, 1, 0, 2, 4]
    envs = Environments.from_arrays(
        pd.DataFrame(X, index=index), pd.Series(Y, index=index), pd.Series(LABELS, index=index)
    )
    assert envs.x.tolist() == X[ORDER].tolist()
    assert envs.y.tolist() == Y[ORDER].tolist()


def test_integer_labels_sort_as_numbers_not_as_text():
    envs = Environments.from_arrays(X, Y, [10, 10, 9, 9, 100, 100])
    assert envs.names == ("9", "10", "100")
    assert envs.y.tolist() == Y[[2, 3, 0, 1, 4, 5]].tolist()


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (np.array(LABELS), ("a", "b")),
        (pd.Categorical(LABELS), ("a", "b")),
        (torch.tensor([1, 0, 1, 0, 0, 1]), ("0", "1")),
        ([True, False, True, False, False, True], ("False", "True")),
    ],
)
def test_labels_of_any_sortable_kind_group_the_same_rows(labels, names):
    envs = Environments.from_arrays(X, Y, labels)
    assert envs.names == names
    assert envs.x.tolist() == X[ORDER].tolist()


def test_sorting_by_environment_is_stable():
    n = 500
    labels = np.random.default_rng(0).integers(0, 3, n)
    envs = Environments.from_arrays(np.arange(n, dtype=np.float64), np.zeros(n), labels)
    for _, x, _ in envs:
        assert (x[1:] > x[:-1]).all()


def test_from_parts_keeps_the_order_given_and_unequal_sizes():
    envs = Environments.from_parts({"late": (X[:4], Y[:4]), "early": (X[4:], Y[4:])})
    assert envs.names == ("late", "early")
    assert envs.sizes == (4, 2)
    assert envs.n_rows == 6
    assert len(envs) == 2
    assert envs.index.tolist() == [0, 0, 0, 0, 1, 1]
    assert [(name, x.tolist(), y.tolist()) for name, x, y in envs] == [
        ("late", X[:4].tolist(), Y[:4].tolist()),
        ("early", X[4:].tolist(), Y[4:].tolist()),
    ]


def test_from_frame_splits_columns_into_features_target_and_environment():
    envs = Environments.from_frame(FRAME, target="label", environment="site")
    assert envs.names == ("a", "b")
    assert envs.x.dtype == torch.float32
    assert envs.x.tolist() == X[ORDER].tolist()
    assert envs.y.tolist() == Y[ORDER].tolist()


def test_from_frame_takes_named_features_weights_and_booleans():
    frame = FRAME.assign(flag=Y == 1, w=np.arange(6) + 0.5)
    envs = Environments.from_frame(
        frame, target="label", environment="site", features=["v", "flag"], weights="w"
    )
    assert envs.x.tolist() == np.stack([X[:, 1], Y], axis=1)[ORDER].tolist()
    assert envs.weights.tolist() == [i + 0.5 for i in ORDER]
    left = Environments.from_frame(frame, target="label", environment="site", weights="w")
    assert left.x.shape == (6, 3)


def test_weights_follow_their_rows():
    envs = Environments.from_arrays(X, Y, LABELS, weights=[1, 2, 3, 4, 5, 6])
    assert envs.weights.tolist() == [i + 1 for i in ORDER]
    assert envs.weights.dtype == envs.x.dtype


def test_environments_without_weights_count_one_beside_weighted_ones():
    envs = Environments.from_parts({"a": (X[:3], Y[:3], [2, 0, 3]), "b": (X[3:], Y[3:])})
    assert envs.weights.tolist() == [2, 0, 3, 1, 1, 1]


def test_one_feature_may_come_flat_and_whole_numbers_become_floats():
    envs = Environments.from_arrays([1, 2, 3, 4], [True, False, True, True], list("aabb"))
    assert envs.x.tolist() == [[1.0], [2.0], [3.0], [4.0]]
    assert envs.x.dtype == torch.get_default_dtype()
    assert envs.y.tolist() == [1, 0, 1, 1]


def test_rows_may_be_images_and_targets_may_have_columns():
    x, y = torch.rand(6, 3, 4, 4), torch.rand(6, 2)
    envs = Environments.from_arrays(x, y, LABELS)
    assert envs.x.equal(x[ORDER])
    assert envs.y.equal(y[ORDER])


def test_channel_images_are_sorted_split_and_selected_like_tensors():
    images = channel_images(6)
    envs = Environments.from_arrays(images, Y, LABELS)
    assert envs.x.dense().equal(images.dense()[ORDER])
    first, second = envs.split(0.4, seed=0)
    assert first.sizes == (2, 2)
    assert second.sizes == (1, 1)
    kept = torch.cat([first.x.pixels, second.x.pixels])[:, 0]
    assert sorted(kept.tolist()) == sorted(images.pixels[:, 0].tolist())
    assert envs.select(["b"]).x.dense().equal(images.dense()[[0, 2, 5]])


# Taking apart.


def test_take_picks_positions_within_each_environment():
    envs = Environments.from_arrays(X, Y, LABELS, weights=np.arange(6))
    few = envs.take([torch.tensor([2]), torch.tensor([0, 0])])
    assert few.names == envs.names
    assert few.sizes == (1, 2)
    assert few.x.tolist() == X[[4, 0, 0]].tolist()
    assert few.y.tolist() == Y[[4, 0, 0]].tolist()
    assert few.weights.tolist() == [4, 0, 0]


def test_select_keeps_the_order_asked_for():
    envs = Environments.from_arrays(X, Y, LABELS, weights=np.arange(6) + 1)
    swapped = envs.select(["b", "a"])
    assert swapped.names == ("b", "a")
    assert swapped.x.tolist() == X[[0, 2, 5, 1, 3, 4]].tolist()
    assert swapped.weights.tolist() == [1, 3, 6, 2, 4, 5]
    twice = by_label(envs).select(["b", "b"])
    assert (twice.names, twice.offsets, len(twice.groups)) == (("b",), (0, 3), 3)


def test_select_of_an_unknown_environment_suggests_the_nearest():
    envs = Environments.from_arrays(X, Y, ["north", "south"] * 3)
    with pytest.raises(
        UnknownNameError, match=r"Unknown environment 'sout'\. Did you mean 'south'\?"
    ):
        envs.select(["sout"])
    with pytest.raises(EnvironmentsError, match=r"got none\. Name some of: north, south"):
        envs.select([])


def test_with_features_swaps_the_features_and_nothing_else():
    envs = Environments.from_arrays(X, Y, LABELS)
    other = torch.rand(6, 5)
    swapped = envs.with_features(other)
    assert swapped.x is other
    assert (swapped.y, swapped.names, swapped.offsets) == (envs.y, envs.names, envs.offsets)


def test_with_features_of_another_length_is_refused():
    envs = Environments.from_arrays(X, Y, LABELS)
    with pytest.raises(EnvironmentsError, match=r"Expected 6 feature rows, got 5\. Map rows one"):
        envs.with_features(torch.rand(5, 2))


def test_require_names_the_purpose_and_the_environments():
    envs = Environments.from_arrays(X, Y, ["only"] * 6)
    envs.require(1, "ERM")
    with pytest.raises(
        EnvironmentsError, match=r"V-REx needs at least 2 training environments, got 1 \(only\)"
    ):
        envs.require(2, "V-REx")


# Splitting.


@pytest.mark.parametrize("fraction", [0.1, 0.2, 1 / 3, 0.5, 0.83])
@pytest.mark.parametrize("classes", [2, 3, 7])
def test_split_keeps_class_shares_within_one_row_in_every_environment(fraction, classes):
    envs = numbered((40, 101, 17), classes=classes)
    for seed in range(5):
        _, held = envs.split(fraction, seed=seed)
        for (_, _, whole), (_, _, part) in zip(envs, held, strict=True):
            counts = torch.bincount(whole, minlength=classes) * len(part) / len(whole)
            assert (torch.bincount(part, minlength=classes) - counts).abs().max() < 1


@pytest.mark.parametrize("classes", [0, 2], ids=["regression", "classes"])
def test_split_sizes_are_the_rounded_fraction_of_each_environment(classes):
    first, second = numbered((40, 101, 17), classes).split(0.2, seed=3)
    assert second.sizes == (8, 20, 3)
    assert first.sizes == (32, 81, 14)


@pytest.mark.parametrize("classes", [0, 2], ids=["regression", "classes"])
def test_split_is_a_function_of_its_seed(classes):
    envs = numbered((40, 60), classes)
    first, second = envs.split(0.3, seed=1)
    again, same = envs.split(0.3, seed=1)
    assert first.x.equal(again.x)
    assert second.x.equal(same.x)
    held = {tuple(envs.split(0.3, seed=seed)[1].x.flatten().tolist()) for seed in range(10)}
    assert len(held) == 10


def test_split_leaves_the_global_generators_alone():
    states = torch.get_rng_state(), np.random.get_state()[1].copy()
    numbered((10, 10)).split(0.5, seed=0)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()


def test_environments_of_one_size_are_not_split_alike():
    _, held = numbered((50, 50), classes=0).split(0.5, seed=0)
    (_, a, _), (_, b, _) = held
    assert set(a.flatten().tolist()) != {v - 50 for v in b.flatten().tolist()}


def test_split_carries_weights_along():
    envs = Environments.from_arrays(X, Y, LABELS, weights=X[:, 0])
    for part in envs.split(0.5, seed=0):
        assert part.weights.equal(part.x[:, 0])


def test_every_row_is_held_out_about_equally_often():
    envs = numbered((12,), classes=2)
    times = torch.zeros(12)
    for seed in range(400):
        times[envs.split(0.25, seed=seed)[1].x.flatten().long()] += 1
    error = math.sqrt(400 * 0.25 * 0.75)
    assert (times - 100).abs().max() < 5 * error


@settings(max_examples=60, deadline=None, database=None)
@given(
    sizes=st.lists(st.integers(2, 15), min_size=1, max_size=5),
    classes=st.sampled_from([0, 1, 2, 4]),
    fraction=st.floats(0.001, 0.999),
    seed=st.integers(0, 2**32 - 1),
)
def test_splitting_loses_no_row_doubles_none_and_empties_no_environment(
    sizes, classes, fraction, seed
):
    envs = numbered(sizes, classes, seed=seed)
    first, second = envs.split(fraction, seed=seed)
    assert first.names == second.names == envs.names
    for whole, a, b in zip(envs, first, second, strict=True):
        assert len(a[2]) >= 1
        assert len(b[2]) >= 1
        for part in (a, b):
            assert (part[1][1:] > part[1][:-1]).all()  # Rows stay in their order.
        pairs = [(float(x), float(y)) for part in (a, b) for x, y in zip(*part[1:], strict=True)]
        assert sorted(pairs) == [(float(x), float(y)) for x, y in zip(*whole[1:], strict=True)]


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 1.5, math.nan])
def test_split_fraction_outside_zero_and_one_is_refused(fraction):
    with pytest.raises(OptionError, match=r"strictly between 0 and 1, got .*Use 0\.2"):
        numbered((5, 5)).split(fraction, seed=0)


def test_splitting_a_single_row_is_refused_by_name():
    envs = Environments.from_parts({"lone": (X[:1], Y[:1])}, min_rows=1)
    with pytest.raises(EnvironmentsError, match=r"'lone' has 1 row; splitting needs at least 2"):
        envs.split(0.5, seed=0)


def test_one_row_environment_can_be_selected_after_a_split():
    envs = Environments.from_arrays(X, Y, LABELS)
    assert envs.split(0.1, seed=0)[1].select(["a"]).sizes == (1,)


def test_weights_may_be_a_series():
    envs = Environments.from_arrays(X, Y, LABELS, weights=pd.Series(range(1, 7)))
    assert envs.weights.tolist() == [2, 4, 5, 1, 3, 6]
