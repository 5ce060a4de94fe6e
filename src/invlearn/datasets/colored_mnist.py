"""Colored MNIST: digits whose color tells the label in training and misleads in the test."""

from __future__ import annotations

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
from invlearn.datasets.download import read_mnist
from invlearn.datasets.options import require_choice
from invlearn.problem import Problem

_TRAINING_DIGITS = 50_000
_IMAGE_SIZES = (14, 28)
_TEST_SETS = ("official", "irm-code")


def build(
    *,
    seed: int,
    image_size: int = 14,
    test_set: str = "official",
    rows_per_environment: int = 0,
    label_noise: float = 0.25,
    training_p: str = "0.1,0.2",
) -> Problem:
    """Build Colored MNIST.

    The first 50,000 training digits are shuffled and dealt over the training environments.
    'official' tests on the 10,000 official test digits and deals the last 10,000 training
    digits over the environments as validation rows; 'irm-code' tests on those last 10,000
    training digits, as the published IRM code does, which leaves none for validation.

    Parameters
    ----------
    seed : int
        Of the shuffle, the label noise and the colors.
    image_size : int
        14 (every second row and column) or 28.
    test_set : str
        'official' or 'irm-code'.
    rows_per_environment : int
        Training rows of every environment, the first of the shuffled ones; 0 for all.
    label_noise : float in [0, 1]
        Probability that a label is flipped.
    training_p : str
        Color flip probability of every training environment, separated by commas.

    Returns
    -------
    Problem
        Rows of ``2 * image_size ** 2`` features; y int64 of 0 and 1; test environments p_e of
        0.1 to 0.9 that share the test digits and their labels, 'p_e=0.9' the target.

    Raises
    ------
    OptionError
        A value outside what it may be.
    DataFileError
        MNIST is neither here nor to be downloaded, or damaged.

    Examples
    --------
    >>> benchmark = build(seed=0)  # doctest: +SKIP
    >>> benchmark.train.sizes, benchmark.validation.sizes  # doctest: +SKIP
    ((25000, 25000), (5000, 5000))

    References
    ----------
    Arjovsky, Bottou, Gulrajani, Lopez-Paz (2019), Invariant Risk Minimization, section 5.2 and
    the published code, https://github.com/facebookresearch/InvariantRiskMinimization.
    Bae, Choi, Lee (2021), Meta-Learned Invariant Risk Minimization, sections 4.1 and 4.4.
    """
    require_choice("image_size", image_size, _IMAGE_SIZES)
    require_choice("test_set", test_set, _TEST_SETS)
    training = parse_probabilities(training_p)
    images, digits = read_mnist("train")
    pixels = _pixels(images, image_size)
    held, held_digits = pixels[_TRAINING_DIGITS:], digits[_TRAINING_DIGITS:]

    train = colored_environments(
        pixels[:_TRAINING_DIGITS],
        digits[:_TRAINING_DIGITS],
        training,
        label_noise=label_noise,
        rng=np.random.default_rng([seed, 0]),
        rows_per_environment=rows_per_environment,
    )
    validation = None
    if test_set == "official":
        validation = colored_environments(
            held,
            held_digits,
            training,
            label_noise=label_noise,
            rng=np.random.default_rng([seed, 1]),
        )
        images, held_digits = read_mnist("test")
        held = _pixels(images, image_size)
    test = colored_sweep(
        held,
        held_digits,
        sweep_probabilities(training),
        label_noise=label_noise,
        rng=np.random.default_rng([seed, 2]),
    )
    return Problem(
        name="colored-mnist",
        train=train,
        validation=validation,
        test=test,
        target=environment_name(TARGET_P),
        loss="logistic",
        without_shortcut=without_color,
        description={
            "test_set": test_set,
            "image_size": image_size,
            "rows_per_environment": min(train.sizes),
            "validation_rows_per_environment": min(validation.sizes) if validation else 0,
            "test_rows": len(held_digits),
            "label_noise": label_noise,
            "training_p": ",".join(f"{p:g}" for p in training),
        },
    )


def _pixels(images: npt.NDArray[np.uint8], image_size: int) -> Tensor:
    """Flat images [n, image_size ** 2] in [0, 1], every second row and column for size 14."""
    step = images.shape[1] // image_size
    small = np.ascontiguousarray(images[:, ::step, ::step])
    return torch.from_numpy(small).flatten(1).to(torch.float32).div_(255.0)


COLORED_MNIST = Dataset(
    name="colored-mnist",
    summary="MNIST digits, small (0-4) or large (5-9); the color tells in training, then misleads.",
    source="Arjovsky et al. (2019), Invariant Risk Minimization, section 5.2",
    build=build,
    options={
        "image_size": Option(14, "Pixels along a side.", _IMAGE_SIZES),
        "test_set": Option(
            "official",
            "Digits to test on: the 10,000 official ones, or the last 10,000 training ones "
            "as in the IRM code (which leaves no validation rows).",
            _TEST_SETS,
        ),
        "rows_per_environment": Option(0, "Training rows of every environment; 0 for all."),
        "label_noise": Option(0.25, "Probability that a label is flipped."),
        "training_p": Option("0.1,0.2", "Color flip probability of every training environment."),
    },
)
