"""A model as a folder of numbers and JSON: written whole, and read without running code."""

from __future__ import annotations

import hashlib
import json
import math
import os
import secrets
import shutil
import stat
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator
from safetensors.torch import save as to_safetensors
from torch import nn

from invlearn.errors import DataFileError, OptionError, OutputError
from invlearn.images import ImageInput
from invlearn.models import MLP
from invlearn.networks import ConvNet, ConvNetSpec, NetworkSpec, build, parse_weights

FORMAT = 1
RECORD_NAME = "model.json"
TENSORS_NAME = "model.safetensors"

_MAX_RECORD_BYTES = 64 * 2**20
_MAX_HEADER_BYTES = 2**20
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
    network : MLPSpec or ConvNetSpec
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
        if images is not None:
            shape = (images.channels, images.height, images.width)
            agrees = (
                shape == (network.channels, network.height, network.width)
                if isinstance(network, ConvNetSpec)
                else math.prod(shape) == network.n_features
            )
            if not agrees:
                raise ValueError(f"the network does not take images of shape {shape}")
        if self.loss == "logistic" and network.n_outputs != 1:
            raise ValueError(f"the logistic loss needs one output, got {network.n_outputs}")
        if self.loss == "softmax" and network.n_outputs < 2:
            raise ValueError("the softmax loss needs at least two outputs, got 1")
        return self


@dataclass(frozen=True)
class StoredModel:
    """A loaded model.

    Attributes
    ----------
    record : ModelRecord
    network : MLP or ConvNet
        On the CPU, float32.
    """

    record: ModelRecord
    network: MLP | ConvNet


