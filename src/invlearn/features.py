"""What the rows of an environment are made of: a tensor, images with one channel, a file's rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from invlearn.errors import EnvironmentsError
from invlearn.stored_rows import StoredRows


class Rows(Protocol):
    """What is asked of n rows of features, however they are stored; `as_rows` gives it."""

    @property
    def in_memory(self) -> bool:
        """Whether a look at the rows reads no file."""

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Rows that can be joined have the same."""

    @property
    def n_features(self) -> int:
        """Numbers of a row that is laid out flat."""

    @property
    def values(self) -> Tensor:
        """The numbers that are stored, [n, ...]."""

    @property
    def channel(self) -> Tensor | None:
        """Of images with one channel, which, [n]."""

    @property
    def n_channels(self) -> int:
        """1 where rows have no channels."""

    def take(self, rows: Tensor) -> Features:
        """The rows at some positions, in memory."""

    def stretch(self, start: int, stop: int) -> Features:
        """The rows from one position up to another; what is on disk stays there."""

    def dense(self) -> Tensor:
        """All rows as an ordinary tensor [n, ...]."""

    def check(self, where: str) -> None:
        """Raise EnvironmentsError where a number cannot be; `where` is said of the rows."""

    def joined(self, parts: list[Any]) -> Features:
        """Rows of this kind after one another."""


@dataclass(frozen=True)
class TensorRows:
    """`Rows` of a tensor [n, ...]."""

    values: Tensor
    in_memory: ClassVar[bool] = True
    channel: ClassVar[None] = None
    n_channels: ClassVar[int] = 1

    @property
    def row_shape(self) -> tuple[int, ...]:
        """As the tensor has it."""
        return self.values.shape[1:]

    @property
    def n_features(self) -> int:
        """Numbers of a row."""
        return math.prod(self.row_shape)

    def take(self, rows: Tensor) -> Tensor:
        """The rows at some positions."""
        return rows_of(self.values, rows)

    def stretch(self, start: int, stop: int) -> Tensor:
        """The rows from one position up to another."""
        return self.values[start:stop]

    def dense(self) -> Tensor:
        """The tensor itself."""
        return self.values

    def check(self, where: str) -> None:
        """Raise EnvironmentsError for NaN or infinity."""
        check_finite("x", where, self.values)

    def joined(self, parts: list[Tensor]) -> Tensor:
        """One tensor."""
        return torch.cat(parts)


