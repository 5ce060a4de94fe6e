"""Peak memory of training on a Parquet file of many rows, most of which are never in memory.

Makes a file of 50 columns (target, environment, a category, float32 and float64 features), then,
in a process of its own, streams it and trains V-REx on it with the default recipe. Two features
say something of the target everywhere; a third, the shortcut, says more in the environments of
the training file and the opposite in the rows that the model is measured on at last. Peak memory
is the most that was resident at once in that process, libraries included. Pages of files that the
system keeps beside it are not the process's.

    python benchmarks/larger_than_memory.py [--rows 10000000] [--folder DIR] [--threads N]
        [--out results/larger_than_memory.json]
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from common import in_child, make_parser, source_of, write
from invlearn.environments import Environments, EvaluationSet
from invlearn.evaluation import evaluate
from invlearn.learning import fit, standard_plan
from invlearn.learning.plan import Layers
from invlearn.losses import get_loss
from invlearn.rows.streamed import stream_parquet
from invlearn.stored_rows import StoredRows

ENVIRONMENTS, COLUMNS, NUMBERS = 10, 50, 47
ROW_GROUP = 100_000
CATEGORIES = np.array(["north", "east", "south", "west"])
HIDDEN = (64,)
SEED = 0


def make_frame(rows: int, rng: np.random.Generator, *, turned: bool = False) -> pd.DataFrame:
    """Rows of all environments in no order; `turned` makes the shortcut say the opposite."""
    y = rng.integers(0, 2, rows)
    sign = 2 * y - 1
    environment = rng.integers(0, ENVIRONMENTS, rows)
    x = rng.normal(size=(rows, NUMBERS))
    x[:, 0] += 0.7 * sign
    x[:, 1] += 0.7 * sign
    agrees = rng.random(rows) < 0.05 if turned else rng.random(rows) < 0.75 + 0.02 * environment
    x[:, 2] += np.where(agrees, 1.5, -1.5) * sign
    numbers = {f"x{i}": x[:, i].astype(np.float32 if i % 2 else np.float64) for i in range(NUMBERS)}
    return pd.DataFrame(
        {
            "ill": np.array(["no", "yes"])[y],
            "hospital": [f"hospital {e}" for e in environment],
            "region": CATEGORIES[rng.integers(0, len(CATEGORIES), rows)],
            **numbers,
        }
    )


def make_file(path: Path, rows: int) -> None:
    """Write the file, one row group in memory at a time."""
    rng = np.random.default_rng(SEED)
    writer = None
    for start in range(0, rows, ROW_GROUP):
        frame = make_frame(min(ROW_GROUP, rows - start), rng)
        part = pa.Table.from_pandas(frame, preserve_index=False)
        writer = writer or pq.ParquetWriter(path, part.schema)
        writer.write_table(part)
    if writer is not None:
        writer.close()


def train(path: Path, folder: Path, threads: int) -> dict[str, Any]:
    """Stream, train and measure; to be called in a fresh process."""
    torch.set_num_threads(threads)
    imported = peak()
    started = time.perf_counter()
    loss = get_loss("logistic")
    with stream_parquet(
        path, target="ill", environment="hospital", seed=SEED, folder=folder
    ) as rows:
        streamed, streamed_peak = time.perf_counter(), peak()
        width = rows.inputs.encoder.n_features
        fitted = fit(standard_plan("vrex", Layers(HIDDEN)), rows.train, loss, 1, seed=SEED)
        trained = time.perf_counter()
        turned = make_frame(20_000, np.random.default_rng(SEED + 1), turned=True)
        test = Environments.from_arrays(
            rows.inputs.matrix(turned, None),
            rows.target.encode(turned["ill"]),
            turned["hospital"].to_numpy(),
        )
        sets = [
            EvaluationSet.from_environments(rows.validation, "validation"),
            EvaluationSet.from_environments(test, "test"),
        ]
        measured = evaluate(fitted.network, sets, loss)
        assert isinstance(rows.train.x, StoredRows)
        return {
            "training_rows": rows.train.n_rows,
            "validation_rows": rows.validation.n_rows,
            "features": width,
            "stored_bytes": 4 * width * rows.train.n_rows,
            "steps": fitted.run.steps,
            "seconds_streaming": streamed - started,
            "seconds_training": trained - streamed,
            "peak_resident_mib_imported": imported,
            "peak_resident_mib_streamed": streamed_peak,
            "peak_resident_mib": peak(),
            "accuracy": {
                split: float(
                    np.mean(
                        [m.value for m in measured if (m.metric, m.split) == ("accuracy", split)]
                    )
                )
                for split in ("validation", "test")
            },
        }


def peak() -> float:
    """MiB that were resident at most in this process so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def main() -> None:
    """Make the file, train on it and write the record."""
    parser = make_parser(__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    args = parser.parse_args()
    source = source_of(__file__)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        path = Path(folder) / "rows.parquet"
        started = time.perf_counter()
        make_file(path, args.rows)
        made = time.perf_counter() - started
        found = in_child(train, path, Path(folder), args.threads)
        record = {
            "rows": args.rows,
            "columns": COLUMNS,
            "environments": ENVIRONMENTS,
            "file_bytes": path.stat().st_size,
            "seconds_making_the_file": made,
            **found,
            "threads": args.threads,
            **source,
        }
    print(
        f"{args.rows:,} rows of {COLUMNS} columns: peak {record['peak_resident_mib']:.0f} MiB "
        f"({record['peak_resident_mib_imported']:.0f} MiB of it libraries), "
        f"{record['seconds_streaming']:.0f} s streaming, "
        f"{record['seconds_training']:.0f} s training; accuracy "
        f"{100 * record['accuracy']['validation']:.1f} % held out, "
        f"{100 * record['accuracy']['test']:.1f} % with the shortcut turned"
    )
    write(record, args.out)


if __name__ == "__main__":
    main()
