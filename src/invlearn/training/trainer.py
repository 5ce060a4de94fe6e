"""The training loop: batches, schedules, optimizer, history, and a clean end whatever happens."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Generator, Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from torch import nn

from invlearn.environments import Environments, EvaluationSet
from invlearn.errors import DivergenceError, DivergenceWarning, OptionError
from invlearn.ground.progress import tracked
from invlearn.losses import AnyLoss, get_loss
from invlearn.objectives import get_objective
from invlearn.objectives.base import Objective, Terms
from invlearn.training.batch import n_means
from invlearn.training.checks import check_rows, check_schedule, collapse
from invlearn.training.divergence import LastFinite, copied, finite
from invlearn.training.effect import Effect
from invlearn.training.engine import Engine
from invlearn.training.history import History, Run, Update
from invlearn.training.recorder import Recorder
from invlearn.training.settings import Settings, draw_batch
from invlearn.training.stopping import Stopper, Stopping
from invlearn.training.update import make_update


class Trainer:
    """Trains a model on environments with an objective.

    Parameters
    ----------
    model : nn.Module
        Trained in place. With `Settings.averaging` the result is a copy, `Run.model`.
    environments : Environments
        Training rows.
    objective : str or Objective
        By name, or as an object with options of its own.
    loss : str, Loss or callable
        See `get_loss`: torch's own, or a function of outputs and targets.
    hyper : mapping, optional
        The objective's hyperparameters and other options by name, ``{"penalty_weight": 1e3}``.
    settings : Settings, optional
    seed : int
        Of the rows and halves drawn. With equal seeds, machine and thread count, reruns
        are bit-identical.
    evaluations : sequence of EvaluationSet
        Measured every `settings.evaluate_every` steps.
    keep_outputs : sequence of str
        Splits of `evaluations` whose outputs are kept at those steps, for the selection rules
        that read them ('train', 'validation').
    stopping : Stopping, optional
        Stop by a selection rule, and leave the model of the step it chose.

    Raises
    ------
    EnvironmentsError, OptionError, UnknownNameError
        Too few environments for the objective, targets of another kind than the loss's,
        hyperparameters outside their domain.

    Examples
    --------
    >>> from invlearn.models import MLP
    >>> x, y = [[-1.0], [1.0], [-2.0], [2.0]], [0, 1, 0, 1]
    >>> envs = Environments.from_arrays(x, y, list("aabb"))
    >>> model = MLP(1, (), generator=torch.Generator().manual_seed(0))
    >>> settings = Settings(steps=50, lr=0.1)
    >>> run = Trainer(model, envs, "erm", "logistic", settings=settings).run()
    >>> run.stop_reason, run.steps
    ('finished', 50)
    """

    def __init__(
        self,
        model: nn.Module,
        environments: Environments,
        objective: str | Objective,
        loss: AnyLoss,
        *,
        hyper: Mapping[str, Any] | None = None,
        settings: Settings | None = None,
        seed: int = 0,
        evaluations: Sequence[EvaluationSet] = (),
        keep_outputs: Sequence[str] = (),
        stopping: Stopping | None = None,
    ) -> None:
        self.model = model
        self.environments = environments
        self.objective = get_objective(objective, hyper)
        self.loss = get_loss(loss, environments.y)
        self.settings = settings or Settings()
        self.seed = seed
        environments.require(self.objective.min_environments, self.objective.title)
        self.stopper = None if stopping is None else Stopper(stopping)
        if stopping is not None and stopping.get().reads_outputs:
            splits = {data.split for data in evaluations}
            keep_outputs = tuple(name for name in ("train", "validation") if name in splits)
        if stopping is not None and not any(s.split == "validation" for s in evaluations):
            raise OptionError(
                "Expected validation rows to stop by, found none among the evaluations. Add "
                "EvaluationSet.from_environments(validation, 'validation')."
            )
        self._recorder = Recorder(environments, evaluations, self.loss, keep_outputs)
        self._engine = Engine(
            model,
            self.loss,
            self.objective,
            micro_batch=self.settings.micro_batch,
            memory_budget=self.settings.memory_budget,
            features=self.settings.features,
        )
        check_schedule(self.objective, self.settings)
        check_rows(model, self.loss, self.objective, environments, evaluations)
        parameter = next(p for p in model.parameters() if p.requires_grad)
        self.optimizer = self.settings.make_optimizer(model)
        self.average = self.settings.make_average(model)
        self.predictor: nn.Module = model if self.average is None else self.average.module
        count = n_means(self.objective, environments)
        self._state = self.objective.init(count, parameter.detach().to(torch.float64))
        self.step = 0
        self.device = parameter.device
        self._lazy = self.device.type != "cpu"  # Each look at a device's numbers waits for it.
        self.history = History(environments.names)
        self._effect = Effect()
        self._ended = ""  # The reason, once a stopping rule's model was put in place.

    def run(self, *, until: int | None = None, progress: bool = False) -> Run:
        """Train from the current step to `until` (default: `settings.steps`).

        Ctrl-C ends the loop; the run then says 'interrupted' and holds what was learned so far.

        Parameters
        ----------
        until : int, optional
            Step to stop before; train on by calling `run` again.
        progress : bool
            Show it on the error output: a bar on a terminal, elsewhere a line now and then.
        """
        loop = self._loop(until=until, progress=progress)
        try:
            while True:
                next(loop)
        except StopIteration as end:
            run: Run = end.value
        return run

    def _loop(
        self, *, until: int | None = None, progress: bool = False
    ) -> Generator[Update, Terms | DivergenceError | None, Run]:
        """`run`, bit by bit: yields every update before it is made, returns the `Run`.

        Whoever drives it sends None for the trainer to make the update itself, or makes it,
        several runs' at once, and sends its terms or what went wrong.
        """
        last = self.settings.steps if until is None else until
        last = self.step if self._ended else last
        reason, cause = self._ended or "finished", ""
        last_finite = LastFinite(self.predictor, self.step)
        steps = range(self.step, last)
        try:
            for step in tracked(steps, self.objective.title) if progress else steps:
                measured = step % self.settings.evaluate_every == 0
                if measured:
                    self._read()
                    self._recorder.measure(self.predictor, self.step)
                    candidate = copied(self.predictor)
                    if self.stopper is not None and self.stopper.look(
                        self._recorder, candidate, self._penalty_start()
                    ):
                        reason = "stopped"
                        break
                update = self._plan(step)
                self._effect.look(self, update)
                made = yield update
                if isinstance(made, DivergenceError):
                    raise made
                made = make_update(self, update) if made is None else made
                self.history.pending.append((update, made))
                self.step = step + 1
                if measured or not self._lazy:
                    self._read()
                if measured:  # The objective was finite there, so the snapshot is sound.
                    last_finite.kept, last_finite.step = candidate, step
        except KeyboardInterrupt:
            reason = "interrupted"
        except DivergenceError as error:
            reason, cause = "diverged", str(error)
        try:
            self._read()  # What was made before the loop was left.
        except DivergenceError as error:  # An earlier one.
            reason, cause = "diverged", str(error)
        if reason in ("finished", "interrupted") and not self._ended:
            if reason == "interrupted" or last >= self.settings.steps:
                self._recorder.measure(self.predictor, self.step)
                if self.stopper is not None:
                    self.stopper.look(self._recorder, copied(self.predictor))
            if not finite(self.predictor, self._recorder, self.step):
                reason, cause = "diverged", "a parameter or a risk is not a finite number"
        return self._left(reason, cause, last_finite)

    def _left(self, reason: str, cause: str, last_finite: LastFinite) -> Run:
        """What the run leaves, ended for a reason, and what it says of that."""
        messages = []
        if reason == "diverged":
            step = last_finite.restore(self._recorder, self.stopper)
            messages.append(
                f"{self.objective.title} diverged at step {self.step}: {cause}. "
                f"The model is the one of step {step}."
            )
            warnings.warn(messages[-1], DivergenceWarning, stacklevel=4)
        elif reason == "stopped" or self.step >= self.settings.steps:
            messages += self._effect.said(self)
            if self.stopper is not None and self.stopper.restore(self.predictor):
                self._ended = reason
            elif self.step == self.settings.steps:
                risks = self._recorder.risks(self.step, "train") or self.history.last_risks()
                messages += collapse(self.objective, self.loss, self.environments, risks)
        return Run(
            self.predictor,
            pd.DataFrame(self.history.rows),
            self._recorder.curves,
            reason,
            self.step,
            tuple(messages),
            self._recorder.outputs,
            None if self.stopper is None else self.stopper.choice,
        )

    def _penalty_start(self) -> int:
        """The step at which a scheduled penalty begins to change; before it nothing is decided."""
        strength, numbers = self.objective.strength, self.objective.numbers
        return self.settings.schedule.starts(numbers[strength]) if strength else 0

    def _plan(self, step: int) -> Update:
        """All that is known of a step before it is made."""
        settings, strength = self.settings, self.objective.strength
        schedule, numbers, weight, scale = settings.schedule, self.objective.numbers, math.nan, 1.0
        if strength:
            numbers[strength] = weight = schedule.weight(step, numbers[strength])
            scale = schedule.loss_scale(weight)
        batch = draw_batch(self.environments, settings, self.objective.folds, self.seed, step)
        lr = float(self.optimizer.param_groups[0]["lr"])
        if settings.lr_factor is not None:
            lr = settings.lr * settings.lr_factor(step)
        return Update(step, batch, numbers, weight, scale, lr, schedule.resets(step))

    def _read(self) -> None:
        """Take the terms of the updates made since into the history.

        Raises
        ------
        DivergenceError
            Of the first update whose objective is not finite.
        """
        bad = self.history.read()
        if bad is not None:
            update, terms = bad
            self.step = update.step
            update.check(terms)

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs: parameters, optimizer, objective state, step, records."""
        return {
            "model": copied(self.model),
            "average": None if self.average is None else copied(self.average),
            "optimizer": copy.deepcopy(self.optimizer.state_dict()),
            "objective": copy.deepcopy(self._state),
            "step": self.step,
            "ended": self._ended,
            "effect": copy.deepcopy(vars(self._effect)),
            "history": list(self.history.rows),
            "recorder": self._recorder.state_dict(),
            "stopper": None if self.stopper is None else self.stopper.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken; schedules go on from its step."""
        if (state["average"] is None) != (self.average is None):
            kinds = ["with a moving average of the parameters", "without one"]
            wanted, got = kinds if state["average"] is None else kinds[::-1]
            raise OptionError(
                f"Expected the state of a run {wanted}, got one {got}. Use the same "
                "Settings.averaging."
            )
        self.model.load_state_dict(state["model"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        self._state = copy.deepcopy(state["objective"])
        self.step, self._ended = state["step"], state["ended"]
        vars(self._effect).update(copy.deepcopy(state["effect"]))
        self.history.rows = list(state["history"])
        self._recorder.load_state_dict(state["recorder"])
        if self.stopper is not None and state["stopper"] is not None:
            self.stopper.load_state_dict(state["stopper"])
