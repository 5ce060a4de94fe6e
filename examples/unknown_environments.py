"""Nobody wrote down where rows come from: environments inferred from a quick model's mistakes."""

import numpy as np

from invlearn import InvariantClassifier


def patients(agreement, n, seed):
    """A cause, and a shortcut that agrees with the illness as often as said."""
    rng = np.random.default_rng(seed)
    cause = rng.normal(size=n)
    ill = (rng.random(n) < 1 / (1 + np.exp(-3 * cause))).astype(int)
    shortcut = np.where(rng.random(n) < agreement, 2 * ill - 1, 1 - 2 * ill)
    return np.column_stack([cause, shortcut + 0.3 * rng.normal(size=n)]), ill


X, ill = patients(agreement=0.85, n=2000, seed=0)
X_new, ill_new = patients(agreement=0.1, n=2000, seed=1)

for objective, environments in (("erm", None), ("vrex", "infer")):
    model = InvariantClassifier(objective, network="linear", steps=300, random_state=0)
    model.fit(X, ill, environments=environments)
    print(f"{objective}: {model.score(X, ill):.2f} here, {model.score(X_new, ill_new):.2f} there")
print(model.choices_)
