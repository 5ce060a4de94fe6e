"""Early stopping: a selection rule looked at while training goes on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from invlearn.errors import OptionError
from invlearn.selection import Choice, Rule, get_rule
from invlearn.training.recorder import Recorder

Snapshot = dict[str, Tensor]


@dataclass(frozen=True)
class Stopping:
    """Stop once a rule's choice has stood for some evaluations; keep the model of its step.

    The rules are those that choose among all steps of a finished run. A run that stops has not
    seen where the rule might have agreed again later; a larger `patience` looks further.

    Parameters
    ----------
    rule : Rule or str
        For one with options of its own, ``replace(rule, choose=partial(risks_agree, ...))``.
    patience : int
        Evaluations in a row that bring the rule no new choice before training stops.
    min_steps : int
        Training goes on at least so long; and, where a penalty's schedule starts later, until
        then and `patience` evaluations more.
    reference : {'train' or 'validation': Tensor [n, k]}, optional
        Outputs of a reference ERM, for the rules that read them: 'groups-agree',
        'lowest-worst-group'.

    Raises
    ------
    OptionError
        A rule that reads a test environment; a patience below 1.

    Examples
    --------
    >>> Stopping("risks-agree", patience=5).get().title
    'risks agree'
    """

    rule: Rule | str
    patience: int = 10
    min_steps: int = 0
    reference: Mapping[str, Tensor] | None = None

    def __post_init__(self) -> None:
        rule = self.get()
        if rule.oracle or rule.needs != "validation":
            raise OptionError(
                "Expected a rule that reads validation rows of the training environments to stop "
                f"by, '{rule.name}' does not. Use 'lowest-worst-group' or 'risks-agree'."
            )
        if rule.reads_reference and self.reference is None:
            raise OptionError(
                f"Expected the outputs of a reference ERM to stop by '{rule.name}', got none. "
                "Pass reference=erm.outputs.at(reference_step(erm.outputs)), or use "
                "'inner-step-groups-agree'."
            )
        if self.patience < 1 or self.min_steps < 0:
            raise OptionError(
                f"Expected patience of 1 or more and min_steps of 0 or more, got {self.patience} "
                f"and {self.min_steps}."
            )

    def get(self) -> Rule:
        """The rule, looked up if it is a name."""
        return get_rule(self.rule) if isinstance(self.rule, str) else self.rule


class Stopper:
    """Follows one run: the rule's choice so far, and the models it may still fall on."""

    def __init__(self, stopping: Stopping) -> None:
        self.stopping = stopping
        self.choice: Choice | None = None
        self.snapshots: dict[int, Snapshot] = {}

    def look(self, recorder: Recorder, snapshot: Snapshot, start: int = 0) -> bool:
        """Apply the rule after an evaluation; True if training is to stop.

        Evaluations before the step `start` do not count against a choice.
        """
        self.snapshots[recorder.steps[-1]] = snapshot
        choice, steps = self.choose(recorder), recorder.steps
        if choice.satisfied and choice.step not in self.snapshots:
            raise OptionError(
                f"The rule '{self.stopping.get().name}' came back to step {choice.step}, whose "
                "model it had passed over. Stop by a rule whose choice moves forward."
            )
        # The next choice is this one, or the last two steps if the statistic changes its sign.
        kept = {choice.step, *steps[-2:]}
        self.snapshots = {step: s for step, s in self.snapshots.items() if step in kept}
        latest = max(choice.step if choice.latest is None else choice.latest, start)
        behind = sum(step > latest for step in steps)
        return (
            choice.satisfied
            and behind >= self.stopping.patience
            and steps[-1] >= self.stopping.min_steps
        )

    def choose(self, recorder: Recorder) -> Choice:
        """Apply the rule to what was recorded."""
        rule = self.stopping.get()
        outputs = recorder.outputs if rule.reads_outputs else None
        if outputs is not None and self.stopping.reference is not None:
            outputs = outputs.with_reference(self.stopping.reference)
        self.choice = rule.choose(recorder.curves, "", outputs)
        return self.choice

    def restore(self, model: nn.Module) -> bool:
        """Put the chosen step's parameters into the model, if the rule was satisfied there."""
        choice = self.choice
        if choice is None or not choice.satisfied or choice.step not in self.snapshots:
            return False
        model.load_state_dict(self.snapshots[choice.step])
        return True

    def state_dict(self) -> dict[str, Any]:
        """The choice so far and the models kept."""
        return {"choice": self.choice, "snapshots": dict(self.snapshots)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.choice, self.snapshots = state["choice"], dict(state["snapshots"])
