"""The Colored MNIST protocol: noisy binary labels, and a color that follows them by environment."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from invlearn.datasets.options import require_range
from invlearn.environments import Environments, EvaluationSet
from invlearn.errors import OptionError
from invlearn.features import ChannelImages, Features, as_rows

TARGET_P = 0.9
TEST_P = tuple(k / 10 for k in range(1, 10))


def environment_name(p: float) -> str:
    """Name of the environment whose colors disagree with the label with probability p."""
    return f"p_e={p:g}"


def parse_probabilities(text: str) -> tuple[float, ...]:
    """Read the option ``training_p``: one color flip probability per training environment.

    Parameters
    ----------
    text : str
        Distinct probabilities, separated by commas.

    Returns
    -------
    tuple of float

    Raises
    ------
    OptionError
        No number, something else than numbers, one outside [0, 1], one given twice, the target's.

    Examples
    --------
    >>> parse_probabilities("0.1,0.2")
    (0.1, 0.2)
    """
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    names = {environment_name(p) for p in values}
    if not values or len(names) < len(values) or not all(0.0 <= p <= 1.0 for p in values):
        raise OptionError(
            f"Expected option 'training_p' to be distinct probabilities, got {text!r}. "
            "Write one per training environment, separated by commas: '0.1,0.2'."
        )
    if environment_name(TARGET_P) in names:
        raise OptionError(
            f"Expected training environments other than the target {environment_name(TARGET_P)}, "
            f"got {text!r}: nobody may train on the target. Choose another probability."
        )
    return values


def noisy_labels(
    digits: npt.NDArray[np.int64], label_noise: float, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Tell digits 5..9 (1) from 0..4 (0), flipping each label with probability `label_noise`."""
    return (digits >= 5).astype(np.int64) ^ (rng.random(len(digits)) < label_noise)


def colored_environments(
    pixels: Tensor,
    digits: npt.NDArray[np.int64],
    flip_probabilities: Sequence[float],
    *,
    label_noise: float,
    rng: np.random.Generator,
    rows_per_environment: int = 0,
) -> Environments:
    """Shuffle digits, deal them over environments, and label and color them there.

    ``y = [digit >= 5] xor Bernoulli(label_noise)`` and ``z = y xor Bernoulli(p_e)``; the image
    lies in channel z of two. Of the shuffled rows environment e gets every E-th, from the e-th.
    Inside an environment rows are sorted by color, which makes long runs of one channel; their
    order carries no meaning.

    Parameters
    ----------
    pixels : Tensor [n, p]
        Grayscale images in [0, 1].
    digits : array [n], int64
        What the images show, 0 to 9.
    flip_probabilities : sequence of E floats
        p_e of every environment.
    label_noise : float in [0, 1]
        Probability that a label is flipped.
    rng : numpy Generator
        Source of every draw.
    rows_per_environment : int
        Keep that many of the shuffled rows of every environment; 0 keeps all of them. The rows
        kept, their labels and their colors are among those of any larger number.

    Returns
    -------
    Environments
        E environments named 'p_e=...'; y int64 of 0 and 1.

    Raises
    ------
    OptionError
        A noise outside [0, 1], or more rows asked for than there are.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> digits = np.arange(40) % 10
    >>> pixels = torch.ones(40, 4)
    >>> envs = colored_environments(pixels, digits, (0.1, 0.2), label_noise=0.25, rng=rng)
    >>> envs.names, envs.sizes, envs.x.n_features
    (('p_e=0.1', 'p_e=0.2'), (20, 20), 8)

    References
    ----------
    Arjovsky, Bottou, Gulrajani, Lopez-Paz (2019), Invariant Risk Minimization, section 5.2 and
    the published code, https://github.com/facebookresearch/InvariantRiskMinimization.
    """
    count = len(flip_probabilities)
    require_range("label_noise", label_noise, 0, 1)
    require_range("rows_per_environment", rows_per_environment, 0, len(digits) // count)
    order = rng.permutation(len(digits))
    parts: dict[str, tuple[ChannelImages, Tensor]] = {}
    for e, p in enumerate(flip_probabilities):
        rows = order[e::count]
        y = noisy_labels(digits[rows], label_noise, rng)
        color = y ^ (rng.random(len(rows)) < p)
        kept = rows_per_environment or len(rows)
        by_color = np.argsort(color[:kept], kind="stable")
        parts[environment_name(p)] = (
            ChannelImages(pixels[rows[by_color]], torch.from_numpy(color[by_color]), 2),
            torch.from_numpy(y[by_color]),
        )
    return Environments.from_parts(parts)


def colored_sweep(
    pixels: Tensor,
    digits: npt.NDArray[np.int64],
    flip_probabilities: Sequence[float],
    *,
    label_noise: float,
    rng: np.random.Generator,
) -> EvaluationSet:
    """Color the same digits, with the same labels, once for every flip probability.

    One uniform number u per digit decides all its colors: z differs from y where u < p_e. So
    environments differ in nothing but the colors flipped between their probabilities, and they
    share the features of 2n rows: every digit in channel 0, then every digit in channel 1.

    Parameters
    ----------
    pixels : Tensor [n, p]
        Grayscale images in [0, 1].
    digits : array [n], int64
        What the images show, 0 to 9.
    flip_probabilities : sequence of E floats
        p_e of every environment.
    label_noise : float in [0, 1]
        Probability that a label is flipped.
    rng : numpy Generator
        Source of every draw.

    Returns
    -------
    EvaluationSet
        Split 'test'; row ``i + n * z`` of x is digit i in color z.

    Raises
    ------
    OptionError
        A noise outside [0, 1].

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> digits = np.arange(5)
    >>> sweep = colored_sweep(torch.ones(5, 4), digits, TEST_P, label_noise=0.25, rng=rng)
    >>> len(sweep.x), sweep.names[-1], len(sweep.rows[-1])
    (10, 'p_e=0.9', 5)
    """
    require_range("label_noise", label_noise, 0, 1)
    n = len(digits)
    y = noisy_labels(digits, label_noise, rng)
    u = rng.random(n)
    channel = torch.arange(2).repeat_interleave(n)
    rows = [np.arange(n) + n * (y ^ (u < p)) for p in flip_probabilities]
    target = torch.from_numpy(y)
    return EvaluationSet(
        ChannelImages(torch.cat([pixels, pixels]), channel, 2),
        tuple(environment_name(p) for p in flip_probabilities),
        tuple(torch.from_numpy(part) for part in rows),
        (target,) * len(rows),
        "test",
    )


def sweep_probabilities(training: Sequence[float]) -> tuple[float, ...]:
    """Flip probabilities to test on: 0.1 to 0.9 in tenths, and the training ones."""
    extra = [p for p in training if not any(math.isclose(p, q) for q in TEST_P)]
    return tuple(sorted([*TEST_P, *extra]))


def without_color(x: Features) -> Features:
    """Grayscale images: the pixels, whichever channel they lie in."""
    return as_rows(x).values
