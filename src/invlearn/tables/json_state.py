"""Learned state as plain JSON: strict on reading, for a model file may come from anywhere."""

from __future__ import annotations

import json
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from invlearn.errors import DataFileError
from invlearn.tables.messages import one_line

AnyState = TypeVar("AnyState", bound="State")

_SHOWN_CHARACTERS = 120


class State(BaseModel):
    """Values of exactly the declared types, all numbers finite, no field more."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def parsed(state: type[AnyState], content: object, what: str) -> AnyState:
    """State of plain JSON content.

    Parameters
    ----------
    state : type of State
    content : object
        What `json.loads` gave.
    what : str
        What the content should be ('table encoder'), for the error.

    Raises
    ------
    DataFileError
        Content of any other form; the first fault is named.

    Examples
    --------
    >>> class Point(State):
    ...     x: float
    >>> parsed(Point, {"x": 1.5}, "point")
    Point(x=1.5)
    """
    try:
        # As JSON text, lists are tuples and whole numbers floats without loosening any type.
        return state.model_validate_json(json.dumps(content))
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in fault["loc"])
        reason = f"{place}: {fault['msg']}" if place else fault["msg"]
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        reason = str(error)
    raise DataFileError(
        f"Expected the state of a {what}, its content is not one "
        f"({one_line(reason)[:_SHOWN_CHARACTERS]}). Save the model again."
    )
