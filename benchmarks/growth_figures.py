"""The figures of growth.py: one per axis, both scales logarithmic, a guide of linear growth."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from invlearn.ground.files import write_whole
from invlearn.reports.drawing import (
    COLORS,
    LINES,
    MARKERS,
    WIDTH,
    heading,
    one_axes,
    plain,
    png,
    shared_legend,
)

AXES = {
    "rows": ("One step, by rows", "rows per environment (2 environments)"),
    "environments": ("One step, by environments", "environments (1,000 rows each)"),
    "width": ("One step, by width", "units in each of the two hidden layers"),
}


def draw(
    title: str,
    axis: str,
    values: str,
    lines: Mapping[str, Mapping[str, Any]],
    quantity: str,
    *,
    slope: float = 1,
) -> Figure:
    """Draw a line per entry over its sizes, and a dashed guide of the slope below them.

    Parameters
    ----------
    title, axis, values : str
        Of the figure, the horizontal and the vertical axis, with units.
    lines : mapping
        By label: 'sizes' and the quantity; a 'slope', if there is one, goes into the label.
    quantity : str
    slope : float
        Of the guide; 0 for a level one.
    """
    figure, ax = one_axes(height=5.0)
    for i, (label, line) in enumerate(lines.items()):
        found = line.get("slope")
        shown = plain(label) + (f" (slope {found:.2f})" if found is not None and slope else "")
        ax.plot(line["sizes"], line[quantity], label=shown, color=COLORS[i % len(COLORS)],
                marker=MARKERS[i % len(MARKERS)], markersize=5, linewidth=1.5,
                linestyle=LINES[i % len(LINES)])  # fmt: skip
    lowest = min(lines.values(), key=lambda line: float(line[quantity][-1]))
    sizes, last = lowest["sizes"], 0.6 * lowest[quantity][-1]
    upper = sizes[(len(sizes) - 1) // 2 :]
    ax.plot(upper, [last * (x / upper[-1]) ** slope for x in upper], color="#666666",
            linewidth=1.2, dashes=(6, 4), label=f"guide: slope {slope:g}")  # fmt: skip
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xticks(lowest["sizes"], [f"{n:,}" for n in lowest["sizes"]], fontsize=8)
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel(axis)
    ax.set_ylabel(values)
    ax.grid(alpha=0.25)
    ax.set_title(heading(title, width=WIDTH), fontsize=11)
    shared_legend(figure, [ax])
    return figure


def draw_all(record: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write ``folder/growth-AXIS.png`` for every axis that was measured."""
    figures = {
        name: draw(title, label, "seconds per step", record[name], "seconds")
        for name, (title, label) in AXES.items()
    }
    figures["runs"] = draw(
        "IRMv1 runs trained together",
        "runs",
        "seconds per run and step",
        record["runs"],
        "seconds_per_run_step",
        slope=0,
    )
    for name, budget in record["memory_budget_mib"].items():
        figures[f"memory-{name}"] = draw(
            f"Extra memory of one step, {name} model, budget {budget:g} MiB",
            AXES["rows"][1],
            "peak of resident memory (MiB)",
            record["memory"][name],
            "extra_mib",
        )
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, figure in figures.items():
        paths.append(folder / f"growth-{name}.png")
        write_whole(paths[-1], png(figure))
    return paths
