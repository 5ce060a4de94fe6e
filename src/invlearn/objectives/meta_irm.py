"""meta-IRM: one step on each environment must leave a predictor that serves the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from invlearn.errors import OptionError, unknown_name
from invlearn.objectives.base import Objective, Range, State, Terms, number, zero
from invlearn.objectives.two_levels import meta_total


@dataclass(frozen=True)
class MetaIRM(Objective):
    """Σ_ij L_ij + λ std(L), with L_ij = R_j(θ'_i) and θ'_i = θ − α m ⊙ ∇R_i(θ), j ≠ i.

    The gradient goes through the inner steps, exactly. m is 1, or Gaussian DropGrad noise;
    the deviation is the population's, and where it is zero its gradient is taken as zero.

    Parameters
    ----------
    inner_lr : float
        α, the inner step's rate, in units of parameter² / risk; see also `rate`.
    std_weight : float
        λ, weight of the meta-losses' standard deviation (no unit). Under the convention 'sum' it
        stands beside a sum over pairs, so that the same invariance takes a λ that grows with their
        number. For standardized rows `strengths` gives 2.5 and 10 for each pair, and estimators
        take the weaker; no one number is that for every number of environments. The default of
        0.3, whatever their number, lies in the range searched on images of two environments.
    dropgrad : float
        p in [0, 1); the inner gradient is multiplied by noise N(1, p / (1 − p)).
    convention : 'sum' or 'mean'
        Sum of the meta-losses, as the paper writes it, or their mean. The learning rate and
        λ are not portable between the two.
    inner_steps : int
        Inner steps K, all on the same rows, each with its own noise.
    pairs : int or None
        How many e_j are drawn without replacement for each e_i at every step; None takes all.
        The sum is scaled to that over all pairs.
    first_order : bool
        Leave out the derivative of the inner step (an ablation).
    same_environment : bool
        j = i instead of j ≠ i (an ablation).
    rows : 'shared' or 'separate'
        Whether the inner and the outer losses read the same rows of a step, or random
        disjoint halves of them.
    adapts : tuple of str
        What the inner steps change: parameters whose name is, or lies below, one of these
        (``("layers.1",)``); all of them if empty; ``("last",)`` for the module that holds
        the last parameter, the classifier.
    rate : 'fixed', 'curvature' or 'normalized'
        What α is. 'fixed': the rate, as in the paper. 'curvature': a number without unit,
        divided by the risks' mean curvature gᵢᵀHᵢgᵢ / ‖gᵢ‖² along their gradients, which is
        measured again every ten steps and not differentiated; below 1 the inner step stops
        short of the environment's own minimum along its gradient, above it passes it. Made
        for deep networks, whose curvature may grow several times over while they learn.
        'normalized': the inner gradient is divided by its Euclidean norm, which is
        differentiated too; α is then a length.

    References
    ----------
    Bae, Choi, Lee: Meta-Learned Invariant Risk Minimization, arXiv 2103.12947, equations 3
    to 6 and Algorithm 1. DropGrad: Tseng et al. 2020, arXiv 2004.05859.

    Examples
    --------
    >>> objective, losses = MetaIRM(std_weight=0.5), torch.tensor([1.0, 3.0])
    >>> objective.value(losses, losses, 2).total
    tensor(4.5000)
    """

    inner_lr: float = number(1.2, Range(0.8, 1.8, log=True))
    std_weight: float = number(0.3, Range(0.1, 3.0, log=True))
    dropgrad: float = number(0.5, Range(0.1, 0.7))
    convention: str = "sum"
    inner_steps: int = 1
    pairs: int | None = None
    first_order: bool = False
    same_environment: bool = False
    rows: str = "shared"
    adapts: Sequence[str] = ()
    rate: str = "fixed"
    title: ClassVar[str] = "meta-IRM"
    summary: ClassVar[str] = "A step on any environment must serve the others: two levels, exactly."
    source: ClassVar[str] = "Bae et al. 2021"
    needs: ClassVar[str] = "inner steps"
    erm_at_zero: ClassVar[bool] = False
    strength: ClassVar[str] = "std_weight"
    table_strengths: ClassVar[tuple[float, ...]] = (2.5, 10.0)
    conventions: ClassVar[tuple[str, ...]] = ("sum", "mean")

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "adapts", tuple(self.adapts))  # A list comes from a recipe.

    def check(self) -> None:
        super().check()
        if self.rows not in ("shared", "separate"):
            raise unknown_name("row scheme of meta-IRM", self.rows, ["shared", "separate"])
        if self.rate not in ("fixed", "curvature", "normalized"):
            raise unknown_name("inner rate", self.rate, ["fixed", "curvature", "normalized"])
        for name, value in (("inner_steps", self.inner_steps), ("pairs", self.pairs)):
            if (name, value) == ("pairs", None):
                continue
            if not isinstance(value, int) or value < 1:
                raise OptionError(
                    f"Expected {name} of meta-IRM to be a whole number of 1 or more, got {value!r}."
                )
        if isinstance(self.adapts, str):
            raise OptionError(
                f"Expected adapts of meta-IRM to be a tuple of names, got the string "
                f"'{self.adapts}'. Write adapts=('{self.adapts}',)."
            )
        if self.pairs is not None and self.same_environment:
            raise OptionError("Expected no pairs to draw with same_environment: j = i is one pair.")
        if not self.dropgrad < 1:
            raise OptionError(
                f"Expected the DropGrad rate in [0, 1), got {self.dropgrad}: the noise's variance "
                "p / (1 − p) has no bound at 1. Use 0.5, or 0 for none."
            )
        if not self.inner_lr > 0:
            raise OptionError(
                f"Expected a positive inner_lr of meta-IRM, got {self.inner_lr}. Without an inner "
                "step it is ERM: use the objective 'erm'."
            )

    @property
    def folds(self) -> int:
        """Random parts each environment's rows are cut into: inner and outer ones."""
        return 2 if self.rows == "separate" else 1

    def strengths(self, n_envs: int) -> tuple[float, ...]:
        summed = n_envs * (1 if self.same_environment else n_envs - 1)
        factor = summed if self.convention == "sum" else 1
        return tuple(factor * strength for strength in self.table_strengths)

    def init(self, n_envs: int, like: Tensor) -> State:
        if self.pairs is not None and self.pairs > n_envs - 1:
            raise OptionError(
                f"Expected at most {n_envs - 1} pairs for each of {n_envs} environments, got "
                f"pairs={self.pairs}. Lower it, or leave it out to take all."
            )
        # Steps made, curvature measured last, curvature measured first.
        return torch.zeros(3, dtype=torch.float64) if self.rate == "curvature" else None

    def draw_pairs(self, n_envs: int, generator: torch.Generator | None) -> list[tuple[int, int]]:
        """The (i, j) of one step: adapt to e_i, measure in e_j."""
        if self.same_environment:
            return [(i, i) for i in range(n_envs)]
        chosen = []
        for i in range(n_envs):
            others = [j for j in range(n_envs) if j != i]
            if self.pairs is not None:
                drawn = torch.randperm(len(others), generator=generator)[: self.pairs]
                others = [others[k] for k in drawn.sort().values.tolist()]
            chosen += [(i, j) for j in others]
        return chosen

    def check_parameters(self, names: Sequence[str]) -> None:
        super().check_parameters(names)
        self.adapted(names)

    def gradients_held(self, n_envs: int) -> int | None:
        return n_envs * (n_envs - 1) if self.pairs is None else None

    def adapted(self, names: Sequence[str]) -> list[str]:
        """Which of the parameters the inner steps change.

        Raises
        ------
        OptionError
            A name in `adapts` that fits no parameter.
        """
        if not self.adapts:
            return list(names)
        kept: list[str] = []
        for prefix in self.adapts:
            wanted = names[-1].rpartition(".")[0] if prefix == "last" else prefix
            found = [n for n in names if n == wanted or n.startswith(f"{wanted}.")]
            if wanted == "":
                found = [n for n in names if "." not in n]
            if not found:
                raise OptionError(
                    f"Expected names of parameters or modules in adapts, '{prefix}' fits none of: "
                    f"{', '.join(names)}."
                )
            kept += found
        return [name for name in names if name in kept]

    def on_model(
        self,
        model: nn.Module,
        inputs: Any,
        targets: Any,
        environments: Any,
        *,
        features: str = "",
        **options: Any,
    ) -> Tensor:
        """`Objective.on_model`, through the inner steps; of parameters only what `adapts` names."""
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
        ):  # Its steps are gradients, also where nothing is to be learned.
            total = meta_total(self, model, inputs, targets, environments, **options)
        return total if torch.is_grad_enabled() else total.detach()

    def value(self, losses: Tensor, risks: Tensor, n_envs: int) -> Terms:
        """Objective of the meta-losses [N]; risks [E] are those before the inner steps."""
        mean = losses.mean()
        variance = (losses - mean).square().mean()
        # At zero the root has no derivative; the constant branch has the derivative 0.
        differ = variance > 0
        std = torch.where(differ, torch.where(differ, variance, 1.0).sqrt(), zero(losses))
        n_pairs = n_envs * (1 if self.same_environment else n_envs - 1)
        total = mean if self.convention == "mean" else n_pairs * mean
        return Terms(total + self.std_weight * std, risks, std)
