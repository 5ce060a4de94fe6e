"""Which features' effect on the target changes from environment to environment."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from invlearn.diagnostics.effect_estimates import Estimates, estimate_effects
from invlearn.diagnostics.findings import NOTHING, Finding, listed, unanswered
from invlearn.diagnostics.intervals import LEVEL, normal_bound
from invlearn.environments import Environments
from invlearn.errors import EnvironmentsError
from invlearn.losses import Loss

SHOWN = 30

VARIES = 0.25
"""Share of the largest effect by which effects have to differ to matter."""

_ORDER = ("flips", "varies", "steady", "unclear")


def conflicting_features(
    environments: Environments,
    loss: Loss,
    feature_names: Sequence[str] | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Features whose effect on the target differs between environments; no model is needed.

    In each environment the target is regressed on all features, standardized over all rows:
    by ridge regression (target standardized too), by logistic regression, or for several
    classes by one logistic regression of each class against the rest, of which the largest
    conflict counts. The penalty is that of one row. An effect's error is the larger of the
    robust one of leaving rows out (HC3) and the model's own, for probabilities with two thirds
    of the effects: with no shift, about 5 % of tables at most have a 'varies'.

    Parameters
    ----------
    environments : Environments
        Features [n, d]; at most 10,000 rows of an environment are used. A feature that differs
        from its most frequent value in fewer than 8 rows of an environment (a rare category,
        say) counts for nothing there.
    loss : Loss
        Squared, Logistic or Softmax: says what kind the targets are.
    feature_names : sequence of str, optional
        One per column; default 'x0', 'x1', ...
    seed : int
        Draws the rows.

    Returns
    -------
    DataFrame
        Most conflicting first: feature; class (several classes only); verdict; heterogeneity
        p-value (Cochran's Q, of this feature alone); lowest effect, lowest in, highest effect,
        highest in. The verdict is 'flips' where the effect is clearly positive in one
        environment and clearly negative in another, 'varies' where Q is clear and the effects
        differ by over a quarter of the largest, 'steady' where some effect is clear, else
        'unclear'. Clear is at 5 % after Bonferroni, over features and environments (Q: over
        features). More than 200 columns, or more than a fifth of the smallest environment's
        rows, are cut to those with the largest correlation with the target in any environment.

    Raises
    ------
    EnvironmentsError
        Rows that are not [n, d], or fewer than two environments of 20 rows and two targets.
    OptionError
        Another number of names than columns, or a custom loss.

    Examples
    --------
    >>> import torch
    >>> from invlearn.losses import get_loss
    >>> x = torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
    >>> sign = torch.tensor([1.0, -1.0]).repeat_interleave(200)
    >>> y = x[:, 0] + sign * x[:, 1]
    >>> envs = Environments.from_arrays(x, y, ["a"] * 200 + ["b"] * 200)
    >>> found = conflicting_features(envs, get_loss("squared"), ["cause", "shortcut"])
    >>> found["feature"].tolist(), found["verdict"].tolist()
    (['shortcut', 'cause'], ['flips', 'steady'])
    """
    effects = estimate_effects(environments, loss, feature_names, seed)
    return _judged(effects).drop(columns=[f"effect in {name}" for name in effects.names])


