"""The rows of a step of several runs, in one layout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

from invlearn.features import ChannelImages, Features, as_rows
from invlearn.training.batch import Batch


@dataclass(frozen=True)
class StackedRows:
    """The rows of one step of R runs, in one layout.

    Within an environment the rows lie by channel, in cells as large as the largest run's; a
    smaller run's cell is filled up with rows of weight 0.

    Attributes
    ----------
    x : Tensor [R, n, ...]
        Features, or the pixels of `ChannelImages`.
    channel : Tensor [n] or None
        The images' channels, the same in every run.
    y : Tensor [R, n, ...]
    weights : Tensor [R, n], float64
    fold : Tensor [R, n] or None
    group : Tensor [R, n] or None
    offsets : tuple of E + 1 int
    """

    x: Tensor
    channel: Tensor | None
    n_channels: int
    y: Tensor
    weights: Tensor
    fold: Tensor | None
    group: Tensor | None
    offsets: tuple[int, ...]

    @classmethod
    def of(cls, batches: Sequence[Batch]) -> StackedRows:
        """Lay out the batches of as many runs, which have equally many environments."""
        first = batches[0].rows
        n_envs, k = len(first), as_rows(first.x).n_channels
        cells = [_cells(batch, k) for batch in batches]
        counts = torch.stack([torch.bincount(c, minlength=n_envs * k) for c in cells])
        room = counts.max(0).values
        ends = room.cumsum(0)
        n, device = int(ends[-1]), first.x.device
        x, y, weights, fold, group = [], [], [], [], []
        for batch, cell, count in zip(batches, cells, counts, strict=True):
            order = cell.argsort(stable=True)
            cell = cell[order]
            within = torch.arange(len(cell)) - (count.cumsum(0) - count)[cell]
            place = (ends - room)[cell] + within
            index = torch.zeros(n, dtype=torch.int64).index_copy(0, place, order)
            there = (
                torch.zeros(n, dtype=torch.float64)
                .index_fill(0, place, 1.0)
                .to(device, non_blocking=True)
            )
            rows, index_there = batch.rows, index.to(device, non_blocking=True)
            x.append(as_rows(rows.x).values[index_there])
            y.append(rows.y[index_there])
            if rows.weights is not None:
                there = there * rows.weights[index_there]
            weights.append(there)
            if batch.fold is not None:
                fold.append(batch.fold[index].to(device, non_blocking=True))
            if rows.groups is not None:
                group.append(rows.groups[index_there])
        offsets = (0, *ends[k - 1 :: k].tolist())
        channel = torch.repeat_interleave(torch.arange(n_envs * k) % k, room)
        return cls(
            torch.stack(x),
            None if as_rows(first.x).channel is None else channel,
            k,
            torch.stack(y),
            torch.stack(weights),
            torch.stack(fold) if fold else None,
            torch.stack(group) if group else None,
            offsets,
        )

    @cached_property
    def mass(self) -> Tensor:
        """Sums of the weights, [R, E]."""
        bounds = pairwise(self.offsets)
        return torch.stack([self.weights[:, a:b].sum(1) for a, b in bounds], 1)

    @property
    def index(self) -> Tensor:
        """Environment number of every row, int64 [n]."""
        sizes = torch.tensor(self.offsets).diff()
        index = torch.repeat_interleave(torch.arange(len(sizes)), sizes)
        return index.to(self.x.device, non_blocking=True)

    def features(self, x: Tensor, part: slice) -> Features:
        """What a model is called with, from one run's share of `x`."""
        if self.channel is None:
            return x
        return ChannelImages(x, self.channel[part], self.n_channels)

    def select(self, keep: Tensor) -> StackedRows:
        """The same rows with a weight of 0 for those not kept, [R, n]."""
        return replace(self, weights=self.weights * keep, fold=None)


def _cells(batch: Batch, k: int) -> Tensor:
    """Number of every row's cell: environment, then channel."""
    cells, channel = batch.rows.index * k, as_rows(batch.rows.x).channel
    return cells if channel is None else cells + channel
