"""A recipe in a file of one's own: read, and checked against what a run can be set to."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from invlearn.errors import DataFileError, InvlearnError, OptionError, unknown_name
from invlearn.training import PenaltySchedule, Settings

_NOT_DATA = ("lr_factor", "schedule")
"""Of the settings: a function, and what is a table of its own."""

_Width = Annotated[int, Field(ge=1, le=100_000)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class _Method(_Strict):
    hidden: list[_Width] | None = None
    hyper: dict[str, float] = {}
    options: dict[str, Any] = {}
    schedule: dict[str, Any] = {}
    settings: dict[str, Any] = {}


class _File(_Strict):
    oracle: bool = False
    note: str = ""
    like: Annotated[list[str], Field(min_length=2, max_length=2)] | None = None
    hidden: list[_Width] | None = None
    schedule: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    methods: dict[str, _Method] = {}


def read_recipe(path: Path) -> dict[str, Any]:
    """The content of a recipe file: what one recipe of `recipes.toml` holds, in TOML.

    'hidden', 'schedule', 'settings', for one method 'methods.NAME' with these, 'hyper' and
    'options'; 'like', a dataset and its recipe that it differs from; 'oracle', 'note'.

    Raises
    ------
    DataFileError
        A file that is missing, or no TOML.
    UnknownNameError, OptionError
        A key that means nothing, a value of another type; the file is in the message.
    """
    if path.suffix != ".toml":
        raise DataFileError(f"Expected a recipe file that ends in .toml, got '{path}'. Rename it.")
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataFileError(
            f"Expected a recipe file at '{path}', it cannot be read: {error.strerror}. Name a TOML "
            "file, or a recipe of the dataset without '.toml'."
        ) from error
    except ValueError as error:  # Not UTF-8, or not TOML.
        raise DataFileError(
            f"Expected a recipe in TOML in '{path}', it is none: {error}. Mend it there."
        ) from error
    _check(_File, data, path, "")
    for place, table in _tables(data):
        for name in ("settings", "schedule"):
            _check(_model(name), table.get(name, {}), path, f"{place}{name}.")
    return data


def said(data: Mapping[str, Any]) -> str:
    """What a recipe sets, in a few words: names, and whose."""
    parts = []
    for place, table in _tables(data):
        names = [
            name
            for key in ("hidden", "schedule", "settings", "hyper", "options")
            if key in table
            for name in (table[key] if key in ("settings", "hyper", "options") else [key])
        ]
        if names:
            method = place.split(".")[1] if place else ""
            parts.append((f"for {method}: " if method else "") + ", ".join(names))
    return "; ".join(parts) or "nothing"


def _tables(data: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """What holds for all methods and for each, with the place where it stands."""
    yield "", data
    for method, own in data.get("methods", {}).items():
        yield f"methods.{method}.", own


@cache
def _model(name: str) -> type[BaseModel]:
    """What 'settings' or 'schedule' may hold: the fields of `Settings` or `PenaltySchedule`."""
    kind = Settings if name == "settings" else PenaltySchedule
    hints = {key: hint for key, hint in get_type_hints(kind).items() if key not in _NOT_DATA}
    fields: dict[str, Any] = {key: (hint, None) for key, hint in hints.items()}
    return create_model(name, __base__=_Strict, **fields)


def _check(model: type[BaseModel], data: Any, path: Path, place: str) -> None:
    try:
        model.model_validate(data)
    except ValidationError as error:
        raise _complaint(model, error, path, place) from None


def _complaint(
    model: type[BaseModel], error: ValidationError, path: Path, place: str
) -> InvlearnError:
    """The first thing that is wrong, with the file's name."""
    first = error.errors()[0]
    *inside, key = map(str, first["loc"])
    if first["type"] == "extra_forbidden":
        known = _Method if inside[:1] == ["methods"] else model
        where = f" in '{(place + '.'.join(inside)).rstrip('.')}'" if place or inside else ""
        return unknown_name(f"key{where} of '{path}'", key, known.model_fields)
    wanted = first["msg"].removeprefix("Input should be ")
    if key == "like":
        wanted = "a dataset and a recipe of it"
    elif "dictionary" in wanted:
        wanted = "a table"
    return OptionError(
        f"Expected {place}{'.'.join([*inside, key])} in '{path}' to be {wanted}, got "
        f"{first['input']!r}. Change it there."
    )
