"""Penalty schedules, and what happens at the step where the penalty sets in."""

from __future__ import annotations

from dataclasses import dataclass, replace

from invlearn.errors import OptionError, unknown_name

KINDS = ("constant", "step", "linear")
AT_ANNEAL = ("nothing", "rescale", "reset-optimizer")


@dataclass(frozen=True)
class PenaltySchedule:
    """How the penalty weight grows, a pure function of the step.

    Parameters
    ----------
    kind : 'constant', 'step' or 'linear'
        The full weight from the start; from step `start` on; or a linear ramp from
        `start` (weight `before`) to `end` (full weight).
    start, end : int
        Steps, counted from 0: at step `start` a step schedule already uses the full weight.
    before : float
        Weight before `start`. The published Colored MNIST code uses 1, not 0.
    at_anneal : 'nothing', 'rescale' or 'reset-optimizer'
        'rescale' divides the whole loss, the L2 term included, by the current weight
        wherever that exceeds 1, as the IRM and REx codes do. 'reset-optimizer' empties the
        optimizer's state at step `start`, as DomainBed does.

    Examples
    --------
    >>> schedule = PenaltySchedule("step", start=10, before=1.0)
    >>> schedule.weight(9, 1e4), schedule.weight(10, 1e4)
    (1.0, 10000.0)
    """

    kind: str = "constant"
    start: int = 0
    end: int = 0
    before: float = 0.0
    at_anneal: str = "nothing"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise unknown_name("penalty schedule", self.kind, KINDS)
        if self.at_anneal not in AT_ANNEAL:
            raise unknown_name("anneal action", self.at_anneal, AT_ANNEAL)
        if (
            not self.start >= 0
            or not self.before >= 0
            or (self.kind == "linear" and self.end <= self.start)
        ):
            raise OptionError(
                f"Expected 0 <= start (< end for a ramp) and before >= 0, got start={self.start}, "
                f"end={self.end}, before={self.before}."
            )

    def weight(self, step: int, full: float) -> float:
        """Penalty weight at a step, given the full one."""
        if self.kind == "constant":
            return full
        if step < self.start:
            return self.before
        if self.kind == "step" or step >= self.end:
            return full
        return self.before + (full - self.before) * (step - self.start) / (self.end - self.start)

    def starts(self, full: float) -> int:
        """The step at which the weight begins to change to the full one; 0 if it never waits."""
        return 0 if self.kind == "constant" or self.before == full else self.start

    def check(self, full: float, steps: int, title: str) -> None:
        """Raise OptionError if a run of so many steps ends before the full weight sets in at all.

        Examples
        --------
        >>> PenaltySchedule("step", start=99).check(1e4, 100, "V-REx")
        """
        waits = self.kind != "constant" and self.before != full
        # A ramp begins at the weight before.
        if waits and self.start + (self.kind == "linear") >= steps:
            raise OptionError(
                f"Expected a penalty that sets in before the last step: {title} keeps the weight "
                f"{self.before:g} until step {self.start}, in a run of {steps}, and would never "
                f"have the weight {full:g}. Lower the schedule's start, or raise steps; "
                "settings.with_steps(n) changes both."
            )

    def rescaled(self, steps: int, was: int) -> PenaltySchedule:
        """The same shares of a run of so many steps as of one of `was`.

        A penalty that sets in there sets in here, as a step where a ramp has no room; one that
        never does, never does here.

        Examples
        --------
        >>> PenaltySchedule("step", start=133).rescaled(60, was=400).start
        19
        """
        if self.kind == "constant":
            return self
        start = self.start * steps // was
        if self.kind == "step" or (start + 1 >= steps and self.start + 1 < was):
            return replace(self, kind="step", start=start)
        return replace(self, start=start, end=max(self.end * steps // was, start + 1))

    def loss_scale(self, weight: float) -> float:
        """Factor on the whole loss at the current penalty weight."""
        return 1 / weight if self.at_anneal == "rescale" and weight > 1 else 1.0

    def resets(self, step: int) -> bool:
        """Whether the optimizer's state is emptied before this step."""
        return (
            self.at_anneal == "reset-optimizer" and step == self.start and self.kind != "constant"
        )


PUBLISHED = {
    "irm-paper": PenaltySchedule("step", start=190, before=1.0, at_anneal="rescale"),
    "rex-paper": PenaltySchedule("step", start=100, before=1.0, at_anneal="rescale"),
    "domainbed": PenaltySchedule("step", start=500, before=1.0, at_anneal="reset-optimizer"),
}
"""The schedules of published codes, by the same names as the objectives' conventions."""
