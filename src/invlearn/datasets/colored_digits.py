"""Colored digits: the Colored MNIST protocol on scikit-learn's small scans; needs no download."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from invlearn.datasets.base import Dataset, Option
from invlearn.datasets.coloring import (
    TARGET_P,
    colored_environments,
    colored_sweep,
    environment_name,
    parse_probabilities,
    sweep_probabilities,
    without_color,
)
from invlearn.datasets.options import require_range
from invlearn.problem import Problem

SCANS = {"train": 1000, "validation": 297, "test": 500}
_SIDE = 8
_TEST_SPLIT = 0
_MAX_ROWS = 1_000_000
_MAX_ROTATION = math.radians(15.0)
_SCALE = (0.85, 1.15)
_MAX_SHIFT = 1.0


def build(
    *,
    seed: int,
    rows_per_environment: int = 20_000,
    validation_rows: int = 5000,
    test_rows: int = 10_000,
    label_noise: float = 0.25,
    training_p: str = "0.1,0.2",
) -> Problem:
    """Build the colored digits.

    The 1,797 scans of 8 x 8 pixels are split, by digit, into three pools, for training,
    validation and test; no scan is in two of them, and the test pool is the same for every seed.
    Each pool is grown to the rows asked for:
    every row is a scan, turned by up to 15 degrees, scaled by 0.85 to 1.15 and shifted by up to
    a pixel. Then the rows are labeled and colored as in Colored MNIST.

    Parameters
    ----------
    seed : int
        Of the training and validation pools, the changes to the scans, the noise and the colors.
    rows_per_environment : int
        Training rows of every environment.
    validation_rows : int
        Validation rows of every environment.
    test_rows : int
        Rows that all test environments share.
    label_noise : float in [0, 1]
        Probability that a label is flipped.
    training_p : str
        Color flip probability of every training environment, separated by commas.

    Returns
    -------
    Problem
        Rows of 2 * 64 features; y int64 of 0 and 1; test environments p_e of 0.1 to 0.9 that
        share the test digits and their labels, 'p_e=0.9' the target.

    Raises
    ------
    OptionError
        A value outside what it may be.

    Examples
    --------
    >>> benchmark = build(seed=0, rows_per_environment=100, validation_rows=50, test_rows=50)
    >>> benchmark.train.sizes, benchmark.validation.sizes, benchmark.target
    ((100, 100), (50, 50), 'p_e=0.9')

    References
    ----------
    Alpaydin, Kaynak (1998), Optical Recognition of Handwritten Digits, UCI Machine Learning
    Repository. Arjovsky, Bottou, Gulrajani, Lopez-Paz (2019), Invariant Risk Minimization,
    section 5.2.
    """
    require_range("rows_per_environment", rows_per_environment, 2, _MAX_ROWS)
    require_range("validation_rows", validation_rows, 2, _MAX_ROWS)
    require_range("test_rows", test_rows, 1, _MAX_ROWS)
    training = parse_probabilities(training_p)
    scans, digits = read_scans()
    pools = split_scans(digits, np.random.default_rng([seed, 0]))

    def environments(pool: str, rows: int, stream: int) -> tuple[Tensor, npt.NDArray[np.int64]]:
        rng = np.random.default_rng([seed, stream])
        picked = _repeat(pools[pool], rows, rng)
        return augment(scans[picked], rng), digits[picked]

    train = colored_environments(
        *environments("train", rows_per_environment * len(training), 1),
        training,
        label_noise=label_noise,
        rng=np.random.default_rng([seed, 2]),
    )
    validation = colored_environments(
        *environments("validation", validation_rows * len(training), 3),
        training,
        label_noise=label_noise,
        rng=np.random.default_rng([seed, 4]),
    )
    test = colored_sweep(
        *environments("test", test_rows, 5),
        sweep_probabilities(training),
        label_noise=label_noise,
        rng=np.random.default_rng([seed, 6]),
    )
    return Problem(
        name="colored-digits",
        train=train,
        validation=validation,
        test=test,
        target=environment_name(TARGET_P),
        loss="logistic",
        without_shortcut=without_color,
        description={
            "test_set": "scans kept apart for the test",
            "image_size": _SIDE,
            "rows_per_environment": rows_per_environment,
            "validation_rows_per_environment": validation_rows,
            "test_rows": test_rows,
            **{f"{pool}_scans": number for pool, number in SCANS.items()},
            "label_noise": label_noise,
            "training_p": ",".join(f"{p:g}" for p in training),
        },
    )


def read_scans() -> tuple[Tensor, npt.NDArray[np.int64]]:
    """All scans [1797, 64], float32 in [0, 1], and which digits they are."""
    from sklearn.datasets import load_digits

    data = load_digits()
    return torch.from_numpy(data.data / 16.0).to(torch.float32), data.target.astype(np.int64)


def split_scans(
    digits: npt.NDArray[np.int64], rng: np.random.Generator
) -> dict[str, npt.NDArray[np.int64]]:
    """Positions of the scans of each pool: disjoint, and alike in their shares of the digits.

    The test pool is always the same, so that no search or trial of another seed trains on it;
    `rng` divides the rest into training and validation.
    """
    from sklearn.model_selection import train_test_split

    rest, test = train_test_split(
        np.arange(len(digits)), test_size=SCANS["test"], stratify=digits, random_state=_TEST_SPLIT
    )
    train, validation = train_test_split(
        rest,
        test_size=SCANS["validation"],
        stratify=digits[rest],
        random_state=int(rng.integers(2**31)),
    )
    return {"train": train, "validation": validation, "test": test}


def augment(scans: Tensor, rng: np.random.Generator) -> Tensor:
    """Turn, scale and shift every scan by its own random amounts, interpolating bilinearly.

    Parameters
    ----------
    scans : Tensor [n, 64], float32 in [0, 1]
        Flat images.
    rng : numpy Generator
        Source of every draw.

    Returns
    -------
    Tensor [n, 64], float32 in [0, 1]
    """
    n = len(scans)
    angle = rng.uniform(-_MAX_ROTATION, _MAX_ROTATION, n)
    scale = rng.uniform(*_SCALE, n)
    shift = rng.uniform(-_MAX_SHIFT, _MAX_SHIFT, (n, 2)) * (2.0 / _SIDE)
    # The matrix maps places in the new image to places in the scan, hence the inverse scale.
    cos, sin = np.cos(angle) / scale, np.sin(angle) / scale
    rows = np.stack([cos, -sin, shift[:, 0], sin, cos, shift[:, 1]], axis=1).reshape(n, 2, 3)
    grid = torch.nn.functional.affine_grid(
        torch.from_numpy(rows).to(scans.dtype), [n, 1, _SIDE, _SIDE], align_corners=False
    )
    images = scans.reshape(n, 1, _SIDE, _SIDE)
    moved = torch.nn.functional.grid_sample(images, grid, mode="bilinear", align_corners=False)
    return moved.reshape(n, -1).clamp_(0.0, 1.0)


def _repeat(
    pool: npt.NDArray[np.int64], rows: int, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Draw scans of the pool, each about equally often, in random order."""
    passes = [rng.permutation(pool) for _ in range(math.ceil(rows / len(pool)))]
    return np.concatenate(passes)[:rows]


COLORED_DIGITS = Dataset(
    name="colored-digits",
    summary="8 x 8 scans of digits under the Colored MNIST protocol; built in, no download.",
    source="Alpaydin, Kaynak (1998), UCI; Arjovsky et al. (2019), section 5.2",
    build=build,
    options={
        "rows_per_environment": Option(20_000, "Training rows of every environment."),
        "validation_rows": Option(5000, "Validation rows of every environment."),
        "test_rows": Option(10_000, "Rows that all test environments share."),
        "label_noise": Option(0.25, "Probability that a label is flipped."),
        "training_p": Option("0.1,0.2", "Color flip probability of every training environment."),
    },
)
