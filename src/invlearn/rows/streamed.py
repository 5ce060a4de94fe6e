"""Rows of a Parquet file that need not fit in memory, encoded to a temporary file to train on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from invlearn.environments import Environments, stratified
from invlearn.errors import EnvironmentsError
from invlearn.features import Features
from invlearn.learning.scaling import location_and_scale
from invlearn.rows.inputs import TableInputs
from invlearn.rows.source import Source, environment_names, from_frame
from invlearn.rows.usable import FEWEST_ROWS, set_aside
from invlearn.stored_rows import RowStore, StoredRows
from invlearn.tables import Encoder, ParquetTable, Target, can_stream

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]

STREAMED_BEYOND = 1 << 30
"""Bytes as a DataFrame beyond which a Parquet file is streamed."""

HELD_OUT_SHARE, HELD_OUT_ROWS = 0.2, 20_000
"""At most this share of an environment, and so many of its rows, are held out for validation."""

_SAMPLE_ROWS, _SAMPLE_BYTES = 200_000, 256 << 20
_BATCH_ROWS, _BATCH_BYTES = 65_536, 64 << 20


@dataclass(frozen=True)
class StreamedRows:
    """Encoded rows of a Parquet file: those to train on on disk, those to measure on in memory.

    Use it in a with-block: its file is gone after it.

    Attributes
    ----------
    train : Environments
        With `StoredRows` as features.
    validation : Environments
        Rows of the same environments, drawn at random and held out.
    inputs : TableInputs
        The columns' encoder.
    target : Target
    sizes : {environment: rows}
        Both parts together.
    notes : tuple of str
        What was dropped or set aside.
    store : RowStore
        Where the training rows' features are.
    target_location, target_scale : float
        A regression's targets were (y - location) / scale; mean and standard deviation of
        training rows.
    """

    train: Environments
    validation: Environments
    inputs: TableInputs
    target: Target
    sizes: dict[str, int]
    notes: tuple[str, ...]
    store: RowStore
    target_location: float = 0.0
    target_scale: float = 1.0

    def __enter__(self) -> StreamedRows:
        return self

    def __exit__(self, *error: object) -> None:
        self.store.close()


@dataclass(frozen=True)
class _Labels:
    """Targets y [n] and environment numbers [n] (-1: dropped) of all rows of a file."""

    target: Target
    y: Array
    names: tuple[str, ...]
    environment: npt.NDArray[np.int32]
    notes: tuple[str, ...]


def streams(path: str | Path) -> bool:
    """Whether rows are better streamed than read: of a Parquet file of more than 1 GiB in memory.

    Raises
    ------
    DataFileError
        A Parquet file that cannot be read.
    """
    path = Path(path)
    return can_stream(path) and ParquetTable(path).estimated_bytes > STREAMED_BEYOND


def stream_parquet(
    path: str | Path,
    *,
    target: str,
    environment: str,
    task: str | None = None,
    drop: Sequence[str] = (),
    seed: int = 0,
    folder: str | Path | None = None,
) -> StreamedRows:
    """Encode a Parquet file's rows for training, in memory that does not grow with its columns.

    The file is read three times: target and environment of all rows, a sample that the encoder is
    fitted to, and batches that are encoded and stored on disk, sorted by environment. Rows and
    environments are dropped as `from_frame` and `set_aside` do it. At most some 40 bytes of each
    row are in memory, and 8 in the end: its target.

    Parameters
    ----------
    path : path
    target, environment : str
        Columns.
    task : 'classification' or 'regression', optional
        Instead of the one recognized.
    drop : sequence of str
        Columns to leave out.
    seed : int
        Of the rows held out, and of the sample.
    folder : path, optional
        Where the encoded rows are stored; default: the system's for temporary files.

    Raises
    ------
    DataFileError, EnvironmentsError, OptionError, UnknownNameError
        As `read_rows`.
    OutputError
        Not enough room in the folder.

    Examples
    --------
    >>> import tempfile
    >>> frame = pd.DataFrame({"dose": range(100), "ill": [0, 1] * 50, "ward": list("aabb") * 25})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "table.parquet"
    ...     frame.to_parquet(path)
    ...     with stream_parquet(path, target="ill", environment="ward") as rows:
    ...         rows.train.sizes, rows.validation.sizes, rows.train.x[:2].shape
    ((40, 40), (10, 10), torch.Size([2, 1]))
    """
    table = ParquetTable(path)
    columns = _columns(table, target, environment, drop)
    labels = _labels(table, target, environment, task)
    order = np.argsort(labels.environment, kind="stable")
    order = order[np.count_nonzero(labels.environment < 0) :]
    sizes = np.bincount(labels.environment[order], minlength=len(labels.names))
    held_out = _held_out(labels, order, sizes, seed)
    learned, held = order[~held_out[order]], order[held_out[order]]
    del order
    inputs, notes = _fit(table, columns, (labels.environment >= 0) & ~held_out, seed)
    slots = np.full(table.n_rows, -1, dtype=np.int64)
    slots[learned], slots[held] = np.arange(len(learned)), np.arange(len(held))
    y, held_y = labels.y[learned], labels.y[held]
    held_sizes = np.bincount(labels.environment[held], minlength=len(labels.names))
    del learned, held
    location, scale = 0.0, 1.0
    if labels.target.task == "regression":
        location, scale = map(float, location_and_scale(y, np.ones(len(y))))
        y, held_y = (((part - location) / scale).astype(np.float32) for part in (y, held_y))
    store = RowStore(len(y), inputs.encoder.n_features, folder)
    try:
        held_x = _store(table, inputs, slots, held_out, store)
    except BaseException:
        store.close()
        raise
    names = labels.names
    return StreamedRows(
        _environments(StoredRows.of(store), y, names, sizes - held_sizes),
        _environments(torch.from_numpy(held_x), held_y, names, held_sizes),
        inputs,
        labels.target,
        dict(zip(names, sizes.tolist(), strict=True)),
        (*labels.notes, *notes),
        store,
        location,
        scale,
    )


def _columns(table: ParquetTable, target: str, environment: str, drop: Sequence[str]) -> list[str]:
    """Columns to learn from; what `from_frame` refuses in names, it refuses in a row of them."""
    row = pd.DataFrame("a", index=[0], columns=list(table.column_names))
    known = Target("classification", ("a",))
    source = from_frame(row, "", target=target, environment=environment, drop=drop, known=known)
    assert source.frame is not None
    return list(source.frame.columns)


def _labels(table: ParquetTable, target: str, environment: str, task: str | None) -> _Labels:
    """Read two columns, each distinct environment name only once."""
    codes, distinct = pd.factorize(table.column(environment))
    texts = environment_names(pd.Series(distinct))
    names = sorted(set(texts.dropna()))
    if not names:
        raise EnvironmentsError(
            f"Expected environments in column '{environment}', every row is empty. Choose another."
        )
    number = {name: place for place, name in enumerate(names)}
    # A missing value's code is -1, which picks the last.
    places = np.array([*(number.get(text, -1) for text in texts), -1], dtype=np.int32)
    environments = places[codes]
    del codes
    values = table.column(target)
    unlabeled = environments < 0
    known = Target.recognize(values[~unlabeled] if unlabeled.any() else values, task)
    unusable = ~known.usable(values) & ~unlabeled
    notes = [
        f"{int(lost.sum()):,} rows without {what} were dropped."
        for what, lost in (
            (f"environment ('{environment}')", unlabeled),
            (f"target ('{target}')", unusable),
        )
        if lost.any()
    ]
    environments[unusable] = -1
    classes = max(len(known.classes), 1)
    y = np.zeros(len(values), dtype=np.int64 if known.classes else np.float64)
    counts = np.zeros(len(names) * classes, dtype=np.int64)
    for start in range(0, len(values), _BATCH_ROWS):
        rows = start + np.flatnonzero(environments[start : start + _BATCH_ROWS] >= 0)
        y[rows] = known.encode(values.iloc[rows])
        cells = environments[rows] * classes + (y[rows] if known.classes else 0)
        counts += np.bincount(cells, minlength=len(counts))
    # A few rows of each class say as much as all: too few, of one class, or neither.
    few = np.minimum(counts, FEWEST_ROWS)
    of, a_class = (np.repeat(cells, few) for cells in np.divmod(np.arange(len(few)), classes))
    source = Source(
        table.path.name, target, environment, known, a_class, np.array(names)[of], None, None,
        tuple(notes),
    )  # fmt: skip
    kept = set_aside(source)
    number = {name: place for place, name in enumerate(kept.names)}
    places = np.array([*(number.get(name, -1) for name in names), -1], dtype=np.int32)
    return _Labels(known, y, kept.names, places[environments], kept.notes)


def _held_out(labels: _Labels, order: Array, sizes: Array, seed: int) -> Mask:
    """Mask [n] of the validation rows, drawn in each environment."""
    held_out = np.zeros(len(labels.y), dtype=bool)
    for e, rows in enumerate(np.split(order, np.cumsum(sizes)[:-1])):
        y, share = labels.y[rows], min(HELD_OUT_SHARE, HELD_OUT_ROWS / len(rows))
        held = stratified(torch.from_numpy(y), share, np.random.default_rng([seed, e]))
        held_out[rows[held]] = True
        left = np.unique(y[~held_out[rows]])
        if labels.target.classes and len(left) < 2:
            # All rows of the other classes: without one of them nothing can be learned here.
            held_out[rows[y != left[0]][0]] = False
    return held_out


def _fit(
    table: ParquetTable, columns: Sequence[str], learned: Mask, seed: int
) -> tuple[TableInputs, list[str]]:
    """The encoder of a sample's training rows (mask [n]), and what is to be said of it."""
    row_bytes = max(table.estimated_bytes / table.n_rows, 1)
    rows = min(_SAMPLE_ROWS, max(int(_SAMPLE_BYTES / row_bytes), 1000))
    sample = table.sample(rows, seed, columns)
    sample = sample[learned[sample.index]]
    note = f"Columns are read as {len(sample):,} rows spread over the file suggest."
    encoder = Encoder.fit(sample.reset_index(drop=True))
    return TableInputs(encoder), [note] if rows < table.n_rows else []


def _store(
    table: ParquetTable, inputs: TableInputs, slots: Array, held_out: Mask, store: RowStore
) -> Array:
    """Encode all rows: those held out into the matrix returned, the others into the store."""
    held_x = np.empty((int(held_out.sum()), store.n_features), dtype=np.float32)
    row_bytes = table.estimated_bytes / table.n_rows + 4 * store.n_features
    rows = min(_BATCH_ROWS, max(int(_BATCH_BYTES / row_bytes), 1))
    start = 0
    for batch in table.batches(inputs.encoder.columns, rows):
        here = slice(start, start + len(batch))
        start = here.stop
        kept = slots[here] >= 0
        x, slot, held = inputs.matrix(batch[kept], None), slots[here][kept], held_out[here][kept]
        held_x[slot[held]] = x[held]
        store.put(slot[~held], x[~held])
    return held_x


def _environments(x: Features, y: Array, names: tuple[str, ...], sizes: Array) -> Environments:
    offsets = np.concatenate([[0], np.cumsum(sizes)]).tolist()
    return Environments(x, torch.from_numpy(y), names, tuple(offsets))
