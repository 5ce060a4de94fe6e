"""Many runs in one program: alike ones stacked and stepped as one, the others in turn."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Hashable, Sequence
from contextlib import suppress

import torch

from invlearn.errors import DivergenceError, unknown_name
from invlearn.features import ChannelImages
from invlearn.objectives.base import Terms
from invlearn.objectives.meta_irm import MetaIRM
from invlearn.training.stacked_update import ADAM_OPTIONS, StackedTrainers
from invlearn.training.trainer import Run, Trainer, Update

ARRANGEMENTS = ("auto", "stacked", "one by one")

STACKING_PAYS = 3e6
"""Multiply-adds of one run's step on a CPU below which a stack is faster (benchmarks/growth.py)."""

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
    are models with buffers, frozen parameters or random layers, other optimizers than Adam, and
    meta-IRM with drawn pairs. Results agree with those of single runs to rounding.

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
    groups: dict[tuple[str, Hashable], list[int]] = {}
    for i, trainer in enumerate(trainers):
        key = None
        if arrangement == "stacked" or (arrangement == "auto" and pays(trainer)):
            key = likeness(trainer)
        groups.setdefault(("alone", i) if key is None else ("stacked", key), []).append(i)
    runs: dict[int, Run] = {}

    def ended(i: int, run: Run) -> None:
        runs[i] = run
        done(i, run)

    interrupted = False
    for (how, _), members in groups.items():
        group = {i: trainers[i] for i in members}
        # A stack of one is for a device: it never waits for a number, which a single step does.
        alone = how == "alone" or (len(group) == 1 and trainers[members[0]].device.type == "cpu")
        if interrupted:
            for i, trainer in group.items():
                ended(i, _interrupt(trainer.loop()))
        elif alone:
            ended(members[0], trainers[members[0]].run())
        else:
            _train_stacked(group, ended)
        interrupted = any(run.reason == "interrupted" for run in runs.values())
    return [runs[i] for i in range(len(trainers))]


def pays(trainer: Trainer) -> bool:
    """Whether stacking a run like this is faster than training it alone, by its size."""
    if trainer.device.type != "cpu":
        return True
    sizes = trainer.environments.sizes
    batch = trainer.settings.batch_size
    rows = sum(n if batch is None else min(n, batch) for n in sizes)
    return rows * sum(p.numel() for p in trainer.model.parameters()) < STACKING_PAYS


def likeness(trainer: Trainer) -> Hashable | None:
    """What runs of one stack have in common; None for a run that cannot be stacked."""
    model, settings, x = trainer.model, trainer.settings, trainer.environments.x
    options = dict(settings.optimizer_options)
    parameters = list(model.named_parameters())
    objective = trainer.objective
    if (
        settings.optimizer != "Adam"
        or not set(options) <= set(ADAM_OPTIONS)
        or any(True for _ in model.buffers())
        or not all(p.requires_grad for _, p in parameters)
        or (isinstance(objective, MetaIRM) and not _pairs_fit(trainer, objective))
        or not _maps(trainer)
    ):
        return None
    return (
        type(model),
        repr(model),
        tuple((name, tuple(p.shape), p.dtype, p.device) for name, p in parameters),
        objective,
        trainer.loss,
        tuple(sorted(options.items())),
        settings.micro_batch,
        settings.memory_budget,
        settings.averaging > 0,
        settings.precision,
        len(trainer.environments),
        type(x),
        x.n_channels if isinstance(x, ChannelImages) else 1,
        tuple((x.pixels if isinstance(x, ChannelImages) else x).shape[1:]),
        tuple(trainer.environments.y.shape[1:]),
        trainer.step,
    )


def _pairs_fit(trainer: Trainer, objective: MetaIRM) -> bool:
    """Whether a stack may hold the gradient of every pair: all pairs, within the budget."""
    n = len(trainer.environments)
    size = sum(p.numel() * p.element_size() for p in trainer.model.parameters())
    return objective.pairs is None and n * (n - 1) * size * 16 <= trainer.settings.memory_budget


def _maps(trainer: Trainer) -> bool:
    """Whether the model can be mapped over runs: tried on two rows, as a stack of one."""
    from invlearn.training.engine import Batch
    from invlearn.training.stack import Stack, StackedRows

    envs = trainer.environments
    few = envs.take([torch.arange(min(n, 2)) for n in envs.sizes])
    rows = StackedRows.of([Batch(few)])
    stack = Stack.__new__(Stack)
    stack.models = [trainer.model]
    theta = {name: p.detach()[None] for name, p in trainer.model.named_parameters()}
    try:
        with torch.no_grad():
            z = stack.outputs(theta, rows, slice(0, rows.offsets[-1]))
            alone = trainer.model(few.x)
    except (RuntimeError, ValueError):
        return False
    return bool(torch.allclose(z[0].reshape(alone.shape), alone, rtol=1e-3, atol=1e-4))


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
    stack: StackedTrainers | None = None

    def advance(i: int) -> None:
        """Let a run's loop take its update and go on to the next, or to its end."""
        updates.pop(i, None)
        try:
            updates[i] = loops[i].send(made.pop(i, None))
        except StopIteration as end:
            ended(i, end.value)
            if end.value.reason == "interrupted":
                raise KeyboardInterrupt from None

    try:
        for i in trainers:
            advance(i)
        while updates:
            running = [trainers[i] for i in updates]
            if stack is None or stack.trainers != running:
                if stack is not None:
                    stack.release()
                stack = StackedTrainers(running)
            made.update(zip(updates, stack.make(list(updates.values())), strict=True))
            for i in list(updates):
                advance(i)
    except KeyboardInterrupt:
        for i in list(made):  # What was made counts.
            with suppress(KeyboardInterrupt):
                advance(i)
        for i, loop in loops.items():
            if inspect.getgeneratorstate(loop) != inspect.GEN_CLOSED:
                ended(i, _interrupt(loop))
    finally:
        if stack is not None:
            stack.release()
