"""An objective on a batch of anybody's: its rows as they come, their means, what is carried on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from invlearn.environments.checked import labels_of, tensor_of
from invlearn.errors import EnvironmentsError, OptionError, unknown_name
from invlearn.features import check_finite
from invlearn.means import empty, random_folds, segment_sums
from invlearn.tables.kinds import label

if TYPE_CHECKING:
    from invlearn.objectives.base import Objective, Outer


@dataclass
class Memory:
    """What an objective carries from batch to batch, held by whoever trains.

    Attributes
    ----------
    objective : str
        Whose it is, by its title.
    environments : tuple of str
        Those that every batch has rows of, in the state's order.
    state : Tensor or None
        GroupDRO's log-weights, Fishr's moving average; each call on a batch puts the next one here.

    Examples
    --------
    >>> from invlearn.objectives import get_objective
    >>> get_objective("group-dro").begin(["south", "north"]).environments
    ('north', 'south')
    """

    objective: str
    environments: tuple[str, ...]
    state: Any = None

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training needs."""
        names = list(self.environments)
        return {"objective": self.objective, "environments": names, "state": self.state}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken.

        Raises
        ------
        EnvironmentsError
            It was taken of another objective's memory, or for other environments.
        """
        whose, names = saved["objective"], tuple(saved["environments"])
        if (whose, names) != (self.objective, self.environments):
            raise EnvironmentsError(
                f"Expected what {self.objective} carried for the environments "
                f"{list(self.environments)}, got it for {list(names)}, of {whose}. Begin with the "
                "same."
            )
        self.state = saved["state"]


@dataclass(frozen=True)
class BatchRows:
    """A batch's rows: y [n, ...], weights [n] in float64, place [n]: each one's environment."""

    y: Tensor
    weights: Tensor
    place: Tensor
    names: tuple[str, ...]
    fold: Tensor | None = None

    def of(self, e: int, fold: int | None = None) -> Tensor:
        """Positions of an environment's rows, or of those in one fold."""
        inside = self.place == e
        if fold is not None and self.fold is not None:
            inside = inside & (self.fold == fold)
        return inside.nonzero()[:, 0]


def environments_of(labels: Any, device: torch.device | None = None) -> tuple[Tensor, list[str]]:
    """Each row's environment as a number [n], and their names in order.

    Raises
    ------
    EnvironmentsError
        No label per row, or one that is missing.
    """
    if isinstance(labels, str | Mapping) or not hasattr(labels, "__getitem__"):
        raise EnvironmentsError(
            f"Expected an environment label per row, got {labels!r}. Pass a list, an array or a "
            "tensor of n labels."
        )
    if isinstance(labels, list | tuple) and labels and isinstance(labels[0], Tensor):
        labels = torch.stack(list(labels))
    shape = tuple(labels.shape) if hasattr(labels, "shape") else (len(labels),)
    if len(shape) != 1:
        raise EnvironmentsError(
            f"Expected an environment label per row, shape [n], got shape {shape}. Flatten them."
        )
    if isinstance(labels, Tensor) and not labels.is_floating_point():
        values, found = torch.unique(labels, return_inverse=True)
        listed = values.tolist()
    else:
        column = labels_of(labels.tolist() if isinstance(labels, Tensor) else labels)
        codes, uniques = pd.factorize(column, sort=True)
        found, listed = torch.as_tensor(codes.astype(np.int64)), list(uniques)
    texts = [label(value) for value in listed]
    names = list(dict.fromkeys(texts))
    numbers = torch.tensor([names.index(text) for text in texts], dtype=torch.int64)
    return numbers.to(device)[found.to(device)], names


def shown(value: Any) -> str:
    """What was passed, in a few words."""
    if isinstance(value, Tensor):
        return f"shape {tuple(value.shape)}"
    return "None" if value is None else f"a {type(value).__name__}"


def width(outputs: Any) -> int:
    """How many outputs a row has; OptionError for what are not outputs of rows."""
    if not isinstance(outputs, Tensor) or outputs.ndim not in (1, 2):
        raise OptionError(
            f"Expected outputs as a tensor [n] or [n, k], got {shown(outputs)}. Flatten them; of a "
            "model that gives more than its outputs, pass these alone."
        )
    return outputs.shape[1] if outputs.ndim == 2 else 1


