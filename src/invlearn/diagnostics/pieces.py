"""What of a row a diagnosis asks about: its columns; of an image, patches and channels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from invlearn.diagnostics.effect_estimates import column_names
from invlearn.environments import Environments
from invlearn.errors import OptionError
from invlearn.features import ChannelImages, Features, as_rows

PATCHES, PATCH_PIXELS = 8, 4
"""At most so many patches across and down an image, of so many pixels a side at least."""

CHANNELS = {1: ("gray",), 3: ("red", "green", "blue")}

_PLACES = (("upper", "middle", "lower"), ("left", "middle", "right"))


@dataclass(frozen=True)
class Piece:
    """A piece of a row that is looked at as one.

    Attributes
    ----------
    name : str
        As sentences and tables show it.
    columns : Tensor [p], int64
        Its places in the row laid out flat.
    """

    name: str
    columns: Tensor


def pieces_of(environments: Environments, feature_names: Sequence[str] | None) -> list[Piece]:
    """The pieces of these rows.

    Parameters
    ----------
    environments : Environments
        Rows [n, d], or images [n, height, width], [n, channels, height, width] or square
        `ChannelImages`.
    feature_names : sequence of str, optional
        One per column of rows [n, d].

    Returns
    -------
    list of Piece
        One for each column. Of images a grid of patches over all channels, at most 8 x 8 of at
        least 4 x 4 pixels each, and the channels if there are several; none of rows of
        another shape.

    Raises
    ------
    OptionError
        Names for images, or another number of them than columns.

    Examples
    --------
    >>> images = Environments.from_arrays(torch.zeros(4, 3, 8, 8), [0, 1, 0, 1], list("aabb"))
    >>> [piece.name for piece in pieces_of(images, None)][:2]
    ['rows 1-4, columns 1-4 (upper left)', 'rows 1-4, columns 5-8 (upper right)']
    >>> [piece.name for piece in pieces_of(images, None)][-1]
    'channel blue'
    """
    row_shape = as_rows(environments.x).row_shape
    if len(row_shape) == 1:
        names = column_names(environments, feature_names)
        return [Piece(name, torch.tensor([j])) for j, name in enumerate(names)]
    if feature_names is not None:
        raise OptionError(
            f"Expected names for columns [n, d], got {len(feature_names)} for images. Leave them "
            "out: patches and channels are named by where they are."
        )
    shape = image_shape(environments.x)
    if shape is None:
        return []
    places = torch.arange(math.prod(shape)).reshape(shape)
    _, height, width = shape
    found = [
        Piece(_named(rows, columns, height, width), places[:, rows, columns].flatten())
        for rows in _cuts(height)
        for columns in _cuts(width)
    ]
    if shape[0] > 1:
        channels = channel_names(shape[0])
        found += [Piece(f"channel {name}", places[c].flatten()) for c, name in enumerate(channels)]
    return found


def image_shape(x: Features) -> tuple[int, int, int] | None:
    """Channels, height and width of rows that are images; None where they are not."""
    shape = as_rows(x).row_shape
    if isinstance(x, ChannelImages):
        side = math.isqrt(shape[1])
        return (shape[0], side, side) if side**2 == shape[1] else None
    if len(shape) == 2:
        return (1, *shape)
    return (shape[0], shape[1], shape[2]) if len(shape) == 3 else None


def channel_names(count: int) -> tuple[str, ...]:
    """What so many channels are called."""
    return CHANNELS.get(count) or tuple(map(str, range(1, count + 1)))


def channel_means(environments: Environments) -> tuple[Environments, list[str]] | None:
    """The same rows with the mean of each channel as columns, and their names; None: no images."""
    shape = image_shape(environments.x)
    if shape is None:
        return None
    x = as_rows(environments.x).dense().reshape(environments.n_rows, shape[0], -1)
    names = [f"average {name}" for name in channel_names(shape[0])]
    return replace(environments, x=x.to(torch.float64).mean(2)), names


def _cuts(side: int) -> list[slice]:
    """A side cut into stretches of nearly equal length."""
    count = max(min(PATCHES, side // PATCH_PIXELS), 1)
    ends = [round(i * side / count) for i in range(count + 1)]
    return [slice(a, b) for a, b in pairwise(ends)]


def _named(rows: slice, columns: slice, height: int, width: int) -> str:
    """Where a patch is, in pixels counted from 1 and in words."""
    thirds = [
        3 * (part.start + part.stop) // (2 * side)
        for part, side in ((rows, height), (columns, width))
    ]
    words = [kind[third] for kind, third in zip(_PLACES, thirds, strict=True)]
    where = "center" if thirds == [1, 1] else " ".join(words)
    return (
        f"rows {rows.start + 1}-{rows.stop}, columns {columns.start + 1}-{columns.stop} ({where})"
    )
