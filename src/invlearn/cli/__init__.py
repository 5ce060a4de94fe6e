"""The command line: parse, call, print."""

# Each module adds its commands to the application.
from invlearn.cli import benchmarks, compare, rows
from invlearn.cli.common import app

__all__ = ["app", "benchmarks", "compare", "rows"]
