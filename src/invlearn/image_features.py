"""Images as a few hundred numbers: how bright each part is, and which edges it has."""

from __future__ import annotations

import math
from typing import Annotated, Self

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, FailFast, Field, model_validator
from torch import Tensor, nn

CELLS = 4
"""The image is cut into so many cells across and down."""

DIRECTIONS = 6
"""Of edges, 30 degrees apart."""

SCALES = {1: "fine", 2: "coarse"}
"""Edges are looked for in the image, and in the image with sides half as long."""

_SHARPNESS = 8
"""An edge counts for a direction by the cosine to this power."""

LIMIT = 10.0
"""Standard deviations that a number may be away from its mean, as a table's may."""

_AT_ONCE = 2**18
"""Values of images that are worked on together: they stay in cache."""

_MOST = 2048
"""Numbers of an image that a model's record may hold; 64 channels have 1216."""


class ImageInput(BaseModel):
    """How images become a network's input: what `ImageFeatures` gives, ``(f - mean) / scale``.

    Attributes
    ----------
    height, width, channels : int
    mean, scale : tuple of float, one per feature

    Raises
    ------
    pydantic.ValidationError
        A number out of its bounds, or not one mean and one scale per feature.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    height: Annotated[int, Field(ge=8, le=1024)]
    width: Annotated[int, Field(ge=8, le=1024)]
    channels: Annotated[int, Field(ge=1, le=64)]
    mean: Annotated[tuple[float, ...], Field(strict=False, max_length=_MOST), FailFast()]
    scale: Annotated[
        tuple[Annotated[float, Field(gt=0)], ...],
        Field(strict=False, max_length=_MOST),
        FailFast(),
    ]

    @property
    def n_features(self) -> int:
        """How many numbers describe an image."""
        return CELLS**2 * (self.channels + len(SCALES) * DIRECTIONS)

    @model_validator(mode="after")
    def _one_number_per_feature(self) -> Self:
        if not len(self.mean) == len(self.scale) == self.n_features:
            raise ValueError(
                f"expected a mean and a scale for each of {self.n_features} features, got "
                f"{len(self.mean)} and {len(self.scale)}"
            )
        return self


class ImageFeatures(nn.Module):
    r"""Numbers [n, d] that describe images [n, channels, height, width], learned from nothing.

    In each cell of a 4 x 4 grid: the mean of every channel, and the root of the mean over its
    pixels of

    .. math:: m \, |\cos(\phi - \phi_k)|^8

    for six directions φ_k, with m and φ the size and angle of the gradient (that of the channel
    where it is largest), in the image and in the image at half its size. That is a histogram of
    oriented gradients, less its normalization over blocks. d is 16 (channels + 12).

    References
    ----------
    Dalal, Triggs (2005), "Histograms of oriented gradients for human detection".

    Examples
    --------
    >>> ImageFeatures()(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 240])
    """

    def forward(self, images: Tensor) -> Tensor:
        """Describe the images."""
        rows = max(1, _AT_ONCE // math.prod(images.shape[1:]))
        return torch.cat([_described(part.float()) for part in torch.split(images, rows)])


class StandardFeatures(nn.Module):
    """Images [n, channels, height, width] as the numbers [n, d] that a model of them reads."""

    mean: Tensor
    scale: Tensor

    def __init__(self, image: ImageInput) -> None:
        super().__init__()
        self.features = ImageFeatures()
        self.register_buffer("mean", torch.tensor(image.mean), persistent=False)
        self.register_buffer("scale", torch.tensor(image.scale), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Describe and standardize the images."""
        described: Tensor = self.features(images)
        return ((described - self.mean) / self.scale).clamp(-LIMIT, LIMIT)


def _described(images: Tensor) -> Tensor:
    parts = [F.adaptive_avg_pool2d(images, CELLS)]
    for scale in SCALES:
        parts.append(_edges(F.avg_pool2d(images, scale) if scale > 1 else images))
    return torch.cat([part.flatten(1) for part in parts], 1)


def _edges(images: Tensor) -> Tensor:
    """How much edge there is in each direction and cell [n, directions, cells, cells]."""
    padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
    across = padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]
    down = padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]
    squared = across * across + down * down
    largest = squared[:, :1]
    x, y = across[:, :1], down[:, :1]
    for c in range(1, images.shape[1]):  # Several times as fast as argmax.
        larger = squared[:, c : c + 1] > largest
        largest = torch.where(larger, squared[:, c : c + 1], largest)
        x = torch.where(larger, across[:, c : c + 1], x)
        y = torch.where(larger, down[:, c : c + 1], y)
    across, down, size = x, y, largest.sqrt()
    unit = size.clamp(min=1e-6)
    across, down = across / unit, down / unit
    cells = []
    for k in range(DIRECTIONS):
        angle = math.pi * k / DIRECTIONS
        along = across * math.cos(angle) + down * math.sin(angle)
        for _ in range(int(math.log2(_SHARPNESS))):
            along = along * along
        cells.append(F.adaptive_avg_pool2d(size * along, CELLS))
    return torch.cat(cells, 1).sqrt()
