"""What is measured along a run: the table of metrics, and the outputs that rules read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor, nn

from invlearn.environments import Environments, EvaluationSet
from invlearn.errors import OptionError
from invlearn.evaluation import evaluating, forward, measure
from invlearn.features import Features
from invlearn.kernels import tangent_of, with_tangent
from invlearn.losses import Loss
from invlearn.means import seeded_generator
from invlearn.models import call, trainable
from invlearn.outputs import Outputs, SplitOutputs
from invlearn.training.derivatives import Risk
from invlearn.training.engine import DEFAULT_MICRO_BATCH
from invlearn.training.risks import Parameters, slices

COLUMNS = ["environment", "split", "metric", "value", "step"]

_POOLED_ROWS = 2000
"""Rows of each environment behind the pooled gradient of `SplitOutputs.raised`."""


class Recorder:
    """Measures a model in evaluation sets, and keeps its outputs on some of them.

    Parameters
    ----------
    environments : Environments
        The training rows, for the pooled gradient.
    evaluations : sequence of EvaluationSet
    loss : Loss
    keep : sequence of str
        Splits whose outputs are kept, one evaluation set each.
    """

    def __init__(
        self,
        environments: Environments,
        evaluations: Sequence[EvaluationSet],
        loss: Loss,
        keep: Sequence[str] = (),
    ) -> None:
        self.evaluations = tuple(evaluations)
        self.loss = loss
        self.keep = tuple(keep)
        present = [data.split for data in evaluations]
        for split in self.keep if not isinstance(keep, str) else [keep]:
            if present.count(split) != 1 or isinstance(keep, str):
                raise OptionError(
                    "Expected keep_outputs to name splits with one evaluation set each, got "
                    f"{keep!r} with sets for {present}. Pass a tuple such as ('validation',)."
                )
        self.pooled = _some_rows(environments) if "validation" in self.keep else None
        self.rows: list[dict[str, Any]] = []
        self.steps: list[int] = []
        self.kept: dict[str, list[Tensor]] = {split: [] for split in self.keep}
        self.raised: list[Tensor] = []

    def measure(self, model: nn.Module, step: int) -> None:
        """Measure at a step, all of it or (interrupted) nothing; a second time is left out."""
        if self.steps and self.steps[-1] == step:
            return
        rows: list[dict[str, Any]] = []
        kept: dict[str, Tensor] = {}
        raised: list[Tensor] = []
        for data in self.evaluations:
            z, raised_here = self._outputs(model, data)
            rows += [{**m._asdict(), "step": step} for m in measure(z, data, self.loss)]
            if data.split in self.keep:
                picked = torch.cat(data.rows)
                # Signs and probabilities survive half precision, a regression's outputs do not.
                half = self.loss.kind == "classes"
                kept[data.split] = z[picked].to(torch.float16 if half else z.dtype)
                if raised_here is not None:
                    raised.append(raised_here)
        self.steps.append(step)
        self.rows += rows
        self.raised += raised
        for split, outputs in kept.items():
            self.kept[split].append(outputs)

    def _outputs(self, model: nn.Module, data: EvaluationSet) -> tuple[Tensor, Tensor | None]:
        """Outputs [m, k]; on validation rows that are kept also which losses a step raises."""
        if data.split != "validation" or self.pooled is None:
            return forward(model, data.x), None
        rows = torch.cat(data.rows)
        try:
            with evaluating(model):
                down = _pooled_descent(model, self.loss, self.pooled)
                z_all, z_dot = _outputs_along(model, down, data.x)
        except NotImplementedError:  # Some operation has no forward-mode derivative: no groups.
            return forward(model, data.x), torch.zeros(
                len(rows), dtype=torch.bool, device=rows.device
            )
        z = z_all[rows].to(torch.float64).requires_grad_()
        value = self.loss.value(z, torch.cat(data.targets)).sum()
        (grad_z,) = torch.autograd.grad(value, z)
        return z_all, (grad_z * z_dot[rows]).reshape(len(rows), -1).sum(1) > 0

    def drop_after(self, step: int) -> None:
        """Forget what was measured after a step."""
        count = sum(s <= step for s in self.steps)
        self.rows = [row for row in self.rows if row["step"] <= step]
        del self.steps[count:], self.raised[count:]
        for parts in self.kept.values():
            del parts[count:]

    def risks(self, step: int, split: str) -> list[float]:
        """The risks measured at a step in a split's environments; none if they were not."""
        wanted = (step, split, "risk")
        return [r["value"] for r in self.rows if (r["step"], r["split"], r["metric"]) == wanted]

    @property
    def curves(self) -> pd.DataFrame:
        """The table: environment, split, metric, value, step."""
        return pd.DataFrame(self.rows, columns=COLUMNS)

    @property
    def outputs(self) -> Outputs | None:
        """The kept outputs."""
        if not self.keep or not self.steps:
            return None
        splits = {}
        for data in self.evaluations:
            if data.split not in self.keep:
                continue
            sizes = torch.tensor([len(rows) for rows in data.rows])
            splits[data.split] = SplitOutputs(
                names=data.names,
                environment=torch.repeat_interleave(torch.arange(len(sizes)), sizes),
                y=torch.cat(data.targets).cpu(),
                z=torch.stack(self.kept[data.split]).cpu(),
                weights=None if data.weights is None else torch.cat(data.weights).cpu(),
                raised=torch.stack(self.raised).cpu() if data.split == "validation" else None,
            )
        return Outputs(self.loss, tuple(self.steps), splits)

    def state_dict(self) -> dict[str, Any]:
        """All that was recorded."""
        return {
            "rows": list(self.rows),
            "steps": list(self.steps),
            "kept": {split: list(parts) for split, parts in self.kept.items()},
            "raised": list(self.raised),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.rows, self.steps = list(state["rows"]), list(state["steps"])
        self.kept = {split: list(parts) for split, parts in state["kept"].items()}
        self.raised = list(state["raised"])


def _some_rows(environments: Environments) -> Environments:
    """At most so many rows of each environment, drawn once."""
    return environments.take(
        [
            torch.randperm(n, generator=seeded_generator(0, e))[:_POOLED_ROWS].sort().values
            for e, n in enumerate(environments.sizes)
        ]
    )


def _pooled_descent(model: nn.Module, loss: Loss, rows: Environments) -> Parameters:
    """−∇ mean_e R_e at the model's parameters."""
    theta = trainable(model)
    down = {name: torch.zeros_like(p) for name, p in theta.items()}
    for e in range(len(rows)):
        _, gradient = Risk(model, loss, rows, e, micro_batch=DEFAULT_MICRO_BATCH).gradient(theta)
        for name, g in gradient.items():
            down[name] -= g / len(rows)
    return down


def _outputs_along(model: nn.Module, direction: Parameters, x: Features) -> tuple[Tensor, Tensor]:
    """Outputs [m, k] and their derivative along a direction in the parameters."""
    values, tangents = [], []
    theta = trainable(model)
    with torch.no_grad():
        for part in slices(0, len(x), 5000):
            with forward_ad.dual_level():
                dual = {n: with_tangent(p, direction[n]) for n, p in theta.items()}
                z, z_dot = tangent_of(call(model, dual, x[part]))
            values.append(z)
            tangents.append(torch.zeros_like(z) if z_dot is None else z_dot)
    return torch.cat(values), torch.cat(tangents)
