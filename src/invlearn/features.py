"""What the rows of an environment are made of: a tensor, or images with one colored channel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast, overload

import torch
from torch import Tensor

from invlearn.errors import EnvironmentsError
from invlearn.stored_rows import StoredRows


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


Features = Tensor | ChannelImages


def rows_of(tensor: Tensor, rows: Tensor) -> Tensor:
    """The rows at some positions, or where a mask is true."""
    if rows.dtype == torch.bool:
        return tensor[rows.to(tensor.device)]
    return tensor.index_select(
        0, rows.to(tensor.device, non_blocking=True)
    )  # Several times as fast as indexing.


def width(x: Features) -> int:
    """Number of input features a linear layer over these rows needs."""
    return x.n_features if isinstance(x, ChannelImages | StoredRows) else int(x[0].numel())


@overload
def concatenate(parts: list[Tensor]) -> Tensor: ...
@overload
def concatenate(parts: list[ChannelImages]) -> ChannelImages: ...
@overload
def concatenate(parts: list[Features]) -> Features: ...
def concatenate(parts: list[Tensor] | list[ChannelImages] | list[Features]) -> Features:
    """Stack rows of the same kind, in order; rows on disk stay there."""
    if all(isinstance(part, StoredRows) for part in parts):
        return StoredRows.joined(cast(list[StoredRows], parts)).as_features()
    images = [part for part in parts if isinstance(part, ChannelImages)]
    if len(images) == len(parts):
        return ChannelImages(
            torch.cat([part.pixels for part in images]),
            torch.cat([part.channel for part in images]),
            images[0].n_channels,
        )
    return torch.cat([part for part in parts if isinstance(part, Tensor)])
