"""Hand-made outputs and measurements whose groups' errors are known."""

from __future__ import annotations

import pandas as pd
import torch

from invlearn.losses import get_loss
from invlearn.outputs import Outputs, SplitOutputs


def make_outputs(
    inside, outside, *, sizes=(200, 200), members=(20, 60), splits=("validation",), every=10
):
    """Logistic outputs of a group of rows and the rest.

    The first `members[e]` of environment e's `sizes[e]` rows are the group: the reference errs
    on them alone, and they alone are raised by an inner step. `inside` and `outside` are the
    shares of the group's rows and of the others that are wrong at each step.
    """
    environment = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    within = torch.cat([torch.arange(n) for n in sizes])
    group = within < torch.tensor(members)[environment]
    y = within % 2
    right = torch.where(y == 1, 1.0, -1.0).half()[:, None]
    z = []
    for shares in zip(inside, outside, strict=True):
        wrong = torch.zeros(len(y), dtype=torch.bool)
        for share, side in zip(shares, (group, ~group), strict=True):
            rows = side.nonzero()[:, 0]
            wrong[rows[: round(share * len(rows))]] = True
        z.append(torch.where(wrong[:, None], -right, right))
    split = SplitOutputs(
        names=tuple(f"e{e}" for e in range(len(sizes))),
        environment=environment,
        y=y,
        z=torch.stack(z),
        raised=group.expand(len(z), -1),
        reference=torch.where(group[:, None], -right, right),
    )
    steps = tuple(range(0, every * len(z), every))
    return Outputs(get_loss("logistic"), steps, dict.fromkeys(splits, split))


def make_curves(risk, *, constant=0.7, spread=0.0, error=0.01, environments=2, every=10):
    """Validation measurements with these mean risks, `spread` apart on each side."""
    along = {"risk": risk, "risk_standard_error": [error] * len(risk)}
    along["constant_risk"] = [constant] * len(risk)
    return pd.DataFrame(
        [
            (f"e{e}", "validation", metric, value + sign * (metric == "risk"), step * every)
            for metric, values in along.items()
            for e, sign in zip(range(environments), [spread, -spread] * environments, strict=False)
            for step, value in enumerate(values)
        ],
        columns=["environment", "split", "metric", "value", "step"],
    )
