"""GroupDRO: weights that grow with the risk of an environment, or of a group of rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from invlearn.errors import unknown_name
from invlearn.objectives.base import MeanObjective, Range, State, Terms, number


@dataclass(frozen=True)
class GroupDRO(MeanObjective):
    """Σ_e q_e R_e, q_e ∝ q_e exp(η R_e) updated before every step's use.

    The state is log q [E]. Its penalty is the excess over the mean risk. Over groups, e stands for
    a group; one without rows in a step counts for nothing there, and its weight grows by nothing.

    Parameters
    ----------
    step_size : float
        η of the weights' exponential update, in units of 1 / risk.
    over : 'environments' or 'groups'
        Groups of the rows: the paper's are `invlearn.environments.by_label`'s.

    References
    ----------
    Sagawa, Koh, Hashimoto, Liang: Distributionally Robust Neural Networks for Group Shifts,
    arXiv 1911.08731, algorithm 1.

    Examples
    --------
    >>> import torch
    >>> objective = GroupDRO()
    >>> state = objective.init(2, torch.zeros(1))
    >>> terms, state = objective.value({"risk": torch.tensor([1.0, 1.0])}, state)
    >>> state.exp()
    tensor([0.5000, 0.5000])
    """

    step_size: float = number(0.01, Range(1e-3, 1e-1, log=True))
    over: str = "environments"
    title: ClassVar[str] = "GroupDRO"
    summary: ClassVar[str] = "Weights environments by how badly the model does in them."
    source: ClassVar[str] = "Sagawa et al. 2020"

    def check(self) -> None:
        super().check()
        if self.over not in ("environments", "groups"):
            raise unknown_name("kind of group", self.over, ["environments", "groups"])

    @property
    def reads_groups(self) -> bool:
        return self.over == "groups"

    def init(self, n_envs: int, like: Tensor) -> State:
        return torch.full((n_envs,), 1 / n_envs, dtype=like.dtype, device=like.device).log()

    def value(self, means: Mapping[str, Tensor], state: State) -> tuple[Terms, State]:
        risks = means["risk"]
        log_q = torch.log_softmax(state + self.step_size * risks.detach(), 0)
        total = (log_q.exp() * risks).sum()
        risks = means.get("environment_risk", risks)
        return Terms(total, risks, (total - risks.mean()).detach()), log_q
