"""Figures of a comparison on a user's own rows, and their words; readable without color."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import numpy as np

from invlearn.reports.drawing import COLORS, MARKERS, one_axes, plain
from invlearn.reports.found import Found, has_number
from invlearn.results import Estimate, MethodInfo

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LONGEST = 26
"""Characters of an environment's name that fit beside a figure."""

LEAST_SPAN = 0.1
"""Part of the range of accuracies, or of the largest error, that an axis spans at least."""

LABEL_GAP = 0.26
"""Inches from one label to the next."""

MANY = 60
"""Numbers that a picture's description holds; past that it has the worst and the means."""

FAILED = "failed"
"""What stands where a training diverged and left no number."""


def descriptions(found: Found) -> dict[str, str]:
    """Say in words what the pictures show, numbers included, for who cannot see them."""

    def said(estimate: Estimate) -> str:
        if not has_number(estimate):
            return FAILED
        return f"{found.metric.show(estimate.value)} ({found.interval(estimate)})"

    methods, name = found.methods, found.metric.name
    sums = "; ".join(
        f"{c.title}: worst {said(found.overall(c.name).worst)} in {found.overall(c.name).where}, "
        f"mean {said(found.overall(c.name).mean)}"
        for c in methods
    )
    cells = "; ".join(
        f"{c.title}: "
        + ", ".join(f"{said(found.cell(e, c.name))} in {e}" for e in found.environments)
        for c in methods
    )
    if len(found.cells) > MANY and len(found.environments) > 1:
        cells = f"{sums}. The table has every number"
    where = "the one" if len(found.environments) == 1 else "every"
    return {
        "by_environment": f"Dot plot of the {name} of every method in {where} left-out "
        f"environment. {cells}.",
        "worst_against_mean": f"The {name} of every method where it does worst against its mean. "
        f"{sums}.",
    }


def short_names(names: Sequence[str]) -> list[str]:
    """Names that fit beside a figure, all different, that its font can show.

    A long name loses its middle or, where that leaves two alike, the words all names begin with.
    Where that does not help either, or the font lacks a letter, the name's place among the
    environments stands for it.

    Examples
    --------
    >>> short_names(["north", "St. Mary's Hospital of the Southern District"])
    ['north', "St. Mary's Hos…rn District"]
    >>> short_names([f"Regional hospital no. {number} of the north" for number in (7, 8)])
    ['…7 of the north', '…8 of the north']
    """
    from matplotlib.font_manager import FontProperties, findfont, get_font

    letters = get_font(findfont(FontProperties())).get_charmap()
    spaced = [" ".join(name.split()) for name in names]
    short = [_cut(name) for name in spaced]
    if len(set(short)) < len(set(spaced)):
        words = [name.split(" ") for name in spaced]
        first = zip(*(name[:-1] for name in words), strict=False)
        alike = sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, first))
        short = [_cut("…" * (alike > 0) + " ".join(name[alike:])) for name in words]
    count = Counter(short)
    return [
        name if count[name] == 1 and all(ord(letter) in letters for letter in name) else f"no. {i}"
        for i, name in enumerate(short, start=1)
    ]


def _cut(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[:14]}…{name[-11:]}"


