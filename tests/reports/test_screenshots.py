"""The page in a browser: nothing blank, nothing wider than the window, no error."""

from __future__ import annotations

import itertools
import json
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
WIDTHS = (1280, 390)
HEIGHT = 2000

# One browser for all pages, each in a frame: a window is never narrower than 500 pixels, and a
# start takes longer than ten pages.
FRAMES = """<!doctype html><title></title><style>
body {{ margin: 0 }} iframe {{ position: absolute; border: 0; height: {height}px }}
</style>{frames}
<script>onload = () => {{
  const pages = [...document.querySelectorAll("iframe")].map(f => f.contentDocument);
  document.title = JSON.stringify(pages.map(
    page => [page.documentElement.scrollWidth, page.documentElement.clientWidth]));
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


def framed(folder: Path, names: list[str]) -> Path:
    """A page of frames: a row for each name, a column for each width."""
    frames = "".join(
        f'<iframe src="{name}" style="left: {left}px; top: {row * HEIGHT}px; width: {width}px">'
        "</iframe>"
        for row, name in enumerate(names)
        for left, width in zip((0, WIDTHS[0]), WIDTHS, strict=True)
    )
    page = folder / "frames.html"
    page.write_text(FRAMES.format(height=HEIGHT, frames=frames), encoding="utf-8")
    return page


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


PAGES = {"content": make_content, "alone": make_alone, "twelve": make_twelve, "many": many}
WIDE = "wide"  # Of its own accord.


@pytest.fixture(scope="module")
def frames(tmp_path_factory) -> Path:
    """All pages in one."""
    folder = tmp_path_factory.mktemp("pages")
    pages = [write(make(), folder / name) for name, make in PAGES.items()]
    (folder / WIDE).mkdir()
    text = pages[0].read_text(encoding="utf-8")
    wide = text.replace("<main>", '<main><div style="width: 700px">wide</div>')
    (folder / WIDE / "report.html").write_text(wide, encoding="utf-8")
    return framed(folder, [f"{name}/report.html" for name in (*PAGES, WIDE)])


@pytest.fixture(scope="module")
def shot(frames) -> np.ndarray:
    """What the browser shows of all pages, in gray."""
    file, size = frames.with_name("shot.png"), (sum(WIDTHS), (len(PAGES) + 1) * HEIGHT)
    browse(frames, f"--screenshot={file}", f"--window-size={size[0]},{size[1]}")
    with Image.open(file) as image:
        assert image.size == size
        return np.asarray(image.convert("L"), dtype=float)


@pytest.fixture(scope="module")
def widths(frames) -> dict[tuple[str, int], list[int]]:
    """How wide each page is, and how wide its frame."""
    dumped = browse(frames, "--dump-dom", "--virtual-time-budget=5000")
    found = re.search(r"<title>(.+)</title>", dumped)
    assert found is not None, dumped[:300]
    measured = json.loads(found[1])
    return dict(zip(itertools.product((*PAGES, WIDE), WIDTHS), measured, strict=True))


@pytest.mark.parametrize("name", ["content", "alone", "twelve"])
@pytest.mark.parametrize("width", WIDTHS)
def test_a_screenshot_shows_the_page(shot, name, width):
    top, left = list(PAGES).index(name) * HEIGHT, 0 if width == WIDTHS[0] else WIDTHS[0]
    pixels = shot[top : top + HEIGHT, left : left + width]
    # Ink in every quarter from top to bottom; a blank or broken page has some without.
    for quarter in np.array_split(pixels, 4):
        assert quarter.std() > 5
        assert 0.002 < (quarter < 128).mean() < 0.5


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_wider_than_the_window(widths, name, width):
    assert widths[name, width] == [width, width]


def test_the_measure_finds_what_is_too_wide(widths):
    assert widths[WIDE, 390][0] >= 700


def test_an_error_in_a_page_is_noticed(tmp_path):
    (tmp_path / "broken.html").write_text("<script>throw new Error('broken')</script>")
    with pytest.raises(AssertionError, match="CONSOLE"):
        browse(framed(tmp_path, ["broken.html"]), "--dump-dom")
