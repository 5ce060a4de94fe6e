"""Values of a dataset's options: read from text where need be, checked, and defaults filled in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from invlearn.datasets.base import Dataset, OptionValue
from invlearn.errors import OptionError, unknown_name

_TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def complete_options(dataset: Dataset, given: Mapping[str, OptionValue]) -> dict[str, OptionValue]:
    """Fill in every option of a dataset: the default, or the given value in the default's type.

    Parameters
    ----------
    dataset : Dataset
        Whose options are meant.
    given : mapping of option name to value
        Text is read as the type of the option's default.

    Returns
    -------
    dict
        A value for every option of the dataset.

    Raises
    ------
    UnknownNameError
        An option that the dataset does not have, with the nearest one that it has.
    OptionError
        A value of another type, or outside the option's choices.

    Examples
    --------
    >>> from invlearn.datasets import DATASETS
    >>> options = complete_options(DATASETS["colored-mnist"], {"image_size": "28"})
    >>> options["image_size"], options["label_noise"]
    (28, 0.25)
    """
    for name in given:
        if name not in dataset.options:
            raise unknown_name(f"option of dataset '{dataset.name}'", name, dataset.options)
    complete: dict[str, OptionValue] = {}
    for name, option in dataset.options.items():
        complete[name] = option.default
        if name in given:
            complete[name] = _coerce(name, given[name], option.default)
            if option.choices:
                require_choice(name, complete[name], option.choices)
    return complete


def require_choice(name: str, value: OptionValue, choices: Sequence[OptionValue]) -> None:
    """Raise an `OptionError` unless the value is one of the choices."""
    if value not in choices:
        listed = ", ".join(repr(choice) for choice in choices)
        raise OptionError(
            f"Expected option '{name}' to be one of {listed}, got {value!r}. Choose one of them."
        )


def require_range(name: str, value: float, low: float, high: float) -> None:
    """Raise an `OptionError` unless low <= value <= high."""
    if not low <= value <= high:
        raise OptionError(
            f"Expected option '{name}' between {low} and {high}, got {value}. "
            "Choose a value in that range."
        )


def _coerce(name: str, value: object, default: OptionValue) -> OptionValue:
    """`value` in the type of `default`; text is read, nothing is rounded."""
    kind = type(default)
    if type(value) is kind:
        return value
    if kind is float and type(value) is int:
        return float(value)
    if isinstance(value, str):
        text = value.strip().lower()
        if kind is bool and text in _TRUTH:
            return _TRUTH[text]
        if kind in (int, float):
            try:
                return kind(text)
            except ValueError:
                pass
    raise OptionError(
        f"Expected option '{name}' to be {_KINDS[kind]}, got {value!r}. "
        f"Write it like the default, {default!r}."
    )
