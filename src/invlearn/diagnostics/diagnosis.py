"""A diagnosis: everything that can be found out about a predictor in several environments."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from torch import nn

from invlearn.diagnostics.calibration import calibration
from invlearn.diagnostics.diversity import diversity
from invlearn.diagnostics.drift import representation_drift
from invlearn.diagnostics.effect_estimates import column_names
from invlearn.diagnostics.effects import feature_effects
from invlearn.diagnostics.findings import Finding, predicted_rows, unanswered
from invlearn.diagnostics.intervals import check_draws
from invlearn.diagnostics.invariance_gap import invariance_gap
from invlearn.diagnostics.reliance import feature_reliance
from invlearn.diagnostics.risk_profile import collapse, dummy_gradients, risk_profile
from invlearn.environments import Environments
from invlearn.errors import EnvironmentsError
from invlearn.losses import Loss

_LEVELS = ("warning", "note", "good")


def diagnose(
    model: nn.Module,
    environments: Environments,
    loss: Loss,
    *,
    feature_names: Sequence[str] | None = None,
    reference: nn.Module | None = None,
    seen: Sequence[str] | None = None,
    seed: int = 0,
    draws: int = 500,
) -> list[Finding]:
    """Find out what a fitted predictor does in several environments, and why.

    Parameters
    ----------
    model : nn.Module
        Gives outputs [n, k]; it is copied to the CPU and left as it is.
    environments : Environments
        Rows [n, d], best ones the model was not trained on. Row weights count everywhere.
        Costly findings draw some thousand rows of an environment, and say so.
    loss : Loss
    feature_names : sequence of str, optional
        One per column of x; default 'x0', 'x1', ...
    reference : nn.Module, optional
        A model of the same inputs trained on the pooled rows, for the finding 'diversity'. None:
        a linear one is fitted, and read out of fold.
    seen : sequence of str, optional
        Environments the model was trained on; others are marked 'new', and whether the
        environments are different enough to learn from is asked of these only. None: all.
    seed : int
        Equal seeds give equal findings.
    draws : int
        Bootstrap draws of every interval.

    Returns
    -------
    list of Finding
        Warnings first, then notes, then what is good. A finding that cannot be made on these
        rows is a note that says why.

    Raises
    ------
    EnvironmentsError
        Targets that are not of the loss's kind.
    OptionError
        Fewer than 40 draws, another number of feature names than columns, or outputs that are
        not finite.

    Examples
    --------
    >>> import torch
    >>> from invlearn.losses import get_loss
    >>> from invlearn.models import MLP
    >>> x = torch.randn(200, 1, generator=torch.Generator().manual_seed(0))
    >>> envs = Environments.from_arrays(x, (x[:, 0] > 0).long(), ["a"] * 100 + ["b"] * 100)
    >>> model = MLP(1, (), generator=torch.Generator().manual_seed(0))
    >>> findings = diagnose(model, envs, get_loss("logistic"), draws=50)
    >>> len(findings), findings[0].level
    (9, 'warning')
    """
    check_draws(draws)
    environments = environments.to("cpu")
    model = copy.deepcopy(model).cpu()
    tabular = True
    try:
        names = column_names(environments, feature_names)
    except EnvironmentsError:
        tabular = False
    parts = predicted_rows(model, environments, seen)
    loss.check(environments.y, parts[0].z.shape[1])
    if reference is not None:
        reference = copy.deepcopy(reference).cpu()
    learned_from = [rows for rows in parts if not rows.new]

    def rng(number: int) -> np.random.Generator:
        # One for each finding: none changes when another is added or left out.
        return np.random.default_rng([seed, number])

    findings = [
        risk_profile(parts, loss, draws=draws, rng=rng(10)),
        collapse(parts, loss, draws=draws, rng=rng(11)),
        calibration(parts, loss, draws=draws, rng=rng(12)),
        dummy_gradients(parts, loss),
        invariance_gap(model, parts, loss, draws=draws, rng=rng(13)),
        feature_effects(environments, loss, feature_names, seed),
        feature_reliance(model, parts, loss, names, rng=rng(14))
        if tabular
        else unanswered(
            "feature-reliance", "Which columns the model relies on", "rows are images."
        ),
        representation_drift(model, parts, loss, rng=rng(15)),
        diversity(learned_from, loss, reference=reference, rng=rng(16)),
    ]
    if seen is not None:
        new = {rows.name for rows in parts if rows.new}
        findings = [_marked(finding, new) for finding in findings]
    return sorted(findings, key=lambda finding: _LEVELS.index(finding.level))


def _marked(finding: Finding, new: set[str]) -> Finding:
    """The finding with a column that says which environments are new to the model."""
    if "environment" not in finding.table:
        return finding
    table = finding.table.copy()
    marks = ["new" if name in new else "seen" for name in table["environment"]]
    table.insert(1, "trained on", marks)
    return replace(finding, table=table)
