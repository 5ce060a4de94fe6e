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
from invlearn.image_features import ImageFeatures, ImageInput, StandardFeatures
from invlearn.networks import MLPSpec, build
from invlearn.tables import Encoder

Features = npt.NDArray[np.float32]

LEAST_SCALE = 0.1
"""Of an image's numbers: what varies less, on pixels of 0 to 255, is no difference."""


class _Inputs:
    """What tables and images share."""

    @property
    def n_features(self) -> int:
        """Width of the rows."""
        raise NotImplementedError

    def network(self, hidden: tuple[int, ...], n_outputs: int) -> MLPSpec:
        """A perceptron over the features; OptionError for widths out of their bounds."""
        try:
            return MLPSpec(n_features=self.n_features, hidden=hidden, n_outputs=n_outputs)
        except ValidationError as error:
            raise OptionError(
                f"Expected hidden layers of 1 to 100,000 units and a billion weights at most, got "
                f"{', '.join(map(str, hidden))}. Make them smaller."
            ) from error


@dataclass(frozen=True)
class TableInputs(_Inputs):
    """A table's columns, encoded."""

    encoder: Encoder

    def matrix(self, frame: pd.DataFrame | None, pixels: npt.NDArray[Any] | None) -> Features:
        """Rows as numbers [n, d]."""
        if frame is None:
            raise OptionError(
                f"Expected a DataFrame: this model was trained on a table, got "
                f"{type(pixels).__name__}. Pass one with the columns trained on."
            )
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


@dataclass(frozen=True)
class ImageInputs(_Inputs):
    """Images of one size, described by some hundred numbers, standardized."""

    image: ImageInput

    @classmethod
    def fit(cls, pixels: npt.NDArray[np.uint8]) -> ImageInputs:
        """Mean and scale of every number over training images [n, channels, height, width]."""
        _, channels, height, width = pixels.shape
        features = ImageFeatures()(torch.from_numpy(pixels)).numpy().astype(np.float64)
        image = ImageInput(
            height=height,
            width=width,
            channels=channels,
            mean=tuple(features.mean(0).tolist()),
            scale=tuple(np.maximum(features.std(0), LEAST_SCALE).tolist()),
        )
        return cls(image)

    def matrix(self, frame: pd.DataFrame | None, pixels: npt.NDArray[Any] | None) -> Features:
        """Rows as numbers [n, d]."""
        if pixels is None:
            raise OptionError("Expected a folder of images: this model was trained on them.")
        expected = (self.image.channels, self.image.height, self.image.width)
        if pixels.shape[1:] != expected:
            raise OptionError(
                f"Expected images of {expected} (channels, height, width), got "
                f"{tuple(pixels.shape[1:])}. Use images like those trained on."
            )
        found: Features = StandardFeatures(self.image)(torch.from_numpy(pixels)).numpy()
        return found

    @property
    def names(self) -> tuple[str, ...] | None:
        """None: images are asked about by patches and channels."""
        return None

    @property
    def n_features(self) -> int:
        """Width of the rows."""
        return self.image.n_features

    @property
    def columns(self) -> dict[str, str]:
        """None: images have no columns."""
        return {}


Inputs = TableInputs | ImageInputs


@dataclass(frozen=True)
class Make:
    """Builds a described network, for the estimators' parameter `network`."""

    spec: MLPSpec

    def __call__(self, n_features: int, n_outputs: int, generator: torch.Generator) -> nn.Module:
        """A network with fresh weights; a perceptron has the width of the rows."""
        update = {"n_features": n_features, "n_outputs": n_outputs}
        return build(self.spec.model_copy(update=update), generator)