def feature_effects(
    environments: Environments,
    loss: Loss,
    feature_names: Sequence[str] | None = None,
    seed: int = 0,
) -> Finding:
    """`conflicting_features` as a finding, with the effect in every environment.

    Parameters are those of `conflicting_features`; where it raises an error for the rows, the
    finding says why it was left out.

    Returns
    -------
    Finding
        'feature-effects': at most 30 features. It warns where an effect flips.
    """
    name, title = "feature-effects", "Which columns change their meaning between environments"
    if loss.kind == "unknown":
        return unanswered(name, title, "the effect on a custom loss's targets is not defined.")
    try:
        effects = estimate_effects(environments, loss, feature_names, seed)
    except EnvironmentsError as error:
        return unanswered(name, title, str(error))
    frame = _judged(effects)
    shown = frame.head(SHOWN).reset_index(drop=True)
    note = effects.note + (f" The table shows {SHOWN} columns." if len(frame) > SHOWN else "")
    flips = frame[frame["verdict"] == "flips"]
    varies = [f"'{feature}'" for feature in frame.loc[frame["verdict"] == "varies", "feature"]]
    if len(flips):
        first = flips.iloc[0]
        also = f" The strength of {listed(varies)} varies too." if varies else ""
        on = f" on class {first['class']}" if effects.classes else ""
        names = [f"'{feature}'" for feature in flips["feature"]]
        text = (
            f"The effect of {listed(names)} changes its sign: '{first['feature']}'{on} has "
            f"{first['lowest effect']:+.2f} in "
            f"'{first['lowest in']}' and {first['highest effect']:+.2f} in "
            f"'{first['highest in']}'.{also}{note}"
        )
        action = "Ask how these columns come about, and train without them as a comparison."
        return Finding(name, title, text, action, "warning", shown)
    if varies:
        text = (
            f"No effect changes its sign, but the strength of {listed(varies)} depends on the "
            f"environment, as a shortcut's would.{note}"
        )
        action = "Ask whether these columns cause the target or only go along with it."
        return Finding(name, title, text, action, "note", shown)
    text = f"No column's effect clearly changes between the environments.{note}"
    return Finding(name, title, text, NOTHING, "good", shown)


def _judged(found: Estimates) -> pd.DataFrame:
    """A row per feature, most conflicting first."""
    from scipy.stats import chi2

    targets, n_envs, columns = found.effects.shape
    z = found.effects / found.errors
    bound = normal_bound(targets * n_envs * columns)
    weights = found.errors**-2.0
    total = np.maximum(weights.sum(1), 1e-300)
    pooled = (weights * found.effects).sum(1) / total
    q = (weights * (found.effects - pooled[:, None]) ** 2).sum(1)
    freedom = np.isfinite(found.errors).sum(1) - 1
    p_values = np.where(freedom > 0, chi2.sf(q, np.maximum(freedom, 1)), 1.0)
    measured = np.isfinite(found.errors)
    shown = np.where(measured, found.effects, np.nan)
    lowest = np.where(measured, found.effects, np.inf).argmin(1)
    highest = np.where(measured, found.effects, -np.inf).argmax(1)
    low = np.take_along_axis(shown, lowest[:, None], 1)[:, 0]
    high = np.take_along_axis(shown, highest[:, None], 1)[:, 0]
    ends = np.where(measured.any(1), np.array(found.names)[[lowest, highest]], "")
    # The smaller of both sides' clearness: how sure it is that the sign flips.
    flip = np.minimum(z.max(1), -z.min(1))
    apart = high - low > VARIES * np.maximum(np.abs(low), np.abs(high))
    varies = (p_values * targets * columns < LEVEL) & apart
    clear = np.abs(z).max(1) > bound
    verdicts = np.select([flip > bound, varies, clear], [0, 1, 2], 3)
    rows = []
    for j, feature in enumerate(found.features):
        # Of several classes the one with the largest conflict.
        t = min(range(targets), key=lambda t: (verdicts[t, j], p_values[t, j], -flip[t, j]))
        row: dict[str, object] = {"feature": feature}
        if found.classes:
            row["class"] = found.classes[t]
        row |= {f"effect in {name}": shown[t, e, j] for e, name in enumerate(found.names)}
        row |= {
            "verdict": _ORDER[verdicts[t, j]],
            "heterogeneity p-value": p_values[t, j],
            "lowest effect": low[t, j],
            "lowest in": str(ends[0, t, j]),
            "highest effect": high[t, j],
            "highest in": str(ends[1, t, j]),
        }
        key = (verdicts[t, j], -flip[t, j] if verdicts[t, j] == 0 else p_values[t, j], j)
        rows.append((key, row))
    return pd.DataFrame([row for _, row in sorted(rows, key=lambda pair: pair[0])])
