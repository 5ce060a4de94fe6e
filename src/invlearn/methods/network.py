"""A network trained by an objective, as a plan says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import pandas as pd

from invlearn.environments import EvaluationSet
from invlearn.evaluation import outputs
from invlearn.learning import Plan, make_trainer, train_all
from invlearn.learning.fitting import ready
from invlearn.losses import get_loss
from invlearn.methods.base import Done, Method, Outcome
from invlearn.objectives import OBJECTIVES
from invlearn.objectives.base import Objective
from invlearn.problem import Problem, without_shortcut
from invlearn.training import Run, Trainer


@dataclass(frozen=True)
class Network(Method):
    """A method that trains a network.

    Attributes
    ----------
    objective : Objective
    like : str
        The method whose settings in a recipe it takes, if it has none of its own.
    hyper : mapping
        Hyperparameters that make it what it is, over the recipe's.
    plan : Plan or None
        Given by the comparison, as `planned`.
    leave_one_out : bool
        Also train without each training environment in turn, and measure it in that one: split
        'left-out' of the curves.
    keep_outputs : bool
        Leave the outputs on training and validation rows along the steps, for selection rules.
    """

    objective: Objective = OBJECTIVES["erm"]
    like: str = ""
    hyper: Mapping[str, float] = field(default_factory=dict)
    plan: Plan | None = None
    leave_one_out: bool = False
    keep_outputs: bool = True

    @property
    def planned(self) -> Plan:
        """The plan; ValueError if the comparison gave none."""
        if self.plan is None:
            raise ValueError(f"Method '{self.name}' was given no plan.")
        return self.plan

    def fit(self, problems: Sequence[Problem], done: Done) -> None:
        """Train a network for each problem; see `Method.fit`."""
        trainers: list[Trainer] = []
        owner: list[int] = []
        chosen = []
        for number, problem in enumerate(problems):
            own, numbers = self._trainers(problem)
            trainers += own
            owner += [number] * len(own)
            chosen.append(numbers)
        runs: dict[int, Run] = {}

        def ended(i: int, run: Run) -> None:
            runs[i] = run
            mine = [k for k, number in enumerate(owner) if number == owner[i]]
            if run.stop_reason != "interrupted" and all(k in runs for k in mine):
                problem = problems[owner[i]]
                found = [runs.pop(k) for k in mine]
                done(problem, _outcome(problem, found, chosen[owner[i]]))

        train_all(trainers, done=ended)

    def _trainers(self, problem: Problem) -> tuple[list[Trainer], dict[str, float]]:
        """Those of its own run and of those with an environment left out; numbers chosen."""
        plan = self.planned
        data = without_shortcut(problem) if self.kind == "reference" else problem
        loss = get_loss(data.loss)
        if plan.choose_strength and len(data.train) < 3:
            # None can be left out to choose by.
            plan = replace(plan, choose_strength=False, auto=plan.auto | {"strength"})
        first = ready(
            plan,
            data.train,
            loss,
            data.n_outputs,
            seed=problem.seed,
            validation=data.validation,
            tests=[data.test.to(plan.device)] if data.test.names else [],
            keep_outputs=self.keep_outputs,
        )
        numbers = first.trainer.objective.numbers
        name = plan.objective.strength
        chosen = {name: numbers.get(name, 0.0)} if name else {}
        trainers, train = [first.trainer], data.train.to(plan.device)
        for name in train.names if self.leave_one_out else ():
            rest = train.select([other for other in train.names if other != name])
            held = EvaluationSet.from_environments(train.select([name]), "left-out")
            trainers.append(
                make_trainer(plan, rest, loss, data.n_outputs, problem.seed, evaluations=[held])
            )
        return trainers, chosen


def _outcome(problem: Problem, runs: Sequence[Run], chosen: Mapping[str, float]) -> Outcome:
    messages = runs[0].messages
    for name, left in zip(problem.train.names, runs[1:], strict=False):
        messages += tuple(f"without {name}: {text}" for text in left.messages)
    choice = runs[0].choice
    if choice is not None and not choice.satisfied:
        why = f" ({choice.note})" if choice.note else ""
        messages += (f"no step satisfied the rule that chooses it, the nearest was taken{why}",)
    return Outcome(
        pd.concat([run.curves for run in runs], ignore_index=True),
        partial(outputs, runs[0].model),
        runs[0].outputs,
        chosen if choice is None else {**chosen, "step": choice.step},
        messages,
        runs[0].stop_reason == "diverged",
    )
