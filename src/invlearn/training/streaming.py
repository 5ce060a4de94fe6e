"""A forward pass over micro-batches: graphs are kept while they fit and recomputed where not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from invlearn.training.derivatives import graph_bytes
from invlearn.training.means import random_states, restored


class Streamed:
    """Outputs for rows that are forwarded some at a time, and the way back through them.

    Parameters
    ----------
    forward : callable
        ``forward(part)``: outputs for a slice of the rows, with their graph.
    parts : sequence of slice
        The micro-batches, in order.
    dim : int
        Along which dimension of the outputs the rows lie.
    budget : float
        Bytes of graphs to keep.
    row_bytes : float or None
        What a row's graph holds; None measures it on the first micro-batch.
    own : iterable of Tensor
        Tensors that are there anyway, left out of the measurement.

    Attributes
    ----------
    outputs : Tensor
        Of all rows, cut off from their graphs.
    row_bytes : float
    """

    def __init__(
        self,
        forward: Callable[[slice], Tensor],
        parts: Sequence[slice],
        *,
        dim: int,
        budget: float,
        row_bytes: float | None,
        own: Iterable[Tensor],
    ) -> None:
        self.forward, self.parts, self.dim = forward, parts, dim
        self.graphs: list[Tensor | None] = []
        self.states: dict[int, list[Tensor]] = {}  # Of the random numbers drawn inside the model.
        for part in parts:
            n, z = part.stop - part.start, None
            if row_bytes is None:
                z, held = graph_bytes(lambda part=part: forward(part), own)  # type: ignore[misc]
                row_bytes = held / n
            budget -= row_bytes * n
            if z is None and budget >= 0:
                z = forward(part)
            self.graphs.append(z)
            if z is None:
                self.states[part.start] = random_states()
                with torch.no_grad():
                    z = forward(part)
            if len(self.graphs) == 1:
                # In one place from the start: small outputs between freed blocks break them up.
                shape = list(z.shape)
                shape[dim] = parts[-1].stop
                self.outputs = z.new_empty(shape)
            self._of(self.outputs, part).copy_(z.detach())
        self.row_bytes = row_bytes

    def backward(self, gradient: Tensor) -> None:
        """Send the outputs' gradient back to the leaves' `.grad`."""
        for i, part in enumerate(self.parts):
            graph, self.graphs[i] = self.graphs[i], None
            if graph is None:
                with restored(self.states[part.start]):
                    graph = self.forward(part)
            torch.autograd.backward(graph, self._of(gradient, part))

    def _of(self, tensor: Tensor, part: slice) -> Tensor:
        return tensor.narrow(self.dim, part.start, part.stop - part.start)