@dataclass(frozen=True)
class ChannelImages:
    """Images whose pixels lie in one channel of k, stored as the image and its channel.

    A colored image has one non-zero channel, so a linear layer over the dense image
    ``[k * p]`` equals ``pixels @ W[channel]``: k channels cost no more than one.

    Attributes
    ----------
    pixels : Tensor [n, p]
        Intensities of the one colored channel, flattened.
    channel : Tensor [n], int64
        Which channel, 0 .. n_channels - 1. It stays on the CPU wherever the pixels are: it says
        which products there are to make.
    n_channels : int
        How many channels the dense image has.

    Examples
    --------
    >>> images = ChannelImages(torch.ones(2, 3), torch.tensor([0, 1]), 2)
    >>> images.dense().tolist()
    [[1.0, 1.0, 1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]]
    """

    pixels: Tensor
    channel: Tensor
    n_channels: int
    in_memory: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if len(self.pixels) != len(self.channel):
            raise EnvironmentsError(
                f"Expected one channel per image, got {len(self.pixels)} images and "
                f"{len(self.channel)} channels."
            )

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, rows: slice | Tensor) -> ChannelImages:
        if isinstance(rows, slice):
            return ChannelImages(self.pixels[rows], self.channel[rows], self.n_channels)
        return ChannelImages(
            rows_of(self.pixels, rows), rows_of(self.channel, rows), self.n_channels
        )

    @property
    def dtype(self) -> torch.dtype:
        """Type of the pixels."""
        return self.pixels.dtype

    @property
    def device(self) -> torch.device:
        """Where the pixels are."""
        return self.pixels.device

    @property
    def values(self) -> Tensor:
        """The pixels."""
        return self.pixels

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Channels and pixels of each."""
        return (self.n_channels, *self.pixels.shape[1:])

    def take(self, rows: Tensor) -> ChannelImages:
        """The images at some positions."""
        return self[rows]

    def stretch(self, start: int, stop: int) -> ChannelImages:
        """The images from one position up to another."""
        return self[start:stop]

    def check(self, where: str) -> None:
        """Raise EnvironmentsError for a channel that is not there, NaN or infinity."""
        if bool(((self.channel < 0) | (self.channel >= self.n_channels)).any()):
            raise EnvironmentsError(
                f"Expected channels 0 to {self.n_channels - 1} in {where}, got "
                f"{int(self.channel.min())} to {int(self.channel.max())}. Number the channels "
                "from 0."
            )
        check_finite("x", where, self.pixels)

    def joined(self, parts: list[ChannelImages]) -> ChannelImages:
        """The images of all parts, in order."""
        return ChannelImages(
            torch.cat([part.pixels for part in parts]),
            torch.cat([part.channel for part in parts]),
            self.n_channels,
        )

    @property
    def n_features(self) -> int:
        """Width of the dense rows, k * p."""
        return self.n_channels * self.pixels.shape[1]

    def to(self, target: torch.device | torch.dtype | str) -> ChannelImages:
        """The same images with their pixels on another device or of another type."""
        return ChannelImages(self.pixels.to(target), self.channel, self.n_channels)

    def dense(self) -> Tensor:
        """Rows as an ordinary tensor [n, k * p], channel-major."""
        n, p = self.pixels.shape
        out = self.pixels.new_zeros(n, self.n_channels, p)
        out[torch.arange(n, device=self.device), self.channel.to(self.device)] = self.pixels
        return out.reshape(n, self.n_channels * p)

    def runs(self) -> list[tuple[int, int, int]]:
        """Stretches of rows with one channel, as (start, stop, channel)."""
        if len(self) == 0:
            return []
        inner = torch.nonzero(self.channel[1:] != self.channel[:-1]).flatten() + 1
        cuts = [0, *inner.tolist(), len(self)]
        channels = self.channel[torch.tensor(cuts[:-1])].tolist()
        return list(zip(cuts[:-1], cuts[1:], channels, strict=True))


InMemory = Tensor | ChannelImages
"""What a model is called with."""

Features = InMemory | StoredRows


def as_rows(x: Features) -> Rows:
    """What is asked of rows, of a tensor too.

    Examples
    --------
    >>> as_rows(torch.zeros(3, 2, 2)).n_features
    4
    """
    return TensorRows(x) if isinstance(x, Tensor) else x


def check_finite(what: str, where: str, values: Tensor) -> None:
    """Raise EnvironmentsError for NaN or infinity in the rows of an environment."""
    # A sum is finite unless a value is not (or it overflows): one cheap pass first.
    if not values.is_floating_point() or torch.isfinite(values.sum(dtype=torch.float64)):
        return
    bad = ~torch.isfinite(values).reshape(len(values), -1).all(dim=1)
    if bad.any():
        row = int(torch.nonzero(bad)[0])
        raise EnvironmentsError(
            f"Expected finite numbers, {what} of {where} holds NaN or infinity in "
            f"{int(bad.sum())} row(s), first row {row}. Impute or drop them."
        )


def rows_of(tensor: Tensor, rows: Tensor) -> Tensor:
    """The rows at some positions, or where a mask is true."""
    if rows.dtype == torch.bool:
        return tensor[rows.to(tensor.device)]
    return tensor.index_select(
        0, rows.to(tensor.device, non_blocking=True)
    )  # Several times as fast as indexing.


def width(x: Features) -> int:
    """Number of input features a linear layer over these rows needs."""
    return as_rows(x).n_features


def concatenate(parts: Sequence[Features]) -> Features:
    """Stack rows of the same kind, in order; rows on disk stay there."""
    return as_rows(parts[0]).joined(list(parts))
