"""Means over the rows of each environment, by segment sums in double precision."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from invlearn.errors import OptionError


def random_folds(sizes: tuple[int, ...], folds: int, generator: torch.Generator) -> Tensor:
    """Cut every environment's rows into random disjoint folds of equal size, give or take one.

    Parameters
    ----------
    sizes : tuple of int
        Rows of each environment.
    folds : int
        How many parts.
    generator : torch.Generator
        A CPU generator.

    Returns
    -------
    Tensor [n], int64
        Fold number of every row.

    Raises
    ------
    OptionError
        An environment has fewer rows than folds: an empty mean would be NaN.
    """
    if min(sizes) < folds:
        raise OptionError(
            f"Expected at least {folds} rows of every environment in each step, got {min(sizes)}: "
            f"they are split into {folds} parts. Raise batch_size, or choose the variant without a "
            "split: estimator='full' (IRMv1), rows='shared' (meta-IRM)."
        )
    parts = []
    for size in sizes:
        fold = torch.empty(size, dtype=torch.int64)
        fold[torch.randperm(size, generator=generator)] = torch.arange(size) * folds // size
        parts.append(fold)
    return torch.cat(parts)


def environment_means(
    moments: Mapping[str, Any],
    segment: Tensor,
    n_segments: int,
    weights: Tensor | None = None,
) -> dict[str, Tensor]:
    """Weighted means Σ w·v / Σ w of per-row moments over segments, in float64.

    Parameters
    ----------
    moments : {name: Tensor [n, ...]}
    segment : Tensor [n], int64
        Which mean each row belongs to.
    n_segments : int
    weights : Tensor [n], optional

    Returns
    -------
    dict
        {name: Tensor [n_segments, ...]}, and the sums of the weights as 'mass'.

    Raises
    ------
    OptionError
        The weights of a segment sum to zero.
    """
    n = len(segment)
    w = torch.ones(n, dtype=torch.float64, device=segment.device)
    w = w if weights is None else weights.to(torch.float64)
    mass = w.new_zeros(n_segments).index_add(0, segment, w)
    check_mass(mass)
    means = {"mass": mass}
    for name, rows in moments.items():
        values = rows.to(torch.float64)
        shape = (n,) + (1,) * (values.ndim - 1)
        sums = values.new_zeros(n_segments, *values.shape[1:])
        sums = sums.index_add(0, segment, values * w.reshape(shape))
        means[name] = sums / mass.reshape((n_segments,) + (1,) * (values.ndim - 1))
    return means


def check_mass(mass: Tensor) -> None:
    """Raise OptionError for sums of row weights of which one is 0.

    On a device the look would wait for it; the objective is NaN there, and training says so.
    """
    if mass.device.type == "cpu" and bool((mass <= 0).any()):
        raise OptionError(
            "Expected a positive sum of row weights in every mean of a step, got 0. "
            "Raise batch_size, or drop rows of weight 0."
        )


def seeded_generator(*key: int) -> torch.Generator:
    """A CPU generator that is a pure function of its key (seed, step, ...)."""
    state = np.random.SeedSequence(list(key)).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


@contextmanager
def replayed(seed: int) -> Iterator[None]:
    """Inside, torch's global generators (dropout draws from them) start from a seed.

    The CPU's is restored afterwards.
    """
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed: it queues a call, with its stack, for every kind of device
        # that is not in use.
        torch.default_generator.manual_seed(seed)
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.manual_seed_all(seed)
        yield


def random_states() -> list[Tensor]:
    """The states of torch's global generators: the CPU's, then those of the GPUs in use."""
    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    return [torch.get_rng_state(), *gpus]


@contextmanager
def restored(states: list[Tensor]) -> Iterator[None]:
    """Inside, torch's global generators go on from these states; afterwards from their own."""
    with torch.random.fork_rng(devices=range(len(states) - 1)):
        torch.set_rng_state(states[0])
        for i, state in enumerate(states[1:]):
            torch.cuda.set_rng_state(state, i)
        yield
