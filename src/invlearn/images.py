"""Images in folders, ``root/environment/class/image``, as one array of small squares."""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError
from pydantic import BaseModel, ConfigDict, FailFast, Field, model_validator

from invlearn.errors import DataFileError, EnvironmentsError, OptionError

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP")
"""What Pillow may try; some of its other formats start programs."""

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")

MAX_PIXELS = 2**26
"""Of one image: a small file can claim to unpack into any number."""

_LAYOUT = "Arrange the images as root/environment/class/image, as in hospital_a/healthy/1.png."


class ImageInput(BaseModel):
    """How images become a network's input: ``(pixel - mean) / scale`` in each channel.

    Attributes
    ----------
    height, width, channels : int
    mean, scale : tuple of float, one per channel

    Raises
    ------
    pydantic.ValidationError
        A number out of its bounds, or not one mean and one scale per channel.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    height: Annotated[int, Field(ge=1, le=1024)]
    width: Annotated[int, Field(ge=1, le=1024)]
    channels: Annotated[int, Field(ge=1, le=64)]
    mean: Annotated[tuple[float, ...], Field(strict=False, max_length=64), FailFast()]
    scale: Annotated[
        tuple[Annotated[float, Field(gt=0)], ...], Field(strict=False, max_length=64), FailFast()
    ]

    @model_validator(mode="after")
    def _one_number_per_channel(self) -> Self:
        if not len(self.mean) == len(self.scale) == self.channels:
            raise ValueError(
                f"expected a mean and a scale for each of {self.channels} channel(s), got "
                f"{len(self.mean)} and {len(self.scale)}"
            )
        return self


@dataclass(frozen=True)
class ImageRows:
    """The n images of a folder, sorted by environment, class and file name.

    Attributes
    ----------
    x : ndarray [n, channels, size, size], uint8
        One channel if every image is stored as gray, else three: red, green, blue.
    labels : tuple of n str
        The class of each image.
    environments : tuple of n str
    paths : tuple of n str
        Files, relative to the root, with '/' between folders.
    """

    x: npt.NDArray[np.uint8]
    labels: tuple[str, ...]
    environments: tuple[str, ...]
    paths: tuple[str, ...]


def is_image_folder(path: str | Path) -> bool:
    """Whether a path is a directory whose sub-subfolders hold image files.

    Examples
    --------
    >>> is_image_folder("no such folder")
    False
    """
    try:
        return any(
            _is_image(file)
            for environment in _folders(Path(path))
            for label in _folders(environment)
            for file in _visible(label)
        )
    except OSError:
        return False


def read_images(root: str | Path, size: int | None = None) -> ImageRows:
    """Read the images of ``root/environment/class/`` as squares of one size.

    Of an image that is not square the middle is kept, scaled bilinearly. PNG, JPEG, BMP, GIF,
    TIFF and WebP are read (the first frame of several) and turned upright as their EXIF says;
    transparency is dropped. Hidden files and files of other endings are skipped.

    Parameters
    ----------
    root : path
    size : int, 8 to 1024, optional
        Side of the squares in pixels. By default 32 if the median shorter side of the images is
        at most 48, else 64.

    Raises
    ------
    DataFileError
        No such folder; a file that is no image, truncated, too large or unreadable.
    EnvironmentsError
        No images, images elsewhere than two folders deep, an environment without images, or
        fewer than two classes.
    OptionError
        A size out of its bounds.
    """
    if size is not None and not 8 <= size <= 1024:
        raise OptionError(f"Expected a size of 8 to 1024 pixels, got {size}. Choose one of these.")
    root = Path(root)
    try:
        if not root.is_dir():
            found = "a file" if root.exists() else "nothing"
            raise DataFileError(
                f"Expected a folder of images at {str(root)!r}, found {found}. {_LAYOUT}"
            )
        files = _files(root)
    except OSError as error:
        raise DataFileError(
            f"Expected readable folders in {str(root)!r}, got: {error.strerror} "
            f"({str(error.filename)!r}). Check their permissions."
        ) from error
    sides, grays = zip(*map(_side_and_gray, files), strict=True)
    if size is None:
        size = 32 if statistics.median(sides) <= 48 else 64
    channels = 1 if all(grays) else 3
    x = np.empty((len(files), channels, size, size), dtype=np.uint8)
    for row, path in enumerate(files):
        x[row] = _square(path, channels, size)
    parts = [path.relative_to(root).parts for path in files]
    return ImageRows(
        x,
        labels=tuple(label for _, label, _ in parts),
        environments=tuple(environment for environment, _, _ in parts),
        paths=tuple("/".join(part) for part in parts),
    )


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _folders(folder: Path) -> list[Path]:
    return [path for path in _visible(folder) if path.is_dir()]


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in ENDINGS and not path.is_dir()


def _files(root: Path) -> list[Path]:
    """The image files in order, none of which may lie where it would be passed over."""
    environments = {folder: _folders(folder) for folder in _folders(root)}
    labels = [label for folders in environments.values() for label in folders]
    below = [folder for label in labels for folder in _folders(label)]
    for folder in [root, *environments, *below]:
        stray = next(filter(_is_image, _visible(folder)), None)
        if stray is not None:
            depth = len(stray.relative_to(root).parts) - 1
            raise EnvironmentsError(
                f"Expected every image two folders deep in {str(root)!r}, found "
                f"{str(stray.relative_to(root))!r}, {depth} deep. {_LAYOUT}"
            )
    files = {label: [*filter(_is_image, _visible(label))] for label in labels}
    if not any(files.values()):
        raise EnvironmentsError(
            f"Expected images two folders deep in {str(root)!r}, found none that ends in "
            f"{', '.join(ENDINGS)}. {_LAYOUT}"
        )
    for folder, folders in environments.items():
        if not any(files[label] for label in folders):
            raise EnvironmentsError(
                f"Expected images in every environment, found none in {str(folder)!r}. "
                "Add some or remove the folder."
            )
    names = sorted({label.name for label in labels if files[label]})
    if len(names) < 2:
        raise EnvironmentsError(
            f"Expected at least two classes, found only {names[0]!r} in {str(root)!r}. {_LAYOUT}"
        )
    return [path for paths in files.values() for path in paths]


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """An image whose header is read; whatever breaks in it is told in one line."""
    try:
        str(path).encode()
        if not path.is_file():
            raise ValueError("not a regular file")
        with warnings.catch_warnings():
            # Pillow warns of oddities in metadata; sizes are bounded below.
            warnings.simplefilter("ignore")
            with Image.open(path, formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise ValueError(f"{image.width} x {image.height} pixels are too many")
                if image.mode in ("I", "F"):
                    raise ValueError("32 bits per pixel have no known range; save it with 8 or 16")
                yield image
    except UnidentifiedImageError as error:
        raise DataFileError(
            f"Expected an image, {str(path)!r} is none of {', '.join(FORMATS)}. "
            "Remove or replace the file."
        ) from error
    except Exception as error:  # Decoders raise all kinds, struct.error and IndexError included.
        raise DataFileError(
            f"Expected a readable image, got {str(path)!r}: {str(error)[:200]!r}. "
            "Remove or replace the file."
        ) from error


def _side_and_gray(path: Path) -> tuple[int, bool]:
    with _opened(path) as image:
        gray = image.mode in ("1", "L", "LA") or image.mode.startswith("I;16")
        return min(image.size), gray


def _square(path: Path, channels: int, size: int) -> npt.NDArray[np.uint8]:
    """The middle of an image [channels, size, size]."""
    with _opened(path) as image:
        image.load()
        upright: Image.Image = image
        with suppress(Exception):  # Broken metadata does not make the pixels worse.
            upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I;16"):  # Pillow would clip these to white.
            upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
        upright = upright.convert("L" if channels == 1 else "RGB")
        side = min(upright.size)
        left, top = (upright.width - side) // 2, (upright.height - side) // 2
        # Cropped first: scaled first, a line of one pixel's width would become an enormous image.
        middle = upright.crop((left, top, left + side, top + side))
        pixels = np.asarray(middle.resize((size, size), Image.Resampling.BILINEAR))
        return pixels.reshape(size, size, channels).transpose(2, 0, 1)
