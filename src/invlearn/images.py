"""Images in folders, ``root/environment/class/image``, as one array of small squares."""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from invlearn.errors import DataFileError, EnvironmentsError, OptionError

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP")
"""What Pillow may try; some of its other formats start programs."""

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")

MAX_PIXELS = 2**26
"""Of one image: a small file can claim to unpack into any number."""

BATCH_IMAGES, BATCH_BYTES = 2_000, 2**23
"""At most so many unlabeled images are in memory at once, and so many bytes of their pixels."""

_LAYOUT = "Arrange the images as root/environment/class/image, as in hospital_a/healthy/1.png."


@dataclass(frozen=True)
class ImageRows:
    """The n images of a folder, sorted by environment, class and file name.

    Attributes
    ----------
    x : ndarray [n, 1 (gray) or 3 (RGB), size, size], uint8
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
    with suppress(OSError):
        return any(map(_is_image, Path(path).glob("[!.]*/[!.]*/[!.]*")))
    return False


def read_images(
    root: str | Path, size: int | None = None, channels: int | None = None, fewest_classes: int = 2
) -> ImageRows:
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
    channels : 1 or 3, optional
        By default 1 if every image is stored as gray, else 3.
    fewest_classes : 1 or 2
        One is enough where nothing is learned.

    Raises
    ------
    DataFileError
        No such folder; a file that is no image, truncated, too large or unreadable.
    EnvironmentsError
        No images, some elsewhere than two folders deep, an environment without, too few classes.
    OptionError
        A size or channels out of their bounds.
    """
    _check_shape(size, channels)
    root = Path(root)
    files = _files(root, fewest_classes)
    sides, grays = zip(*map(_side_and_gray, files), strict=True)
    if size is None:
        size = 32 if statistics.median(sides) <= 48 else 64
    return ImageRows(
        _squares(files, channels or (1 if all(grays) else 3), size),
        labels=tuple(path.parent.name for path in files),
        environments=tuple(path.parent.parent.name for path in files),
        paths=tuple(path.relative_to(root).as_posix() for path in files),
    )


def read_unlabelled_images(
    root: str | Path, size: int, channels: int
) -> Iterator[tuple[npt.NDArray[np.uint8], tuple[str, ...]]]:
    """Read an image, or every one in any folder below a root, in batches; as `read_images` does.

    Parameters
    ----------
    root : path
    size : int, 8 to 1024
    channels : 1 or 3

    Yields
    ------
    (ndarray [n, channels, size, size] of uint8, tuple of n str)
        At most 2,000 images and 8 MiB, and their paths, sorted, relative to the root.

    Raises
    ------
    DataFileError, OptionError
        As `read_images`; no images.
    """
    _check_shape(size, channels)
    root = Path(root)
    files = _some_files(root)
    above = root if root.is_dir() else root.parent
    rows = min(BATCH_IMAGES, max(BATCH_BYTES // (channels * size**2), 1))
    for start in range(0, len(files), rows):
        batch = files[start : start + rows]
        paths = tuple(path.relative_to(above).as_posix() for path in batch)
        yield _squares(batch, channels, size), paths


def image_paths(root: str | Path, *, labeled: bool = True) -> tuple[str, ...]:
    """Where the images below a root are, relative to it, in the order in which they are read.

    Parameters
    ----------
    root : path
        A folder, or an image if not `labeled`.
    labeled : bool
        Whether they have to lie as root/environment/class/image.

    Raises
    ------
    DataFileError, EnvironmentsError
        As `read_images` and `read_unlabelled_images`.
    """
    root = Path(root)
    files = _files(root, 1) if labeled else _some_files(root)
    above = root if root.is_dir() else root.parent
    return tuple(path.relative_to(above).as_posix() for path in files)


def _some_files(root: Path) -> list[Path]:
    """The image files in order, of which there is one at least."""
    files = _anywhere(root)
    if not files:
        raise DataFileError(
            f"Expected an image or a folder of images at {str(root)!r}, found none that ends in "
            f"{', '.join(ENDINGS)}. Check the path."
        )
    return files


def _check_shape(size: int | None, channels: int | None) -> None:
    if size is not None and not 8 <= size <= 1024:
        raise OptionError(f"Expected a size of 8 to 1024 pixels, got {size}. Choose one of these.")
    if channels not in (None, 1, 3):
        raise OptionError(f"Expected 1 channel (gray) or 3 (RGB), got {channels}. Choose 1 or 3.")


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in ENDINGS and not path.is_dir()


def _is_folder(path: Path) -> bool:
    """Whether a path is one to look into: a link to a folder around it leads round for ever."""
    around = path.parents if path.is_symlink() else ()
    return path.is_dir() and not any(map(path.samefile, around))


def _anywhere(root: Path) -> list[Path]:
    """The image files in order: the root, if it is one, or all in visible folders below it."""
    try:
        found = [root] if root.exists() and _is_image(root) else []
        waiting = [root] if root.is_dir() else []
        for folder in waiting:
            inside = _visible(folder)
            found += filter(_is_image, inside)
            waiting += filter(_is_folder, inside)
    except OSError as error:
        raise DataFileError(
            f"Expected readable folders in {str(root)!r}, got: {error.strerror} "
            f"({str(error.filename)!r}). Check their permissions."
        ) from error
    return sorted(found)


def _files(root: Path, fewest_classes: int) -> list[Path]:
    """The image files in order, none of which may lie where it would be passed over."""
    files = _anywhere(root)
    if not root.is_dir():
        got = "a file" if root.exists() else "nothing"
        raise DataFileError(f"Expected a folder of images at {str(root)!r}, found {got}. {_LAYOUT}")
    parts = [path.relative_to(root).parts for path in files]
    stray = [f"{'/'.join(part)!r}, {len(part) - 1} deep" for part in parts if len(part) != 3]
    if stray or not files:
        found = stray[0] if stray else f"none that ends in {', '.join(ENDINGS)}"
        raise EnvironmentsError(
            f"Expected images two folders deep in {str(root)!r}, found {found}. {_LAYOUT}"
        )
    empty = set(filter(_is_folder, _visible(root))) - {path.parents[1] for path in files}
    if empty:
        raise EnvironmentsError(
            f"Expected images in every environment, found none in {str(min(empty))!r}. "
            "Add some or remove the folder."
        )
    names = sorted({path.parent.name for path in files})
    if len(names) < fewest_classes:
        raise EnvironmentsError(
            f"Expected at least two classes, found only {names[0]!r} in {str(root)!r}. {_LAYOUT}"
        )
    return files


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
        return min(image.size), image.mode in ("1", "L", "LA") or image.mode.startswith("I;16")


def _squares(files: Sequence[Path], channels: int, size: int) -> npt.NDArray[np.uint8]:
    square = np.dtype((np.uint8, (channels, size, size)))
    return np.fromiter((_square(path, channels, size) for path in files), square, len(files))


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
