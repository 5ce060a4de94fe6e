"""Which runs one stack serves: what they have in common, and a step on a few rows to see."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Sequence
from dataclasses import replace

import torch

from invlearn.errors import StackingWarning
from invlearn.features import ChannelImages, as_rows
from invlearn.models import batch_norms
from invlearn.training.batch import Batch
from invlearn.training.stack import Stack
from invlearn.training.stacked_engine import StackedEngine
from invlearn.training.stacked_rows import StackedRows
from invlearn.training.stacked_update import ADAM_OPTIONS
from invlearn.training.trainer import Trainer


def likeness(trainer: Trainer) -> Hashable | None:
    """What runs of one stack have in common; None for a run that cannot be stacked."""
    model, settings, x = trainer.model, trainer.settings, trainer.environments.x
    options = dict(settings.optimizer_options)
    parameters = list(model.named_parameters())
    objective = trainer.objective
    if (
        settings.optimizer != "Adam"
        or not set(options) <= set(ADAM_OPTIONS)
        or batch_norms(model)
        or any(True for _ in model.buffers())
        or not all(p.requires_grad for _, p in parameters)
        or not _gradients_fit(trainer)
    ):
        return None
    key = (
        type(model),
        repr(model),
        tuple((name, tuple(p.shape), p.dtype, p.device) for name, p in parameters),
        objective.static(),
        trainer.loss,
        tuple(sorted(options.items())),
        settings.micro_batch,
        settings.memory_budget,
        settings.averaging > 0,
        settings.precision,
        trainer._engine.classifier,
        len(trainer.environments),
        len(trainer.environments.group_names),
        type(x),
        as_rows(x).n_channels,
        tuple(as_rows(x).row_shape),
        tuple(trainer.environments.y.shape[1:]),
        trainer.step,
    )
    try:
        hash(key)
    except TypeError:  # Some option is a list, some loss has no hash.
        return None
    return key


def _gradients_fit(trainer: Trainer) -> bool:
    """Whether a stack may hold what the objective holds of gradients, within the budget."""
    held = trainer.objective.gradients_held(len(trainer.environments))
    size = sum(p.numel() * p.element_size() for p in trainer.model.parameters())
    return held is not None and held * size * 16 <= trainer.settings.memory_budget


def fitting(trainers: Sequence[Trainer]) -> list[bool]:
    """Which of some alike runs a stack serves, found out by a step on a few rows of each.

    It serves none if their model cannot be mapped over runs (random layers), if a parameter has no
    part in the outputs, which Adam would leave alone in a single run, or, with a StackingWarning,
    if their objective cannot be mapped (a branch on a number). It does not serve a run whose model
    gives other outputs than the stack's.
    """
    first = trainers[0]
    few = [_few(trainer) for trainer in trainers]
    models = [trainer.model for trainer in trainers]
    stack = Stack.borrowing(models, first._engine.classifier)
    try:
        rows = StackedRows.of(few)
        with torch.no_grad():
            (z,) = stack.outputs(stack.parameters, rows, slice(0, rows.offsets[-1]))
        out = first.model(few[0].rows.x).sum()
        used = torch.autograd.grad(out, [*first.model.parameters()], allow_unused=True)
    except (RuntimeError, ValueError, TypeError):
        return [False] * len(trainers)
    if any(g is None for g in used) or not _mappable(trainers, stack, few):
        return [False] * len(trainers)
    fit = []
    for own, batch, trainer in zip(z, few, trainers, strict=True):
        with torch.no_grad():
            expected = trainer.model(batch.rows.x)
        own = own[: len(expected)].reshape(expected.shape)
        fit.append(torch.allclose(own, expected, rtol=1e-3, atol=1e-4))
    return fit


def _mappable(trainers: Sequence[Trainer], stack: Stack, few: Sequence[Batch]) -> bool:
    """Whether the objective can be mapped over runs; a StackingWarning says why not."""
    objective = trainers[0].objective
    states, numbers = zip(*((t._state, t.objective.numbers) for t in trainers), strict=True)
    try:
        StackedEngine(stack, trainers[0].loss, objective).step(few, states, numbers)
    except (RuntimeError, ValueError, TypeError) as error:
        warnings.warn(
            f"{objective.title} is trained one run after another, because torch.func.vmap cannot "
            f"map it over several: {str(error).strip().splitlines()[0]} Write it with operations "
            "on tensors alone, torch.where in place of a branch on a number.",
            StackingWarning,
            stacklevel=4,
        )
        return False
    return True


def _few(trainer: Trainer) -> Batch:
    """A few rows of every environment, all of one channel: the same layout for every run."""
    envs, folds = trainer.environments, max(trainer.objective.folds, 2)
    few = envs.take([torch.arange(min(n, folds)) for n in envs.sizes])
    x = as_rows(few.x)
    if x.channel is not None:
        few = few.with_features(ChannelImages(x.values, x.channel * 0, x.n_channels))
    if few.weights is not None:
        few = replace(few, weights=torch.ones_like(few.weights))
    return Batch(few, torch.cat([torch.arange(n) % folds for n in few.sizes]))
