"""The reference ERM: a quick predictor that leans on whatever predicts, and errs where that fails.

Rules over groups of rows read its outputs, and environments are inferred from its mistakes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from invlearn.environments import Environments, EvaluationSet
from invlearn.learning.plan import Plan
from invlearn.learning.runs import train
from invlearn.losses import Loss
from invlearn.outputs import Outputs
from invlearn.selection import reference_step

Reference = Mapping[str, Tensor]
"""Outputs {'train' or 'validation': [n, k]}."""


def reference_plan(plan: Plan) -> Plan:
    """A reference's plan: an ERM's, for half of its steps."""
    settings = replace(plan.settings, steps=max(plan.settings.steps // 2, 1))
    return replace(plan.as_erm(), early_stopping=None, settings=settings)


def reference_outputs(
    plan: Plan,
    rows: Environments,
    loss: str | Loss,
    n_outputs: int,
    seed: int,
    *,
    evaluations: Sequence[EvaluationSet],
) -> Reference:
    """Outputs of a reference ERM on training and validation rows.

    It is trained for half of its plan's steps and taken where its errors depend most on the
    environment.

    Parameters
    ----------
    plan, rows, loss, n_outputs, seed
        See `make_trainer`.
    evaluations : sequence of EvaluationSet
        'train' and 'validation', the rows whose outputs are asked for.
    """
    run = train(
        reference_plan(plan),
        rows,
        loss,
        n_outputs,
        seed,
        evaluations=evaluations,
        keep_outputs=True,
    )
    assert run.outputs is not None
    return _chosen(run.outputs)


def reference_within(plan: Plan, run: Plan, outputs: Outputs) -> Reference | None:
    """The same read from a whole run of that ERM, if the run is one and was measured alike."""
    half = reference_plan(plan).settings.steps
    if run != plan or half not in outputs.steps:
        return None
    count = outputs.steps.index(half) + 1
    splits = {
        name: replace(
            split,
            z=split.z[:count],
            raised=None if split.raised is None else split.raised[:count],
        )
        for name, split in outputs.splits.items()
    }
    return _chosen(Outputs(outputs.loss, outputs.steps[:count], splits))


def _chosen(outputs: Outputs) -> Reference:
    found = outputs.at(reference_step(outputs))
    return {split: z.clone() for split, z in found.items()}  # Not a view of every step's.
