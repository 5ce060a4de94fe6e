"""The registry of datasets: names, options given as values or as text, and what goes wrong."""

from __future__ import annotations

import inspect

import pytest

from invlearn.datasets import DATASETS, Dataset, Option, OptionValue, load_benchmark
from invlearn.datasets.options import complete_options
from invlearn.errors import OptionError, UnknownNameError

TOY = Dataset(
    name="toy",
    summary="",
    source="",
    build=lambda **options: options,
    options={
        "flag": Option(False, ""),
        "count": Option(3, "", (3, 5)),
        "share": Option(0.5, ""),
        "kind": Option("plain", ""),
    },
)


def test_names() -> None:
    assert list(DATASETS) == ["colored-mnist", "colored-digits", "linear-sem"]
    assert all(name == dataset.name for name, dataset in DATASETS.items())


@pytest.mark.parametrize("name", DATASETS)
def test_builder_and_options_agree_on_defaults(name: str) -> None:
    parameters = dict(inspect.signature(DATASETS[name].build).parameters)
    del parameters["seed"]
    defaults = {key: parameter.default for key, parameter in parameters.items()}
    assert defaults == {key: option.default for key, option in DATASETS[name].options.items()}


@pytest.mark.parametrize("name", DATASETS)
def test_entries_are_described(name: str) -> None:
    dataset = DATASETS[name]
    assert dataset.summary
    assert dataset.source
    assert all(option.help for option in dataset.options.values())


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"flag": "true", "count": "5", "share": "0.1", "kind": "x"}, [True, 5, 0.1, "x"]),
        ({"flag": "No", "count": 5, "share": 1}, [False, 5, 1.0, "plain"]),
        ({"flag": True, "share": " 1e-3 "}, [True, 3, 1e-3, "plain"]),
    ],
)
def test_values_take_the_type_of_the_default(
    given: dict[str, OptionValue], expected: list[OptionValue]
) -> None:
    values = list(complete_options(TOY, given).values())
    assert values == expected
    assert [type(value) for value in values] == [bool, int, float, str]


@pytest.mark.parametrize(
    ("name", "value", "kind", "default"),
    [
        ("flag", "maybe", "true or false", "False"),
        ("flag", 1, "true or false", "False"),
        ("count", "3.5", "a whole number", "3"),
        ("count", 3.0, "a whole number", "3"),
        ("count", True, "a whole number", "3"),
        ("share", "half", "a number", "0.5"),
        ("share", True, "a number", "0.5"),
        ("kind", 0.1, "text", "'plain'"),
    ],
)
def test_values_of_another_type(name: str, value: OptionValue, kind: str, default: str) -> None:
    with pytest.raises(OptionError) as caught:
        complete_options(TOY, {name: value})
    assert str(caught.value) == (
        f"Expected option '{name}' to be {kind}, got {value!r}. "
        f"Write it like the default, {default}."
    )


def test_choices_hold_after_reading() -> None:
    with pytest.raises(OptionError) as caught:
        complete_options(TOY, {"count": "4"})
    assert str(caught.value) == (
        "Expected option 'count' to be one of 3, 5, got 4. Choose one of them."
    )


def test_unknown_dataset() -> None:
    with pytest.raises(UnknownNameError) as caught:
        load_benchmark("colored-minst", seed=0)
    assert str(caught.value) == (
        "Unknown dataset 'colored-minst'. Did you mean 'colored-mnist'? "
        "Known: colored-digits, colored-mnist, linear-sem."
    )


def test_unknown_option() -> None:
    with pytest.raises(UnknownNameError) as caught:
        load_benchmark("linear-sem", seed=0, settings="FOU")
    assert str(caught.value) == (
        "Unknown option of dataset 'linear-sem' 'settings'. Did you mean 'setting'? Known: setting."
    )


@pytest.mark.parametrize("seed", [-1, 0.5, "0", True, None])
def test_bad_seed(seed: int) -> None:
    with pytest.raises(OptionError) as caught:
        load_benchmark("linear-sem", seed=seed)
    assert str(caught.value) == (
        f"Expected a seed that is a whole number of at least 0, got {seed!r}. "
        "Use 0, 1, 2, ... for repeated runs."
    )
