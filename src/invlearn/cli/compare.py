"""The command 'compare': methods on a benchmark's environments, or on those of one's own rows."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from invlearn.cli.common import (
    Command,
    agreeing,
    app,
    command,
    hyperparameters,
    left,
    names,
    nothing,
    pairs,
    refuse_options,
    reported,
    say,
    widths,
)
from invlearn.comparison.requests import BenchmarkRequest, RowsRequest
from invlearn.errors import OptionError
from invlearn.ground.progress import bar

if TYPE_CHECKING:
    import pandas as pd

    from invlearn.reports.record import OwnRowsRecord

DATASET, ROWS = "Benchmarks only", "Your own rows only"
DATASET_ONLY = (
    "recipe", "data", "hyper", "leave_one_out", "keep_outputs", "similarity", "precision",
    "all_rules",
)  # fmt: skip
ROWS_ONLY = (
    "target", "environment", "test_environment", "task", "metric", "drop", "hidden", "max_rows",
    "select", "features",
)  # fmt: skip


@app.command(cls=Command)
def compare(
    context: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            help="Your own rows (a CSV, Parquet or Feather file, or a folder of images "
            "root/environment/class/*), or a benchmark: see 'invlearn datasets'."
        ),
    ],
    target: Annotated[
        str | None, typer.Option(help="Column to predict.", rich_help_panel=ROWS)
    ] = None,
    environment: Annotated[
        str | None,
        typer.Option(help="Column that says where rows come from.", rich_help_panel=ROWS),
    ] = None,
    test_environment: Annotated[
        str | None,
        typer.Option(help="Leave out this one only, not each in turn.", rich_help_panel=ROWS),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="classification or regression, if not as it looks.", rich_help_panel=ROWS
        ),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(help="accuracy or 'balanced accuracy'.", rich_help_panel=ROWS),
    ] = None,
    drop: Annotated[
        list[str] | None,
        typer.Option(help="Column to leave out; repeatable.", rich_help_panel=ROWS),
    ] = None,
    features: Annotated[
        Path | None,
        typer.Option(
            help="Features of images by their path: a table with a column 'file'.",
            rich_help_panel=ROWS,
        ),
    ] = None,
    hidden: Annotated[
        str, typer.Option(help="Widths of hidden layers, '' for none.", rich_help_panel=ROWS)
    ] = ",".join(map(str, RowsRequest.hidden)),
    max_rows: Annotated[
        int, typer.Option(help="Draw from more rows than these.", rich_help_panel=ROWS)
    ] = RowsRequest.max_rows,
    select: Annotated[
        str | None,
        typer.Option(
            help="Choose each network's step by this rule, lowest-worst-group for instance, on a "
            "fifth of the training rows.",
            rich_help_panel=ROWS,
        ),
    ] = None,
    objectives: Annotated[
        str | None, typer.Option(help="Comma-separated methods: see 'invlearn objectives'.")
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option(
            help="Runs per method: on a benchmark 3, each with its own data; on your own rows 1, "
            "or with as many seeds."
        ),
    ] = None,
    trial: Annotated[
        int | None,
        typer.Option(min=0, help="Run this trial alone again, counted from 0: the same numbers."),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=2**31 - 1, help="Seed of the whole comparison.")
    ] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Output folder; must not hold results yet.")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="Training recipe of the dataset, or a TOML file of your own.",
            rich_help_panel=DATASET,
        ),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(help="Dataset option NAME=VALUE; repeatable.", rich_help_panel=DATASET),
    ] = None,
    hyper: Annotated[
        list[str] | None,
        typer.Option(
            help="METHOD.NAME=VALUE over the recipe; repeatable.", rich_help_panel=DATASET
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Training steps.")] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Runs at a time; default one per core.")
    ] = None,
    leave_one_out: Annotated[
        bool,
        typer.Option(
            "--leave-one-out",
            help="Also select by environments left out in turn.",
            rich_help_panel=DATASET,
        ),
    ] = False,
    keep_outputs: Annotated[
        bool,
        typer.Option(
            "--keep-outputs",
            help="Leave every run's outputs in the folder.",
            rich_help_panel=DATASET,
        ),
    ] = False,
    similarity: Annotated[
        int,
        typer.Option(
            help="Compare representations (PWCCA) in so many trials.", rich_help_panel=DATASET
        ),
    ] = 0,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with the unfinished runs in --out."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before very many runs.")] = False,
    device: Annotated[str, typer.Option(help="Where to train: cpu, cuda or cuda:1.")] = "cpu",
    precision: Annotated[
        str,
        typer.Option(help="Of the products: float32, tf32 or bf16.", rich_help_panel=DATASET),
    ] = "float32",
    all_rules: Annotated[
        bool,
        typer.Option(
            "--all-rules",
            help="Print a table for every selection rule, as in the report.",
            rich_help_panel=DATASET,
        ),
    ] = False,
) -> None:
    """Train methods on some environments and measure them in ones they were not trained on."""
    console, status = Console(), Console(stderr=True)
    with reported(status, nothing):
        from invlearn.datasets import DATASETS
    asked = target is not None or environment is not None
    own = name not in DATASETS and (asked or Path(name).exists() or "." in name or "/" in name)
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    stem = Path(name).stem if own else name
    folder = out if out is not None else Path(f"invlearn-{stem}-{stamp}")
    with reported(status, partial(left, folder)), bar(status) as progress:
        refuse_options(context, DATASET_ONLY if own else ROWS_ONLY, name, own)
        if trial is not None and trials is not None:
            raise OptionError(
                f"Expected --trial or --trials, got both. --trial {trial} runs that one alone."
            )
        from invlearn.ground.machine import keep_freed_memory

        keep_freed_memory()
        from invlearn.comparison.compare import compare as run_compare

        request: BenchmarkRequest | RowsRequest
        if own:
            request = RowsRequest(
                name,
                target,
                environment,
                names(objectives) if objectives is not None else RowsRequest.methods,
                task,
                drop or (),
                test_environment,
                metric,
                widths(hidden),
                RowsRequest.steps if steps is None else steps,
                max_rows,
                select,
                RowsRequest.trials if trials is None else trials,
                seed,
                device,
                features,
                trial,
            )
        else:
            request = BenchmarkRequest(
                name,
                names(objectives) if objectives is not None else None,
                BenchmarkRequest.trials if trials is None else trials,
                seed,
                recipe,
                pairs("--data", data),
                hyperparameters(hyper),
                steps,
                leave_one_out,
                keep_outputs,
                similarity,
                device,
                precision,
                trial,
            )
        made = run_compare(
            request,
            folder,
            jobs=jobs,
            resume=resume,
            command=command(),
            progress=progress,
            agree=agreeing(yes),
        )
    from invlearn.reports.benchmark import BenchmarkRecord
    from invlearn.reports.record import OwnRowsRecord
    from invlearn.reports.tables import console as print_tables

    console.print(f"[bold]{escape(made.answer.headline)}[/]", highlight=False)
    say(console, made.answer.sentences)
    if isinstance(made.record, OwnRowsRecord):
        _print_rows(made.record, made.overview, console)
    if isinstance(made.record, BenchmarkRecord):
        if notice := made.record.recipe.notice:
            console.print(notice, highlight=False, markup=False, soft_wrap=True)
        if "test_set" in (description := made.record.dataset.description):
            console.print(f"Test set: {description['test_set']}.", highlight=False)
        print_tables(made.results, made.record, console, all_rules=all_rules)
    console.print(f"Report: {folder / 'report.html'}", soft_wrap=True, markup=False)


def _print_rows(record: OwnRowsRecord, overview: pd.DataFrame, console: Console) -> None:
    say(console, record.notes)
    console.print(_table(record, overview))
    for finding in record.findings:
        console.print(f"{finding.title}: {finding.sentence} {finding.action}", markup=False)


def _table(record: OwnRowsRecord, overview: pd.DataFrame) -> Table:
    """Worst and mean; single environments are in results.csv and the report."""
    table = Table(
        "method", *map(str, overview.columns),
        title=f"{record.metric} in environments not trained on [95 % interval]",
        title_justify="left",
    )  # fmt: skip
    for method, *cells in overview.itertuples(name=None):
        table.add_row(method, *map(escape, cells))
    return table
