"""The training loop: batches, schedules, optimizer, history, and a clean end whatever happens."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from invlearn.environments import Environments, EvaluationSet
from invlearn.errors import (
    DivergenceError,
    DivergenceWarning,
    OptionError,
)
from invlearn.losses import Loss, get_loss
from invlearn.objectives import get_objective
from invlearn.objectives.base import Objective, Terms
from invlearn.outputs import Outputs
from invlearn.selection import Choice
from invlearn.training.checks import check_rows, collapse
from invlearn.training.engine import Engine
from invlearn.training.means import replayed, seeded_generator
from invlearn.training.recorder import Recorder
from invlearn.training.runs import Batch
from invlearn.training.settings import Settings, draw_batch
from invlearn.training.stopping import Stopper, Stopping

_LAYERS = 2  # Stream of random numbers for dropout and its like.


@dataclass(frozen=True)
class Update:
    """A step that is to be made: its rows, and the numbers its schedules give.

    numbers: the objective's hyperparameters; penalty_weight: its strength, NaN for an objective
    without one; scale: factor on the whole loss, the L2 term included; resets: whether the
    optimizer's state is emptied before it.
    """

    step: int
    batch: Batch
    numbers: Mapping[str, float]
    penalty_weight: float
    scale: float
    lr: float
    resets: bool

    def check(self, terms: Terms) -> None:
        """Raise DivergenceError unless the objective is finite."""
        if not bool(torch.isfinite(terms.total)):
            remedy = "Lower the learning rate"
            if not math.isnan(self.penalty_weight):
                remedy += " or the penalty weight, or use at_anneal='rescale'"
            raise DivergenceError(f"the objective is not a finite number. {remedy}")


@dataclass(frozen=True)
class Run:
    """What a training run leaves.

    Attributes
    ----------
    model : nn.Module
        Trained in place, or with `Settings.averaging` the averaged copy; after a divergence, as
        it was at the last finite evaluation.
    history : DataFrame
        A row per step: step, total, penalty, penalty_weight (the strength), and a
        'risk <environment>' for each.
    curves : DataFrame
        A row per evaluated step, environment, split and metric: environment, split, metric,
        value, step. Step t is the model after t updates.
    reason : 'finished', 'stopped', 'interrupted' or 'diverged'
        A diverged trainer cannot go on: make a new one.
    steps : int
        Updates made.
    messages : tuple of str
        The warnings the run gave.
    outputs : Outputs or None
        What was kept of the predictions.
    choice : Choice or None
        What the stopping rule chose, with its statistic along the steps. Once training is over,
        the model is that of its step if it was satisfied.
    """

    model: nn.Module
    history: pd.DataFrame
    curves: pd.DataFrame
    reason: str
    steps: int
    messages: tuple[str, ...]
    outputs: Outputs | None = None
    choice: Choice | None = None


class Trainer:
    """Trains a model on environments with an objective.

    Parameters
    ----------
    model : nn.Module
        Trained in place. With `Settings.averaging` the result is a copy, `Run.model`.
    environments : Environments
        Training rows.
    objective : str or Objective
    loss : str or Loss
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
    >>> run.reason, run.steps
    ('finished', 50)
    """

    def __init__(
        self,
        model: nn.Module,
        environments: Environments,
        objective: str | Objective,
        loss: str | Loss,
        *,
        settings: Settings | None = None,
        seed: int = 0,
        evaluations: Sequence[EvaluationSet] = (),
        keep_outputs: Sequence[str] = (),
        stopping: Stopping | None = None,
    ) -> None:
        self.model = model
        self.environments = environments
        self.objective = get_objective(objective)
        self.loss = get_loss(loss)
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
        self.recorder = Recorder(environments, evaluations, self.loss, keep_outputs)
        self.engine = Engine(
            model,
            self.loss,
            self.objective,
            micro_batch=self.settings.micro_batch,
            memory_budget=self.settings.memory_budget,
            features=self.settings.features,
        )
        check_rows(model, self.loss, self.objective, environments, evaluations)
        parameter = next(p for p in model.parameters() if p.requires_grad)
        self.optimizer = self.settings.make_optimizer(model)
        self.average = self.settings.make_average(model)
        self.predictor: nn.Module = model if self.average is None else self.average.module
        self.state = self.objective.init(len(environments), parameter.detach().to(torch.float64))
        self.step = 0
        self.device = parameter.device
        self.lazy = self.device.type != "cpu"  # Each look at a device's numbers waits for it.
        self._pending: list[tuple[Update, Terms]] = []
        self._ended = ""  # The reason, once a stopping rule's model was put in place.
        self._history: list[dict[str, float]] = []

    def run(self, *, until: int | None = None, progress: bool = False) -> Run:
        """Train from the current step to `until` (default: `settings.steps`).

        Ctrl-C ends the loop; the run then says 'interrupted' and holds what was learnt so far.

        Parameters
        ----------
        until : int, optional
            Step to stop before; train on by calling `run` again.
        progress : bool
            Show a progress bar on the error output, if that is a terminal.
        """
        loop = self.loop(until=until, progress=progress)
        try:
            while True:
                next(loop)
        except StopIteration as end:
            run: Run = end.value
        return run

    def loop(
        self, *, until: int | None = None, progress: bool = False
    ) -> Generator[Update, Terms | DivergenceError | None, Run]:
        """`run`, bit by bit: yields every update before it is made, returns the `Run`.

        Whoever drives it sends None for the trainer to make the update itself, or makes it,
        several runs' at once, and sends its terms or what went wrong.
        """
        last = self.settings.steps if until is None else until
        last = self.step if self._ended else last
        reason, cause, messages = self._ended or "finished", "", []
        finite, finite_step = _copy(self.predictor), self.step
        steps: Iterable[int] = range(self.step, last)
        console = Console(stderr=True)
        if progress and console.is_terminal:
            steps = track(steps, self.objective.title, transient=True, console=console)
        try:
            for step in steps:
                measured = step % self.settings.evaluate_every == 0
                if measured:
                    self._read()
                    self.recorder.measure(self.predictor, self.step)
                    candidate = _copy(self.predictor)
                    if self.stopper is not None and self.stopper.look(
                        self.recorder, candidate, self._penalty_start()
                    ):
                        reason = "stopped"
                        break
                update = self._plan(step)
                made = yield update
                if isinstance(made, DivergenceError):
                    raise made
                self._pending.append((update, self._make(update) if made is None else made))
                self.step = step + 1
                if measured or not self.lazy:
                    self._read()
                if measured:  # The objective was finite there, so the snapshot is sound.
                    finite, finite_step = candidate, step
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
                self.recorder.measure(self.predictor, self.step)
                if self.stopper is not None:
                    self.stopper.look(self.recorder, _copy(self.predictor))
            if not self._finite():
                reason, cause = "diverged", "a parameter or a risk is not a finite number"
        if reason == "diverged":
            self.predictor.load_state_dict(finite)
            self.recorder.drop_after(finite_step)
            messages.append(
                f"{self.objective.title} diverged at step {self.step}: {cause}. "
                f"The model is the one of step {self._fall_back(finite_step)}."
            )
            warnings.warn(messages[-1], DivergenceWarning, stacklevel=3)
        elif reason == "stopped" or self.step >= self.settings.steps:
            if self.stopper is not None and self.stopper.restore(self.predictor):
                self._ended = reason
            elif self.step == self.settings.steps:
                risks = self._last_risks()
                messages += collapse(self.objective, self.loss, self.environments, risks)
        return Run(
            self.predictor,
            pd.DataFrame(self._history),
            self.recorder.curves,
            reason,
            self.step,
            tuple(messages),
            self.recorder.outputs,
            None if self.stopper is None else self.stopper.choice,
        )

    def _fall_back(self, finite_step: int) -> int:
        """After a divergence: the step a stopping rule chooses among what is left, or the last."""
        if self.stopper is not None and self.recorder.steps:
            choice = self.stopper.choose(self.recorder)
            if self.stopper.restore(self.predictor):
                return choice.step
        return finite_step

    def _penalty_start(self) -> int:
        """The step at which a scheduled penalty begins to change; before it nothing is decided."""
        schedule, strength = self.settings.schedule, self.objective.strength
        if not strength or schedule.kind == "constant":
            return 0
        return schedule.start if schedule.before != self.objective.numbers[strength] else 0

    def _plan(self, step: int) -> Update:
        """All that is known of a step before it is made."""
        settings, schedule = self.settings, self.settings.schedule
        strength = self.objective.strength
        numbers, weight, scale = self.objective.numbers, math.nan, 1.0
        if strength:
            numbers[strength] = weight = schedule.weight(step, numbers[strength])
            scale = schedule.loss_scale(weight)
        batch = draw_batch(self.environments, settings, self.objective.folds, self.seed, step)
        lr = float(self.optimizer.param_groups[0]["lr"])
        if settings.lr_factor is not None:
            lr = settings.lr * settings.lr_factor(step)
        return Update(step, batch, numbers, weight, scale, lr, schedule.resets(step))

    def _make(self, update: Update) -> Terms:
        """Make an update of this run alone."""
        if update.resets:
            self.optimizer.state.clear()
        if self.settings.lr_factor is not None:
            for group in self.optimizer.param_groups:
                group["lr"] = update.lr
        start_state = self.state
        terms: Terms | None = None

        def closure() -> Tensor:
            nonlocal terms
            self.optimizer.zero_grad()
            seed = seeded_generator(self.seed, _LAYERS, update.step).initial_seed()
            with replayed(seed), self.settings.products(self.device):
                terms, self.state = self.engine.step(update.batch, start_state, update.numbers)
            if not self.lazy:
                update.check(terms)
            return update.scale * (terms.total + self._finish_gradient(update.scale))

        self.optimizer.step(closure)  # type: ignore[arg-type]
        if self.average is not None:
            self.average.update_parameters(self.model)
        if terms is None:
            name = self.settings.optimizer
            raise OptionError(f"torch.optim.{name} never evaluated the objective.")
        return terms

    def _read(self) -> None:
        """Take the terms of the updates made since into the history, with one look at the device.

        Raises
        ------
        DivergenceError
            Of the first update whose objective is not finite.
        """
        pending, self._pending = self._pending, []
        if not pending:
            return
        rows = torch.stack(
            [torch.stack([t.total, t.penalty, *t.risks.unbind()]) for _, t in pending]
        ).tolist()
        for (update, terms), (total, penalty, *risks) in zip(pending, rows, strict=True):
            if not math.isfinite(total):
                self.step = update.step
                update.check(terms)
            self._history.append(
                {
                    "step": update.step,
                    "total": total,
                    "penalty": penalty,
                    "penalty_weight": update.penalty_weight,
                }
                | {
                    f"risk {name}": risk
                    for name, risk in zip(self.environments.names, risks, strict=True)
                }
            )

    def _finish_gradient(self, scale: float) -> Tensor:
        """Add the L2 term's gradient and scale all of it; returns the L2 term."""
        l2 = self.settings.l2
        term = torch.zeros((), dtype=torch.float64, device=self.device)
        for p in self.model.parameters():
            if p.grad is None:
                continue
            if l2:
                p.grad.add_(p.detach(), alpha=2 * l2)
                term += l2 * p.detach().square().sum()
            if scale != 1.0:
                p.grad.mul_(scale)
        return term

    def _last_risks(self) -> list[float]:
        """Risks on the training rows at the end: measured, or else those of the last step."""
        measured = [
            row["value"]
            for row in self.recorder.rows
            if (row["step"], row["split"], row["metric"]) == (self.step, "train", "risk")
        ]
        return measured or [self._history[-1][f"risk {name}"] for name in self.environments.names]

    def _finite(self) -> bool:
        """Whether the parameters and the last measured risks are finite numbers."""
        last = [r for r in self.recorder.rows if r["step"] == self.step and r["metric"] == "risk"]
        return all(math.isfinite(row["value"]) for row in last) and all(
            bool(torch.isfinite(p).all()) for p in self.predictor.parameters()
        )

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs: parameters, optimizer, objective state, step, records."""
        return {
            "model": _copy(self.model),
            "average": None if self.average is None else _copy(self.average),
            "optimizer": copy.deepcopy(self.optimizer.state_dict()),
            "objective": copy.deepcopy(self.state),
            "step": self.step,
            "ended": self._ended,
            "history": list(self._history),
            "recorder": self.recorder.state_dict(),
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
        self.state = copy.deepcopy(state["objective"])
        self.step, self._ended = state["step"], state["ended"]
        self._history = list(state["history"])
        self.recorder.load_state_dict(state["recorder"])
        if self.stopper is not None and state["stopper"] is not None:
            self.stopper.load_state_dict(state["stopper"])


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
