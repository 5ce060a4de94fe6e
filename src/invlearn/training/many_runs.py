"""Many runs in one program: alike ones stacked and stepped as one, the others in turn."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Hashable, Sequence
from contextlib import suppress

from invlearn.errors import DivergenceError, unknown_name
from invlearn.objectives.base import Terms
from invlearn.training.alike import fitting, likeness
from invlearn.training.history import Run, Update
from invlearn.training.stacked_update import StackedTrainers
from invlearn.training.trainer import Trainer

ARRANGEMENTS = ("auto", "stacked", "one by one")

STACKING_PAYS = 3e6
"""Rows of a step times parameters below which a stack is taken on a CPU.

On the safe side: with many runs it is still faster at 4e6 (benchmarks/growth.py), with two it is
not, and at 1e8 it takes longer than the runs in turn.
"""

Loop = Generator[Update, Terms | DivergenceError | None, Run]


def train_many(
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
    >>> import torch
    >>> from invlearn.environments import Environments
    >>> from invlearn.models import MLP
    >>> from invlearn.training import Settings
    >>> x, y = [[-1.0], [1.0], [-2.0], [2.0]], [0, 1, 0, 1]
    >>> envs = Environments.from_arrays(x, y, list("aabb"))
    >>> def trainer(seed, lr):
    ...     model = MLP(1, (), generator=torch.Generator().manual_seed(seed))
    ...     return Trainer(model, envs, "erm", "logistic", settings=Settings(steps=5, lr=lr))
    >>> [run.steps for run in train_many([trainer(0, 0.1), trainer(1, 0.2)])]
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
        if any(run.stop_reason == "interrupted" for run in runs.values()):
            for i, trainer in group.items():
                ended(i, _interrupt(trainer._loop()))
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
    loops: dict[int, Loop] = {i: trainer._loop() for i, trainer in trainers.items()}
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
            if end.value.stop_reason == "interrupted":
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
