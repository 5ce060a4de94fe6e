"""Where a result comes from: version, commit, machine, time."""

from __future__ import annotations

import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

Provenance = dict[str, str]
"""Where a result comes from, by name."""


def package_version() -> str:
    """The installed version of this library."""
    try:
        return version("invariant-learn")
    except PackageNotFoundError:
        return "not installed"


def processor() -> str:
    """The processor's name, as far as the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def commit(root: Path = Path(__file__).parents[3]) -> str:
    """The commit of a source tree, if it is one of git's; with '+' if its code was changed."""
    if not (root / ".git").exists():
        return ""
    said = []
    for arguments in (
        ["rev-parse", "--short=12", "HEAD"],
        ["status", "--porcelain", "src", "benchmarks"],
    ):
        try:
            done = subprocess.run(
                ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True
            )
        except (OSError, subprocess.CalledProcessError):
            return ""
        said.append(done.stdout.strip())
    return said[0] + ("+" if said[1] else "")


def provenance(command: str) -> Provenance:
    """Command, version, commit, machine and the time now; to be called when the work starts."""
    return {
        "command": command,
        "version": package_version(),
        "commit": commit(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": f"{processor()}, {platform.system()} {platform.machine()}",
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }
