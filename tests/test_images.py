"""Image folders: pixels, order, layouts, and files that are no images."""

from __future__ import annotations

import io
import os
import random
import signal
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from invlearn.errors import DataFileError, EnvironmentsError, OptionError
from invlearn.images import is_image_folder, read_images, read_unlabelled_images

LAYOUT = "Arrange the images as root/environment/class/image, as in hospital_a/healthy/1.png."
FORMATS = ["png", "jpg", "bmp", "gif", "tif", "webp"]


def noise(height, width, channels=3, seed=0):
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def put(path, pixels=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = (
        pixels
        if isinstance(pixels, Image.Image)
        else Image.fromarray(noise(12, 12) if pixels is None else pixels)
    )
    image.save(path, **options)


@pytest.fixture
def root(tmp_path):
    """Two environments of two classes, one image each."""
    for i, name in enumerate(["a/cat", "a/dog", "b/cat", "b/dog"]):
        put(tmp_path / "root" / name / "1.png", noise(12, 12, seed=i))
    return tmp_path / "root"


def refusal(root, kind=DataFileError, **options):
    with pytest.raises(kind) as caught:
        read_images(root, **options)
    message = str(caught.value)
    assert message.isprintable(), message
    return message


# What is read


def test_square_images_of_the_size_come_through_untouched(root):
    rows = read_images(root, 12)
    assert rows.x.shape == (4, 3, 12, 12)
    assert rows.x.dtype == np.uint8
    for i, x in enumerate(rows.x):
        assert np.array_equal(x.transpose(1, 2, 0), noise(12, 12, seed=i))
    assert rows.environments == ("a", "a", "b", "b")
    assert rows.labels == ("cat", "dog", "cat", "dog")
    assert rows.paths == ("a/cat/1.png", "a/dog/1.png", "b/cat/1.png", "b/dog/1.png")


def test_order_is_by_name_whatever_the_disk_says(root, monkeypatch):
    for name in ("a/cat/10.PNG", "a/cat/2.png", "a-b/dog/x.png", "B/cat/x.png"):
        put(root / name)
    expected = (
        "B/cat/x.png",
        "a/cat/1.png",
        "a/cat/10.PNG",
        "a/cat/2.png",
        "a/dog/1.png",
        "a-b/dog/x.png",
        "b/cat/1.png",
        "b/dog/1.png",
    )
    first = read_images(root)
    assert first.paths == expected
    listing = type(root).iterdir
    monkeypatch.setattr(type(root), "iterdir", lambda path: reversed(list(listing(path))))
    again = read_images(root)
    assert again.paths == expected
    assert np.array_equal(again.x, first.x)


@pytest.mark.parametrize("ending", [*FORMATS, "jpeg", "tiff", "JPG"])
def test_every_format_is_read(ending, root):
    colors = np.zeros((16, 16, 3), np.uint8)
    colors[:, :, 0], colors[:, :, 1] = 255, 128
    put(root / "a/cat" / f"0.{ending}", colors)
    x = read_images(root, 16).x[0]
    assert np.abs(x.astype(int) - np.array([255, 128, 0])[:, None, None]).max() <= 3


@pytest.mark.parametrize(("height", "width"), [(20, 31), (31, 20), (40, 40), (9, 8)])
def test_the_middle_is_kept_and_scaled_bilinearly(height, width, root):
    pixels = noise(height, width, seed=9)
    put(root / "a/cat/0.png", pixels)
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    middle = Image.fromarray(pixels[top : top + side, left : left + side])
    expected = np.asarray(middle.resize((10, 10), Image.Resampling.BILINEAR))
    assert np.array_equal(read_images(root, 10).x[0].transpose(1, 2, 0), expected)


def test_halving_averages_neighbors(root):
    """Bilinear with Pillow's antialiasing: weights 1, 3, 3, 1 along each side."""
    pixels = noise(16, 16, 1)
    put(root / "a/cat/0.png", pixels)
    weights = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64
    expected = (pixels[3:7, 5:9] * weights).sum()
    for channel in read_images(root, 8).x[0]:
        assert abs(channel[2, 3] - expected) <= 1


@pytest.mark.parametrize(
    ("sides", "size"),
    [([48, 48, 48], 32), ([48, 48, 49], 32), ([47, 49, 49], 64), ([48, 49], 64), ([200], 64)],
)
def test_the_default_size_follows_the_median_shorter_side(sides, size, tmp_path):
    for i, side in enumerate(sides):
        for label in ("cat", "dog"):
            put(tmp_path / "a" / label / f"{i}.png", noise(side, side + 30 * i, 1))
    assert read_images(tmp_path).x.shape[2:] == (size, size)


def test_one_channel_if_every_image_is_gray(root):
    for path in root.rglob("*.png"):
        put(path, noise(12, 12, 1))
    put(root / "a/cat/2.png", Image.fromarray(noise(12, 12, 1) > 127))
    put(root / "a/cat/3.png", Image.fromarray(noise(12, 12, 2), "LA"))
    x = read_images(root, 12).x
    assert x.shape == (6, 1, 12, 12)
    assert np.array_equal(x[0, 0], noise(12, 12, 1))
    assert np.array_equal(x[1, 0], np.where(noise(12, 12, 1) > 127, 255, 0))
    assert np.array_equal(x[2, 0], noise(12, 12, 2)[:, :, 0])
    put(root / "b/dog/2.png", noise(12, 12))
    x = read_images(root, 12).x
    assert x.shape == (7, 3, 12, 12)
    assert all(np.array_equal(channel, noise(12, 12, 1)) for channel in x[0])


def test_channels_asked_for(root):
    gray = read_images(root, 12, channels=1).x
    assert gray.shape == (4, 1, 12, 12)
    expected = noise(12, 12).astype(float) @ [0.299, 0.587, 0.114]
    assert np.abs(gray[0, 0] - expected).max() <= 1
    for path in root.rglob("*.png"):
        put(path, noise(12, 12, 1))
    colored = read_images(root, 12, channels=3).x
    assert colored.shape == (4, 3, 12, 12)
    assert (colored == noise(12, 12, 1)).all()
    for channels in (0, 2, 4):
        assert refusal(root, OptionError, channels=channels) == (
            f"Expected 1 channel (gray) or 3 (RGB), got {channels}. Choose 1 or 3."
        )


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_sixteen_bits_keep_their_range(ending, root):
    for path in root.rglob("*.png"):
        path.unlink()
    deep = np.arange(144, dtype=np.uint16).reshape(12, 12) * 450
    for label in ("cat", "dog"):
        put(root / "a" / label / f"1.{ending}", Image.fromarray(deep))
    (root / "b/cat").rmdir()
    (root / "b/dog").rmdir()
    (root / "b").rmdir()
    assert np.array_equal(read_images(root, 12).x[0, 0], deep // 256)


def test_transparency_palettes_and_cmyk_become_colors(root):
    rgba = np.dstack([noise(12, 12), np.full((12, 12), 100, np.uint8)])
    put(root / "a/cat/2.png", rgba)
    palette = Image.fromarray(noise(12, 12)).quantize(8)
    put(root / "a/cat/3.png", palette)
    put(root / "a/cat/4.jpg", Image.new("CMYK", (12, 12), (0, 255, 255, 0)))
    x = read_images(root, 12).x
    assert np.array_equal(x[1].transpose(1, 2, 0), noise(12, 12))
    assert np.array_equal(x[2].transpose(1, 2, 0), np.asarray(palette.convert("RGB")))
    assert np.abs(x[3].astype(int) - np.array([255, 0, 0])[:, None, None]).max() <= 5


def test_photographs_are_turned_upright(root):
    pixels = noise(12, 12)
    exif = Image.Exif()
    exif[0x0112] = 6  # To be turned clockwise by a quarter.
    put(root / "a/cat/2.png", pixels, exif=exif)
    turned = np.rot90(pixels, -1)
    assert np.array_equal(read_images(root, 12).x[1].transpose(1, 2, 0), turned)
    put(root / "a/cat/2.png", pixels, exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff")
    assert np.array_equal(read_images(root, 12).x[1].transpose(1, 2, 0), pixels)


@pytest.mark.parametrize("ending", ["gif", "png", "tif", "webp"])
def test_the_first_frame_counts(ending, root):
    first, second = (Image.new("RGB", (12, 12), color) for color in ("red", "blue"))
    put(root / f"a/cat/0.{ending}", first, save_all=True, append_images=[second])
    x = read_images(root, 12).x[0].astype(int)
    assert np.abs(x - np.array([255, 0, 0])[:, None, None]).max() <= 5


def test_a_class_may_be_missing_and_other_files_are_passed_over(root):
    (root / "b/dog/1.png").unlink()
    for name in ("README.txt", "a/notes.csv", "a/cat/.2.png", "a/cat/Thumbs.db", ".x/y/1.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("no image")
    (root / "a/cat/sub").mkdir()
    (root / "empty.png").mkdir()
    (root / "empty.png").rmdir()
    assert read_images(root).paths == ("a/cat/1.png", "a/dog/1.png", "b/cat/1.png")


def test_links_to_images_are_followed(root, tmp_path):
    put(tmp_path / "store.png", noise(12, 12, seed=7))
    (root / "a/cat/2.png").symlink_to(tmp_path / "store.png")
    assert np.array_equal(read_images(root, 12).x[1].transpose(1, 2, 0), noise(12, 12, seed=7))


# Layouts


def test_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    for name, found in (("none", "nothing"), ("file", "a file")):
        assert refusal(tmp_path / name) == (
            f"Expected a folder of images at '{tmp_path / name}', found {found}. {LAYOUT}"
        )


@pytest.mark.parametrize(
    ("stray", "depth"),
    [("1.png", 0), ("cat/1.JPG", 1), ("a/cat/more/1.png", 3), ("a/cat/more/yet/1.png", 4)],
)
def test_images_at_another_depth_are_not_passed_over(stray, depth, root):
    put(root / stray)
    assert refusal(root, EnvironmentsError) == (
        f"Expected images two folders deep in '{root}', found '{stray}', {depth} deep. {LAYOUT}"
    )


def test_no_images(tmp_path):
    message = (
        f"Expected images two folders deep in '{tmp_path}', found none that ends in .png, .jpg, "
        f".jpeg, .bmp, .gif, .tif, .tiff, .webp. {LAYOUT}"
    )
    assert refusal(tmp_path, EnvironmentsError) == message
    (tmp_path / "a/cat").mkdir(parents=True)
    (tmp_path / "a/cat/1.txt").write_text("")
    assert refusal(tmp_path, EnvironmentsError) == message


def test_an_environment_without_images(root):
    (root / "c/cat").mkdir(parents=True)
    assert refusal(root, EnvironmentsError) == (
        f"Expected images in every environment, found none in '{root / 'c'}'. "
        "Add some or remove the folder."
    )


def test_one_class_is_too_few(root):
    for environment in "ab":
        (root / environment / "dog/1.png").unlink()
    assert refusal(root, EnvironmentsError) == (
        f"Expected at least two classes, found only 'cat' in '{root}'. {LAYOUT}"
    )
    assert read_images(root, fewest_classes=1).paths == ("a/cat/1.png", "b/cat/1.png")


@pytest.mark.parametrize("size", [7, 1025, 0, -1])
def test_sizes_out_of_bounds(size, root):
    assert refusal(root, OptionError, size=size) == (
        f"Expected a size of 8 to 1024 pixels, got {size}. Choose one of these."
    )


def test_a_folder_that_cannot_be_listed(root, monkeypatch):
    listing = type(root).iterdir

    def denied(path):
        if path.name == "dog":
            raise PermissionError(13, "Permission denied", str(path))
        return listing(path)

    monkeypatch.setattr(type(root), "iterdir", denied)
    assert refusal(root) == (
        f"Expected readable folders in '{root}', got: Permission denied ('{root / 'a/dog'}'). "
        "Check their permissions."
    )


def test_is_image_folder(root, tmp_path):
    assert is_image_folder(root)
    assert is_image_folder(str(root))
    assert not is_image_folder(root / "a")
    assert not is_image_folder(root / "a/cat/1.png")
    assert not is_image_folder(tmp_path / "none")
    (tmp_path / "x/y/z.png").mkdir(parents=True)
    (tmp_path / "x/y/.z.png").write_text("")
    (tmp_path / "x/y/table.csv").write_text("")
    assert not is_image_folder(tmp_path / "x")
    for path in root.rglob("1.png"):
        path.unlink()
    assert not is_image_folder(root)


# Any layout


def unlabeled(root, size=12, channels=3):
    """Pixels, paths, and how many images each batch held."""
    batches = list(read_unlabelled_images(root, size, channels))
    pixels = np.concatenate([x for x, _ in batches])
    return pixels, [path for _, paths in batches for path in paths], [len(x) for x, _ in batches]


def unlabeled_refusal(root, kind=DataFileError, size=12, channels=3):
    with pytest.raises(kind) as caught:
        unlabeled(root, size, channels)
    return str(caught.value)


def test_unlabelled_images_are_read_as_labelled_ones(root):
    put(root / "b/dog/0.jpg", noise(20, 31))
    put(root / "a-b/cat/2.tif", noise(20, 31, 1))
    expected = read_images(root, 12)
    x, paths, _ = unlabeled(root)
    assert x.dtype == np.uint8
    assert np.array_equal(x, expected.x)
    assert paths == list(expected.paths)


def test_any_layout_is_read_by_path(tmp_path):
    names = ["1.png", "B/2.png", "a/b/c/d/1.PNG", "a/b/x.png", "a/y.png", "a-b/0.png"]
    for i, name in enumerate(names):
        put(tmp_path / name, noise(12, 12, seed=i))
    for name in (".h/1.png", "a/.h.png", "a/.h/b/1.png", "notes.txt", "a/t.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("no image")
    (tmp_path / "folder.png").mkdir()
    x, paths, _ = unlabeled(tmp_path)
    assert paths == names
    for i, pixels in enumerate(x):
        assert np.array_equal(pixels.transpose(1, 2, 0), noise(12, 12, seed=i))


def test_a_single_image(tmp_path):
    put(tmp_path / "a/.1.png", noise(12, 12, seed=4))
    x, paths, _ = unlabeled(tmp_path / "a/.1.png")
    assert np.array_equal(x[0].transpose(1, 2, 0), noise(12, 12, seed=4))
    assert paths == [".1.png"]
    assert len(x) == 1


def test_unlabelled_images_have_the_channels_asked_for(tmp_path):
    put(tmp_path / "color.png", noise(12, 12))
    put(tmp_path / "gray.png", noise(12, 12, 1))
    x = unlabeled(tmp_path, channels=1)[0]
    assert x.shape == (2, 1, 12, 12)
    assert np.abs(x[0, 0] - noise(12, 12).astype(float) @ [0.299, 0.587, 0.114]).max() <= 1
    assert np.array_equal(x[1, 0], noise(12, 12, 1))
    x = unlabeled(tmp_path, channels=3)[0]
    assert np.array_equal(x[0].transpose(1, 2, 0), noise(12, 12))
    assert (x[1] == noise(12, 12, 1)).all()


@pytest.mark.parametrize(
    ("limit", "value", "sizes"),
    [
        ("BATCH_IMAGES", 3, [3, 3, 1]),
        ("BATCH_BYTES", 2 * 3 * 12 * 12, [2, 2, 2, 1]),
        ("BATCH_BYTES", 1, [1] * 7),
        ("BATCH_IMAGES", 7, [7]),
    ],
)
def test_batches_are_bounded_and_decoded_one_by_one(limit, value, sizes, tmp_path, monkeypatch):
    for i in range(7):
        put(tmp_path / f"{i}.png", noise(12, 12, seed=i))
    whole = unlabeled(tmp_path)
    assert whole[2] == [7]
    monkeypatch.setattr(f"invlearn.images.{limit}", value)
    x, paths, found = unlabeled(tmp_path)
    assert found == sizes
    assert paths == whole[1]
    assert np.array_equal(x, whole[0])
    (tmp_path / "6.png").write_bytes(b"no image")
    batches = read_unlabelled_images(tmp_path, 12, 3)
    for _ in sizes[:-1]:
        next(batches)
    with pytest.raises(DataFileError, match=r"6\.png"):
        next(batches)


@pytest.mark.usefixtures("no_hanging")
def test_links_are_followed_but_not_round(tmp_path):
    put(tmp_path / "root/a/1.png", noise(12, 12, seed=1))
    put(tmp_path / "root/b/2.png", noise(12, 12, seed=2))
    put(tmp_path / "else/3.png", noise(12, 12, seed=3))
    for link, to in [
        ("root/a/b", "root/b"),
        ("root/a/up", "root"),
        ("root/b/a", "root/a"),
        ("root/b/itself", "root/b"),
        ("root/over", "."),
        ("root/out", "else"),
        ("root/b/link.png", "else/3.png"),
    ]:
        (tmp_path / link).symlink_to((tmp_path / to).resolve())
    a, b = ["a/1.png", "a/b/2.png", "a/b/link.png"], ["b/2.png", "b/a/1.png", "b/link.png"]
    assert unlabeled(tmp_path / "root")[1] == [*a, *b, "out/3.png"]


def test_no_unlabelled_images(tmp_path):
    (tmp_path / "a/.hidden").mkdir(parents=True)
    put(tmp_path / "a/.hidden/1.png")
    (tmp_path / "table.csv").write_text("a,b")
    for name in ("a", "table.csv", "none.png", "none"):
        assert unlabeled_refusal(tmp_path / name) == (
            f"Expected an image or a folder of images at '{tmp_path / name}', found none that ends "
            "in .png, .jpg, .jpeg, .bmp, .gif, .tif, .tiff, .webp. Check the path."
        )


def test_unlabelled_files_that_are_no_images_are_refused_as_labelled_ones(root, monkeypatch):
    path = root / "a/cat/0.png"
    for content in (b"", b"no image", encoded("png")[:200], png_claiming(8193, 8193)):
        path.write_bytes(content)
        message = refusal(root, size=12)
        assert unlabeled_refusal(root) == unlabeled_refusal(path) == message
    for options in ({"size": 7}, {"size": 1025}, {"channels": 2}):
        message = refusal(root, OptionError, **options)
        assert unlabeled_refusal(root, OptionError, **options) == message

    def denied(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(type(root), "iterdir", denied)
    assert unlabeled_refusal(root) == (
        f"Expected readable folders in '{root}', got: Permission denied ('{root}'). "
        "Check their permissions."
    )


# Files that are no images


def encoded(ending, pixels=None):
    file = io.BytesIO()
    image = Image.fromarray(noise(64, 64) if pixels is None else pixels)
    image.save(file, {"jpg": "jpeg", "tif": "tiff"}.get(ending, ending))
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [b"", b"no image", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"<svg/>", bytes(999)],
)
def test_what_is_no_image(content, root):
    (root / "a/cat/0.png").write_bytes(content)
    assert refusal(root) == (
        f"Expected an image, '{root / 'a/cat/0.png'}' is none of PNG, JPEG, BMP, GIF, TIFF, WEBP. "
        "Remove or replace the file."
    )


@pytest.mark.parametrize("ending", FORMATS)
def test_a_truncated_image_is_named(ending, root):
    content = encoded(ending)
    path = root / f"a/cat/0.{ending}"
    for share in (0.1, 0.5, 0.9):
        path.write_bytes(content[: int(share * len(content))])
        message = refusal(root)
        assert f"'{path}'" in message
        assert message.endswith("Remove or replace the file.")


def png_claiming(width, height):
    def chunk(kind, content):
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "sides", [(8193, 8193), (10_000, 10_000), (60_000, 60_000), (2**31 - 1, 9)]
)
def test_a_decompression_bomb_is_not_unpacked(sides, root):
    (root / "a/cat/0.png").write_bytes(png_claiming(*sides))
    message = refusal(root)
    assert message.startswith(f"Expected a readable image, got '{root / 'a/cat/0.png'}': ")
    assert "pixels" in message


def test_a_very_long_image_is_not_scaled_whole(root):
    put(root / "a/cat/0.png", np.full((1, 200_000), 7, np.uint8))
    assert (read_images(root, 1024).x[0] == 7).all()


def test_pixels_without_a_range_are_refused(root):
    put(root / "a/cat/0.tif", Image.fromarray(np.ones((12, 12), np.float32)))
    assert refusal(root) == (
        f"Expected a readable image, got '{root / 'a/cat/0.tif'}': '32 bits per pixel have no "
        "known range; save it with 8 or 16'. Remove or replace the file."
    )


@pytest.fixture
def no_hanging():
    """Fails a test that waits for a pipe, or goes round, instead of doing so with it."""

    def hang(*_):
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, hang)
    signal.alarm(10)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("no_hanging")
@pytest.mark.parametrize("kind", ["pipe", "dangling link"])
def test_a_pipe_does_not_hang_the_reading(kind, root):
    path = root / "a/cat/0.png"
    os.mkfifo(path) if kind == "pipe" else path.symlink_to("nowhere")
    assert refusal(root) == (
        f"Expected a readable image, got '{path}': 'not a regular file'. "
        "Remove or replace the file."
    )


def test_names_that_are_no_text_or_break_lines(root):
    put(root / "a/cat/0\n.png")
    (root / "a/cat/0\n.png").write_bytes(b"")
    assert "a/cat/0\\n.png'" in refusal(root)
    (root / "a/cat/0\n.png").unlink()
    put(root / "a/cat/0.png")
    os.rename(root / "a/cat/0.png", os.fsencode(root / "a/cat") + b"/\xff.png")
    assert "a/cat/\\udcff.png'" in refusal(root)


@pytest.mark.parametrize("ending", FORMATS)
def test_mutated_images_are_read_or_refused(ending, root):
    content = encoded(ending, noise(16, 16))
    draw = random.Random(ending)
    refused = 0
    for _ in range(60):
        at = draw.randrange(len(content))
        (root / f"a/cat/0.{ending}").write_bytes(
            content[:at] + draw.randbytes(draw.randrange(4)) + content[at + draw.randrange(4) :]
        )
        try:
            assert read_images(root, 8).x.shape == (5, 3, 8, 8)
        except DataFileError:
            refusal(root, size=8)
            refused += 1
    assert refused > 0
