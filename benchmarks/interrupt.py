"""Ctrl-C at random moments: seconds until the prompt, what was kept, processes left.

Every command is begun in a session of its own and interrupted between `--from` and `--until`
seconds later: SIGINT to the whole group, as a terminal sends it, and in turn to the parent alone.
What it says that it kept is held to what lies in its folder. Processes left are those of the
session two seconds after the signal.

    python benchmarks/interrupt.py [--moments 10] [--only NAME ...] [--out FILE]
"""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import source_of, write

INVLEARN = [sys.executable, "-m", "invlearn"]
ROWS = ["--target", "ill", "--environment", "hospital"]
MANY = ["--steps", "20", "--jobs", "2", "--out", "{out}"]
COMMANDS = {
    "compare, benchmark": ["compare", "colored-digits", "--trials", "99", *MANY],
    "compare, own rows": ["compare", "{rows}", *ROWS, "--trials", "99", *MANY],
    "search": ["search", "colored-digits", "--draws", "99", *MANY],
    "fit": ["fit", "{rows}", *ROWS, "--steps", "99999", "--output", "{out}"],
}
CROSS_VALIDATE = """
import numpy as np
from sklearn.model_selection import cross_validate
from invlearn import InvariantClassifier
rng = np.random.default_rng(0)
X, groups = rng.normal(size=(3000, 10)), np.repeat(["a", "b", "c"], 1000)
y = (X[:, 0] + rng.normal(size=3000) > 0).astype(int)
cross_validate(
    InvariantClassifier(steps=99_999), X, y, params={"environments": groups}, error_score="raise"
)
"""


def alive(session: int) -> int:
    """Processes of a session that are not only waiting to be taken note of."""
    listed = subprocess.run(
        ["ps", "-eo", "sid=,stat="], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    return sum(int(s) == session and "Z" not in stat for s, stat in map(str.split, listed))


def interrupt(command: Sequence[str], out: Path, moment: float, group: bool) -> dict[str, Any]:
    """What became of a command that was interrupted at a moment."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # A shell's '&' has it ignored.
    process = subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    time.sleep(moment)
    ended = process.poll() is not None
    began = time.monotonic()
    if not ended:
        (os.killpg if group else os.kill)(process.pid, signal.SIGINT)
    try:
        said = process.communicate(timeout=60)[0]
    except subprocess.TimeoutExpired:
        said = "still running after 60 s"
    seconds = time.monotonic() - began
    while (left := alive(process.pid)) and time.monotonic() - began < 2:
        time.sleep(0.05)
    if process.poll() is None or left:
        os.killpg(process.pid, signal.SIGKILL)
    last = (said.strip().splitlines() or [""])[-1].replace(str(out), "OUT")
    kept = len(list(out.glob(".invlearn-unfinished/*.run.json")))
    number = re.search(r"(\d+|One) finished runs? (?:is|are) kept", last)
    claimed = 0 if number is None else 1 if number[1] == "One" else int(number[1])
    return {
        "moment": round(moment, 2),
        "to": "group" if group else "parent",
        "ended before": ended,
        "seconds": round(seconds, 2),
        "exit": process.returncode,
        "said": last,
        "runs kept": kept,
        "said truly": kept == claimed,
        "processes left": left,
    }


def main() -> None:
    """Interrupt every command, and write the record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--moments", type=int, default=10)
    parser.add_argument("--from", type=float, default=0.5, dest="first")
    parser.add_argument("--until", type=float, default=25.0)
    parser.add_argument("--seed", type=int, default=0)
    names = [*COMMANDS, "cross_validate"]
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    source, draw = source_of(__file__), random.Random(options.seed)
    found: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = folder / "rows.csv"
        example = ["example", "hospitals", "--rows", "300", "--output", str(rows)]
        subprocess.run([*INVLEARN, *example], check=True, stdout=subprocess.DEVNULL)
        for what in options.only:
            for n in range(options.moments):
                out = folder / f"{what}-{n}".replace(", ", "-").replace(" ", "-")
                words = [w.format(rows=rows, out=out) for w in COMMANDS.get(what, ())]
                command = [*INVLEARN, *words] if words else [sys.executable, "-c", CROSS_VALIDATE]
                moment = draw.uniform(options.first, options.until)
                one = interrupt(command, out, moment, n % 2 == 0)
                found.setdefault(what, []).append(one)
                print(what, one, flush=True)
    summary = {
        what: {
            "seconds, most": max(one["seconds"] for one in own),
            "exits": sorted({one["exit"] for one in own}, key=str),
            "processes left": sum(one["processes left"] for one in own),
            "said truly": all(one["said truly"] for one in own),
        }
        for what, own in found.items()
    }
    load = [round(value, 1) for value in os.getloadavg()]
    write({"source": source | {"load": load}, "summary": summary, "moments": found}, options.out)


if __name__ == "__main__":
    main()
