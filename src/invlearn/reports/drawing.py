"""What every figure shares: styles that read without colour, plain text, atomic files."""

from __future__ import annotations

import io
import os
import textwrap
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from invlearn.reports import layout
from invlearn.reports.layout import Method

DPI = 120
WIDTH = 7.6
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))


def png(figure: Figure) -> bytes:
    """Encode the figure as PNG bytes, the same at every call: no date, no version inside."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


def replace(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old one or the new one, never a half."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def one_axes(height: float) -> tuple[Figure, Axes]:
    """Make a figure of the page's width with one axes."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots()


def method_style(i: int, method: Method) -> dict[str, Any]:
    """Choose the i-th method's colour, marker and line, the same in every figure."""
    colour = "#666666" if method.reference else COLOURS[i % len(COLOURS)]
    return {"color": colour, "marker": MARKERS[i % len(MARKERS)], "markersize": 5,
            "linestyle": LINES[i % len(LINES)], "linewidth": 1.5}  # fmt: skip


def value_axis(ax: Axes, metric: str) -> None:
    """Label the vertical axis; accuracies get the whole range so that no gap is inflated."""
    ax.set_ylabel("accuracy (%)" if metric == "accuracy" else "risk")
    if metric == "accuracy":
        ax.set_ylim(0, 100)
    ax.grid(axis="y", alpha=0.25)


def method_label(method: Method) -> str:
    """Name the method, saying which is a reference."""
    return plain(method.title) + (f" ({layout.REFERENCE_BADGE})" if method.reference else "")


def heading(*lines: str, width: float) -> str:
    """Break lines so that they fit a figure of `width` inches, dollars kept plain."""
    return "\n".join(textwrap.fill(plain(line), int(11 * width)) for line in lines)


def plain(words: str) -> str:
    """Keep matplotlib from reading dollars as mathematics."""
    return words.replace("$", r"\$")
