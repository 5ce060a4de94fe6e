"""Rows that belong to named environments, sorted by environment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from invlearn.environments.checked import (
    check_alike,
    check_rows,
    counted,
    feature_columns,
    labels_of,
    rows_of_part,
    tensor_of,
)
from invlearn.environments.splitting import stratified
from invlearn.errors import EnvironmentsError, OptionError, unknown_name
from invlearn.features import Features, as_rows, concatenate, rows_of


@dataclass(frozen=True, repr=False)
class Environments:
    """Rows of E named environments, flat and sorted by environment.

    Build one with `from_parts`, `from_arrays` or `from_frame`; they validate.

    Attributes
    ----------
    x : Tensor [n, ...], or ChannelImages or StoredRows of n rows
        Features. Stored rows stay on disk: iterating over environments and selecting some of them
        reads none, `take` and indexing read what is asked for.
    y : Tensor [n] or [n, k]
        Targets.
    names : tuple of str, E of them
    offsets : tuple of int, E + 1 of them
        Environment e holds rows ``offsets[e]`` to ``offsets[e + 1]``.
    weights : Tensor [n] or None
        Non-negative row weights; None means 1 for every row.
    groups, group_names : Tensor [n] or None, tuple of str; see `with_groups`

    Examples
    --------
    >>> envs = Environments.from_arrays([[0.0], [1.0], [2.0], [3.0]], [0, 1, 0, 1], list("aabb"))
    >>> envs
    Environments(a: 2 rows, b: 2 rows; x [4, 1], y [4])
    """

    x: Features
    y: Tensor
    names: tuple[str, ...]
    offsets: tuple[int, ...]
    weights: Tensor | None = None
    groups: Tensor | None = None
    group_names: tuple[str, ...] = ()

    def __repr__(self) -> str:
        x, weighted = [self.n_rows, *as_rows(self.x).row_shape], self.weights is not None
        shapes = f"x {x}, y {list(self.y.shape)}" + ", weights" * weighted
        return f"Environments({counted(self.names, self.sizes)}; {shapes})"

    @classmethod
    def from_parts(cls, parts: Mapping[str, tuple[Any, ...]], *, min_rows: int = 2) -> Environments:
        """Environments from ``{name: (x, y)}`` or ``{name: (x, y, weights)}``.

        Raises
        ------
        EnvironmentsError
            No environment, too few rows, unequal lengths, NaN or infinite values.
        """
        if not parts:
            raise EnvironmentsError(
                "Expected at least one environment, got none. Pass {name: (x, y), ...}."
            )
        xs: list[Features] = []
        ys: list[Tensor] = []
        ws: list[Tensor | None] = []
        for name, part in ((str(name), part) for name, part in parts.items()):
            x, y, w = rows_of_part(name, *part)
            check_rows(name, x, y, w, min_rows)
            xs.append(x)
            ys.append(y)
            ws.append(w)
        check_alike(list(parts), xs, ys)
        weights = None
        if any(w is not None for w in ws):
            filled = [torch.ones(len(y)) if w is None else w for y, w in zip(ys, ws, strict=True)]
            weights = torch.cat(filled)
        offsets = (0, *accumulate(len(y) for y in ys))
        return cls(concatenate(xs), torch.cat(ys), tuple(map(str, parts)), offsets, weights)

    @classmethod
    def from_arrays(cls, x: Any, y: Any, environments: Any, *, weights: Any = None) -> Environments:
        """Environments from parallel arrays; rows are sorted by label, stably.

        Parameters
        ----------
        x : array or Tensor [n, ...]
        y : array or Tensor [n] or [n, k]
        environments : array of n labels
            Any hashable, sortable values; names are their ``str``.
        weights : array [n], optional

        Raises
        ------
        EnvironmentsError
            As `from_parts`; also when lengths differ or a label is missing.
        """
        lengths = {"x": len(x), "y": len(y), "environments": len(environments)}
        if weights is not None:
            lengths["weights"] = len(weights)
        if len(set(lengths.values())) > 1:
            raise EnvironmentsError(
                f"Expected equally many rows everywhere, got {lengths}. "
                "Pass one target and one environment label per row."
            )
        labels = labels_of(environments)
        rows_x = x if isinstance(x, Features) else tensor_of("x", "", x)
        rows_y = y if isinstance(y, Tensor) else tensor_of("y", "", y)
        rows_w = None if weights is None else tensor_of("weights", "", weights)
        parts: dict[str, tuple[Any, ...]] = {}
        for label, rows in sorted(labels.groupby(labels, sort=True).groups.items()):
            index = torch.as_tensor(np.asarray(rows))
            part: tuple[Any, ...] = (rows_x[index], rows_y[index])
            parts[str(label)] = part if rows_w is None else (*part, rows_w[index])
        return cls.from_parts(parts)

    @classmethod
    def from_frame(
        cls,
        frame: pd.DataFrame,
        *,
        target: str,
        environment: str,
        features: Sequence[str] | None = None,
        weights: str | None = None,
    ) -> Environments:
        """Environments from a DataFrame with an environment column.

        Parameters
        ----------
        frame : DataFrame of n rows
            Feature columns have to be numbers or booleans.
        target, environment : str
            Columns with the targets and the environment labels.
        features : sequence of str, optional
            Feature columns; default: every column not named otherwise.
        weights : str, optional
            Column with row weights.

        Raises
        ------
        UnknownNameError
            A column that is not there, with the nearest one that is.
        EnvironmentsError
            As `from_arrays`; also for feature columns that are not numbers.

        Examples
        --------
        >>> frame = pd.DataFrame({"dose": [1, 2, 3, 4], "ill": [0, 1, 0, 1], "ward": list("aabb")})
        >>> Environments.from_frame(frame, target="ill", environment="ward").names
        ('a', 'b')
        """
        columns = feature_columns(frame, features, target, environment, weights)
        return cls.from_arrays(
            frame[columns].to_numpy(dtype=np.float32),
            frame[target].to_numpy(),
            frame[environment].to_numpy(),
            weights=None if weights is None else frame[weights].to_numpy(dtype=np.float32),
        )

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[tuple[str, Features, Tensor]]:
        for name, (start, stop) in zip(self.names, pairwise(self.offsets), strict=True):
            yield name, as_rows(self.x).stretch(start, stop), self.y[start:stop]

    @property
    def n_rows(self) -> int:
        """Rows in all."""
        return self.offsets[-1]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Rows in each environment."""
        return tuple(b - a for a, b in pairwise(self.offsets))

    @property
    def index(self) -> Tensor:
        """Environment number of every row, int64 [n]."""
        return torch.repeat_interleave(torch.arange(len(self)), torch.tensor(self.sizes))

    @property
    def device(self) -> torch.device:
        """Where the rows are."""
        return self.y.device

    def to(self, device: torch.device | str) -> Environments:
        """The same rows on another device."""
        weights, groups = (None if t is None else t.to(device) for t in (self.weights, self.groups))
        moved = replace(self, x=self.x.to(device), y=self.y.to(device))
        return replace(moved, weights=weights, groups=groups)

    def require(self, count: int, purpose: str) -> None:
        """Raise EnvironmentsError unless there are at least `count` environments."""
        if len(self) < count:
            raise EnvironmentsError(
                f"{purpose} needs at least {count} training environments, got {len(self)} "
                f"({', '.join(self.names)}). Say which rows come from which source, "
                "or use objective 'erm'."
            )

    def take(self, rows: Sequence[Tensor]) -> Environments:
        """Keep, in each environment, the rows at these positions within it (E index tensors)."""
        places = [part + start for part, start in zip(rows, self.offsets[:-1], strict=True)]
        return self._at(self.names, places, as_rows(self.x).take(torch.cat(places)))

    def select(self, names: Sequence[str]) -> Environments:
        """Only the environments named, in this order; UnknownNameError for one not there."""
        for name in names:
            if name not in self.names:
                raise unknown_name("environment", name, self.names)
        if not names:
            raise EnvironmentsError(
                f"Expected environments to keep, got none. Name some of: {', '.join(self.names)}."
            )
        kept = {name: self.offsets[self.names.index(name) :][:2] for name in names}
        x = concatenate([as_rows(self.x).stretch(a, b) for a, b in kept.values()])
        return self._at(tuple(kept), [torch.arange(a, b) for a, b in kept.values()], x)

    def _at(self, names: tuple[str, ...], places: Sequence[Tensor], x: Features) -> Environments:
        """Environments of the rows at these positions, whose features are at hand."""
        index = torch.cat(list(places))
        y, offsets = rows_of(self.y, index), (0, *accumulate(map(len, places)))
        w, g = (None if t is None else rows_of(t, index) for t in (self.weights, self.groups))
        return Environments(x, y, names, offsets, w, g, self.group_names)

    def with_features(self, x: Features) -> Environments:
        """The same rows with other features [n, ...]; EnvironmentsError for another length."""
        if len(x) != self.n_rows:
            raise EnvironmentsError(
                f"Expected {self.n_rows} feature rows, got {len(x)}. Map rows one to one."
            )
        return replace(self, x=x)

    def split(self, fraction: float, *, seed: int) -> tuple[Environments, Environments]:
        """Split each environment in two; stratified where targets have few distinct values.

        Parameters
        ----------
        fraction : float in (0, 1)
            Share of each environment's rows that goes to the second part; both parts
            keep at least one row of every environment.
        seed : int
            Equal seeds give equal splits.

        Raises
        ------
        OptionError
            A fraction outside (0, 1).
        EnvironmentsError
            An environment with a single row; rows on disk, which both parts would bring to memory.

        Examples
        --------
        >>> envs = Environments.from_arrays([[0.0]] * 10, [0, 1] * 5, ["a"] * 10)
        >>> train, validation = envs.split(0.2, seed=0)
        >>> train.sizes, validation.sizes
        ((8,), (2,))
        """
        if not 0.0 < fraction < 1.0:
            raise OptionError(
                f"Expected a validation fraction strictly between 0 and 1, got {fraction}. "
                "Use 0.2 to hold out a fifth of every environment."
            )
        if not as_rows(self.x).in_memory:
            raise EnvironmentsError(
                "Expected rows in memory to split, got rows on disk. Hold out rows before they are "
                "stored, as StreamedRows.validation does."
            )
        first, second = [], []
        for e, (name, _, y) in enumerate(self):
            if len(y) < 2:
                raise EnvironmentsError(
                    f"Environment '{name}' has {len(y)} row; splitting needs at least 2. "
                    "Merge it with another environment or drop it."
                )
            held = stratified(y, fraction, np.random.default_rng([seed, e]))
            first.append(torch.as_tensor(np.setdiff1d(np.arange(len(y)), held)))
            second.append(torch.as_tensor(held))
        return self.take(first), self.take(second)
