"""All of a model but its weights: its fields, and strict JSON both ways."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from invlearn.errors import DataFileError
from invlearn.image_features import ImageInput
from invlearn.networks import NetworkSpec

FORMAT = 1
MAX_RECORD_BYTES = 64 * 2**20

_MAX_KEYS = 100_000  # Of one JSON object: a million wrong ones would be a million complaints.


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class OutputScale(_Strict):
    """A prediction from an output z: ``z * scale + center``, in units of the target.

    Attributes
    ----------
    center : float
    scale : float, positive
    """

    center: float
    scale: Annotated[float, Field(gt=0)]


class ModelRecord(_Strict):
    """Everything about a model but its weights, in plain JSON values.

    Attributes
    ----------
    network : MLPSpec or OwnSpec
    target : dict
        What is predicted; read by who wrote it.
    objective : str
    loss : 'squared', 'logistic' or 'softmax'
    training : dict of JSON values
        Settings of the training.
    environments : dict of int
        Rows of each training environment.
    provenance : dict of str
    encoder : dict or None
        How a table's columns become features; read by who wrote it.
    images : ImageInput or None
    output : OutputScale
        Identity unless given.
    format : int
        Version of this layout.
    tensors_sha256 : str
        Filled in by `save_model`.

    Raises
    ------
    pydantic.ValidationError
        A field of another type, out of its bounds, unknown or missing, or two that contradict
        each other.
    """

    network: NetworkSpec
    target: dict[str, JsonValue]
    objective: str
    loss: Literal["squared", "logistic", "softmax"]
    training: dict[str, JsonValue]
    environments: dict[str, Annotated[int, Field(ge=0, le=2**63 - 1)]]
    provenance: dict[str, str]
    encoder: dict[str, JsonValue] | None = None
    images: ImageInput | None = None
    output: OutputScale = OutputScale(center=0.0, scale=1.0)
    format: Annotated[int, Field(ge=FORMAT, le=FORMAT)] = FORMAT
    tensors_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] = 64 * "0"

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        network, images = self.network, self.images
        if images is not None and network.n_features != images.n_features:
            raise ValueError(
                f"the network takes {network.n_features} features, images of {images.channels} "
                f"channel(s) have {images.n_features}"
            )
        if self.loss == "logistic" and network.n_outputs != 1:
            raise ValueError(f"the logistic loss needs one output, got {network.n_outputs}")
        if self.loss == "softmax" and network.n_outputs < 2:
            raise ValueError("the softmax loss needs at least two outputs, got 1")
        return self


class ProblemError(DataFileError):
    """What is wrong with a file, and what to do; its name is added in one place."""

    REMEDY = "Copy the folder anew from its source."

    def __init__(self, problem: str, remedy: str = REMEDY) -> None:
        super().__init__(problem)
        self.remedy = remedy


def to_text(record: ModelRecord) -> bytes:
    """The record as JSON, with its own checksum."""
    content = _content(record) | {"record_sha256": _digest(record)}
    text = json.dumps(content, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
    return f"{text}\n".encode()


def _content(record: ModelRecord) -> dict[str, Any]:
    return record.model_dump(mode="json", warnings="none")


def _digest(record: ModelRecord) -> str:
    text = json.dumps(_content(record), sort_keys=True, ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def parse_record(text: bytes) -> ModelRecord:
    """The record in a JSON text; ProblemError for one that is not whole and unaltered."""
    if len(text) > MAX_RECORD_BYTES:
        raise ProblemError(f"Expected at most {MAX_RECORD_BYTES} bytes, got {len(text)}.")
    try:
        content = json.loads(
            text.decode(), object_pairs_hook=_object, parse_float=_finite, parse_constant=_finite
        )
        if not isinstance(content, dict):
            raise ValueError(f"expected an object, got a {type(content).__name__}")
        version = content.get("format")
        if type(version) is int and version > FORMAT:
            raise ProblemError(
                f"Written by a newer version (format {shown(version)}).",
                "Upgrade invariant-learn.",
            )
        known = {*ModelRecord.model_fields, "record_sha256"}
        missing, unknown = sorted(known - content.keys()), sorted(content.keys() - known)
        if missing or unknown:
            raise ValueError(f"missing keys {missing[:3]}, unknown keys {unknown[:3]}")
        digest = content.pop("record_sha256")
        record = ModelRecord.model_validate(content)
        if _digest(record) != digest:
            raise ProblemError("Altered or damaged: the checksum is another.")
    except ProblemError:
        raise
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = shown(".".join(map(str, first["loc"]))) or "the record"
        raise ProblemError(f"Not a model: {where}: {shown(first['msg'])}.") from error
    except (ValueError, RecursionError) as error:
        raise ProblemError(f"Expected the JSON of a model: {shown(error)}.") from error
    return record


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > _MAX_KEYS:
        raise ValueError(f"expected at most {_MAX_KEYS} keys in an object, got {len(pairs)}")
    content = dict(pairs)
    if len(content) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key '{twice}' comes twice")
    return content


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not a finite number")
    return number


def shown(what: object) -> str:
    """On one line, short, and without anything that a terminal would obey."""
    short = "".join(c if c.isprintable() else "?" for c in str(what)[:160])
    return short.removesuffix(".")
