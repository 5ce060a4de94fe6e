"""Where a result comes from: version, machine, time."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch


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


def provenance(command: str) -> dict[str, str]:
    """Command, versions, machine and the time now; to be called when the work starts."""
    return {
        "command": command,
        "version": package_version(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": f"{processor()}, {platform.system()} {platform.machine()}",
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }
