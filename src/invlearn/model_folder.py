"""A model as a folder of numbers and JSON: written whole, and read without running code."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save as to_safetensors
from torch import nn

from invlearn.errors import DataFileError, OptionError
from invlearn.ground.files import write_folder
from invlearn.model_record import (
    MAX_RECORD_BYTES,
    ModelRecord,
    ProblemError,
    parse_record,
    shown,
    to_text,
)
from invlearn.networks import NetworkSpec, OwnSpec, build, parse_weights

RECORD_NAME = "model.json"
TENSORS_NAME = "model.safetensors"

_MAX_HEADER_BYTES = 2**20


@dataclass(frozen=True)
class StoredModel:
    """A loaded model.

    Attributes
    ----------
    record : ModelRecord
    network : nn.Module
        On the CPU.
    """

    record: ModelRecord
    network: nn.Module


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
    tensors = {
        # Copied, because weights of runs that were trained together are slices of one tensor.
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in network.state_dict().items()
    }
    weights = to_safetensors(tensors)
    digest = hashlib.sha256(weights).hexdigest()
    try:
        parse_weights(weights, record.network)
        text = to_text(record.model_copy(update={"tensors_sha256": digest}))
        parse_record(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise OptionError(
            f"Expected a model that can be read back, got one that cannot: {shown(error)}. "
            "Save the float32 network that the record describes, with plain JSON values."
        ) from error
    write_folder(Path(folder), {TENSORS_NAME: weights, RECORD_NAME: text})


def load_model(
    folder: str | Path, make: Callable[[OwnSpec], nn.Module] | None = None
) -> StoredModel:
    """Read a model that `save_model` wrote, without running any code from its folder.

    The folder may come from a stranger: nothing is unpickled, imported or evaluated, sizes
    are bounded before anything is read, and every tensor is checked against the description.
    The checksums find damage, not malice: who writes a folder writes its checksums too.

    Parameters
    ----------
    folder : path
    make : callable, optional
        Builds a network of a user's own class, into which the weights are then loaded.

    Raises
    ------
    DataFileError
        A folder that is missing, incomplete, damaged, of a newer version, or no model at all.
    OptionError
        `make` that is missing for such a network, not wanted for another, or makes one that the
        weights do not fit.

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
        record = parse_record(_read(path, 0, MAX_RECORD_BYTES))
        path = folder / TENSORS_NAME
        least = record.network.n_bytes
        content = _read(path, least, least + _MAX_HEADER_BYTES)
        if hashlib.sha256(content).hexdigest() != record.tensors_sha256:
            raise ProblemError("Altered or damaged: the checksum is another.")
        weights = parse_weights(content, record.network)
    except DataFileError as error:
        remedy = error.remedy if isinstance(error, ProblemError) else ProblemError.REMEDY
        raise DataFileError(f"{str(path)!r}: {error} {remedy}") from error
    network = _built(record.network, make)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        said = " ".join(str(error).partition(":")[2].split())  # Without torch's heading.
        raise OptionError(
            "Expected the network that the model was saved with, got one that its weights do not "
            f"fit: {shown(said)}. Give load the same network=."
        ) from error
    return StoredModel(record, network.eval())


def _built(spec: NetworkSpec, make: Callable[[OwnSpec], nn.Module] | None) -> nn.Module:
    if isinstance(spec, OwnSpec):
        if make is None:
            raise OptionError(
                "Expected network= for a model whose network is of a class of its user's, got "
                "none: a model folder holds no code. Load it with the estimator's load(folder, "
                "network=...), the function, class or Module that it was fitted with."
            )
        return make(spec)
    if make is not None:
        raise OptionError(
            f"Expected no network= for this model, whose network its folder describes ({spec.kind}"
            "). Leave it out."
        )
    return build(spec, torch.Generator().manual_seed(0))


def _read(path: Path, least: int, most: int) -> bytes:
    """All of a regular file, once its size is known to be within bounds."""
    # Should a pipe or a link take the file's place meanwhile, it must not hang or divert.
    flags = os.O_RDONLY
    for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"):
        flags |= getattr(os, name, 0)
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise ProblemError(
                "Expected a regular file, found a link, folder, pipe or device.",
                "Put the file itself there.",
            )
        with os.fdopen(os.open(path, flags), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(16)
            if start[8:9] != b"{" and start.startswith((b"PK\x03\x04", b"\x80")):
                raise ProblemError(
                    "Found a pickle, which could run code and is never opened.",
                    "Ask its author for a folder written by save_model.",
                )
            if not least <= size <= most:
                raise ProblemError(
                    f"Expected {least} to {most} bytes, found {size}: truncated, or not this "
                    "model's."
                )
            return start + file.read(size - len(start))
    except FileNotFoundError:
        raise ProblemError("The file is missing.") from None
    except OSError as error:
        raise ProblemError(
            f"Cannot be read: {error.strerror}.", "Check its permissions and the disk."
        ) from error
