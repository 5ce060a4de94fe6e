"""Where data files come from: a folder of the user's, the cache, or the first intact mirror."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from invlearn.datasets import download
from invlearn.datasets.download import DataFile, fetch, find, mnist_available, read_mnist
from invlearn.errors import DataFileError

PLAIN = bytes([0, 0, 8, 1, 0, 0, 0, 200]) + bytes(range(200))
GZIP = gzip.compress(PLAIN)
FILE = DataFile("tiny-labels", 1, hashlib.md5(PLAIN).hexdigest())

Mirror = Callable[..., str]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use an empty cache, no data folder, and no proxy before the loopback servers."""
    monkeypatch.setenv("INVLEARN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("INVLEARN_DATA", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "cache" / "mnist"


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    """Start a loopback mirror that answers with one status and body; returns its address."""
    with contextlib.ExitStack() as stack:

        def start(
            body: bytes, *, status: int = 200, length: int | None = None, path: str = "/mnist/"
        ) -> str:
            class Handler(BaseHTTPRequestHandler):
                def do_GET(self) -> None:
                    right = self.path == f"{path}{FILE.name}.gz"
                    self.send_response(status if right else 404)
                    self.send_header("Content-Length", str(len(body) if length is None else length))
                    self.end_headers()
                    self.wfile.write(body)

                def log_message(self, format: str, *args: object) -> None:
                    pass

            server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.server_close)
            stack.callback(server.shutdown)
            return f"http://127.0.0.1:{server.server_port}{path}"

        yield start


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


def test_download_reaches_the_cache_and_is_not_repeated(cache: Path, mirror: Mirror) -> None:
    path = fetch(FILE, mirrors=[mirror(GZIP)])
    assert path == cache / "tiny-labels.gz"
    assert path.read_bytes() == GZIP
    assert left_in(cache) == ["tiny-labels.gz"]
    assert fetch(FILE, mirrors=[]) == path


@pytest.mark.parametrize(
    "bad",
    [
        {"body": b"", "status": 404},
        {"body": b"busy", "status": 503},
        {"body": b"<html>moved</html>"},
        {"body": GZIP[:-20]},
        {"body": gzip.compress(PLAIN[:-1] + b"!")},
        {"body": GZIP[:-20], "length": len(GZIP)},
    ],
    ids=["missing", "busy", "page", "truncated", "altered", "broken-off"],
)
def test_a_broken_mirror_is_passed_over(
    cache: Path, mirror: Mirror, bad: dict[str, object]
) -> None:
    path = fetch(FILE, mirrors=[mirror(**bad), mirror(GZIP)])
    assert path.read_bytes() == GZIP
    assert left_in(cache) == ["tiny-labels.gz"]


def test_all_mirrors_broken(cache: Path, mirror: Mirror) -> None:
    altered = PLAIN[:-1] + b"!"
    addresses = [
        mirror(b"", status=404),
        mirror(GZIP[:-20]).rstrip("/"),
        mirror(gzip.compress(altered)),
        "http://127.0.0.1:1/mnist/",
    ]
    with pytest.raises(DataFileError) as caught:
        fetch(FILE, mirrors=addresses)
    lines = str(caught.value).splitlines()
    assert lines[0] == (
        "Expected to download 'tiny-labels.gz' from one of 4 mirror(s), all failed:"
    )
    for line, address in zip(lines[1:5], addresses, strict=True):
        assert line.startswith(f"  {address.rstrip('/')}/tiny-labels.gz: ")
    assert "404" in lines[1]
    assert "truncated" in lines[2]
    assert f"MD5 {FILE.md5}" in lines[3]
    assert hashlib.md5(altered).hexdigest() in lines[3]
    assert "refused" in lines[4]
    assert lines[5] == (
        "Check the network, or set INVLEARN_DATA to a folder that holds "
        "mnist/train-images-idx3-ubyte.gz, mnist/train-labels-idx1-ubyte.gz, "
        "mnist/t10k-images-idx3-ubyte.gz, mnist/t10k-labels-idx1-ubyte.gz."
    )
    assert left_in(cache) == []


def test_cache_that_cannot_be_written(cache: Path) -> None:
    cache.parent.write_text("a file where the folder should be")
    with pytest.raises(DataFileError) as caught:
        fetch(FILE, mirrors=[])
    assert re.fullmatch(
        r"Expected a cache folder that can be written at '.*mnist', got: .* "
        r"Set INVLEARN_CACHE to another folder\.",
        str(caught.value),
    )


@pytest.mark.parametrize("name", ["tiny-labels", "tiny-labels.gz"])
def test_data_folder_comes_before_the_cache(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    cache.mkdir(parents=True)
    (cache / "tiny-labels.gz").write_bytes(GZIP)
    assert find(FILE) == cache / "tiny-labels.gz"

    monkeypatch.setenv("INVLEARN_DATA", str(tmp_path / "data"))
    assert find(FILE) == cache / "tiny-labels.gz"

    (tmp_path / "data" / "mnist").mkdir(parents=True)
    assert find(FILE) == cache / "tiny-labels.gz"

    (tmp_path / "data" / "mnist" / name).write_bytes(PLAIN)
    assert find(FILE) == tmp_path / "data" / "mnist" / name
    assert fetch(FILE, mirrors=[]) == tmp_path / "data" / "mnist" / name


def test_cache_folder_default(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert download.cache_folder() == cache
    monkeypatch.delenv("INVLEARN_CACHE")
    assert download.cache_folder().parts[-2:] == ("invlearn", "mnist")


def test_availability_and_reading(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = bytes([0, 0, 8, 3, 0, 0, 0, 200, 0, 0, 0, 1, 0, 0, 0, 1]) + bytes(range(200))
    files = (DataFile("tiny-images", 3, hashlib.md5(images).hexdigest()), FILE)
    monkeypatch.setattr(download, "MNIST", {"train": files, "test": files})
    assert not mnist_available()
    cache.mkdir(parents=True)
    (cache / "tiny-labels.gz").write_bytes(GZIP)
    assert not mnist_available()
    (cache / "tiny-images").write_bytes(images)
    assert mnist_available()
    pixels, digits = read_mnist("train", mirrors=[])
    assert pixels.shape == (200, 1, 1)
    assert digits.dtype == np.int64
    np.testing.assert_array_equal(digits, np.arange(200))


def test_damaged_file_in_the_cache_is_reported(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "MNIST", {"train": (FILE, FILE)})
    cache.mkdir(parents=True)
    (cache / "tiny-labels.gz").write_bytes(GZIP[:-9])
    with pytest.raises(DataFileError, match=r"truncated; delete it and fetch it again\.$"):
        read_mnist("train", mirrors=[])
