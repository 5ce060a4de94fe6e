"""The output folder of a comparison: refused when in use, resumable, files written whole."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from invlearn.errors import OutputError
from invlearn.ground.files import check_free, make_folder, write_whole
from invlearn.outputs import Outputs

_RESULTS = (
    "results.csv",
    "summary.json",
    "curves.parquet",
    "report.html",
    "figures",
    "statistics.parquet",
    "similarity.csv",
    "outputs",
    "search.csv",
    "search.json",
)
_WORK = ".invlearn-unfinished"
_BEGUN: dict[Path, bool] = {}
"""Folders in which this process began a comparison, and whether it is still under way."""


@dataclass(frozen=True)
class Store:
    """A folder for one comparison.

    While runs are under way, a hidden folder in it holds the finished ones and a plan of what is
    being run; it goes once the results are written. Other files are left alone.
    """

    folder: Path

    @classmethod
    def check(cls, folder: Path, *, resume: bool) -> Store:
        """Look whether the folder can be used, and change nothing.

        Raises
        ------
        OutputError
            It is a file, cannot be written, holds results, or unfinished runs that are not resumed.
        """
        store = cls(folder)
        unfinished = store._plan.exists()
        check_free(folder, () if unfinished else _RESULTS)
        if unfinished and not resume:
            raise OutputError(
                f"'{folder}' holds the unfinished runs of a comparison. Add --resume to go on with "
                "it, or choose another folder."
            )
        return store

    def left(self) -> str:
        """What this process leaves here when it is interrupted, in a sentence for the user.

        A folder in which it finished no run is as it was before.
        """
        kept = len(list(self._work.glob("*.run.json"))) if self._plan.exists() else 0
        if kept:
            runs = "One finished run is" if kept == 1 else f"{kept} finished runs are"
            return (
                f"{runs} kept in '{self.folder}': repeat the command with --out '{self.folder}' "
                "--resume."
            )
        if _BEGUN.get(self.folder) is False:
            return f"All was done: the results are in '{self.folder}'."
        if _BEGUN.get(self.folder):
            shutil.rmtree(self._work, ignore_errors=True)
            with suppress(OSError):  # It holds other files.
                self.folder.rmdir()
        return "No run was finished: nothing is kept."

    @property
    def _work(self) -> Path:
        return self.folder / _WORK

    @property
    def _plan(self) -> Path:
        return self._work / "plan.json"

    def _outputs(self, key: str) -> Path:
        return self._work / f"{key}.npz"

    def _run(self, key: str) -> Path:
        return self._work / f"{key}.run.json"

    def begin(self, plan: Mapping[str, Any]) -> None:
        """Make the folder and say what is being run.

        Raises
        ------
        OutputError
            It holds the unfinished runs of another plan.
        """
        if self._plan.exists():
            if _read(self._plan) != _plain(plan):
                raise OutputError(
                    f"'{self.folder}' holds the unfinished runs of another comparison. Repeat its "
                    "command exactly with --resume, or choose another folder."
                )
            _BEGUN[self.folder] = True
            return
        text = json.dumps(_plain(plan), indent=1)
        _BEGUN[self.folder] = True
        make_folder(self._work)
        self.write(f"{_WORK}/plan.json", text)

    def save_run(
        self,
        key: str,
        tables: Mapping[str, pd.DataFrame],
        facts: Mapping[str, Any],
        outputs: Outputs | None = None,
    ) -> None:
        """Keep a finished run; its record comes last, so that what it names is there."""
        if outputs is not None:
            self.write(f"{_WORK}/{key}.npz", outputs.to_bytes())
        record = {
            "outputs": outputs is not None,
            "facts": dict(facts),
            "tables": {
                name: {column: table[column].tolist() for column in table.columns}
                for name, table in tables.items()
            },
        }
        self.write(f"{_WORK}/{key}.run.json", json.dumps(record))

    def load_run(self, key: str) -> tuple[dict[str, pd.DataFrame], dict[str, Any]] | None:
        """The tables and facts of a run kept earlier, or None."""
        path = self._run(key)
        if not path.exists():
            return None
        record = _read(path)
        if record["outputs"] and not self._outputs(key).exists():
            return None
        tables = {name: pd.DataFrame(columns) for name, columns in record["tables"].items()}
        return tables, record["facts"]

    def save_reference(self, key: str, reference: Mapping[str, Tensor]) -> None:
        """Leave a reference's outputs for other processes."""
        buffer = io.BytesIO()
        arrays: dict[str, Any] = {name: z.numpy() for name, z in reference.items()}
        np.savez(buffer, **arrays)
        self.write(f"{_WORK}/{key}.ref", buffer.getvalue())

    def load_reference(self, key: str) -> dict[str, Tensor] | None:
        """A reference's outputs that another process left, or None."""
        path = self._work / f"{key}.ref"
        if not path.exists():
            return None
        with np.load(path) as arrays:
            return {name: torch.from_numpy(arrays[name]) for name in arrays.files}

    def write(self, name: str, content: str | bytes) -> Path:
        """Write a file whole or not at all."""
        return write_whole(self.folder / name, content)

    def finish(self, *, keep_outputs: bool = False) -> None:
        """Drop what only an unfinished comparison needs; the outputs too, unless asked."""
        self._plan.unlink(missing_ok=True)  # From here on the folder is finished.
        if keep_outputs:
            (self.folder / "outputs").mkdir(exist_ok=True)
            for path in self._work.glob("*.npz"):
                os.replace(path, self.folder / "outputs" / path.name)
        shutil.rmtree(self._work)
        _BEGUN[self.folder] = False


def _plain(plan: Mapping[str, Any]) -> Any:
    return json.loads(json.dumps(plan))


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise OutputError(
            f"Expected JSON in '{path}', it is damaged ({error}). Remove it and go on with "
            "--resume: its run is done again."
        ) from error
