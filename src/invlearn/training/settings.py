"""How to train: steps, rows per step, optimizer, schedules; validated, frozen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from numbers import Integral

import numpy as np
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from invlearn.environments import Environments
from invlearn.errors import OptionError, unknown_name
from invlearn.features import as_rows
from invlearn.means import random_folds, seeded_generator
from invlearn.training.batch import Batch
from invlearn.training.schedules import PenaltySchedule

PRECISIONS = ("float32", "tf32", "bf16")

MANY_ROWS = 1_000_000
"""Environments beyond this size are drawn from without shuffling all of their rows."""

_ROWS, _FOLDS, _WITHIN = 0, 1, 3  # Streams of random numbers; 2 is the trainer's.


@dataclass(frozen=True)
class Settings:
    """Everything about a training run but the data, the model and the objective.

    Parameters
    ----------
    steps : int
        Parameter updates. Micro-batches are not steps.
    batch_size : int or None
        Rows of each environment in a step (all, if it has fewer); None means all rows.
    rows : 'equal' or 'proportional'
        'equal' takes `batch_size` rows of each environment; 'proportional' takes
        ``batch_size * E`` rows in all, in proportion to the environments' sizes.
    optimizer : str
        Any class of `torch.optim` by name.
    lr : float
    optimizer_options : mapping
        Passed on, ``{"weight_decay": 1e-4}`` for instance.
    l2 : float
        Coefficient of ‖θ‖² (all parameters, biases too), added to the loss as published.
    schedule : PenaltySchedule
        Of the objective's `strength`, where it has one.
    lr_factor : callable, optional
        Factor on `lr` at each step, a pure function of the step.
    averaging : float
        Decay in [0, 1) of an exponential moving average of the parameters. The model that is
        measured, stopped by and returned (`Run.model`) is the average's; the trainer's own model
        goes on beneath it. Buffers, such as batch norm's statistics, are the last step's. 0 takes
        the parameters themselves; 0.95 averages over about 20 steps.
    evaluate_every : int
        Steps between evaluations; the first (step 0) and the last are always evaluated.
    features : str
        The module whose inputs are the features that some objectives read, by its name; empty for
        the linear layer that holds the last trainable parameter.
    micro_batch : int, None or 'auto'
    memory_budget : int
        Bytes of kept activations; see `Engine`.
    precision : 'float32', 'tf32' or 'bf16'
        Of the products while training; parameters, losses and means keep theirs, and evaluations
        are made in the parameters' own. 'tf32' rounds factors to 10 bits on GPUs that have such
        units and changes nothing elsewhere, 'bf16' to 7 bits.

    Raises
    ------
    OptionError, UnknownNameError
        A value outside its domain; a misspelled optimizer or row scheme.

    Examples
    --------
    >>> Settings(steps=200, optimizer="AdamW", optimizer_options={"weight_decay": 0.01}).steps
    200
    """

    steps: int = 500
    batch_size: int | None = None
    rows: str = "equal"
    optimizer: str = "Adam"
    lr: float = 1e-3
    optimizer_options: Mapping[str, object] = field(default_factory=dict)
    l2: float = 0.0
    schedule: PenaltySchedule = field(default_factory=PenaltySchedule)
    lr_factor: Callable[[int], float] | None = None
    averaging: float = 0.0
    evaluate_every: int = 10
    features: str = ""
    micro_batch: int | str | None = "auto"
    memory_budget: int = 2 << 30
    precision: str = "float32"

    def __post_init__(self) -> None:
        for name in ("steps", "evaluate_every", "memory_budget"):
            value = getattr(self, name)
            if not isinstance(value, Integral) or value < 1:
                raise OptionError(f"Expected {name} of 1 or more, a whole number, got {value!r}.")
            object.__setattr__(self, name, int(value))  # JSON takes none of NumPy's.
        size = self.batch_size
        if size is not None and (not isinstance(size, Integral) or size < 1):
            raise OptionError(
                f"Expected batch_size as a whole number of 1 or more, got {size!r}; None takes all."
            )
        if self.rows not in ("equal", "proportional"):
            raise unknown_name("row scheme", self.rows, ["equal", "proportional"])
        if not 0 < self.lr < float("inf") or not 0 <= self.l2 < float("inf"):
            raise OptionError(
                f"Expected a positive lr and l2 of 0 or more, got lr={self.lr}, l2={self.l2}."
            )
        if not 0 <= self.averaging < 1:
            raise OptionError(
                f"Expected averaging of 0 or more and less than 1, got {self.averaging}."
            )
        if self.precision not in PRECISIONS:
            raise unknown_name("precision", self.precision, PRECISIONS)
        known = _optimizers()
        if self.optimizer not in known:
            raise unknown_name("optimizer", self.optimizer, known)

    def with_steps(self, steps: int) -> Settings:
        """The same course in a run of another length.

        What happens at a step (the penalty setting in, the ends of a ramp, evaluations, the
        learning rate's factor) happens at the same share of the run. The rates and the moving
        average, which count by the step, stay.

        Examples
        --------
        >>> settings = Settings(steps=400, schedule=PenaltySchedule("step", start=133))
        >>> short = settings.with_steps(60)
        >>> short.schedule.start, short.evaluate_every
        (19, 2)
        """
        of_length, factor = replace(self, steps=steps), self.lr_factor
        return replace(
            of_length,
            schedule=self.schedule.rescaled(steps, self.steps),
            evaluate_every=max(round(self.evaluate_every * steps / self.steps), 1),
            lr_factor=None if factor is None else partial(_at_share, factor, self.steps / steps),
        )

    @contextmanager
    def products(self, device: torch.device) -> Iterator[None]:
        """Inside, products on the device are of the settings' precision."""
        if self.precision == "bf16":
            with torch.autocast(device.type, torch.bfloat16):
                yield
        elif self.precision == "tf32" and device.type == "cuda":
            before = torch.backends.cuda.matmul.allow_tf32
            torch.backends.cuda.matmul.allow_tf32 = True
            try:
                yield
            finally:
                torch.backends.cuda.matmul.allow_tf32 = before
        else:
            yield

    def make_optimizer(self, model: torch.nn.Module) -> torch.optim.Optimizer:
        """The optimizer over the model's trainable parameters."""
        params = [p for p in model.parameters() if p.requires_grad]
        try:
            return _optimizers()[self.optimizer](params, lr=self.lr, **self.optimizer_options)
        except (TypeError, ValueError) as error:
            raise OptionError(
                f"torch.optim.{self.optimizer} does not take "
                f"{dict(self.optimizer_options)}: {error}."
            ) from error

    def make_average(self, model: torch.nn.Module) -> AveragedModel | None:
        """The moving average of the model's parameters, if there is to be one."""
        if not self.averaging:
            return None
        average = get_ema_multi_avg_fn(self.averaging)  # type: ignore[no-untyped-call]
        return AveragedModel(model, multi_avg_fn=average)


def _at_share(factor: Callable[[int], float], stretch: float, step: int) -> float:
    return factor(int(step * stretch))


def _optimizers() -> dict[str, Callable[..., torch.optim.Optimizer]]:
    return {
        name: kind
        for name, kind in vars(torch.optim).items()
        if isinstance(kind, type)
        and issubclass(kind, torch.optim.Optimizer)
        and kind is not torch.optim.Optimizer
    }


def draw_batch(
    environments: Environments, settings: Settings, folds: int, seed: int, step: int
) -> Batch:
    """The rows of a step: a pure function of seed and step, so a resumed run repeats them.

    Rows are drawn without replacement within the step and kept in stored order.
    """
    rows = environments
    if settings.batch_size is None and not as_rows(rows.x).in_memory:
        rows = rows.with_features(rows.x[:])  # The engine computes with rows in memory.
    elif settings.batch_size is not None:
        generator = seeded_generator(seed, _ROWS, step)
        sizes = environments.sizes
        if settings.rows == "equal":
            counts = [min(settings.batch_size, n) for n in sizes]
        else:
            share = min(settings.batch_size * len(sizes) / sum(sizes), 1.0)
            counts = [max(round(share * n), 1) for n in sizes]
        rows = environments.take(
            [drawn_positions(n, count, generator) for n, count in zip(sizes, counts, strict=True)]
        )
    drawn = seeded_generator(seed, _WITHIN, step).initial_seed() % 2**62
    if folds == 1:
        return Batch(rows, seed=drawn)
    fold = random_folds(rows.sizes, folds, seeded_generator(seed, _FOLDS, step))
    return Batch(rows, fold, drawn)


def drawn_positions(n: int, count: int, generator: torch.Generator) -> Tensor:
    """So many of n positions, every choice of them equally likely, sorted."""
    if n <= MANY_ROWS or count > n // 20:
        return torch.randperm(n, generator=generator)[:count].sort().values
    seed = int(torch.randint(2**62, (), generator=generator))
    drawn = np.random.default_rng(seed).choice(n, count, replace=False, shuffle=False)
    return torch.from_numpy(np.sort(drawn))
