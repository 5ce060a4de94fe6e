"""Datasets with a known shortcut: `load_benchmark` builds one, `DATASETS` lists them all."""

from __future__ import annotations

from dataclasses import replace

from invlearn.datasets.base import Dataset, Option, OptionValue
from invlearn.datasets.colored_digits import COLORED_DIGITS
from invlearn.datasets.colored_mnist import COLORED_MNIST
from invlearn.datasets.linear_sem import LINEAR_SEM
from invlearn.datasets.options import complete_options
from invlearn.errors import OptionError, unknown_name
from invlearn.problem import Problem

__all__ = ["DATASETS", "Dataset", "Option", "OptionValue", "Problem", "load_benchmark"]

DATASETS: dict[str, Dataset] = {
    dataset.name: dataset for dataset in (COLORED_MNIST, COLORED_DIGITS, LINEAR_SEM)
}


def load_benchmark(name: str, *, seed: int, **options: OptionValue) -> Problem:
    """Build the dataset of this name.

    Parameters
    ----------
    name : str
        A key of `DATASETS`.
    seed : int
        Zero or more; equal seeds give equal benchmarks.
    **options
        Options of the dataset (``DATASETS[name].options``). Text is read as the type of the
        option's default, so values may come straight from a command line.

    Returns
    -------
    Problem

    Raises
    ------
    UnknownNameError
        A dataset or an option that does not exist, with the nearest one that does.
    OptionError
        A value of another type or outside what it may be.
    DataFileError
        A data file that is missing and cannot be downloaded, or is damaged.

    Examples
    --------
    >>> benchmark = load_benchmark("linear-sem", seed=0, setting="FOU")
    >>> benchmark.train.names, benchmark.train.sizes
    (('e=0.2', 'e=2', 'e=5'), (1000, 1000, 1000))
    """
    if name not in DATASETS:
        raise unknown_name("dataset", name, DATASETS)
    if type(seed) is not int or seed < 0:
        raise OptionError(
            f"Expected a seed that is a whole number of at least 0, got {seed!r}. "
            "Use 0, 1, 2, ... for repeated runs."
        )
    dataset = DATASETS[name]
    problem: Problem = dataset.build(seed=seed, **complete_options(dataset, options))
    return replace(problem, seed=seed)
