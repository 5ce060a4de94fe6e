"""What all commands share: the application, errors as one line, a progress bar."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from invlearn.datasets.base import OptionValue
from invlearn.errors import InvlearnError, OptionError

app = typer.Typer(
    help="Learning that survives a change of environment.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@contextmanager
def reported(status: Console, kept: str) -> Iterator[None]:
    """Errors as one line and exit code 2, Ctrl-C as 130, each with what was kept."""
    try:
        yield
    except InvlearnError as error:
        status.print(f"[bold red]Error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(2) from error
    except (OSError, BrokenProcessPool) as error:
        status.print(
            f"[bold red]Error:[/] {escape(str(error))}. {escape(kept)}",
            highlight=False,
            soft_wrap=True,
        )
        raise typer.Exit(2) from error
    except KeyboardInterrupt:
        status.print(f"Interrupted. {escape(kept)}", highlight=False, soft_wrap=True)
        raise typer.Exit(130) from None


@contextmanager
def bar(status: Console) -> Iterator[Callable[[int, int, str], None]]:
    """A progress bar, silent unless on a terminal."""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=status,
        transient=True,
        disable=not status.is_terminal,
    ) as shown:
        task = shown.add_task("training", total=None)
        yield lambda done, total, what: shown.update(
            task, completed=done, total=total, description=what
        )


def command() -> str:
    """The command line as it was typed."""
    return shlex.join(["invlearn", *sys.argv[1:]])


def names(text: str) -> list[str]:
    """The parts of a comma-separated text."""
    return [part.strip() for part in text.split(",") if part.strip()]


def widths(text: str) -> tuple[int, ...]:
    """Widths of hidden layers: '32,16', or '' for none."""
    try:
        found = tuple(int(part) for part in names(text))
    except ValueError:
        found = (0,)
    if any(not 1 <= width <= 100_000 for width in found):
        raise OptionError(
            f"Expected --hidden as comma-separated widths of 1 to 100000, got '{text}'. For "
            "instance 32,16, or '' for a linear model."
        )
    return found


def pairs(option: str, texts: list[str] | None) -> dict[str, OptionValue]:
    """NAME=VALUE texts as a dictionary."""
    out: dict[str, OptionValue] = {}
    for text in texts or []:
        name, sign, value = text.partition("=")
        if not sign or not name:
            raise OptionError(f"Expected {option} NAME=VALUE, got '{text}'.")
        out[name] = value
    return out
