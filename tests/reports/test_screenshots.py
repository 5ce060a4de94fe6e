"""The page in a browser: nothing blank, nothing wider than the window, no error."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from invlearn.reports.own_rows import write_own_rows
from invlearn.results import MethodInfo
from reports.made import CONTENDERS, Content, make_alone, make_content, make_found, make_twelve

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="needs a browser: chromium, chromium-browser or google-chrome"
)
SIZES = [(1280, 2000), (390, 2000)]

# Headless windows are never narrower than 500 pixels; a frame is as narrow as it is told to be.
MEASURE = """<!doctype html><title></title>
<iframe src="report.html" style="width: {width}px; height: 2000px; border: 0"></iframe>
<script>onload = () => {{
  const page = document.querySelector("iframe").contentDocument;
  document.title = page.documentElement.scrollWidth + " of " + page.documentElement.clientWidth;
}}</script>"""


def browse(page: Path, *options: str) -> str:
    """Open a page and give what the browser printed; no error may be among it."""
    command = [
        str(BROWSER), "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
        "--disable-dev-shm-usage", "--allow-file-access-from-files", "--enable-logging=stderr",
        "--v=0", f"--user-data-dir={page.parent / 'profile'}", *options, page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in done.stderr, done.stderr
    return done.stdout


def measured(folder: Path, width: int) -> tuple[int, int]:
    """How wide the page is, and how wide its window."""
    probe = folder / "probe.html"
    probe.write_text(MEASURE.format(width=width), encoding="utf-8")
    dumped = browse(probe, "--dump-dom", "--virtual-time-budget=5000")
    found = re.search(r"<title>(\d+) of (\d+)</title>", dumped)
    assert found is not None, dumped[:300]
    return int(found[1]), int(found[2])


def write(content: Content, folder: Path) -> Path:
    return write_own_rows(content.record, content.results, folder)


def many() -> Content:
    """Forty environments and ten methods, with names that nobody breaks."""
    others = [MethodInfo(f"m{i}", f"Method {i}", "invariant", "Some words.") for i in range(5)]
    levels = {f"{'averylongname' * 5}{i}": 0.7 for i in range(40)}
    content = make_content(make_found(levels, [*CONTENDERS, *others], rows=30))
    names = list(levels)
    return content.set_as("erm", {"w" * 90: "v" * 90}).change(
        title="x" * 90,
        folds=tuple(tuple(names[i::10]) for i in range(10)),
        target="y" * 90,
        columns={"z" * 90: "number"},
        provenance={"u" * 90: "t" * 90},
    )


@pytest.mark.parametrize("make", [make_content, make_alone, make_twelve])
@pytest.mark.parametrize("size", SIZES)
def test_a_screenshot_shows_the_page(tmp_path, make, size):
    page = write(make(), tmp_path)
    browse(page, f"--screenshot={tmp_path / 'shot.png'}", f"--window-size={size[0]},{size[1]}")
    with Image.open(tmp_path / "shot.png") as image:
        assert image.size == size
        pixels = np.asarray(image.convert("L"), dtype=float)
    # Ink in every quarter from top to bottom; a blank or broken page has some without.
    for quarter in np.array_split(pixels, 4):
        assert quarter.std() > 5
        assert 0.002 < (quarter < 128).mean() < 0.5


@pytest.mark.parametrize("make", [make_content, make_alone, make_twelve, many])
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_wider_than_the_window(tmp_path, make, width):
    write(make(), tmp_path)
    assert measured(tmp_path, width) == (width, width)


def test_the_measure_finds_what_is_too_wide(tmp_path):
    page = write(make_content(), tmp_path)
    text = page.read_text(encoding="utf-8")
    wide = text.replace("<main>", '<main><div style="width: 700px">wide</div>')
    page.write_text(wide, encoding="utf-8")
    assert measured(tmp_path, 390)[0] >= 700


def test_an_error_in_the_page_is_noticed(tmp_path):
    page = tmp_path / "broken.html"
    page.write_text("<script>throw new Error('broken')</script>", encoding="utf-8")
    with pytest.raises(AssertionError, match="CONSOLE"):
        browse(page, "--dump-dom")
