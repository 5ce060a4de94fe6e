"""How a user's rows become a network's input: learned on training rows, kept with the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from pydantic import ValidationError
from torch import nn

from invlearn.errors import OptionError
from invlearn.images import ImageInput
from invlearn.networks import ConvNetSpec, MLPSpec, NetworkSpec, build
from invlearn.tables import Encoder

Features = npt.NDArray[np.float32]


@dataclass(frozen=True)
class TableInputs:
    """A table's columns, encoded."""

    encoder: Encoder

    def matrix(self, frame: pd.DataFrame | None, pixels: npt.NDArray[Any] | None) -> Features:
        """Rows as numbers [n, d]."""
        if frame is None:
            raise OptionError("Expected a table: this model was trained on one, got images.")
        return self.encoder.transform(frame)

    @property
    def names(self) -> tuple[str, ...] | None:
        """The features' names."""
        return self.encoder.feature_names

    @property
    def n_features(self) -> int:
        """Width of the rows."""
        return self.encoder.n_features

    @property
    def columns(self) -> dict[str, str]:
        """How each column is read: its kind, or 'left out: ' and why."""
        kinds = {columns.column: columns.kind for columns in self.encoder.encodings}
        return kinds | {name: f"left out: {why}" for name, why in self.encoder.dropped.items()}

    def network(self, hidden: tuple[int, ...], n_outputs: int) -> NetworkSpec:
        """A perceptron over the features; OptionError for widths out of their bounds."""
        try:
            return MLPSpec(n_features=self.n_features, hidden=hidden, n_outputs=n_outputs)
        except ValidationError as error:
            raise OptionError(
                f"Expected hidden layers of 1 to 100,000 units and a billion weights at most, got "
                f"{', '.join(map(str, hidden))}. Make them smaller."
            ) from error


@dataclass(frozen=True)
class ImageInputs:
    """Images of one size, their channels standardized."""

    image: ImageInput

    @classmethod
    def fit(cls, pixels: npt.NDArray[np.uint8]) -> ImageInputs:
        """Mean and scale of every channel over training images [n, channels, height, width]."""
        _, channels, height, width = pixels.shape
        mean = pixels.mean((0, 2, 3), dtype=np.float64)
        scale = np.maximum(pixels.std((0, 2, 3), dtype=np.float64), 1.0)
        return cls(
            ImageInput(
                height=height,
                width=width,
                channels=channels,
                mean=tuple(mean.tolist()),
                scale=tuple(scale.tolist()),
            )
        )

    def matrix(self, frame: pd.DataFrame | None, pixels: npt.NDArray[Any] | None) -> Features:
        """Rows as numbers [n, channels * height * width]."""
        if pixels is None:
            raise OptionError("Expected a folder of images: this model was trained on them.")
        expected = (self.image.channels, self.image.height, self.image.width)
        if pixels.shape[1:] != expected:
            raise OptionError(
                f"Expected images of {expected} (channels, height, width), got "
                f"{tuple(pixels.shape[1:])}. Use images like those trained on."
            )
        mean, scale = (
            np.array(values, np.float32)[:, None, None]
            for values in (self.image.mean, self.image.scale)
        )
        return ((pixels.astype(np.float32) - mean) / scale).reshape(len(pixels), -1)

    @property
    def names(self) -> tuple[str, ...] | None:
        """None: a pixel has no meaning of its own."""
        return None

    @property
    def n_features(self) -> int:
        """Width of the rows."""
        return self.image.channels * self.image.height * self.image.width

    @property
    def columns(self) -> dict[str, str]:
        """None: images have no columns."""
        return {}

    def network(self, hidden: tuple[int, ...], n_outputs: int) -> NetworkSpec:
        """A small convolutional network; `hidden` is for tables."""
        return ConvNetSpec(
            channels=self.image.channels,
            height=self.image.height,
            width=self.image.width,
            n_outputs=n_outputs,
        )


Inputs = TableInputs | ImageInputs


@dataclass(frozen=True)
class Make:
    """Builds a described network, for the estimators' parameter `network`."""

    spec: NetworkSpec

    def __call__(self, n_features: int, n_outputs: int, generator: torch.Generator) -> nn.Module:
        """A network with fresh weights; a perceptron has the width of the rows."""
        update = {"n_outputs": n_outputs}
        if isinstance(self.spec, MLPSpec):
            update["n_features"] = n_features
        return build(self.spec.model_copy(update=update), generator)
