"""What every figure shares: styles that read without color, plain text."""

from __future__ import annotations

import io
import math
import re
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from invlearn.metrics import Metric
from invlearn.reports.tables import REFERENCE_BADGE
from invlearn.results import MethodInfo

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 120
WIDTH = 7.6
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
MEANING = {"p_e": "p_e: how often color disagrees with the label"}
LINES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))


def png(figure: Figure) -> bytes:
    """Encode the figure as PNG bytes, the same at every call: no date, no version inside."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


def one_axes(height: float) -> tuple[Figure, Axes]:
    """Make a figure of the page's width with one axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots()


def small_axes(methods: Sequence[MethodInfo]) -> tuple[Figure, list[Axes]]:
    """Make a figure with one small axes per method, its name above, ranges shared."""
    from matplotlib.figure import Figure

    count = max(len(methods), 1)
    columns = 2 if count in {2, 4} else min(3, count)
    rows = math.ceil(count / columns)
    size = (max(3.3 * columns, 6.6), 2.6 * rows + 1.3)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for i, ax in enumerate(panels):
        if i >= len(methods):
            ax.set_axis_off()
            continue
        ax.set_title(method_label(methods[i]).replace(" (", "\n("), fontsize=10)
        ax.grid(alpha=0.25)
        if i + columns >= len(methods):
            ax.set_xlabel("step")
            ax.tick_params(labelbottom=True)
    return figure, list(panels[: len(methods)])


def shared_legend(figure: Figure, axes: Sequence[Axes]) -> None:
    """Explain below the figure what any of its axes shows, each label once."""
    pairs = [ax.get_legend_handles_labels() for ax in axes]
    entries = {label: h for found in pairs for h, label in zip(*found, strict=True)}
    fits = sum(len(label) + 5 for label in entries) <= 14 * figure.get_figwidth()
    columns = max(len(entries), 1) if fits else 2
    figure.legend(list(entries.values()), list(entries), loc="outside lower center",
                  ncols=columns, frameon=False, fontsize=9)  # fmt: skip


def method_style(i: int, method: MethodInfo) -> dict[str, Any]:
    """Choose the i-th method's color, marker and line, the same in every figure."""
    color = "#666666" if method.kind == "reference" else COLORS[i % len(COLORS)]
    return {"color": color, "marker": MARKERS[i % len(MARKERS)], "markersize": 5,
            "linestyle": LINES[i % len(LINES)], "linewidth": 1.5}  # fmt: skip


def numeric_axis(names: Sequence[str]) -> tuple[str, list[float]] | None:
    """Read the key and the numbers of names like 'p_e=0.1', or None where they are just names.

    Examples
    --------
    >>> numeric_axis(["p_e=0.1", "p_e=0.9"])
    ('p_e', [0.1, 0.9])
    """
    found = [re.fullmatch(r"(\w+)=(-?\d+(?:\.\d+)?)", name) for name in names]
    matches = [match for match in found if match]
    if len(matches) < len(names) or len({match[1] for match in matches}) != 1:
        return None
    return matches[0][1], [float(match[2]) for match in matches]


def meaning(key: str) -> str:
    """Give a parenthesis that explains the key of environments' names; empty for none."""
    return f" ({plain(MEANING.get(key, key))})" if key else ""


def value_axis(ax: Axes, metric: Metric) -> None:
    """Label the vertical axis; shares get the whole range so that no gap is inflated."""
    ax.set_ylabel(metric.heading)
    if metric.percent:
        ax.set_ylim(0, 100)
    ax.grid(axis="y", alpha=0.25)


def method_label(method: MethodInfo) -> str:
    """Name the method, saying which is a reference."""
    return plain(method.title) + (f" ({REFERENCE_BADGE})" if method.kind == "reference" else "")


def heading(*lines: str, width: float) -> str:
    """Break lines so that they fit a figure of `width` inches, dollars kept plain."""
    return "\n".join(textwrap.fill(plain(line), int(11 * width)) for line in lines)


def plain(words: str) -> str:
    """Keep matplotlib from reading dollars as mathematics."""
    return words.replace("$", r"\$")
