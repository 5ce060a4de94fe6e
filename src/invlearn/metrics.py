"""How well a predictor does, as numbers of an environment: a new metric is one entry here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from invlearn.losses import Loss

EVERY_KIND = ("classes", "numbers", "unknown")


@dataclass(frozen=True)
class Metric:
    """A function of a mean over the rows of an environment.

    Attributes
    ----------
    name : str
        As tables have it.
    title : str
        As sentences have it.
    meaning : str
        What it says, to a reader from outside the field: "... is" and this.
    of_rows : callable
        ``(loss, z, y) -> [n] or [n, d]``, what the mean is over, from outputs z [n, k].
    of_mean : callable
        From the (weighted) mean, a tensor or an array [...] or [..., d], to the metric [...].
    kinds : tuple of str
        The kinds of targets that it is for, see `Loss.kind`.
    of_predictions : callable, optional
        ``(predicted, y) -> array``, what the mean is over, from predictions in the target's unit;
        None for a metric that needs a network's outputs.
    higher_is_better : bool
    percent : bool
        Whether it is a share, shown in percent.
    by_class : bool
        Whether the mean is taken within each class first, so that every class counts alike.
    tracked : bool
        Whether it is measured at every evaluated step of a run.
    """

    name: str
    title: str
    meaning: str
    of_rows: Callable[[Loss, Tensor, Tensor], Tensor]
    of_mean: Callable[[Any], Any]
    kinds: tuple[str, ...] = EVERY_KIND
    of_predictions: Callable[[Any, Any], Any] | None = None
    higher_is_better: bool = False
    percent: bool = False
    by_class: bool = False
    tracked: bool = False

    @property
    def heading(self) -> str:
        """The name with its unit, and which way is better where that is not up.

        Examples
        --------
        >>> METRICS["accuracy"].heading, METRICS["RMSE"].heading
        ('accuracy in %', 'RMSE, lower is better')
        """
        named = f"{self.name} in %" if self.percent else self.name
        return named if self.higher_is_better else f"{named}, lower is better"

    def show(self, value: float) -> str:
        """The value as text: shares in percent, others in their unit.

        Examples
        --------
        >>> METRICS["accuracy"].show(0.8312), METRICS["RMSE"].show(1234.5)
        ('83.1 %', '1,234')
        """
        if self.percent:
            return f"{100 * value:.1f} %"
        whole = 999.5 <= abs(value) < 1e9  # As three digits 1e+03.
        return f"{value:,.0f}" if whole else f"{value:.3g}"


def _accuracy(name: str, meaning: str, **options: bool) -> Metric:
    return Metric(
        name,
        name,
        meaning,
        of_rows=lambda loss, z, y: loss.errors(z, y),
        of_mean=lambda mean: 1 - mean,
        kinds=("classes",),
        of_predictions=lambda predicted, y: (predicted != y) * 1.0,
        higher_is_better=True,
        percent=True,
        **options,
    )


METRICS = {
    metric.name: metric
    for metric in (
        Metric(
            "risk",
            "risk",
            "the mean loss; lower is better",
            of_rows=lambda loss, z, y: loss.value(z, y),
            of_mean=lambda mean: mean,
            tracked=True,
        ),
        Metric(
            "dummy_gradient_norm",
            "norm of the mean dummy gradient",
            "how much rescaling the output would change the risk; at 0 the scale is right",
            of_rows=lambda loss, z, y: loss.dummy_gradient(z, y),
            of_mean=lambda mean: (mean * mean).sum(-1) ** 0.5,
            tracked=True,
        ),
        _accuracy("accuracy", "the share of rows whose class was predicted right", tracked=True),
        _accuracy(
            "balanced accuracy",
            "the share predicted right of each class, averaged over the classes, so that a rare "
            "class counts as much as a frequent one",
            by_class=True,
        ),
        Metric(
            "RMSE",
            "root mean squared error",
            "the root of the mean squared error: the typical size of an error, in the unit of the "
            "target; lower is better",
            of_rows=lambda loss, z, y: loss.errors(z, y),
            # Of resampled squares a mean may come out as minus a rounding error.
            of_mean=lambda mean: mean.clip(0) ** 0.5,
            kinds=("numbers",),
            of_predictions=lambda predicted, y: (predicted - y) ** 2,
        ),
    )
}


def usual_metric(kind: str) -> Metric:
    """What tells best how a predictor does on targets of a kind.

    Examples
    --------
    >>> usual_metric("classes").name, usual_metric("numbers").name, usual_metric("unknown").name
    ('accuracy', 'RMSE', 'risk')
    """
    return METRICS[{"classes": "accuracy", "numbers": "RMSE", "unknown": "risk"}[kind]]
