"""Selection rules on made rows whose invariant part and shortcut are known.

Every case draws training environments, validation rows from the same, and one environment that
nobody trains on, in which the shortcut is reversed. A small perceptron is trained with meta-IRM
(its defaults) and with V-REx; a reference ERM is trained for half as many steps on the same rows
and taken at its lowest validation risk. Every rule chooses a step of the same runs; the figure is
the accuracy (a regression: the risk) in the reversed environment at that step. 'oracle' reads
that environment and bounds the rest; 'erm' is the reference itself.

    python benchmarks/group_rule.py [--seeds 8] [--cases NAME ...] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from invlearn.environments import Environments, EvaluationSet
from invlearn.experiments.provenance import provenance
from invlearn.models import MLP
from invlearn.objectives.base import Objective
from invlearn.objectives.meta_irm import MetaIRM
from invlearn.objectives.vrex import VREx, VRExHyper
from invlearn.selection import get_rule
from invlearn.training import PenaltySchedule, Run, Settings, Trainer

RULES = ("groups-agree", "inner-step-groups-agree", "risks-agree", "last", "oracle")
SHAPE = 10
"""Features of the invariant part."""


@dataclass(frozen=True)
class Classes:
    """Rows whose label a shape tells up to label noise, and shortcuts tell by environment.

    A class k of K is drawn (the first with probability `first`, if given), then a point around
    that class's centre. With probability `noise` the label is another class. A shortcut shows
    the label, or with probability `corruption` another class.

    corruption [E][shortcuts]: of the training environments; noise [E]: label noise.
    """

    corruption: tuple[tuple[float, ...], ...]
    noise: tuple[float, ...]
    k: int = 2
    first: float | None = None
    rows: int = 800

    @property
    def loss(self) -> str:
        return "logistic" if self.k == 2 else "softmax"

    def sample(self, e: int | None, rows: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Rows of environment e, or of the reversed one: features and labels."""
        noise = float(np.mean(self.noise)) if e is None else self.noise[e]
        shortcuts = (0.9,) * len(self.corruption[0]) if e is None else self.corruption[e]
        first = 1 / self.k if self.first is None else self.first
        share = [first, *[(1 - first) / (self.k - 1)] * (self.k - 1)]
        shape = rng.choice(self.k, rows, p=share)
        centres = np.random.default_rng(7).standard_normal((self.k, SHAPE)) / 1.2
        parts = [0.4 * (centres[shape] + 0.6 * rng.standard_normal((rows, SHAPE)))]
        y = _another(shape, noise, self.k, rng)
        for p in shortcuts:
            parts.append(2 * np.eye(self.k)[_another(y, p, self.k, rng)])
        return torch.from_numpy(np.concatenate(parts, 1)).float(), torch.from_numpy(y)


def _another(
    labels: np.ndarray[Any, Any], p: float, k: int, rng: np.random.Generator
) -> np.ndarray[Any, Any]:
    """The labels, each replaced by another class with probability p."""
    shift = (rng.random(len(labels)) < p) * rng.integers(1, k, len(labels))
    return (labels + shift) % k


@dataclass(frozen=True)
class Regression:
    """y = Σ x / sqrt(d) + noise_e; one more feature is y + spread_e times noise, or −y + noise."""

    spread: tuple[float, ...]
    noise: tuple[float, ...]
    rows: int = 800
    loss: str = "squared"
    k: int = 2

    def sample(self, e: int | None, rows: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Rows of environment e, or of the reversed one: features and targets."""
        noise = float(np.mean(self.noise)) if e is None else self.noise[e]
        spread = float(np.mean(self.spread)) if e is None else self.spread[e]
        x = rng.standard_normal((rows, SHAPE))
        y = x.sum(1) / SHAPE**0.5 + noise * rng.standard_normal(rows)
        effect = (-y if e is None else y) + spread * rng.standard_normal(rows)
        features = np.concatenate([x, effect[:, None]], 1)
        return torch.from_numpy(features).float(), torch.from_numpy(y).float()


def one(*corruption: float) -> tuple[tuple[float, ...], ...]:
    """One shortcut with these corruptions."""
    return tuple((p,) for p in corruption)


CASES: dict[str, Classes | Regression] = {
    "E=2": Classes(one(0.1, 0.2), (0.25,) * 2),
    "E=3": Classes(one(0.1, 0.2, 0.3), (0.25,) * 3),
    "E=5": Classes(one(0.05, 0.1, 0.15, 0.2, 0.25), (0.25,) * 5),
    "5 classes": Classes(one(0.1, 0.25), (0.3,) * 2, k=5),
    "2 shortcuts, equal": Classes(((0.1, 0.1), (0.2, 0.2)), (0.25,) * 2),
    "2 shortcuts, unequal": Classes(((0.1, 0.2), (0.2, 0.3)), (0.25,) * 2),
    "no shortcut": Classes(((), ()), (0.25,) * 2),
    "label noise only": Classes(((), ()), (0.15, 0.35)),
    "equal shortcut": Classes(one(0.15, 0.15), (0.25,) * 2),
    "equal shortcut, label noise": Classes(one(0.15, 0.15), (0.15, 0.35)),
    "imbalanced": Classes(one(0.1, 0.2), (0.1,) * 2, first=0.85),
    "weak shortcut": Classes(one(0.2, 0.3), (0.15,) * 2),
    "small": Classes(one(0.1, 0.3), (0.25,) * 2, rows=60),
    "regression": Regression((0.3, 1.0), (1.0, 1.0)),
    "regression, unequal noise": Regression((0.5, 0.5), (0.5, 1.5)),
}


@dataclass(frozen=True)
class Method:
    objective: Objective
    hyper: Any
    settings: Callable[[int], Settings]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=8)
    args = parser.parse_args()


if __name__ == "__main__":
    main()
