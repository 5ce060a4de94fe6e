"""A diagnosis: everything that can be found out about a predictor in several environments."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from torch import nn

from invlearn.diagnostics.calibration import calibration
from invlearn.diagnostics.diversity import diversity
from invlearn.diagnostics.drift import representation_drift
from invlearn.diagnostics.effects import feature_effects
from invlearn.diagnostics.findings import Finding, Findings, predicted_rows
from invlearn.diagnostics.intervals import check_draws
from invlearn.diagnostics.invariance_gap import invariance_gap
from invlearn.diagnostics.pieces import channel_means, pieces_of
from invlearn.diagnostics.reliance import feature_reliance
from invlearn.diagnostics.risk_profile import collapse, dummy_gradients, risk_profile
from invlearn.environments import Environments
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
    progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> Findings:
    """Find out what a fitted predictor does in several environments, and why.

    Parameters
    ----------
    model : nn.Module
        Gives outputs [n, k]; it is copied to the CPU and left as it is.
    environments : Environments
        Rows [n, d], or images [n, channels, height, width], best ones the model was not trained
        on. Row weights count everywhere. Costly findings draw some rows of an environment, and
        say so.
    loss : Loss
    feature_names : sequence of str, optional
        One per column of x; default 'x0', 'x1', ... Of images none: patches and channels
        are named.
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
    progress : callable
        ``progress(findings made, findings in all, what is being looked at)``.

    Returns
    -------
    Findings, a list of Finding
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
    pieces = pieces_of(environments, feature_names)
    # What images are to a regression: a pixel by itself has no meaning.
    columns = channel_means(environments) or (environments, feature_names)
    parts = predicted_rows(model, environments, seen)
    loss.check(environments.y, parts[0].z.shape[1])
    if reference is not None:
        reference = copy.deepcopy(reference).cpu()
    learned_from = [rows for rows in parts if not rows.new]

    def rng(number: int) -> np.random.Generator:
        # One for each finding: none changes when another is added or left out.
        return np.random.default_rng([seed, number])

    questions: list[tuple[str, Callable[[], Finding]]] = [
        ("risk profile", lambda: risk_profile(parts, loss, draws=draws, rng=rng(10))),
        ("collapse", lambda: collapse(parts, loss, draws=draws, rng=rng(11))),
        ("calibration", lambda: calibration(parts, loss, draws=draws, rng=rng(12))),
        ("dummy gradient", lambda: dummy_gradients(parts, loss)),
        ("invariance gap", lambda: invariance_gap(model, parts, loss, draws=draws, rng=rng(13))),
        ("feature effects", lambda: feature_effects(columns[0], loss, columns[1], seed)),
        ("feature reliance", lambda: feature_reliance(model, parts, loss, pieces, rng=rng(14))),
        ("representation", lambda: representation_drift(model, parts, loss, rng=rng(15))),
        ("diversity", lambda: diversity(learned_from, loss, reference=reference, rng=rng(16))),
    ]
    findings = []
    for number, (what, answer) in enumerate(questions):
        progress(number, len(questions), what)
        findings.append(answer())
    progress(len(questions), len(questions), "diagnosis")
    if seen is not None:
        new = {rows.name for rows in parts if rows.new}
        findings = [_marked(finding, new) for finding in findings]
    return Findings(sorted(findings, key=lambda finding: _LEVELS.index(finding.level)))


def _marked(finding: Finding, new: set[str]) -> Finding:
    """The finding with a column that says which environments are new to the model."""
    if "environment" not in finding.table:
        return finding
    table = finding.table.copy()
    marks = ["new" if name in new else "seen" for name in table["environment"]]
    table.insert(1, "trained on", marks)
    return replace(finding, table=table)
