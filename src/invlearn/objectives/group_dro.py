"""GroupDRO: weights that grow with the risk of an environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from invlearn.objectives.base import MeanObjective, Range, State, Terms


class GroupDROHyper(NamedTuple):
    """step_size: η of the weights' exponential update, in units of 1 / risk."""

    step_size: float = 0.01


@dataclass(frozen=True)
class GroupDRO(MeanObjective):
    """Σ_e q_e R_e, q_e ∝ q_e exp(η R_e) updated before every step's use.

    The state is log q [E]. Its penalty is the excess over the mean risk.

    References
    ----------
    Sagawa, Koh, Hashimoto, Liang: Distributionally Robust Neural Networks for Group Shifts,
    arXiv 1911.08731, algorithm 1.

    Examples
    --------
    >>> import torch
    >>> objective = GroupDRO()
    >>> state = objective.init(2, torch.zeros(1))
    >>> terms, state = objective.value({"risk": torch.tensor([1.0, 1.0])}, GroupDROHyper(), state)
    >>> state.exp()
    tensor([0.5000, 0.5000])
    """

    title: ClassVar[str] = "GroupDRO"
    summary: ClassVar[str] = "Weights environments by how badly the model does in them."
    source: ClassVar[str] = "Sagawa et al. 2020"
    Hyper: ClassVar[type] = GroupDROHyper
    space: ClassVar[Mapping[str, Range]] = {"step_size": Range(1e-3, 1e-1, log=True)}

    def init(self, n_envs: int, like: Tensor) -> State:
        return torch.full((n_envs,), 1 / n_envs, dtype=like.dtype, device=like.device).log()

    def value(
        self, means: Mapping[str, Tensor], hyper: GroupDROHyper, state: State
    ) -> tuple[Terms, State]:
        risks = means["risk"]
        log_q = torch.log_softmax(state + hyper.step_size * risks.detach(), 0)
        total = (log_q.exp() * risks).sum()
        return Terms(total, risks, (total - risks.mean()).detach()), log_q
