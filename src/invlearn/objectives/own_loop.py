"""An objective in a training loop of one's own: from a batch's outputs to a scalar."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from invlearn.classifier import check_features_learned, classifier_of, with_inputs
from invlearn.errors import EnvironmentsError, OptionError
from invlearn.losses import AnyLoss, get_loss
from invlearn.objectives.batch import (
    Memory,
    environments_of,
    means_of,
    rows_of_batch,
    shown,
    width,
)

if TYPE_CHECKING:
    from invlearn.objectives.base import Objective, State

AnyObjective = TypeVar("AnyObjective", bound="Objective")


def begin(self: Objective, environments: Any) -> Memory:
    """What is carried over the batches of a training loop of one's own, at its start.

    Parameters
    ----------
    environments : sequence of labels
        Those there will be, once each or as a label for every training row.
    """
    names, least = tuple(environments_of(environments)[1]), self.min_environments
    if len(names) < (1 if self.reads_groups else least):
        raise EnvironmentsError(
            f"{self.title} needs at least {least} environments to begin with, got {len(names)} "
            f"({', '.join(names) or 'none'}). Name all that there will be, or use objective 'erm'."
        )
    return Memory(self.title, names, _first(self, len(names)))


def on_batch(
    self: Objective,
    outputs: Tensor,
    targets: Any,
    environments: Any,
    features: Tensor | None = None,
    *,
    loss: AnyLoss,
    weights: Any = None,
    parameters: Iterable[Tensor] | None = None,
    memory: Memory | None = None,
    strength: float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The total on a batch, in a training loop of one's own: a scalar for `.backward()`.

    It is exact for the batch, whatever the model and optimizer; schedules, the L2 term and the
    optimizer are the loop's own. Each call is a step.

    Parameters
    ----------
    outputs : Tensor [n] or [n, k]
        Of the model, with their graph.
    targets : Tensor, array or list [n] or [n, k]
    environments : tensor, array or list of n labels
        Whole numbers or texts. Over groups, each row's group.
    features : Tensor [n, d], optional
        The last layer's inputs, for objectives with `reads_features`.
    loss : str, Loss or callable
        See `invlearn.get_loss`.
    weights : tensor, array or list [n], optional
    parameters : iterable of Tensor, optional
        ``model.parameters()``, for objectives that combine gradients (IGA, the masks, PAIR).
    memory : Memory, optional
        From `begin`, for objectives that carry a state (GroupDRO, Fishr), which is put there.
    strength : float, optional
        Of this step, ``schedule.weight(step, full)`` for instance, in place of its own.
    generator : torch.Generator, optional
        On the CPU, of the random halves some objectives cut rows into; default: torch's global one.

    Raises
    ------
    EnvironmentsError, OptionError, UnknownNameError
        Rows that do not fit each other, the loss or the objective.

    Examples
    --------
    >>> from invlearn.objectives import get_objective
    >>> z = torch.tensor([[1.0], [2.0], [1.0], [3.0]], requires_grad=True)
    >>> total = get_objective("vrex", {"penalty_weight": 2.0}).on_batch(
    ...     z, [1.0, 1.0, 1.0, 1.0], ["north", "north", "south", "south"], loss="squared")
    >>> total.backward()
    >>> total.item()
    2.375
    """
    objective, k = at_strength(self, strength), width(outputs)
    rows = rows_of_batch(objective, outputs, targets, environments, weights, memory, generator)
    found = get_loss(loss, rows.y)
    found.check(rows.y, k)
    h, z = features_of(objective, features, outputs), outputs.to(torch.float64)
    moments = objective.moments(found, z, rows.y, h)
    means = means_of(moments, rows, objective.folds, objective.reads_groups)
    if not bool(means["risk"].detach().isfinite().all()):
        found.check_values(z.detach(), rows.y)
    state = carried(objective, memory, len(rows.names), z.device)
    total, state = objective.total_of_batch(means, state, parameters)
    if memory is not None:
        memory.state = None if state is None else state.detach()
    return total


def on_model(
    self: Objective,
    model: nn.Module,
    inputs: Any,
    targets: Any,
    environments: Any,
    *,
    features: str = "",
    **options: Any,
) -> Tensor:
    """`on_batch`, of a model that is called here: meta-IRM needs it, every objective takes it.

    Parameters
    ----------
    model : nn.Module
        Called once with all inputs; for meta-IRM with other parameters too.
    inputs : Tensor [n, ...]
    targets, environments, **options
        As of `on_batch`; parameters and features are the model's.
    features : str
        The module whose inputs are the features; default: the linear layer at the end.
    """
    options["parameters"] = model.parameters()
    if not self.reads_features:
        return self.on_batch(model(inputs), targets, environments, **options)
    self.check_parameters([n for n, p in model.named_parameters() if p.requires_grad])
    name = classifier_of(model, features)
    if self.shapes_features:
        check_features_learned(model, name, self.title)
    z, h = with_inputs(model, name, lambda: model(inputs))
    return self.on_batch(z, targets, environments, h, **options)


def features_of(objective: Objective, features: Any, outputs: Tensor) -> Tensor | None:
    """The features [n, d] in float64, where the objective reads some.

    Raises
    ------
    OptionError
        There are none, not as many as outputs, or none that training changes.
    """
    if not objective.reads_features:
        return None
    if not isinstance(features, Tensor) or len(features) != len(outputs) or features.ndim < 2:
        raise OptionError(
            f"{objective.title} reads features, the inputs of the model's last layer. Expected "
            f"features [{len(outputs)}, d], got {shown(features)}. Pass features=h, or use "
            "on_model, which finds them."
        )
    if objective.shapes_features and outputs.requires_grad and not features.requires_grad:
        raise OptionError(
            f"Expected features that training changes, which {objective.title} penalizes, got some "
            "without a graph. Pass what the last layer reads, not detached, of a model with a "
            "hidden layer."
        )
    return features.to(torch.float64).flatten(1)


def carried(
    objective: Objective, memory: Memory | None, n_envs: int, device: torch.device
) -> State:
    """The state before a batch; OptionError where there has to be one and nobody holds it."""
    first = _first(objective, n_envs)
    if memory is not None:
        state = memory.state
        if memory.objective != objective.title or (state is None) != (first is None):
            raise OptionError(
                f"Expected the memory that {objective.title} began with, got another: {memory!r}. "
                "Pass that of objective.begin(environments)."
            )
        return None if state is None else state.to(device)
    if first is not None:
        raise OptionError(
            f"{objective.title} carries a state from batch to batch, expected memory, got None. "
            "Once before the loop: memory = objective.begin(environments); then memory=memory "
            "with every batch."
        )
    return None


def _first(objective: Objective, n_envs: int) -> State:
    """The state at the start of a loop."""
    return objective.init(n_envs, torch.zeros((), dtype=torch.float64))


def at_strength(objective: AnyObjective, strength: float | None) -> AnyObjective:
    """The objective at a strength; OptionError for one that has none."""
    if strength is None:
        return objective
    if not objective.strength:
        raise OptionError(
            f"Expected no strength for {objective.title}, which has no penalty, got {strength}. "
            "Leave it out."
        )
    return objective.with_numbers({objective.strength: strength})
