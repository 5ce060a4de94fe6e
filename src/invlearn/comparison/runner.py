"""Every method on every problem: over the cores, each done once, kept as soon as it is done."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple, Protocol

import pandas as pd

from invlearn.comparison.store import Store
from invlearn.ground.machine import run_all
from invlearn.methods.base import Method, Outcome
from invlearn.outputs import Outputs
from invlearn.problem import Problem


class Task(NamedTuple):
    """A method on a problem, both by name."""

    method: str
    problem: str

    @property
    def key(self) -> str:
        """A file name for it."""
        return f"{self.method}-{self.problem}"


@dataclass(frozen=True)
class Kept:
    """What is kept of a finished task.

    Attributes
    ----------
    task : Task
    tables : {name: DataFrame}
    facts : {name: plain data}
    outputs : Outputs or None
        Only on the way to the folder.
    messages : tuple of str
        What the method warned of.
    seconds : float
    """

    task: Task
    tables: Mapping[str, pd.DataFrame]
    facts: Mapping[str, Any] = field(default_factory=dict)
    outputs: Outputs | None = None
    messages: tuple[str, ...] = ()
    seconds: float = 0.0


class Problems(Protocol):
    """Where problems come from.

    It is sent to every process once; problems are made where they are used.
    """

    def make(self, key: str) -> Problem:
        """The problem of this key."""

    def keep(self, problem: Problem, method: Method, outcome: Outcome, store: Store | None) -> Kept:
        """What is to be kept of a method's outcome, found where the method ran."""


@dataclass(frozen=True)
class Work:
    """What is to be compared, and where finished tasks are kept."""

    problems: Problems
    methods: Mapping[str, Method]
    store: Store | None = None


def run_unit(work: Work, unit: Sequence[Task]) -> list[Kept]:
    """One method on one or more problems, which share the time that it took."""
    started = time.perf_counter()
    method = work.methods[unit[0].method]
    problems = [work.problems.make(task.problem) for task in unit]
    found: list[Kept] = []

    def done(problem: Problem, outcome: Outcome) -> None:
        kept = replace(
            work.problems.keep(problem, method, outcome, work.store),
            messages=outcome.messages,
            seconds=(time.perf_counter() - started) / len(unit),
        )
        if work.store is not None:
            save(work.store, kept)
        found.append(replace(kept, outputs=None))

    method.fit(problems, done)
    return found


def run(
    work: Work,
    tasks: Sequence[Task],
    *,
    processes: int,
    progress: Callable[[int, int, str], None],
    arrange: Callable[[Sequence[Task]], Sequence[Sequence[Task]]] | None = None,
) -> tuple[dict[Task, Kept], int]:
    """Do every task that is not kept already.

    Parameters
    ----------
    work : Work
    tasks : sequence of Task
    processes : int
    progress : callable
        ``progress(tasks done, tasks in all, what was done last)``.
    arrange : callable, optional
        From the tasks that are left to those that are done as one, in the order in which they
        begin; a unit has one method. Default: each by itself.

    Returns
    -------
    ({Task: Kept}, int)
        In the order of the tasks; and how many of them had been kept.
    """
    kept = {} if work.store is None else {task: load(work.store, task) for task in tasks}
    found = {task: one for task, one in kept.items() if one is not None}
    resumed = len(found)
    progress(resumed, len(tasks), "training")

    def done(unit: list[Kept]) -> None:
        for one in unit:
            found[one.task] = one
            progress(len(found), len(tasks), work.methods[one.task.method].title)

    left = [task for task in tasks if task not in found]
    units = [(task,) for task in left] if arrange is None else arrange(left)
    run_all(partial(run_unit, work), units, processes=processes, done=done)
    return {task: found[task] for task in tasks}, resumed


def save(store: Store, kept: Kept) -> None:
    """Keep a finished task in the folder."""
    facts = {"facts": kept.facts, "messages": kept.messages, "seconds": kept.seconds}
    store.save_run(kept.task.key, kept.tables, facts, kept.outputs)


def load(store: Store, task: Task) -> Kept | None:
    """A task kept earlier, without its outputs, or None."""
    found = store.load_run(task.key)
    if found is None:
        return None
    tables, facts = found
    messages = tuple(facts["messages"])
    return Kept(task, tables, facts["facts"], None, messages, facts["seconds"])
