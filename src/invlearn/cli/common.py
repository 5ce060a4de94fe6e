"""What all commands share: the application, errors as one line, how texts are read.

What computes is imported by the command that needs it: '--help' shall not wait for torch.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core
from rich.console import Console
from rich.markup import escape

import invlearn
from invlearn.errors import InvlearnError, OptionError
from invlearn.ground.interrupt import CODE, interruptible, leave
from invlearn.ground.registry import names_from_outside

if TYPE_CHECKING:
    from invlearn.datasets.base import OptionValue

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"invlearn {invlearn.__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Say which version this is."
        ),
    ] = False,
) -> None:
    """Learning that survives a change of environment."""


class Command(typer.core.TyperCommand):
    """A command whose help names what is not built in."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help."""
        known = names_from_outside()
        said = "; ".join(f"{kind}s {', '.join(names)}" for kind, names in known.items())
        self.epilog = f"Registered from outside: {escape(said)}." if said else None
        super().format_help(ctx, formatter)


@contextmanager
def reported(status: Console, kept: Callable[[], str]) -> Iterator[None]:
    """Errors as one line and exit code 2, Ctrl-C as 130, each with what was kept."""
    from concurrent.futures.process import BrokenProcessPool

    def say(text: str) -> None:
        status.print(text, highlight=False, soft_wrap=True)

    def interrupted() -> None:
        status.show_cursor()  # A bar hides it.
        say(f"Interrupted. {escape(kept())}")

    with interruptible(interrupted, at_once=True):
        import torch  # noqa: F401
    with interruptible(interrupted) as heard:
        try:
            yield
        except BaseException as error:
            # Of a signal to the whole group workers end first, and what it breaks off may raise
            # something else: torch's vmap does.
            if heard.is_set() or isinstance(error, KeyboardInterrupt):
                interrupted()
                if heard.is_set():
                    leave()
                raise typer.Exit(CODE) from None
            if isinstance(error, InvlearnError):
                text = str(error)
            elif isinstance(error, OSError | BrokenProcessPool):
                text = f"{error}. {kept()}"
            else:
                raise
            say(f"[bold red]Error:[/] {escape(text)}")
            raise typer.Exit(2) from error


def left(folder: Path) -> str:
    """What is kept of a comparison."""
    # Not there yet: nothing can have been begun.
    store = sys.modules.get("invlearn.comparison.store")
    return nothing() if store is None else str(store.Store(folder).left())


def nothing() -> str:
    """What is kept by a command that keeps nothing until its end."""
    return "Nothing was written."


def say(console: Console, sentences: Iterable[str]) -> None:
    """Print sentences as they are, a line each."""
    for sentence in sentences:
        console.print(sentence, highlight=False, markup=False)


def agreeing(yes: bool) -> Callable[[str], bool]:
    """Agree to much work: as said beforehand, or when asked on a terminal."""

    def agree(text: str) -> bool:
        try:
            return yes or (sys.stdin.isatty() and typer.confirm(f"{text}. Go on?", err=True))
        except typer.Abort:
            raise KeyboardInterrupt from None

    return agree


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


def hyperparameters(texts: list[str] | None) -> dict[str, dict[str, float]]:
    """METHOD.NAME=NUMBER texts as {method: {name: number}}."""
    out: dict[str, dict[str, float]] = {}
    for name, value in pairs("--hyper", texts).items():
        method, dot, field = name.partition(".")
        try:
            number = float(value)
        except ValueError:
            dot = ""
        if not dot:
            raise OptionError(
                f"Expected --hyper METHOD.NAME=NUMBER, got '{name}={value}'. "
                "For instance irmv1.penalty_weight=1000."
            )
        out.setdefault(method, {})[field] = number
    return out


def refuse_options(context: typer.Context, options: Iterable[str], name: str, own: bool) -> None:
    """Refuse options that mean nothing here, instead of ignoring them."""
    given = [
        f"--{option.replace('_', '-')}"
        for option in options
        if getattr(context.get_parameter_source(option), "name", "") == "COMMANDLINE"
    ]
    if given:
        what = "your own rows" if own else "a benchmark"
        raise OptionError(
            f"Expected options for {what} ('{name}'), got {', '.join(given)}. Leave them out; "
            "'invlearn compare --help' says which are for what."
        )
