"""How a search scores what it drew, from training environments only.

'worst-group': the lowest error of the worse-off of the two groups along the steps, on validation
rows (the rule 'lowest worst-group error'), averaged over trials. If the groups are the shortcut's
and nothing else changes, a predictor errs no more than that in any environment; being the
lowest of many steps on the rows it is measured on, the score is optimistic. A setting with a trial
whose groups the environments do not certify, or that never beats a constant, has no score.

'late-risk': a setting's validation risks are averaged over the last quarter of its steps and
over its trials, which evens out the luck of a single step and of a single draw of rows. Among
settings whose averaged risks agree across the environments and clearly beat a constant predictor,
the one with the lowest mean is the best; where none does, the one that comes nearest to agreeing.
"""

from __future__ import annotations

from typing import Any, cast

import pandas as pd

from invlearn.comparison.search_space import search_space
from invlearn.methods import get_network
from invlearn.outputs import Outputs
from invlearn.selection import lowest_worst_group

AGREEMENT = 0.004
"""Standard deviation over environments, in units of risk, below which averaged risks agree.

About twice what sampling explains with three trials of 20,000 training and validation rows.
"""

MARGIN = 0.05
"""Share by which the mean risk has to beat the best constant's."""


def worst_group_score(curves: pd.DataFrame, outputs: Outputs) -> dict[str, Any]:
    """Score of a run by 'worst-group', None where it has none, and the step it is taken at."""
    choice = lowest_worst_group(curves, "", outputs)
    found = choice.statistic if choice.satisfied else None
    return {"step": choice.step, "score": None if found is None else float(found[choice.step])}


def late_risks(curves: pd.DataFrame, steps: int) -> dict[str, Any]:
    """What 'late-risk' reads of a run: late validation risks, and the best constant's."""
    curves = curves[curves["split"] == "validation"]
    late = curves[curves["step"] > 0.75 * steps]
    if late.empty:  # The run diverged: it counts as no better than a constant.
        late = curves[curves["step"] == 0].assign(value=float("inf"))
    risks = late[late["metric"] == "risk"].groupby("environment", sort=False)["value"].mean()
    constant = float(curves.loc[curves["metric"] == "constant_risk", "value"].mean())
    return {"constant_risk": constant} | {f"risk {n}": float(r) for n, r in risks.items()}


def best(table: pd.DataFrame, method: str, score: str) -> dict[str, float]:
    """The values of a method's best draw, and what it scored; empty if none can be scored."""
    own = table[table["method"] == method]
    found = get_network(method)
    space = search_space(found.objective, fixed=found.hyper)
    if score == "worst-group":
        # A draw with a trial that has no score has none.
        means = own.groupby("draw")["score"].agg(lambda column: column.mean(skipna=False))
        if means.isna().all():
            return {}
        scores, number = means.to_frame(), int(cast(int, means.idxmin()))
    else:
        scores, number = _late_scores(own)
    values = own[own["draw"] == number].iloc[0]
    return {
        "draw": number,
        **{name: float(values[name]) for name in space},
        **{str(name): float(value) for name, value in scores.to_dict("index")[number].items()},
    }


def _late_scores(own: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Mean risk, spread and whether the risks agree, by draw; and the best draw."""
    environments = [c for c in own.columns if c.startswith("risk ") and own[c].notna().any()]
    means = own.groupby("draw")[[*environments, "constant_risk"]].mean()
    scores = pd.DataFrame(
        {
            "validation_risk": means[environments].mean(axis=1),
            "spread": means[environments].std(axis=1, ddof=0),
        }
    )
    beats = scores["validation_risk"] <= (1 - MARGIN) * means["constant_risk"]
    scores["agrees"] = (beats & (scores["spread"] < AGREEMENT)).astype(float)
    if scores["agrees"].any():
        draw = scores.loc[scores["agrees"] > 0, "validation_risk"].idxmin()
    else:
        draw = scores.loc[beats if beats.any() else beats.index, "spread"].idxmin()
    return scores, int(cast(int, draw))
