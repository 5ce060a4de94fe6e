"""Datasets with a known shortcut: `load_benchmark` builds one, `DATASETS` lists them all."""

from __future__ import annotations

from collections.abc import Callable

from invlearn.datasets.base import Dataset, Made, Option, OptionValue
from invlearn.datasets.colored_digits import COLORED_DIGITS
from invlearn.datasets.colored_mnist import COLORED_MNIST
from invlearn.datasets.from_function import describe, problem_of
from invlearn.datasets.linear_sem import LINEAR_SEM
from invlearn.datasets.options import complete_options
from invlearn.errors import OptionError
from invlearn.ground.registry import Registry
from invlearn.problem import Problem

__all__ = [
    "DATASETS",
    "Dataset",
    "Option",
    "OptionValue",
    "Problem",
    "load_benchmark",
    "register_dataset",
]

DATASETS: Registry[Dataset] = Registry(
    "dataset",
    {dataset.name: dataset for dataset in (COLORED_MNIST, COLORED_DIGITS, LINEAR_SEM)},
    made_of=lambda dataset: dataset.build,
)


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
    dataset = DATASETS.find(name)
    if type(seed) is not int or seed < 0:
        raise OptionError(
            f"Expected a seed that is a whole number of at least 0, got {seed!r}. "
            "Use 0, 1, 2, ... for repeated runs."
        )
    return problem_of(dataset, dataset.build(seed=seed, **complete_options(dataset, options)), seed)


@DATASETS.registrar
def register_dataset(
    name: str, build: Dataset | Callable[..., Made], *, summary: str = "", source: str = ""
) -> None:
    """Make a dataset known by a name, here and in the worker processes of a comparison.

    It then works wherever a built-in one does. The same function again does no harm, and one that
    was defined anew in the same place, by a notebook cell that ran again, takes its place. For the
    command line, name the module that calls this as an entry point of the group
    ``invlearn.datasets``.

    Parameters
    ----------
    name : str
        Letters, digits, '-' and '_'.
    build : callable
        ``build(seed=..., **options)`` returns (training, validation, test) `Environments`,
        validation rows of the training environments or None; or a `Problem`, which may say more.
        Equal seeds have to give equal rows. Parameters with defaults are the options; the text of
        an ``Annotated[int, "Rows of every ward."]`` is an option's help, and a ``Literal`` lists
        its choices. Features should be of about unit scale, and targets what `Problem` says.
    summary, source : str
        For lists and reports; default: the first line of the function's docstring, and its name.

    Raises
    ------
    OptionError
        The name is another's or no name; a function that cannot be called so.

    Examples
    --------
    >>> import torch
    >>> from invlearn.environments import Environments
    >>> def wards(seed: int, rows: int = 50):
    ...     draw = torch.Generator().manual_seed(seed)
    ...     x = torch.randn(3 * rows, 2, generator=draw)
    ...     made = Environments.from_arrays(x, x[:, 0] > 0, ["a", "b", "new"] * rows)
    ...     train, validation = made.select(["a", "b"]).split(0.2, seed=seed)
    ...     return train, validation, made.select(["new"])
    >>> register_dataset("wards", wards)
    >>> made = load_benchmark("wards", seed=0, rows=30)
    >>> made.target, made.loss, made.train.sizes
    ('new', 'logistic', (24, 24))
    >>> del DATASETS["wards"]
    """
    if not isinstance(build, Dataset):
        build = describe(name, build, summary, source)
    DATASETS.add(name, build)
