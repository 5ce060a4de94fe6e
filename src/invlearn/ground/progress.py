"""How far long work has come, on the error output: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

Show = Callable[[int, int, str], None]
"""``show(done, in all, what was done last)``."""

PAUSE, LONGEST_PAUSE = 2.0, 10.0
"""Seconds between two lines: at least, and at which one comes before the next tenth is done."""


@contextmanager
def bar(console: Console | None = None) -> Iterator[Show]:
    """Show how far something is for as long as the context lasts."""
    from rich.console import Console

    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield lines(lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True))
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as progress:
        task = progress.add_task("training", total=None)
        yield lambda done, total, what: progress.update(
            task, completed=done, total=total, description=what
        )


def lines(write: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> Show:
    """Write a line at the start and at every tenth, neither too often nor too rarely."""
    began, last, written = clock(), -LONGEST_PAUSE, -1

    def show(done: int, total: int, what: str) -> None:
        nonlocal last, written
        now, tenth = clock() - began, 10 * done // max(total, 1)
        if now - last >= (PAUSE if tenth > written else LONGEST_PAUSE):
            last, written = now, tenth
            write(f"{what}: {done:,} of {total:,}, {now:.0f} s")

    return show


def tracked(steps: range, what: str) -> Iterator[int]:
    """The steps one by one, with a bar that says how many are done."""
    with bar() as show:
        for step in steps:
            show(step - steps.start, len(steps), what)
            yield step
