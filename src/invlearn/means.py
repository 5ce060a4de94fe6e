"""Sums over the rows of each environment, in double precision, and what is drawn at random."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from invlearn.errors import OptionError


def random_folds(sizes: tuple[int, ...], folds: int, generator: torch.Generator | None) -> Tensor:
    """Cut every environment's rows into random disjoint folds of equal size, give or take one.

    Parameters
    ----------
    sizes : tuple of int
        Rows of each environment.
    folds : int
        How many parts.
    generator : torch.Generator or None
        A CPU generator; None takes torch's global one.

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
            "split: estimator='full' (IRMv1), convention='mean' (IB-IRM), rows='shared' (meta-IRM)."
        )
    parts = []
    for size in sizes:
        fold = torch.empty(size, dtype=torch.int64)
        fold[torch.randperm(size, generator=generator)] = torch.arange(size) * folds // size
        parts.append(fold)
    return torch.cat(parts)


def segment_sums(rows: Tensor, segment: Tensor, n_segments: int, weights: Tensor) -> Tensor:
    """Weighted sums Σ w·v [n_segments, ...] of per-row values [n, ...] over segments, in float64.

    Parameters
    ----------
    rows : Tensor [n, ...]
    segment : Tensor [n], int64
        Which sum each row belongs to.
    n_segments : int
    weights : Tensor [n], float64
    """
    values = rows.to(torch.float64)
    weighted = values * weights.reshape(-1, *[1] * (values.ndim - 1))
    return values.new_zeros(n_segments, *values.shape[1:]).index_add(0, segment, weighted)


def empty(environment: str) -> OptionError:
    """The error for an environment whose row weights sum to zero."""
    return OptionError(
        "Expected a positive sum of row weights in every mean of a step, got 0 in environment "
        f"'{environment}'. Raise batch_size, or drop rows of weight 0."
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
