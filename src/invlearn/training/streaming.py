"""A forward pass over micro-batches: graphs are kept while they fit and recomputed where not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from invlearn.means import random_states, restored

T = TypeVar("T")

Outputs = tuple[Tensor, ...]
"""What a forward pass gives for some rows: the model's outputs, and features if asked for."""


class Streamed:
    """A forward pass over rows, some at a time, and the way back through it.

    Parameters
    ----------
    forward : callable
        ``forward(part)``: outputs for a slice of the rows, with their graph.
    parts : sequence of slice
        The micro-batches, in order.
    look : callable
        ``look(part, outputs)`` with every part's outputs, cut off from their graph.
    budget : float
        Bytes of graphs to keep.
    row_bytes : float or None
        What a row's graph holds; None measures it on the first micro-batch.
    own : iterable of Tensor
        Tensors that are there anyway, left out of the measurement.

    Attributes
    ----------
    row_bytes : float
    """

    def __init__(
        self,
        forward: Callable[[slice], Outputs],
        parts: Sequence[slice],
        look: Callable[[slice, Outputs], None],
        *,
        budget: float,
        row_bytes: float | None,
        own: Iterable[Tensor],
    ) -> None:
        self.forward, self.parts = forward, parts
        self.graphs: list[Outputs | None] = []
        self.states: dict[int, list[Tensor]] = {}  # Of the random numbers drawn inside the model.
        for part in parts:
            n, out = part.stop - part.start, None
            if row_bytes is None:
                out, held = graph_bytes(lambda part=part: forward(part), own)  # type: ignore[misc]
                row_bytes = held / n
            budget -= row_bytes * n
            if out is None and budget >= 0:
                out = forward(part)
            self.graphs.append(out)
            if out is None:
                self.states[part.start] = random_states()
                with torch.no_grad():
                    out = forward(part)
            look(part, tuple(tensor.detach() for tensor in out))
        self.row_bytes = row_bytes

    def gradients(
        self,
        leaves: Sequence[Tensor],
        cotangents: Callable[[slice, Outputs], Mapping[int, Outputs]],
        count: int,
    ) -> list[list[Tensor | None]]:
        """Gradients in the leaves of so many scalars, summed over the parts; once.

        ``cotangents(part, outputs)`` gives those scalars' derivatives in a part's outputs that
        are not zero. None stands for a leaf that has no part in the outputs.
        """
        sums: list[list[Tensor | None]] = [[None] * len(leaves) for _ in range(count)]
        for n, part in enumerate(self.parts):
            graph, self.graphs[n] = self.graphs[n], None
            if graph is None:
                with restored(self.states[part.start]):
                    graph = self.forward(part)
            along = cotangents(part, graph)
            for k, (m, cotangent) in enumerate(along.items(), 1):
                pairs = [(g, c) for g, c in zip(graph, cotangent, strict=True) if g.requires_grad]
                outputs, vectors = zip(*pairs, strict=True)
                found = torch.autograd.grad(
                    outputs, leaves, vectors, retain_graph=k < len(along), allow_unused=True
                )
                for i, g in enumerate(found):
                    before = sums[m][i]
                    if g is not None:  # Cloned: two leaves may be given one and the same tensor.
                        sums[m][i] = g.clone() if before is None else before.add_(g)
        return sums


def graph_bytes(compute: Callable[[], T], own: Iterable[Tensor]) -> tuple[T, int]:
    """What is computed, and the bytes that its graph holds beside tensors that are there anyway."""
    seen: dict[int, int] = {tensor.untyped_storage().data_ptr(): 0 for tensor in own}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        seen.setdefault(storage.data_ptr(), storage.nbytes())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = compute()
    return out, sum(seen.values())
