"""Images as rows of a table whose columns somebody else's network computed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from invlearn.errors import DataFileError, EnvironmentsError, OptionError
from invlearn.images import image_paths, read_unlabelled_images
from invlearn.tables import read_table

SIZE = 224
"""Side in pixels of the images that a callable is given, as pretrained networks take them."""

FILE, CLASS, ENVIRONMENT = "file", "class", "environment"

FeaturesOf: TypeAlias = str | Path | Callable[[Tensor], Any]
"""A table of features by file, or what makes features [n, d] of images [n, 3, size, size]."""


def image_table(
    root: str | Path, features: FeaturesOf, *, labeled: bool = True, size: int = SIZE
) -> pd.DataFrame:
    """Images in folders as a table: a row per image, features of them as columns.

    Parameters
    ----------
    root : path
        Images as root/environment/class/*; in any layout if not `labeled`.
    features : path or callable
        A Parquet, CSV or Feather file with a column 'file' (the image's path relative to the root,
        with '/' between folders) and columns of numbers, a row for every image and no other; or
        ``features(images)`` that gives an array or Tensor [n, d] for images [n, 3, size, size],
        uint8, RGB, at most 8 MiB at a time.
    labeled : bool
        Whether the folders say environments and classes.
    size : int
        Side of the squares that a callable is given, as `read_images` cuts them.

    Returns
    -------
    DataFrame [n]
        Indexed by file: the features and, if labeled, 'class' and 'environment'.

    Raises
    ------
    DataFileError, EnvironmentsError, OptionError
        Images that cannot be read, features that are missing, doubled, of no image or no numbers.

    Examples
    --------
    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("oslo/cat", "oslo/dog"):
    ...         (Path(folder) / name).mkdir(parents=True)
    ...         Image.new("RGB", (8, 8)).save(Path(folder) / name / "1.png")
    ...     image_table(folder, lambda images: images.float().mean((2, 3)), size=8).shape
    (2, 5)
    """
    paths = image_paths(root, labeled=labeled)
    if callable(features):
        numbers = _computed(features, root, size)
    else:
        numbers = _stored(Path(features), root, paths)
    reserved = [name for name in (CLASS, ENVIRONMENT) if name in numbers.columns]
    if reserved:
        raise OptionError(
            f"Expected features under other names than '{reserved[0]}', which the folders say. "
            "Rename the column."
        )
    found = numbers.astype(np.float32).set_axis(pd.Index(paths, name=FILE))
    values = found.to_numpy()
    bad = ~np.isfinite(values)
    if bad.any():
        row, place = map(int, np.argwhere(bad)[0])
        raise EnvironmentsError(
            f"Expected finite numbers as features, got {float(values[row, place])} in "
            f"'{found.columns[place]}' of '{paths[row]}' ({int(bad.any(1).sum())} image(s) in "
            "all). Compute them anew, or leave the images out."
        )
    if labeled:
        parts = [path.split("/") for path in paths]
        found[CLASS] = [part[1] for part in parts]
        found[ENVIRONMENT] = [part[0] for part in parts]
    return found


def _computed(features: Callable[[Tensor], Any], root: str | Path, size: int) -> pd.DataFrame:
    """What a callable says of all images, batch by batch."""
    parts: list[np.ndarray[Any, Any]] = []
    for x, _ in read_unlabelled_images(root, size, 3):
        with torch.no_grad():
            found = features(torch.from_numpy(x))
        part = found.detach().cpu().numpy() if isinstance(found, Tensor) else np.asarray(found)
        width = parts[0].shape[1] if parts else part.shape[-1] if part.ndim else 0
        if part.shape != (len(x), width) or not width or part.dtype.kind not in "biuf":
            raise OptionError(
                f"Expected numbers [{len(x)}, d] as features of {len(x)} images, got "
                f"{part.dtype} of shape {part.shape}. Return a row of d numbers for every image."
            )
        parts.append(part)
    numbers = np.concatenate(parts)
    return pd.DataFrame(numbers, columns=[f"feature {j + 1}" for j in range(numbers.shape[1])])


def _stored(file: Path, root: str | Path, paths: Sequence[str]) -> pd.DataFrame:
    """The file's numbers in the order of the images."""
    frame = read_table(file)
    if FILE not in frame.columns:
        got = ", ".join(map(str, frame.columns[:5]))
        raise OptionError(
            f"Expected a column '{FILE}' in '{file}', got {got}. "
            f"Write there each image's path relative to '{root}', such as '{paths[0]}'."
        )
    names, numbers = frame[FILE].astype(str), frame.drop(columns=FILE)
    for name in numbers.columns:
        if not pd.api.types.is_numeric_dtype(numbers[name]):
            raise OptionError(
                f"Expected numbers beside '{FILE}' in '{file}', column '{name}' holds "
                f"{numbers[name].dtype}. Drop it."
            )
    if not len(numbers.columns):
        raise OptionError(f"Expected columns of numbers beside '{FILE}' in '{file}', got none.")
    for what, which, remedy in (
        ("one row for each image", names[names.duplicated()], "Remove all but one."),
        ("rows of images that are there", names[~names.isin(paths)], "Remove them."),
        (
            "a row for each image",
            pd.Series(sorted(set(paths) - set(names)), dtype=object),
            "Add them, or move the images elsewhere.",
        ),
    ):
        if len(which):
            got = "nothing" if what == "a row for each image" else "one too many"
            raise DataFileError(
                f"Expected {what} below '{root}' in '{file}', got {got} for '{which.iloc[0]}' "
                f"({len(which)} in all). {remedy}"
            )
    return numbers.set_axis(pd.Index(names)).loc[list(paths)]
