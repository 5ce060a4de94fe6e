"""Rows with a target and an environment, from files."""

import numpy as np
import pandas as pd
import polars
import pytest
from PIL import Image

from invlearn import DataFileError, EnvironmentsError, OptionError, UnknownNameError
from invlearn.rows.source import from_frame, read_rows
from invlearn.rows.usable import set_aside


def small(**changes):
    columns = {
        "x": np.arange(40.0),
        "y": [0, 1] * 20,
        "site": ["a"] * 20 + ["b"] * 20,
    }
    return pd.DataFrame(columns | changes)


def read(frame, **options):
    return from_frame(frame, "t.csv", **{"target": "y", "environment": "site"} | options)


def test_what_is_read(tmp_path, frame):
    frame.to_csv(tmp_path / "h.csv", index=False)
    source = read_rows(tmp_path / "h.csv", target="ill", environment="hospital", drop=["admitted"])
    assert source.title == "h.csv"
    assert source.target.task == "classification"
    assert source.target.classes == ("no", "yes")
    assert source.sizes == dict.fromkeys(["Arden", "Birk", "Coll", "Dorn", "Elm", "Farhill"], 60)
    assert list(source.frame.columns) == ["age", "smoker", "marker", "pressure", "dose",
                                          "scanner_artefact"]  # fmt: skip
    inputs = source.learn_inputs()
    x = source.matrix(inputs)
    assert x.shape == (360, len(inputs.names))
    assert np.isfinite(x).all()
    here = source.of(["Elm"])
    np.testing.assert_array_equal(here.matrix(inputs), x[source.environments == "Elm"])
    expected = (frame.loc[frame["hospital"] == "Elm", "ill"] == "yes").astype(int)
    assert here.y.tolist() == expected.tolist()


def test_rows_without_a_target_or_an_environment_are_dropped_and_noted():
    frame = small(
        y=[None, None, None, *([1.0, 0.0] * 18), 1.0],
        site=["a"] * 2 + [None] * 2 + ["a"] * 16 + [" b "] * 20,
    )
    source = read(frame)
    assert source.sizes == {"a": 16, "b": 20}
    assert source.notes == (
        "2 rows without environment ('site') were dropped.",
        "2 rows without target ('y') were dropped.",
    )


@pytest.mark.parametrize(
    ("sites", "names"),
    [
        ([1] * 20 + [2] * 20, ("1", "2")),
        ([1.0] * 20 + [2.0] * 19 + [np.nan], ("1", "2")),
        ([0.5] * 20 + [2.0] * 20, ("0.5", "2")),
        ([True] * 20 + [False] * 20, ("False", "True")),
    ],
)
def test_environments_of_any_type(sites, names):
    assert read(small(site=sites)).names == names


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"target": "why"}, UnknownNameError, "Unknown target column 'why'"),
        ({"environment": "sight"}, UnknownNameError, "did you mean 'site'"),
        ({"drop": ["z"]}, UnknownNameError, "left-out column 'z'"),
        ({"target": "site"}, OptionError, "as both target and environment"),
        ({"task": "ranking"}, UnknownNameError, "task"),
        ({"drop": ["x"]}, EnvironmentsError, "columns to learn from"),
    ],
)
def test_columns_that_are_not_there(options, error, says):
    with pytest.raises(error, match=says):
        read(small(), **options)


def test_a_table_needs_target_and_environment(tmp_path):
    small().to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(OptionError, match="got no target"):
        read_rows(tmp_path / "t.csv", environment="site")
    with pytest.raises(OptionError, match="got no environment"):
        read_rows(tmp_path / "t.csv", target="y")
    with pytest.raises(EnvironmentsError, match="every row is empty"):
        read(small(site=[None] * 40))
    with pytest.raises(EnvironmentsError, match="target that varies"):
        read(small(y=[1] * 40))


def test_a_table_in_memory_may_be_any_library_s(frame):
    names = {"target": "ill", "environment": "hospital"}
    expected = read_rows(frame, **names)
    odd = frame.set_axis([7] * len(frame))
    for rows in (polars.from_pandas(frame), odd):
        found = read_rows(rows, **names)
        np.testing.assert_array_equal(found.y, expected.y)
        np.testing.assert_array_equal(found.environments, expected.environments)
        inputs = expected.learn_inputs()
        np.testing.assert_array_equal(found.matrix(inputs), expected.matrix(inputs))
    with pytest.raises(OptionError, match="file, a folder of images or a DataFrame, got dict"):
        read_rows({"ill": [1]}, **names)


def test_columns_may_be_called_by_numbers(frame):
    numbered = frame.set_axis(range(len(frame.columns)), axis=1)
    places = {name: frame.columns.get_loc(name) for name in ("ill", "hospital", "age")}
    source = read_rows(
        numbered, target=places["ill"], environment=places["hospital"], drop=[places["age"]]
    )
    assert (source.target_name, source.environment_name) == ("8", "0")
    assert list(source.frame.columns) == ["1", "3", "4", "5", "6", "7"]


def test_two_columns_of_one_name_are_refused(frame):
    twice = frame.rename(columns={"age": "ill"})
    with pytest.raises(EnvironmentsError, match="column name once, got 'ill' several times"):
        read_rows(twice, target="ill", environment="hospital")


def test_environments_that_say_too_little_are_set_aside():
    frame = small(site=["a"] * 20 + ["b"] * 2 + ["c"] * 9 + ["d"] * 9, y=[0, 1] * 11 + [1] * 18)
    source = set_aside(read(frame), fewest=9)
    assert source.names == ("a",)
    assert source.notes == (
        "Environment 'b' has 2 rows: too few, set aside.",
        "Environment 'c' holds one class only: set aside.",
        "Environment 'd' holds one class only: set aside.",
    )
    with pytest.raises(EnvironmentsError, match="none of 4 is one"):
        set_aside(read(frame), fewest=30)


def test_a_row_number_is_no_environment():
    frame = pd.concat([small()] * 100, ignore_index=True)
    with pytest.raises(EnvironmentsError, match="environments of several rows each, got 4,000"):
        set_aside(read(frame.assign(site=np.arange(len(frame)))))


def test_images(tmp_path):
    rng = np.random.default_rng(0)
    for place in ("rome", "oslo"):
        for label in ("cat", "dog"):
            folder = tmp_path / "photos" / place / label
            folder.mkdir(parents=True)
            for i in range(3):
                pixels = rng.integers(0, 256, (10, 12, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    source = read_rows(tmp_path / "photos")
    assert source.sizes == {"oslo": 6, "rome": 6}
    assert source.target.classes == ("cat", "dog")
    assert source.y.tolist() == [0, 0, 0, 1, 1, 1] * 2
    x = source.matrix(source.learn_inputs())
    assert x.shape == (12, 240)
    assert abs(x.mean()) < 1e-4
    assert abs(x.std() - 1) < 1e-3
    with pytest.raises(OptionError, match="is a folder"):
        read_rows(tmp_path / "photos", target="y")
    with pytest.raises(EnvironmentsError, match="root/environment/class"):
        read_rows(tmp_path / "photos" / "rome")
    with pytest.raises(DataFileError):
        read_rows(tmp_path / "nowhere.csv", target="y", environment="e")
