"""What cannot be learned from, and what its error says."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch

from invlearn.environments import Environments
from invlearn.errors import EnvironmentsError, UnknownNameError
from invlearn.features import ChannelImages

X = np.arange(12, dtype=np.float32).reshape(6, 2)
Y = np.array([0, 1, 0, 1, 1, 0])
LABELS = ["b", "a", "b", "a", "a", "b"]
FRAME = pd.DataFrame({"u": X[:, 0], "v": X[:, 1], "label": Y, "site": LABELS})


def channel_images(n, channels=2, pixels=3):
    return ChannelImages(
        torch.arange(n * pixels, dtype=torch.float32).reshape(n, pixels),
        torch.arange(n) % channels,
        channels,
    )


def test_no_environments_are_refused():
    with pytest.raises(EnvironmentsError, match="at least one environment, got none"):
        Environments.from_parts({})
    with pytest.raises(EnvironmentsError, match="at least one environment, got none"):
        Environments.from_arrays(np.zeros((0, 2)), np.zeros(0), np.zeros(0))


@pytest.mark.parametrize(
    ("rows", "text"),
    [(0, "'few' is empty; expected at least 2"), (1, "'few' has 1 row; expected at least 2")],
)
def test_too_few_rows_are_refused_by_environment(rows, text):
    with pytest.raises(EnvironmentsError, match=text):
        Environments.from_parts({"enough": (X, Y), "few": (X[:rows], Y[:rows])})
    with pytest.raises(EnvironmentsError, match="'lone' has 1 row"):
        Environments.from_arrays(X, Y, ["many"] * 5 + ["lone"])


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((X, Y[:5], LABELS), r"\{'x': 6, 'y': 5, 'environments': 6\}"),
        ((X, Y, LABELS[:4]), r"\{'x': 6, 'y': 6, 'environments': 4\}"),
        ((X, Y, LABELS, [1.0]), r"\{'x': 6, 'y': 6, 'environments': 6, 'weights': 1\}"),
    ],
)
def test_unequal_lengths_are_listed(arguments, text):
    weights = arguments[3] if len(arguments) == 4 else None
    with pytest.raises(EnvironmentsError, match=f"equally many rows everywhere, got {text}"):
        Environments.from_arrays(*arguments[:3], weights=weights)


def test_unequal_lengths_within_a_part_name_it():
    with pytest.raises(
        EnvironmentsError, match=r"rows in environment 'q', got \{'x': 6, 'y': 4\}\. Pass one"
    ):
        Environments.from_parts({"p": (X, Y), "q": (X, Y[:4])})
    with pytest.raises(EnvironmentsError, match=r"'q', got \{'x': 6, 'y': 6, 'weights': 2\}"):
        Environments.from_parts({"q": (X, Y, [1.0, 1.0])})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("what", ["x", "y", "weights"])
def test_values_that_are_not_finite_name_environment_and_row(what, value):
    parts = {"x": X.copy(), "y": Y.astype(np.float64), "weights": np.ones(6)}
    parts[what][3] = value
    parts[what][5] = value
    with pytest.raises(
        EnvironmentsError,
        match=rf"{what} of environment 'bad' holds NaN or infinity in 2 row\(s\), first row 3\.",
    ):
        Environments.from_parts({"good": (X, Y * 1.0), "bad": tuple(parts.values())})


def test_infinities_that_cancel_in_a_sum_are_found():
    x = X.copy()
    x[1, 0], x[2, 0] = math.inf, -math.inf
    with pytest.raises(EnvironmentsError, match="x of environment 'e' holds NaN"):
        Environments.from_parts({"e": (x, Y)})


def test_channel_images_with_nan_are_refused():
    images = channel_images(4)
    images.pixels[2, 1] = math.nan
    with pytest.raises(EnvironmentsError, match=r"x of environment 'e' holds NaN .* first row 2"):
        Environments.from_parts({"e": (images, Y[:4])})


def test_large_finite_values_are_not_taken_for_infinite_ones():
    x = np.full((4, 2), 1e38, dtype=np.float32)
    assert Environments.from_arrays(x, Y[:4], list("aabb")).n_rows == 4


@pytest.mark.parametrize("missing", [None, math.nan])
def test_a_missing_label_names_its_row(missing):
    labels = pd.Series([*LABELS[:4], missing, "b"], dtype=object)
    with pytest.raises(EnvironmentsError, match=r"every row, 1 have none \(first: row 4\)\. Drop"):
        Environments.from_arrays(X, Y, labels)
    with pytest.raises(EnvironmentsError, match="first: row 4"):
        Environments.from_frame(FRAME.assign(site=labels), target="label", environment="site")


def test_text_columns_are_refused_by_name():
    frame = FRAME.assign(city="Lyon")
    with pytest.raises(EnvironmentsError, match=r"number columns as features, got \['city'\]"):
        Environments.from_frame(frame, target="label", environment="site")


def test_no_feature_columns_are_refused():
    with pytest.raises(EnvironmentsError, match="number columns as features, got none"):
        Environments.from_frame(FRAME, target="label", environment="site", features=[])


def test_text_targets_and_text_features_are_refused():
    with pytest.raises(EnvironmentsError, match=r"Expected numbers in y, got .*Encode them"):
        Environments.from_arrays(X, LABELS, LABELS)
    with pytest.raises(EnvironmentsError, match="Expected numbers in x of environment 'e'"):
        Environments.from_parts({"e": ([["1"], ["2"]], [0, 1])})


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        ({"target": "lable"}, r"Unknown column 'lable'\. Did you mean 'label'\?"),
        ({"environment": "sites"}, r"Unknown column 'sites'\. Did you mean 'site'\?"),
        ({"weights": "w"}, r"Unknown column 'w'\. .*Known: label, site, u, v\."),
        ({"features": ["u", "LABEL"]}, r"Unknown column 'LABEL'\. Did you mean 'label'\?"),
    ],
)
def test_an_unknown_column_suggests_the_nearest(columns, text):
    with pytest.raises(UnknownNameError, match=text):
        Environments.from_frame(FRAME, **({"target": "label", "environment": "site"} | columns))


@pytest.mark.parametrize("weights", [[1, 1, -0.1], [0, 0, 0]])
def test_negative_weights_and_weights_of_zero_sum_are_refused(weights):
    with pytest.raises(
        EnvironmentsError, match="non-negative row weights with a positive sum in environment 'e'"
    ):
        Environments.from_parts({"e": (X[:3], Y[:3], weights)})


def test_different_widths_across_environments_are_listed():
    with pytest.raises(
        EnvironmentsError, match=r"one shape in every environment, got \{'a': \(2,\), 'b': \(1,\)\}"
    ):
        Environments.from_parts({"a": (X, Y), "b": (X[:, :1], Y)})


def test_different_channel_counts_across_environments_are_listed():
    with pytest.raises(EnvironmentsError, match=r"\{'a': \(2, 3\), 'b': \(3, 3\)\}"):
        Environments.from_parts(
            {"a": (channel_images(6), Y), "b": (channel_images(6, channels=3), Y)}
        )


def test_read_only_and_reversed_arrays_are_copied():
    x = X.copy()
    x.setflags(write=False)
    envs = Environments.from_arrays(x[::-1], Y[::-1], LABELS)
    assert envs.x[0].tolist() == x[::-1][1].tolist()  # The first row of "a".


def test_missing_label_in_a_list_of_texts_is_refused():
    with pytest.raises(EnvironmentsError, match="first: row 5"):
        Environments.from_arrays(X, Y, [*LABELS[:5], float("nan")])


def test_targets_of_different_widths_are_refused():
    parts = {"a": (X, Y.astype(float)), "b": (X, Y.astype(float)[:, None])}
    with pytest.raises(EnvironmentsError, match="targets of one type and width"):
        Environments.from_parts(parts)


def test_ragged_rows_are_refused():
    with pytest.raises(EnvironmentsError, match="rows of one length in x"):
        Environments.from_parts({"a": ([[1.0], [1.0, 2.0]], [0, 1])})


def test_target_among_the_features_is_refused():
    with pytest.raises(EnvironmentsError, match="features apart from target"):
        Environments.from_frame(FRAME, target="label", environment="site", features=["u", "label"])


def test_channels_out_of_range_are_refused():
    images = ChannelImages(torch.ones(2, 3), torch.tensor([0, 2]), 2)
    with pytest.raises(EnvironmentsError, match="channels 0 to 1 in environment 'a', got 0 to 2"):
        Environments.from_parts({"a": (images, [0, 1])})


def test_images_without_a_channel_each_are_refused():
    with pytest.raises(EnvironmentsError, match="one channel per image, got 2 images and 1"):
        ChannelImages(torch.ones(2, 3), torch.tensor([0]), 2)