def rows_of_batch(
    objective: Objective,
    like: Tensor,
    targets: Any,
    environments: Any,
    weights: Any,
    memory: Memory | None,
    generator: torch.Generator | None,
    *,
    what: str = "outputs",
) -> BatchRows:
    """A batch's rows, checked against the objective and what is carried.

    like [n, ...]: something of as many rows, on the same device; `what` it is.
    """
    n, device = len(like), like.device
    y = (targets if isinstance(targets, Tensor) else tensor_of("targets", "", targets)).to(device)
    y = y if y.is_floating_point() else y.to(torch.int64)
    y = y if y.ndim else y[None]
    place, names = environments_of(environments, device)
    w = weights
    if w is not None:
        w = (w if isinstance(w, Tensor) else tensor_of("weights", "", w)).to(device, torch.float64)
    lengths = {what: n, "targets": len(y), "environments": len(place)}
    lengths |= {} if w is None else {"weights": w.numel()}
    if len(set(lengths.values())) > 1:
        raise EnvironmentsError(
            f"Expected equally many rows everywhere in a batch, got {lengths}. Pass one target and "
            "one environment label for each row."
        )
    if not n:
        raise EnvironmentsError("Expected rows in a batch, got none. Skip empty batches.")
    check_finite("targets", "a batch", y)
    if w is not None:
        check_finite("weights", "a batch", w)
        if w.ndim != 1 or bool((w < 0).any()):
            raise EnvironmentsError(
                "Expected row weights of shape [n], 0 or more, in a batch, got shape "
                f"{tuple(w.shape)} with a least of {float(w.min())}. Clip or flatten them."
            )
    place, known = _as_carried(objective, place, names, memory)
    rows = BatchRows(
        y, torch.ones(n, dtype=torch.float64, device=device) if w is None else w, place, known
    )
    return _with_folds(rows, objective.folds, generator)


def _as_carried(
    objective: Objective, place: Tensor, names: list[str], memory: Memory | None
) -> tuple[Tensor, tuple[str, ...]]:
    """Places and names, in the order of what is carried."""
    if len(names) < objective.min_environments and not objective.reads_groups:
        raise EnvironmentsError(
            f"{objective.title} needs rows of at least {objective.min_environments} environments "
            f"in every batch, got {len(names)} ({', '.join(names) or 'none'}). Draw each batch "
            "from several environments, or use objective 'erm'."
        )
    if memory is None:
        return place, tuple(names)
    if not isinstance(memory, Memory):
        raise OptionError(
            f"Expected memory as objective.begin(environments) makes it, got {memory!r}. Call that "
            "once before the loop."
        )
    for name in names:
        if name not in memory.environments:
            raise unknown_name("environment", name, memory.environments)
    absent = [name for name in memory.environments if name not in names]
    if absent and not objective.reads_groups:
        raise EnvironmentsError(
            f"Expected rows of every environment in a batch, got none of '{absent[0]}', which "
            f"{objective.title} began with. Draw rows of each into every batch, or begin without "
            "it."
        )
    order = [memory.environments.index(name) for name in names]
    return torch.tensor(order, device=place.device)[place], memory.environments


def _with_folds(rows: BatchRows, folds: int, generator: torch.Generator | None) -> BatchRows:
    """The rows cut into random parts inside every environment, where an objective asks for it."""
    if folds == 1:
        return rows
    place = rows.place.cpu()
    sizes = torch.bincount(place, minlength=len(rows.names)).tolist()
    fold = torch.empty(len(place), dtype=torch.int64)
    fold[place.argsort(stable=True)] = random_folds(tuple(sizes), folds, generator)
    return BatchRows(rows.y, rows.weights, rows.place, rows.names, fold.to(rows.place.device))


def means_of(
    moments: Mapping[str, Tensor | Outer], rows: BatchRows, folds: int, groups: bool
) -> dict[str, Tensor]:
    """Means {name: [E, ...]} or [E, folds, ...] of per-row moments, differentiable; and 'mass'."""
    segment = rows.place
    cells: tuple[int, ...] = (len(rows.names),)
    if rows.fold is not None:
        segment, cells = segment * folds + rows.fold, (*cells, folds)
    n = len(rows.names) * folds
    mass = segment_sums(torch.ones_like(rows.weights), segment, n, rows.weights)
    if not groups and bool((mass <= 0).any()):
        raise empty(rows.names[int((mass <= 0).nonzero()[0]) // folds])
    divisor = mass.where(mass > 0, 1.0)
    means = {"mass": mass.reshape(cells)}
    for name, moment in moments.items():
        if isinstance(moment, Tensor):
            sums = segment_sums(moment, segment, n, rows.weights)
        else:
            inside = [(segment == s).nonzero()[:, 0] for s in range(n)]
            left, right = (side.to(torch.float64) for side in moment)
            sums = torch.stack(
                [(left[at] * rows.weights[at, None]).mT @ right[at] for at in inside]
            )
        mean = sums / divisor.reshape(-1, *[1] * (sums.ndim - 1))
        means[name] = mean.reshape(*cells, *mean.shape[1:])
    return means
