"""The command line: parse, call, print."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from invlearn.datasets import DATASETS
from invlearn.datasets.base import OptionValue
from invlearn.errors import InvlearnError, OptionError
from invlearn.experiments.compare import DEFAULT_METHODS, Request
from invlearn.experiments.compare import compare as run_compare
from invlearn.experiments.methods import METHODS
from invlearn.experiments.processes import cores, keep_freed_memory
from invlearn.experiments.search import SCORES, best
from invlearn.experiments.search import search as run_search
from invlearn.reports.tables import console as print_tables

app = typer.Typer(
    help="Learning that survives a change of environment.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.command()
def compare(
    name: Annotated[str, typer.Argument(help="A dataset: see 'invlearn datasets'.")],
    objectives: Annotated[
        str, typer.Option(help="Comma-separated methods: see 'invlearn objectives'.")
    ] = ",".join(DEFAULT_METHODS),
    trials: Annotated[int, typer.Option(help="Runs per method, each with its own data.")] = 3,
    seed: Annotated[int, typer.Option(help="Seed of the whole comparison.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Output folder; must not hold results yet.")
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="Training recipe of the dataset.")] = None,
    data: Annotated[
        list[str] | None, typer.Option(help="Dataset option NAME=VALUE; repeatable.")
    ] = None,
    hyper: Annotated[
        list[str] | None, typer.Option(help="METHOD.NAME=VALUE over the recipe; repeatable.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Steps, instead of the recipe's.")] = None,
    jobs: Annotated[int | None, typer.Option(help="Runs at a time; default one per core.")] = None,
    leave_one_out: Annotated[
        bool, typer.Option("--leave-one-out", help="Also select by environments left out in turn.")
    ] = False,
    keep_outputs: Annotated[
        bool, typer.Option("--keep-outputs", help="Leave every run's outputs in the folder.")
    ] = False,
    similarity: Annotated[
        int, typer.Option(help="Compare representations (PWCCA) in so many trials.")
    ] = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the unfinished runs in --out.")
    ] = False,
    device: Annotated[str, typer.Option(help="Where to train: cpu, cuda or cuda:1.")] = "cpu",
    precision: Annotated[
        str, typer.Option(help="Of the products: float32, tf32 or bf16.")
    ] = "float32",
) -> None:
    """Train methods on the same environments and measure them in ones nobody trained on."""
    console, status = Console(), Console(stderr=True)
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    folder = out if out is not None else Path(f"invlearn-{name}-{stamp}")
    kept = f"Finished runs are kept in '{folder}': repeat the command with --resume."
    with _reported(status, kept), _bar(status) as progress:
        request = Request(
            name,
            _names(objectives),
            trials,
            seed,
            recipe,
            _pairs("--data", data),
            _hyper(hyper),
            steps,
            leave_one_out,
            keep_outputs,
            similarity,
            device,
            precision,
        )
        keep_freed_memory()
        comparison = run_compare(
            request, folder, jobs=jobs, resume=resume, command=_command(), progress=progress
        )
    description = comparison.summary["dataset"]["description"]
    if "test_set" in description:
        console.print(f"Test set: {description['test_set']}", highlight=False)
    print_tables(comparison.results, comparison.summary, console)
    console.print(f"Report: {folder / 'report.html'}", soft_wrap=True)


@app.command()
def search(
    name: Annotated[str, typer.Argument(help="A dataset: see 'invlearn datasets'.")],
    out: Annotated[Path, typer.Option(help="Output folder; must not hold results yet.")],
    objectives: Annotated[str, typer.Option(help="Comma-separated methods.")] = "irmv1,vrex,mmrex",
    draws: Annotated[int, typer.Option(help="Settings to try for each method.")] = 10,
    trials: Annotated[int, typer.Option(help="Runs per setting.")] = 3,
    seed: Annotated[int, typer.Option(help="Use another one than your comparisons do.")] = 1,
    recipe: Annotated[str | None, typer.Option(help="Recipe to vary.")] = None,
    data: Annotated[
        list[str] | None, typer.Option(help="Dataset option NAME=VALUE; repeatable.")
    ] = None,
    score: Annotated[
        str, typer.Option(help="How settings are ranked: worst-group or late-risk.")
    ] = SCORES[0],
    span: Annotated[
        list[str] | None,
        typer.Option("--range", help="NAME=LOW:HIGH instead of its own range; repeatable."),
    ] = None,
    jobs: Annotated[int | None, typer.Option(help="Runs at a time; default one per core.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the unfinished runs in --out.")
    ] = False,
) -> None:
    """Search hyperparameters on training environments only; the test set is never read."""
    status = Console(stderr=True)
    kept = f"Finished runs are kept in '{out}': repeat the command with --resume."
    with _reported(status, kept), _bar(status) as progress:
        keep_freed_memory()
        table = run_search(
            name,
            _names(objectives),
            out,
            draws=draws,
            trials=trials,
            seed=seed,
            recipe=recipe,
            dataset_options=_pairs("--data", data),
            score=score,
            ranges=_ranges(span),
            jobs=cores() if jobs is None else jobs,
            resume=resume,
            command=_command(),
            progress=progress,
        )
    for method in table["objective"].unique():
        found = ", ".join(f"{k}={v:.6g}" for k, v in best(table, str(method), score).items())
        Console().print(f"{method}: {found or 'no setting could be scored'}", highlight=False)


@app.command()
def datasets() -> None:
    """List the datasets and their options."""
    table = Table("dataset", "option", "default", "meaning")
    for dataset in DATASETS.values():
        table.add_row(f"[bold]{dataset.name}[/]", "", "", f"{dataset.summary} ({dataset.source})")
        for name, option in dataset.options.items():
            table.add_row("", name, str(option.default), option.help)
        table.add_section()
    Console().print(table)


@app.command()
def objectives() -> None:
    """List the methods that 'compare' knows."""
    table = Table("method", "what it does", "defaults", "source")
    for name, method in METHODS.items():
        defaults = method.objective.Hyper()._asdict()
        shown = ", ".join(f"{k}={v:g}" for k, v in defaults.items()) or "-"
        table.add_row(name, method.summary, shown, method.source)
    Console().print(table)


@contextmanager
def _reported(status: Console, kept: str) -> Iterator[None]:
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
def _bar(status: Console) -> Iterator[Callable[[int, int, str], None]]:
    """A progress bar, silent unless on a terminal."""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=status,
        transient=True,
        disable=not status.is_terminal,
    ) as bar:
        task = bar.add_task("training", total=None)
        yield lambda done, total, what: bar.update(
            task, completed=done, total=total, description=what
        )


def _command() -> str:
    return shlex.join(["invlearn", *sys.argv[1:]])


def _names(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _pairs(option: str, texts: list[str] | None) -> dict[str, OptionValue]:
    out: dict[str, OptionValue] = {}
    for text in texts or []:
        name, sign, value = text.partition("=")
        if not sign or not name:
            raise OptionError(f"Expected {option} NAME=VALUE, got '{text}'.")
        out[name] = value
    return out


def _ranges(texts: list[str] | None) -> dict[str, tuple[float, float]]:
    out = {}
    for name, value in _pairs("--range", texts).items():
        try:
            low, high = (float(part) for part in str(value).split(":"))
        except ValueError:
            raise OptionError(
                f"Expected --range NAME=LOW:HIGH, got '{name}={value}'. For instance lr=1e-3:2e-3."
            ) from None
        out[name] = (low, high)
    return out


def _hyper(texts: list[str] | None) -> dict[str, dict[str, float]]:
    out: dict[str, dict[str, float]] = {}
    for name, value in _pairs("--hyper", texts).items():
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
