"""The commands on one's own rows: example, fit, predict, diagnose."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from invlearn.cli.common import app, command, nothing, reported, say, widths
from invlearn.errors import OptionError, unknown_name
from invlearn.ground.files import check_free
from invlearn.ground.progress import bar
from invlearn.rows.request import FitRequest

if TYPE_CHECKING:
    from invlearn.diagnostics import Finding

EXAMPLES = {"hospitals": True, "no-shift": False}
Features = Annotated[
    Path | None,
    typer.Option(help="Features of images by their path: a table with a column 'file'."),
]


@app.command()
def example(
    name: Annotated[str, typer.Argument(help="hospitals, or no-shift.")],
    output: Annotated[Path, typer.Option(help="CSV, Parquet or Feather file to write.")],
    rows: Annotated[int, typer.Option(help="Of each of six hospitals.")] = 600,
    seed: Annotated[
        int, typer.Option(min=0, max=2**31 - 1, help="Other seeds give other patients.")
    ] = 0,
) -> None:
    """Write a generated table to try things on.

    In 'hospitals' a scanner's artefact predicts the illness in five hospitals and misleads in the
    sixth; in 'no-shift' it is noise and the hospitals are alike.
    """
    with reported(Console(stderr=True), nothing):
        if name not in EXAMPLES:
            raise unknown_name("example", name, EXAMPLES)
        if rows < 10:
            raise OptionError(f"Expected 10 rows or more of each hospital, got {rows}.")
        from invlearn.rows.example import hospitals
        from invlearn.rows.files import write_table

        write_table(hospitals(shift=EXAMPLES[name], rows=rows, seed=seed), output)
    Console().print(
        f"Wrote '{output}': target 'ill', environment 'hospital'.", soft_wrap=True, markup=False
    )


@app.command()
def fit(
    rows: Annotated[str, typer.Argument(help="A table, or a folder of images.")],
    output: Annotated[Path, typer.Option(help="Folder of the model; must not exist yet.")],
    target: Annotated[str | None, typer.Option(help="Column to predict.")] = None,
    environment: Annotated[
        str | None, typer.Option(help="Column that says where rows come from.")
    ] = None,
    objective: Annotated[
        str, typer.Option(help="See 'invlearn objectives'.")
    ] = FitRequest.objective,
    penalty_weight: Annotated[
        str, typer.Option(help="A number, or auto: by leaving environments out.")
    ] = "auto",
    hidden: Annotated[str, typer.Option(help="Widths of hidden layers, '' for none.")] = ",".join(
        map(str, FitRequest.hidden)
    ),
    steps: Annotated[int, typer.Option(help="Training steps.")] = FitRequest.steps,
    early_stopping: Annotated[
        str, typer.Option(help="A rule to stop by, such as lowest-worst-group.")
    ] = "",
    task: Annotated[
        str | None, typer.Option(help="classification or regression, if not as it looks.")
    ] = None,
    drop: Annotated[list[str] | None, typer.Option(help="Column to leave out; repeatable.")] = None,
    features: Features = None,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Of weights and rows drawn.")] = 0,
    device: Annotated[str, typer.Option(help="Where to train: cpu, cuda or cuda:1.")] = "cpu",
) -> None:
    """Fit a model to rows of several environments and keep it in a folder."""
    status = Console(stderr=True)
    with reported(status, nothing):
        check_free(output)
        from invlearn.ground.machine import keep_freed_memory, provenance
        from invlearn.rows.files import fit_file

        request = FitRequest(
            objective, _weight(penalty_weight), widths(hidden), steps, early_stopping or False,
            seed, device,
        )  # fmt: skip
        keep_freed_memory()
        model, notes = fit_file(
            rows,
            request,
            target=target,
            environment=environment,
            task=task,
            drop=drop or (),
            features=features,
            provenance=provenance(command()),
            progress=True,
        )
        model.save(output)
    say(console := Console(), notes)
    sizes = model.record.environments
    console.print(
        f"Fitted '{model.target_name}' on {sum(sizes.values()):,} rows of {len(sizes)} "
        f"environments; model in '{output}'.",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="A model's folder.")],
    rows: Annotated[str, typer.Argument(help="A table, or a folder of images.")],
    output: Annotated[Path, typer.Option(help="CSV, Parquet or Feather file to write.")],
    features: Features = None,
) -> None:
    """Predict new rows, one line each, in their order."""
    with reported(Console(stderr=True), nothing):
        from invlearn.rows.files import predict_file
        from invlearn.rows.model import RowsModel

        count, notes = predict_file(RowsModel.load(model), rows, output, features=features)
    say(console := Console(), notes)
    console.print(
        f"Wrote {count:,} predictions to '{output}'.", highlight=False, markup=False, soft_wrap=True
    )


@app.command()
def diagnose(
    model: Annotated[Path, typer.Argument(help="A model's folder.")],
    rows: Annotated[str, typer.Argument(help="Labeled rows, best ones it was not fitted to.")],
    output: Annotated[Path | None, typer.Option(help="Also as a JSON file.")] = None,
    features: Features = None,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Of the resampling.")] = 0,
) -> None:
    """Say how a model does in every environment, why, and what to do."""
    status = Console(stderr=True)
    with reported(status, nothing), bar(status) as progress:
        from invlearn.rows.files import diagnose_file
        from invlearn.rows.model import RowsModel

        found = RowsModel.load(model)
        findings, notes = diagnose_file(
            found, rows, output, seed=seed, features=features, progress=progress
        )
    say(console := Console(), notes)
    for finding in findings:
        _print(finding, console)


def _print(finding: Finding, console: Console) -> None:
    console.print(f"\n[bold]{finding.title}[/] ({finding.level})", highlight=False)
    console.print(f"{finding.sentence} {finding.action}", highlight=False, markup=False)
    # What differs from environment to environment in columns of its own is in the JSON file.
    kept = [name for name in finding.table.columns if " in " not in str(name)]
    shown = finding.table[kept].head(12)
    if len(shown):
        table = Table(*(escape(str(name)) for name in shown.columns))
        for row in shown.itertuples(index=False):
            table.add_row(*map(_cell, row))
        console.print(table)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "-" if value != value else f"{value:.3g}"
    return escape(str(value))


def _weight(text: str) -> float | str:
    if text == "auto":
        return text
    try:
        return float(text)
    except ValueError:
        raise OptionError(
            f"Expected --penalty-weight as a number or auto, got '{text}'. For instance 100."
        ) from None
