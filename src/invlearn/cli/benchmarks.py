"""The commands on benchmarks: search, and lists of what there is."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from invlearn.cli.common import Command, agreeing, app, command, left, names, pairs, reported
from invlearn.comparison.requests import SCORES
from invlearn.errors import OptionError
from invlearn.ground.progress import bar

if TYPE_CHECKING:
    import pandas as pd


@app.command(cls=Command)
def search(
    name: Annotated[str, typer.Argument(help="A dataset: see 'invlearn datasets'.")],
    out: Annotated[Path, typer.Option(help="Output folder; must not hold results yet.")],
    objectives: Annotated[str, typer.Option(help="Comma-separated methods.")] = "irmv1,vrex,mmrex",
    draws: Annotated[int, typer.Option(help="Settings to try for each method.")] = 10,
    trials: Annotated[int, typer.Option(help="Runs per setting.")] = 3,
    seed: Annotated[
        int, typer.Option(min=0, max=2**31 - 1, help="Use another one than your comparisons do.")
    ] = 1,
    recipe: Annotated[str | None, typer.Option(help="Recipe to vary, or a TOML file.")] = None,
    data: Annotated[
        list[str] | None, typer.Option(help="Dataset option NAME=VALUE; repeatable.")
    ] = None,
    score: Annotated[
        str, typer.Option(help="How settings are ranked: worst-group or late-risk.")
    ] = SCORES[0],
    steps: Annotated[
        int | None, typer.Option(min=1, help="Training steps; the recipe's schedules follow.")
    ] = None,
    span: Annotated[
        list[str] | None,
        typer.Option("--range", help="NAME=LOW:HIGH instead of its own range; repeatable."),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Runs at a time; default one per core.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the unfinished runs in --out.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before very many runs.")] = False,
) -> None:
    """Search hyperparameters on training environments only; the test set is never read."""
    status = Console(stderr=True)
    with reported(status, partial(left, out)), bar(status) as progress:
        from invlearn.comparison.recipes import get_recipe
        from invlearn.comparison.search import search as run_search
        from invlearn.ground.machine import cores, keep_freed_memory

        keep_freed_memory()
        notice = get_recipe(name, recipe, oracle=False).notice
        table = run_search(
            name,
            names(objectives),
            out,
            draws=draws,
            trials=trials,
            seed=seed,
            recipe=recipe,
            dataset_options=pairs("--data", data),
            score=score,
            steps=steps,
            ranges=_ranges(span),
            jobs=cores() if jobs is None else jobs,
            resume=resume,
            command=command(),
            progress=progress,
            agree=agreeing(yes),
        )
    _say(notice, table, out, score, status)


@app.command(cls=Command)
def datasets() -> None:
    """List the datasets and their options."""
    from invlearn.datasets import DATASETS

    shown = _paragraphs()
    for dataset in DATASETS.values():
        text = escape(f"{dataset.summary} ({dataset.source})")
        shown.add_row(dataset.name, text, style="bold")
        for name, option in dataset.options.items():
            shown.add_row(escape(f"  {name}={option.default}"), escape(option.help))
        shown.add_row()
    Console().print(shown)


@app.command(cls=Command)
def objectives() -> None:
    """List the methods that 'compare' knows."""
    from invlearn.methods import Network, known_methods

    shown = _paragraphs()
    for name, method in known_methods().items():
        text = escape(f"{method.summary} ({method.source})")
        shown.add_row(Text(name, style="bold"), text)
        if isinstance(method, Network) and method.objective.numbers:
            numbers = {**method.objective.numbers, **method.hyper}
            shown.add_row("", ", ".join(f"{k}={v:g}" for k, v in numbers.items()), style="dim")
        shown.add_row()
    Console().print(shown)


def _paragraphs() -> Table:
    """Names on the left, texts on the right, for any width of the terminal."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column()
    return grid


def _say(notice: str, table: pd.DataFrame, out: Path, score: str, status: Console) -> None:
    """Print the best settings of every method, and what is to be known of the runs."""
    from invlearn.comparison.search_scores import best

    if notice:
        Console().print(notice, highlight=False, markup=False, soft_wrap=True)
    for one in json.loads((out / "search.json").read_text(encoding="utf-8"))["warnings"]:
        status.print(f"{one['method']}, {one['runs']} of the runs: {one['warning']}.", markup=False)
    for method in table["method"].unique():
        found = ", ".join(f"{k}={v:.6g}" for k, v in best(table, str(method), score).items())
        Console().print(f"{method}: {found or 'no setting could be scored'}", highlight=False)


def _ranges(texts: list[str] | None) -> dict[str, tuple[float, float]]:
    out = {}
    for name, value in pairs("--range", texts).items():
        try:
            low, high = (float(part) for part in str(value).split(":"))
        except ValueError:
            raise OptionError(
                f"Expected --range NAME=LOW:HIGH, got '{name}={value}'. For instance lr=1e-3:2e-3."
            ) from None
        out[name] = (low, high)
    return out
