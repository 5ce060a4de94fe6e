"""A fitted model kept in a folder without a pickle, loaded, asked and diagnosed."""

import tempfile
from pathlib import Path

import numpy as np
import torch

from invlearn import InvariantClassifier, diagnose

rng = np.random.default_rng(0)
hospital = np.repeat(["north", "south", "west"], 60)
ill = rng.integers(0, 2, 180)
X = rng.normal(size=(180, 2)) + ill[:, None]


class Network(torch.nn.Sequential):
    """A network of one's own; random_state settles its weights."""

    def __init__(self, n_features, n_outputs):
        layers = torch.nn.Linear(n_features, 8), torch.nn.ReLU(), torch.nn.Linear(8, n_outputs)
        super().__init__(*layers)


folder = Path(tempfile.mkdtemp())
model = InvariantClassifier("irmv1", steps=100, random_state=0)
model.fit(X, ill, environments=hospital).save(folder / "model")
model = InvariantClassifier.load(folder / "model")

own = InvariantClassifier("irmv1", network=Network, steps=100, random_state=0)
own.fit(X, ill, environments=hospital).save(folder / "own")
own = InvariantClassifier.load(folder / "own", network=Network)  # No folder holds its code.
print(model.predict_proba(X[:2]).round(2), own.predict_proba(X[:2]).round(2))

for finding in diagnose(model, X, ill, hospital, draws=50)[:3]:
    print(f"{finding.level}: {finding.sentence} {finding.action}")
