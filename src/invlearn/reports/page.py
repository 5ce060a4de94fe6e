"""The one HTML page of a report, which needs no other file, script or network."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from invlearn.errors import OutputError
from invlearn.ground.files import write_whole
from invlearn.reports.record import Record

_CALLED = {
    "seconds": "took",
    "seconds_of_all_runs": "all runs one after another",
    "runs_resumed": "runs taken over",
    "jobs": "runs at a time",
    "threads": "threads of a run",
}
"""How the page calls what a record's provenance holds, where it has other words for it."""


def render_page(template: str, figures: Mapping[str, bytes], **values: Any) -> str:
    """Fill in a template, the figures as PNG bytes inside."""
    environment = Environment(
        loader=PackageLoader("invlearn.reports", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    inside = {
        name: "data:image/png;base64," + base64.b64encode(picture).decode("ascii")
        for name, picture in figures.items()
    }
    return environment.get_template(template).render(figures=inside, **values)


def how_made(record: Record) -> dict[str, str]:
    """What stands beside the command: where the results come from, in words."""
    shown = {"seed": str(record.seed)}
    for key, value in record.provenance.items():
        if value and key != "command":
            timed = key.startswith("seconds")
            shown[_CALLED.get(key, key)] = _duration(float(value)) if timed else str(value)
    return shown


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def write_page(page: str, figures: Mapping[str, bytes], folder: Path) -> Path:
    """Write ``folder/report.html`` and ``folder/figures/*.png``, each file atomically.

    Raises
    ------
    OutputError
        A folder that cannot be written.
    """
    try:
        (folder / "figures").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"Expected a folder to write the report in, '{folder}' cannot be written: "
            f"{error.strerror}. Name another folder, or free this one."
        ) from error
    for name, picture in figures.items():
        write_whole(folder / "figures" / f"{name}.png", picture)
    return write_whole(folder / "report.html", page.encode("utf-8", errors="replace"))
