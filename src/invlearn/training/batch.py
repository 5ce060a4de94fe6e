"""The rows of one step, and how many means an objective reads of them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from invlearn.environments import Environments
from invlearn.errors import OptionError
from invlearn.objectives.base import Objective


@dataclass(frozen=True)
class Batch:
    """The rows of one step.

    fold [n]: numbers their random parts, where an objective asks for some; seed: of all that
    is drawn while the step is computed (DropGrad's noise, sampled pairs, dropout).
    """

    rows: Environments
    fold: Tensor | None = None
    seed: int = 0

    def part(self, fold: int) -> Environments:
        """The rows of one fold."""
        assert self.fold is not None
        bounds = pairwise(self.rows.offsets)
        return self.rows.take([torch.nonzero(self.fold[a:b] == fold)[:, 0] for a, b in bounds])


def n_means(objective: Objective, rows: Environments) -> int:
    """How many means the objective reads: one for each environment, or each group.

    Raises
    ------
    OptionError
        It reads groups, and the rows have none.
    """
    if not objective.reads_groups:
        return len(rows)
    if rows.groups is None:
        raise OptionError(
            f"Expected rows with groups for {objective.title} over groups, got none. Give each row "
            "one: by_label(environments) or with_groups(environments, labels)."
        )
    return len(rows.group_names)