def by_environment(found: Found) -> Figure:
    """Draw every method in every environment it was not trained on, with 95 % intervals.

    One band per environment, the first on top, in it one line per method in the order of the
    legend; the figure grows with both. Usual methods have hollow markers.
    """
    methods = found.methods
    count = len(found.environments)
    figure, ax = one_axes(max(0.3, 0.085 * len(methods) + 0.16) * count + 1.6)
    for e, environment in enumerate(found.environments):
        if e % 2:
            ax.axhspan(e - 0.5, e + 0.5, color="#f0efec", linewidth=0, zorder=0)
        for m, method in enumerate(methods):
            y = e + 0.8 * ((m + 0.5) / len(methods) - 0.5)
            estimate = _scaled(found, found.cell(environment, method.name))
            style = _style(m, method) | {"label": "_" if e else _label(method)}
            # The marker of no number is not seen, but keeps the method in the legend.
            ax.plot(estimate.value, y, linestyle="none", **style)
            if has_number(estimate):
                ax.hlines(y, estimate.low, estimate.high, color=style["color"], linewidth=1.4)
            else:
                _say_failed(ax, y, method, bad_left=found.metric.higher_is_better)
    ax.set_yticks(range(count), [plain(name) for name in short_names(found.environments)])
    ax.set_ylim(count - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x", alpha=0.3)
    # In a tall figure the lower axis is a page away from the upper environments.
    ax.tick_params(axis="x", top=count > 8, labeltop=count > 8)
    ax.set_xlabel(found.metric.heading)
    every = [found.cell(e, method.name) for e in found.environments for method in methods]
    title = "Each left-out environment, with 95 % intervals"
    if count == 1:
        title = "The environment left out, with 95 % intervals"
    ax.set_xlim(*_limits(found, every))
    figure.legend(loc="outside upper left", ncols=2 if len(methods) > 3 else len(methods),
                  frameon=False, fontsize=9, title=title, alignment="left")  # fmt: skip
    return figure


def worst_against_mean(found: Found) -> Figure:
    """Draw each method's worst environment against its mean over environments, one point each.

    A method that failed somewhere has neither; its label says so.
    """
    methods = found.methods
    figure, ax = one_axes(max(4.2, LABEL_GAP * len(methods) + 1.6))
    means = [_scaled(found, found.overall(method.name).mean) for method in methods]
    worsts = [_scaled(found, found.overall(method.name).worst) for method in methods]
    ax.set_xlim(*_limits(found, [found.overall(method.name).mean for method in methods]))
    ax.set_ylim(*_limits(found, [found.overall(method.name).worst for method in methods]))
    for m, (method, mean, worst) in enumerate(zip(methods, means, worsts, strict=True)):
        if not has_number(worst):
            continue
        style = _style(m, method) | {"markersize": 8, "zorder": 3}
        bars = {"color": style["color"], "linewidth": 1.2, "alpha": 0.6}
        ax.hlines(worst.value, mean.low, mean.high, **bars)
        ax.vlines(mean.value, worst.low, worst.high, **bars)
        ax.plot(mean.value, worst.value, linestyle="none", **style)
    # The place of a failed method's label: beyond the worst point.
    nowhere = -np.inf if found.metric.higher_is_better else np.inf
    points = [(worst.value, mean.value) if has_number(worst) else (nowhere, nowhere)
              for worst, mean in zip(worsts, means, strict=True)]  # fmt: skip
    _label_points(ax, methods, points, height=figure.get_figheight() - 1.2)
    ax.grid(alpha=0.25)
    ax.set_xlabel(f"mean over environments: {found.metric.heading}")
    ax.set_ylabel(f"where each does worst: {found.metric.heading}")
    return figure


def spread(wanted: Sequence[float], gap: float, top: float = 1.0) -> list[float]:
    """Ascending places at least `gap` apart, from 0 to `top`, near ascending wanted ones.

    Examples
    --------
    >>> spread([0.25, 0.25, 1.0], 0.25)
    [0.25, 0.5, 1.0]
    >>> spread([0.75, 1.0, 1.0], 0.25)
    [0.5, 0.75, 1.0]
    """
    places: list[float] = []
    for place in wanted:
        places.append(max(place, places[-1] + gap) if places else max(place, 0.0))
    for i in reversed(range(len(places))):
        places[i] = min(places[i], top if i == len(places) - 1 else places[i + 1] - gap)
    return places


def _say_failed(ax: Axes, y: float, method: MethodInfo, *, bad_left: bool) -> None:
    """Say at the bad end of a method's line why there is nothing in it."""
    ax.text(0.01 if bad_left else 0.99, y, plain(f"{method.title}: {FAILED}"),
            transform=ax.get_yaxis_transform(), ha="left" if bad_left else "right", va="center",
            fontsize=6.5, clip_on=True)  # fmt: skip


def _label_points(
    ax: Axes,
    methods: Sequence[MethodInfo],
    points: Sequence[tuple[float, float]],
    height: float,
) -> None:
    """Name (worst, mean) points at the right edge, in the order of their heights, none on another.

    Infinite points are of methods that failed.
    """
    low, high = ax.get_ylim()
    order = sorted(range(len(methods)), key=lambda m: points[m])
    wanted = [min(max((points[m][0] - low) / (high - low), 0.0), 1.0) for m in order]
    for m, place in zip(order, spread(wanted, LABEL_GAP / height), strict=True):
        worst, mean = points[m]
        if not np.isfinite(worst):
            ax.text(1.04, place, plain(f"{_label(methods[m])}: {FAILED}"),
                    transform=ax.transAxes, va="center", fontsize=9)  # fmt: skip
            continue
        ax.annotate(plain(_label(methods[m])), xy=(mean, worst),
                    xytext=(1.04, place), textcoords="axes fraction", va="center", fontsize=9,
                    arrowprops={"arrowstyle": "-", "color": "#666666", "linewidth": 0.8,
                                "linestyle": ":", "shrinkB": 5, "relpos": (0, 0.5)})  # fmt: skip


def _style(m: int, method: MethodInfo) -> dict[str, Any]:
    """Choose color and marker, the same in both figures; hollow says usual."""
    color = COLORS[m % len(COLORS)]
    return {"color": color, "marker": MARKERS[m % len(MARKERS)], "markersize": 5.5,
            "markerfacecolor": "white" if method.kind == "usual" else color,
            "markeredgewidth": 1.4}  # fmt: skip


def _label(method: MethodInfo) -> str:
    return f"{method.title} (usual)" if method.kind == "usual" else method.title


def _scaled(found: Found, estimate: Estimate) -> Estimate:
    factor = 100 if found.metric.percent else 1
    return Estimate(*(factor * number for number in estimate))


def _limits(found: Found, estimates: Sequence[Estimate]) -> tuple[float, float]:
    """Span all intervals with a margin, and enough that no small difference looks large."""
    numbers = [_scaled(found, estimate) for estimate in estimates if has_number(estimate)]
    low, high = float(np.min(numbers or 0.0)), float(np.max(numbers or 1.0))
    most = 100.0 if found.metric.percent else max(high, 1e-12)
    wider = max(LEAST_SPAN * most - (high - low), 0.0) / 2 + 0.04 * (high - low)
    low, high = max(low - wider, -0.02 * most), high + wider
    return low, min(high, 102.0) if found.metric.percent else high