def save_model(folder: str | Path, record: ModelRecord, network: nn.Module) -> None:
    """Write ``model.safetensors`` and ``model.json`` into a new folder, both or neither.

    They are written beside the folder and moved into place together, so that no half-written
    model is ever seen under its name.

    Parameters
    ----------
    folder : path
        New or empty; its parents are made.
    record : ModelRecord
    network : nn.Module
        The network that ``record.network`` describes, in float32, on any device.

    Raises
    ------
    OutputError
        The folder holds something or cannot be written.
    OptionError
        A network that is not the one described or has weights that are no finite numbers, or a
        record that JSON cannot hold.
    """
    target = Path(os.path.realpath(folder))
    tensors = {
        # Copied, because weights of runs that were trained together are slices of one tensor.
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in network.state_dict().items()
    }
    weights = to_safetensors(tensors)
    digest = hashlib.sha256(weights).hexdigest()
    try:
        parse_weights(weights, record.network)
        text = _to_text(record.model_copy(update={"tensors_sha256": digest}))
        _parse_record(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise OptionError(
            f"Expected a model that can be read back, got one that cannot: {_shown(error)}. "
            "Save the float32 network that the record describes, with plain JSON values."
        ) from error
    try:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise OutputError(
                f"Expected a new or empty folder for the model, {str(target)!r} is taken. "
                "Choose another one."
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        _write_together(target, {TENSORS_NAME: weights, RECORD_NAME: text})
    except OSError as error:
        raise OutputError(
            f"Expected to write a model to {str(target)!r}, got: {error.strerror}. "
            "Make room or choose another folder."
        ) from error


def load_model(folder: str | Path) -> StoredModel:
    """Read a model that `save_model` wrote, without running any code from its folder.

    The folder may come from a stranger: nothing is unpickled, imported or evaluated, sizes
    are bounded before anything is read, and every tensor is checked against the description.
    The checksums find damage, not malice: who writes a folder writes its checksums too.

    Raises
    ------
    DataFileError
        A folder that is missing, incomplete, damaged, of a newer version, or no model at all.

    Examples
    --------
    >>> import tempfile
    >>> from invlearn.networks import MLPSpec
    >>> spec = MLPSpec(n_features=2, hidden=(3,), n_outputs=1)
    >>> record = ModelRecord(
    ...     network=spec, target={}, objective="erm", loss="squared", training={"steps": 10},
    ...     environments={"a": 5, "b": 4}, provenance={},
    ... )
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_model(folder, record, build(spec, torch.Generator().manual_seed(0)))
    ...     load_model(folder).record.environments
    {'a': 5, 'b': 4}
    """
    folder = Path(folder)
    if not os.path.isdir(folder):
        found = "a file" if os.path.exists(folder) else "nothing"
        raise DataFileError(
            f"Expected a model folder at {str(folder)!r}, found {found}. "
            f"Give a folder that holds {TENSORS_NAME} and {RECORD_NAME}."
        )
    path = folder / RECORD_NAME
    try:
        record = _parse_record(_read(path, 0, _MAX_RECORD_BYTES))
        path = folder / TENSORS_NAME
        least = 4 * record.network.n_parameters
        content = _read(path, least, least + _MAX_HEADER_BYTES)
        if hashlib.sha256(content).hexdigest() != record.tensors_sha256:
            raise _ProblemError("Altered or damaged: the checksum is another.")
        weights = parse_weights(content, record.network)
    except DataFileError as error:
        remedy = error.remedy if isinstance(error, _ProblemError) else _ProblemError.REMEDY
        raise DataFileError(f"{str(path)!r}: {error} {remedy}") from error
    network = build(record.network, torch.Generator().manual_seed(0))
    network.load_state_dict(weights)
    return StoredModel(record, network.eval())


class _ProblemError(DataFileError):
    """What is wrong with a file, and what to do; its name is added in one place."""

    REMEDY = "Copy the folder anew from its source."

    def __init__(self, problem: str, remedy: str = REMEDY) -> None:
        super().__init__(problem)
        self.remedy = remedy


def _write_together(target: Path, files: dict[str, bytes]) -> None:
    draft = target.parent / f".unfinished-{secrets.token_hex(8)}"
    draft.mkdir()
    try:
        for name, content in files.items():
            with open(draft / name, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        os.replace(draft, target)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def _read(path: Path, least: int, most: int) -> bytes:
    """All of a regular file, once its size is known to be within bounds."""
    # Should a pipe or a link take the file's place meanwhile, it must not hang or divert.
    flags = os.O_RDONLY
    for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"):
        flags |= getattr(os, name, 0)
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise _ProblemError(
                "Expected a regular file, found a link, folder, pipe or device.",
                "Put the file itself there.",
            )
        with os.fdopen(os.open(path, flags), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(16)
            if start[8:9] != b"{" and start.startswith((b"PK\x03\x04", b"\x80")):
                raise _ProblemError(
                    "Found a pickle, which could run code and is never opened.",
                    "Ask its author for a folder written by save_model.",
                )
            if not least <= size <= most:
                raise _ProblemError(
                    f"Expected {least} to {most} bytes, found {size}: truncated, or not this "
                    "model's."
                )
            return start + file.read(size - len(start))
    except FileNotFoundError:
        raise _ProblemError("The file is missing.") from None
    except OSError as error:
        raise _ProblemError(
            f"Cannot be read: {error.strerror}.", "Check its permissions and the disk."
        ) from error


def _to_text(record: ModelRecord) -> bytes:
    content = _content(record) | {"record_sha256": _digest(record)}
    text = json.dumps(content, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
    return f"{text}\n".encode()


def _content(record: ModelRecord) -> dict[str, Any]:
    return record.model_dump(mode="json", warnings="none")


def _digest(record: ModelRecord) -> str:
    text = json.dumps(_content(record), sort_keys=True, ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _parse_record(text: bytes) -> ModelRecord:
    if len(text) > _MAX_RECORD_BYTES:
        raise _ProblemError(f"Expected at most {_MAX_RECORD_BYTES} bytes, got {len(text)}.")
    try:
        content = json.loads(
            text.decode(), object_pairs_hook=_object, parse_float=_finite, parse_constant=_finite
        )
        if not isinstance(content, dict):
            raise ValueError(f"expected an object, got a {type(content).__name__}")
        version = content.get("format")
        if type(version) is int and version > FORMAT:
            raise _ProblemError(
                f"Written by a newer version (format {_shown(version)}).",
                "Upgrade invariant-learn.",
            )
        known = {*ModelRecord.model_fields, "record_sha256"}
        missing, unknown = sorted(known - content.keys()), sorted(content.keys() - known)
        if missing or unknown:
            raise ValueError(f"missing keys {missing[:3]}, unknown keys {unknown[:3]}")
        digest = content.pop("record_sha256")
        record = ModelRecord.model_validate(content)
        if _digest(record) != digest:
            raise _ProblemError("Altered or damaged: the checksum is another.")
    except _ProblemError:
        raise
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = _shown(".".join(map(str, first["loc"]))) or "the record"
        raise _ProblemError(f"Not a model: {where}: {_shown(first['msg'])}.") from error
    except (ValueError, RecursionError) as error:
        raise _ProblemError(f"Expected the JSON of a model: {_shown(error)}.") from error
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


def _shown(what: object) -> str:
    """On one line, short, and without anything that a terminal would obey."""
    short = "".join(c if c.isprintable() else "?" for c in str(what)[:160])
    return short.removesuffix(".")
