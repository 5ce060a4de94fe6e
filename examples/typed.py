"""A script of one's own, typed: it passes `mypy --strict`."""

import numpy as np
import numpy.typing as npt
import torch

from invlearn import Environments, InvariantClassifier, Run, Settings, Trainer, get_objective
from invlearn.models import MLP

Floats = npt.NDArray[np.float64]


def two_clinics(rows: int, seed: int) -> tuple[Floats, npt.NDArray[np.int64], list[str]]:
    """A cause, and a shortcut that turns from one clinic to the other."""
    rng = np.random.default_rng(seed)
    cause = rng.normal(size=2 * rows)
    ill = (cause + rng.normal(size=2 * rows) > 0).astype(np.int64)
    clinics = ["north"] * rows + ["south"] * rows
    sign = np.repeat([1.0, -1.0], rows)
    shortcut = sign * (2 * ill - 1) + rng.normal(size=2 * rows)
    return np.column_stack([cause, shortcut]), ill, clinics


def train(x: Floats, y: npt.NDArray[np.int64], clinics: list[str]) -> Run:
    """A trainer of one's own model."""
    rows = Environments.from_arrays(x, y, clinics)
    torch.manual_seed(0)
    vrex = get_objective("vrex", {"penalty_weight": 3.0})
    settings = Settings(steps=50, lr=0.02)
    return Trainer(MLP(2, (8,)), rows, vrex, "logistic", settings=settings, seed=0).run()


x, y, clinics = two_clinics(200, seed=0)
print(train(x, y, clinics))
model = InvariantClassifier("irmv1", penalty_weight=10.0, steps=50, random_state=0)
model.fit(x, y, environments=clinics)
probabilities: Floats = model.predict_proba(x)
print(probabilities[:2].round(3))
