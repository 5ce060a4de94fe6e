"""Models applied to files of rows, and tables written so that no half of one is left."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from invlearn.diagnostics import Finding
from invlearn.errors import OptionError, unknown_name
from invlearn.ground.files import check_file, write_whole
from invlearn.images import read_images, read_unlabelled_images
from invlearn.rows.fit import fit_rows, fit_streamed
from invlearn.rows.image_table import FILE, FeaturesOf, image_table
from invlearn.rows.inputs import ImageInputs, TableInputs
from invlearn.rows.model import RowsModel
from invlearn.rows.request import FitRequest
from invlearn.rows.source import read_rows
from invlearn.rows.streamed import streams
from invlearn.tables import WRITERS, ParquetTable, read_table

BATCH_BYTES = 64 << 20
"""Of a table that is predicted in batches, what is loaded at once."""

DIAGNOSED_ROWS = 200_000
"""Of a table that is not loaded whole, so many rows are drawn for a diagnosis."""


def write_table(frame: pd.DataFrame, path: Path) -> None:
    """Write a table by its file's ending, whole or not at all; an existing file is replaced.

    Raises
    ------
    UnknownNameError
        Another ending than .csv, .parquet and .feather.
    OutputError
        A file that cannot be written.
    """
    if path.suffix.lower() not in WRITERS:
        raise unknown_name("file ending", path.suffix, WRITERS)
    plain = frame.reset_index(drop=True)  # An index of their own some formats refuse, others keep.
    write_whole(path, lambda part: WRITERS[path.suffix.lower()](plain, part))


def fit_file(
    rows: str | Path,
    request: FitRequest,
    *,
    target: str | None = None,
    environment: str | None = None,
    task: str | None = None,
    drop: Sequence[str] = (),
    features: FeaturesOf | None = None,
    provenance: Mapping[str, str] | None = None,
    progress: bool = False,
) -> tuple[RowsModel, list[str]]:
    """Fit a model to the rows of a file; a large Parquet file is streamed, not loaded."""
    if target is not None and environment is not None and streams(rows):
        return fit_streamed(
            rows, request, target=target, environment=environment, task=task, drop=drop,
            provenance=provenance, progress=progress,
        )  # fmt: skip
    source = read_rows(
        rows, target=target, environment=environment, task=task, drop=drop, features=features
    )
    return fit_rows(source, request, provenance=provenance, progress=progress)


def predict_file(
    model: RowsModel, rows: str | Path, output: Path, *, features: FeaturesOf | None = None
) -> tuple[int, list[str]]:
    """Predict the rows of a file and write them to another.

    Images in any layout are predicted from themselves or from `features` of them, whatever the
    model was fitted to; see `image_table`.

    Returns
    -------
    (int, list of str)
        How many rows, and what is new in them.
    """
    if output.suffix.lower() not in WRITERS:
        raise unknown_name("file ending", output.suffix, WRITERS)
    check_file(output)
    _check_kind(model, rows, features)
    if features is not None:
        frame = image_table(rows, features, labeled=False)
        found = model.predict(frame)
        found.insert(0, FILE, list(frame.index))
        write_table(found, output)
        return len(found), model.notes(frame)
    if isinstance(model.inputs, ImageInputs):
        image, parts = model.inputs.image, []
        for x, paths in read_unlabelled_images(rows, image.height, image.channels):
            parts.append(model.predict(x))
            parts[-1].insert(0, "file", list(paths))
        found = pd.concat(parts, ignore_index=True)
        write_table(found, output)
        return len(found), []
    if streams(rows):
        return _predict_batches(model, ParquetTable(rows), output)
    frame = read_table(rows)
    found = model.predict(frame)
    found.insert(0, "row", np.arange(1, len(found) + 1))
    write_table(found, output)
    return len(found), model.notes(frame)


def _predict_batches(model: RowsModel, table: ParquetTable, output: Path) -> tuple[int, list[str]]:
    """Predictions of a table that is not loaded whole.

    New environments are noted wherever they are, all else that is new in the first batch only.
    """
    if output.suffix.lower() != ".csv":
        raise OptionError(
            f"Expected --output as a .csv file for {table.n_rows:,} rows, which are predicted in "
            f"batches, got '{output.name}'. Name a .csv file."
        )
    wanted = [*model.inputs.columns, model.environment_name]
    columns = [name for name in table.column_names if name in wanted]
    # A batch of a wide table has to stay small too.
    rows = min(65_536, max(int(BATCH_BYTES * table.n_rows / table.estimated_bytes), 1))
    notes: list[str] = []
    unseen: set[str] = set()

    def write(part: Path) -> None:
        done = 0
        for frame in table.batches(columns, rows):
            found = model.predict(frame)
            found.insert(0, "row", np.arange(done + 1, done + len(found) + 1))
            found.to_csv(part, index=False, header=done == 0, mode="w" if done == 0 else "a")
            if done == 0 and isinstance(model.inputs, TableInputs):
                said = model.inputs.encoder.notes(frame)
                notes.extend(f"In the first {len(found):,} rows: {note}" for note in said)
            unseen.update(model.new_environments(frame))
            done += len(found)

    write_whole(output, write)
    if unseen:
        notes.append(model.untrained(sorted(unseen)))
    return table.n_rows, notes


def _check_kind(model: RowsModel, rows: str | Path, features: FeaturesOf | None) -> None:
    """Refuse images for a model of columns, and features for one of images."""
    if features is not None and isinstance(model.inputs, ImageInputs):
        raise OptionError(
            "Expected images without features: this model was fitted to the images themselves. "
            "Leave the features out."
        )
    if features is None and isinstance(model.inputs, TableInputs) and Path(rows).is_dir():
        raise OptionError(
            f"Expected a table, or features of the images in '{rows}': this model was fitted to "
            "columns. Give the features it was fitted to with --features (features=)."
        )


def diagnose_file(
    model: RowsModel,
    rows: str | Path,
    output: Path | None,
    *,
    seed: int = 0,
    features: FeaturesOf | None = None,
    progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> tuple[list[Finding], list[str]]:
    """Diagnose a model on the labeled rows of a file; the findings, and what is new in them."""
    notes: list[str] = []
    if output is not None:
        check_file(output)
    _check_kind(model, rows, features)
    if isinstance(model.inputs, ImageInputs):
        image = model.inputs.image
        images = read_images(rows, image.height, image.channels, fewest_classes=1)
        source = model.labeled_images(images.x, images.labels, images.environments, Path(rows).name)
    else:
        if features is not None:
            frame = image_table(rows, features)
        elif streams(rows):
            table = ParquetTable(rows)
            frame = table.sample(DIAGNOSED_ROWS, seed).reset_index(drop=True)
            notes = [f"{len(frame):,} of {table.n_rows:,} rows were drawn."]
        else:
            frame = read_table(rows)
        source = model.labeled(frame, Path(rows).name)
        notes += [*source.notes, *model.notes(frame)]
    findings = model.diagnose_source(source, seed=seed, progress=progress)
    if output is not None:
        content = [finding.plain() for finding in findings]
        text = json.dumps({"findings": content, "notes": notes}, indent=2, ensure_ascii=False)
        write_whole(output, text + "\n")
    return findings, notes
