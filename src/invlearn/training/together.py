"""Many runs in one program: alike ones stacked and stepped as one, the others in turn."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Generator, Hashable, Sequence
from contextlib import suppress
from dataclasses import replace

import torch

from invlearn.errors import DivergenceError, StackingWarning, unknown_name
from invlearn.features import ChannelImages, as_rows
from invlearn.models import batch_norms
from invlearn.objectives.base import Terms
from invlearn.training.runs import Batch
from invlearn.training.stack import Stack
from invlearn.training.stacked_engine import StackedEngine
from invlearn.training.stacked_rows import StackedRows
from invlearn.training.stacked_update import ADAM_OPTIONS, StackedTrainers
from invlearn.training.trainer import Run, Trainer, Update

ARRANGEMENTS = ("auto", "stacked", "one by one")

STACKING_PAYS = 3e6
"""Rows of a step times parameters below which a stack is taken on a CPU.

On the safe side: with many runs it is still faster at 4e6 (benchmarks/growth.py), with two it is
not, and at 1e8 it takes longer than the runs in turn.
"""

Loop = Generator[Update, Terms | DivergenceError | None, Run]


def train_together(
    trainers: Sequence[Trainer],
    *,
    arrangement: str = "auto",
    done: Callable[[int, Run], None] = lambda i, run: None,
) -> list[Run]:
    """Train runs to their settings' end, alike ones at once; each gets what it would get alone.

    Runs are alike if their models differ only in parameters, their objectives and losses are the
    same, and their rows have one shape; seeds, rows, hyperparameters, learning rates, schedules
    and stopping may differ. A run that has ended leaves the stack. Not stacked but trained in turn
    are models with buffers, batch norm, frozen or unused parameters or random layers, other
    optimizers than Adam or other options of it than betas, eps and weight_decay, objectives that
    `torch.func.vmap` cannot map (a StackingWarning says so), and meta-IRM with drawn pairs or with
    more pairs than the memory budget holds gradients of. Results agree with those of single runs
    to rounding.

    Parameters
    ----------
    trainers : sequence of Trainer
    arrangement : 'auto', 'stacked' or 'one by one'
        'auto' stacks on a GPU, and on a CPU where a run's step is so small that its overhead
        outweighs its arithmetic.
    done : callable
        ``done(i, run)`` as soon as a run has ended, in any order.

    Returns
    -------
    list of Run
        In the trainers' order. After Ctrl-C those that had not ended say 'interrupted'.

    Raises
    ------
    UnknownNameError
        An arrangement that is not there.

    Examples
    --------
    >>> from invlearn.environments import Environments
    >>> from invlearn.models import MLP
    >>> from invlearn.training import Settings
    >>> x, y = [[-1.0], [1.0], [-2.0], [2.0]], [0, 1, 0, 1]
    >>> envs = Environments.from_arrays(x, y, list("aabb"))
    >>> def trainer(seed, lr):
    ...     model = MLP(1, (), generator=torch.Generator().manual_seed(seed))
    ...     return Trainer(model, envs, "erm", "logistic", settings=Settings(steps=5, lr=lr))
    >>> [run.steps for run in train_together([trainer(0, 0.1), trainer(1, 0.2)])]
    [5, 5]
    """
    if arrangement not in ARRANGEMENTS:
        raise unknown_name("arrangement", arrangement, ARRANGEMENTS)
    groups: dict[Hashable, list[int]] = {}
    alone: list[int] = []
    for i, trainer in enumerate(trainers):
        key = None
        if arrangement == "stacked" or (arrangement == "auto" and pays(trainer)):
            key = likeness(trainer)
        if key is None:
            alone.append(i)
        else:
            groups.setdefault(key, []).append(i)
    stacks: list[list[int]] = []
    for members in groups.values():
        fit = fitting([trainers[i] for i in members])
        stack = [i for i, fits in zip(members, fit, strict=True) if fits]
        # A stack of one is for a device: it never waits for a result, which a single step does.
        if len(stack) == 1 and trainers[stack[0]].device.type == "cpu":
            stack = []
        alone += [i for i in members if i not in stack]
        stacks += [stack] if stack else []
    runs: dict[int, Run] = {}

    def ended(i: int, run: Run) -> None:
        runs[i] = run
        done(i, run)

    for members in [*stacks, *([i] for i in sorted(alone))]:
        group = {i: trainers[i] for i in members}
        if any(run.reason == "interrupted" for run in runs.values()):
            for i, trainer in group.items():
                ended(i, _interrupt(trainer.loop()))
        elif members in stacks:
            _train_stacked(group, ended)
        else:
            ended(members[0], trainers[members[0]].run())
    return [runs[i] for i in range(len(trainers))]


def pays(trainer: Trainer) -> bool:
    """Whether stacking a run like this is faster than training it alone, by its size."""
    parameters = sum(p.numel() for p in trainer.model.parameters())
    small = small_step(trainer.environments.sizes, trainer.settings.batch_size, parameters)
    return trainer.device.type != "cpu" or small


def small_step(sizes: Sequence[int], batch_size: int | None, parameters: int) -> bool:
    """Whether a CPU's overhead outweighs a step's arithmetic, by rows times parameters."""
    rows = sum(n if batch_size is None else min(n, batch_size) for n in sizes)
    return rows * parameters < STACKING_PAYS


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
        trainer.engine.classifier,
        len(trainer.environments),
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
    stack = Stack.borrowing(models, first.engine.classifier)
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
    states, numbers = zip(*((t.state, t.objective.numbers) for t in trainers), strict=True)
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


def _interrupt(loop: Loop) -> Run:
    """End a loop, begun or not, as Ctrl-C would."""
    try:
        if inspect.getgeneratorstate(loop) == inspect.GEN_CREATED:
            next(loop)
        loop.throw(KeyboardInterrupt())
    except StopIteration as end:
        run: Run = end.value
    return run


def _train_stacked(trainers: dict[int, Trainer], ended: Callable[[int, Run], None]) -> None:
    loops: dict[int, Loop] = {i: trainer.loop() for i, trainer in trainers.items()}
    updates: dict[int, Update] = {}
    made: dict[int, Terms | DivergenceError] = {}
    over: dict[int, Run] = {}
    stack: StackedTrainers | None = None

    def advance(i: int) -> None:
        """Let a run's loop take its update and go on to the next, or to its end."""
        updates.pop(i, None)
        try:
            updates[i] = loops[i].send(made.pop(i, None))
        except StopIteration as end:
            over[i] = end.value
            if end.value.reason == "interrupted":
                raise KeyboardInterrupt from None

    def dissolve() -> None:
        """Give the models memory of their own, then hand over the runs that have ended."""
        nonlocal stack
        if stack is not None:
            stack.release()
            stack = None
        for i in list(over):
            ended(i, over.pop(i))

    try:
        for i in trainers:
            advance(i)
        while updates:
            if over:
                dissolve()
            if stack is None:
                stack = StackedTrainers([trainers[i] for i in updates])
            made.update(zip(updates, stack.make(list(updates.values())), strict=True))
            for i in list(updates):
                advance(i)
    except KeyboardInterrupt:
        for i in list(made):  # What was made counts.
            with suppress(KeyboardInterrupt):
                advance(i)
        for i, loop in loops.items():
            if inspect.getgeneratorstate(loop) != inspect.GEN_CLOSED:
                over[i] = _interrupt(loop)
    finally:
        dissolve()
