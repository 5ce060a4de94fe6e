"""Methods compared in environments that none of them was trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from invlearn.diagnostics.intervals import resampled_means

Floats = npt.NDArray[np.float64]


class Estimate(NamedTuple):
    """A number with its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Metric:
    """What is compared, as a function of a mean over rows of their errors.

    Attributes
    ----------
    name : 'accuracy', 'balanced accuracy' or 'RMSE'
    higher_is_better : bool
    of_mean : callable
        From the (weighted) mean error, 0-1 or squared, to the metric.
    """

    name: str
    higher_is_better: bool
    of_mean: Callable[[Floats], Floats]

    def show(self, value: float) -> str:
        """The value as text: accuracies in percent, errors in the target's unit.

        Examples
        --------
        >>> METRICS["accuracy"].show(0.8312), METRICS["RMSE"].show(1234.5)
        ('83.1 %', '1,234')
        """
        if self.higher_is_better:
            return f"{100 * value:.1f} %"
        return f"{value:.3g}" if abs(value) < 1000 or abs(value) >= 1e9 else f"{value:,.0f}"


def _right(mean: Floats) -> Floats:
    return 1 - mean


METRICS = {
    "accuracy": Metric("accuracy", True, _right),
    "balanced accuracy": Metric("balanced accuracy", True, _right),
    "RMSE": Metric("RMSE", False, np.sqrt),
}


class Contender(NamedTuple):
    """A method that took part.

    kind: 'usual' for what one would use anyway, 'invariant' for a method of the IRM family.
    """

    name: str
    title: str
    kind: str
    summary: str


@dataclass(frozen=True)
class HeldOut:
    """What M methods reach in E environments, each trained on the others.

    Make one with `compare_errors`.

    Attributes
    ----------
    metric : Metric
    contenders : tuple of Contender, M of them
    environments : tuple of str, E of them
    rows : tuple of int
        Rows of each environment.
    values : array [E, M]
    draws : array [B, E, M]
        The same on rows drawn with replacement, the same rows for every method.
    """

    metric: Metric
    contenders: tuple[Contender, ...]
    environments: tuple[str, ...]
    rows: tuple[int, ...]
    values: Floats
    draws: Floats

    def number(self, name: str) -> int:
        """A method's place among the contenders."""
        return [contender.name for contender in self.contenders].index(name)

    def kind(self, kind: str) -> list[Contender]:
        """The contenders of a kind."""
        return [contender for contender in self.contenders if contender.kind == kind]

    def cell(self, environment: str, name: str) -> Estimate:
        """A method in an environment, with its 95 % interval."""
        e, m = self.environments.index(environment), self.number(name)
        return _estimate(self.values[e, m], self.draws[:, e, m], 0.05)

    def worst_environment(self, name: str) -> str:
        """The environment in which a method does worst."""
        return self.environments[int(np.argmin(self._goodness(self.values)[:, self.number(name)]))]

    def worst(self, name: str) -> Estimate:
        """A method where it does worst."""
        return _estimate(*self._worst(name), 0.05)

    def mean(self, name: str) -> Estimate:
        """A method on average over environments, each counted alike."""
        return _estimate(*self._mean(name), 0.05)

    def gain(self, name: str, over: Sequence[str], where: str, tests: int = 1) -> Estimate:
        """How much better a method is than the best of others, in the metric's unit.

        Parameters
        ----------
        name : str
        over : sequence of str
            The best of these in the same place is compared with, which is in their favor.
        where : 'worst' or 'mean'
            In the environment where each does worst, or on average.
        tests : int
            Comparisons that are made; the interval is widened accordingly (Bonferroni).

        Returns
        -------
        Estimate
            Positive is better.
        """
        statistic = {"worst": self._worst, "mean": self._mean}[where]
        value, draws = statistic(name)
        # Of the others the one that is best in the rows at hand.
        best = max(over, key=lambda other: self._goodness(np.asarray(statistic(other)[0])))
        other_value, other_draws = statistic(best)
        sign = 1.0 if self.metric.higher_is_better else -1.0
        return _estimate(sign * (value - other_value), sign * (draws - other_draws), 0.05 / tests)

    def best(self, names: Sequence[str], where: str) -> str:
        """The method that does best of some, 'worst' or 'mean' as in `gain`."""
        statistic = {"worst": self._worst, "mean": self._mean}[where]
        return max(names, key=lambda name: float(self._goodness(np.asarray(statistic(name)[0]))))

    def table(self) -> pd.DataFrame:
        """Long table: method, environment, rows, metric, value, low, high.

        The environments 'worst' and 'mean' come last for every method.
        """
        found = []
        for contender in self.contenders:
            cells = [(e, n, self.cell(e, contender.name))
                     for e, n in zip(self.environments, self.rows, strict=True)]  # fmt: skip
            cells.append(("(worst)", sum(self.rows), self.worst(contender.name)))
            cells.append(("(mean)", sum(self.rows), self.mean(contender.name)))
            found += [
                {"method": contender.name, "environment": environment, "rows": rows,
                 "metric": self.metric.name, **estimate._asdict()}
                for environment, rows, estimate in cells
            ]  # fmt: skip
        return pd.DataFrame(found)

    def _goodness(self, values: Floats) -> Floats:
        return values if self.metric.higher_is_better else -values

    def _worst(self, name: str) -> tuple[float, Floats]:
        m = self.number(name)
        pick = np.min if self.metric.higher_is_better else np.max
        return float(pick(self.values[:, m])), pick(self.draws[:, :, m], axis=1)

    def _mean(self, name: str) -> tuple[float, Floats]:
        m = self.number(name)
        return float(self.values[:, m].mean()), self.draws[:, :, m].mean(1)


def compare_errors(
    errors: Mapping[str, Floats],
    shares: Mapping[str, Floats],
    contenders: Sequence[Contender],
    metric: Metric,
    *,
    seed: int = 0,
    draws: int = 1000,
) -> HeldOut:
    """Metrics of methods in environments, with draws of the rows for intervals.

    Parameters
    ----------
    errors : {environment: array [n_e, M]}
        0-1 or squared error of every row by every method, while its environment was left out.
    shares : {environment: array [n_e]}
        Row weights within the environment.
    contenders : sequence of Contender, M of them
    metric : Metric
    seed, draws : int
        Of the bootstrap over rows. It says how sure the numbers are for more rows from these
        environments, not for another environment, and not for another seed of the training.

    Examples
    --------
    >>> two = [Contender("a", "A", "usual", ""), Contender("b", "B", "invariant", "")]
    >>> errors = {"north": np.array([[0.0, 1.0], [1.0, 1.0]]), "south": np.zeros((2, 2))}
    >>> ones = {"north": np.ones(2), "south": np.ones(2)}
    >>> found = compare_errors(errors, ones, two, METRICS["accuracy"])
    >>> found.worst("a").value, found.worst_environment("b")
    (0.5, 'north')
    """
    rng = np.random.default_rng(seed)
    names = tuple(errors)
    means = [(shares[name] @ errors[name]) / shares[name].sum() for name in names]
    drawn = [resampled_means(errors[name], shares[name], draws, rng) for name in names]
    # A mean of draws may lie outside by rounding.
    clipped = np.clip(np.stack(drawn, axis=1), 0.0, None)
    return HeldOut(
        metric,
        tuple(contenders),
        names,
        tuple(len(errors[name]) for name in names),
        metric.of_mean(np.stack(means)),
        metric.of_mean(clipped),
    )


def _estimate(value: float, draws: Floats, level: float) -> Estimate:
    low, high = np.quantile(draws, [level / 2, 1 - level / 2])
    return Estimate(float(value), float(low), float(high))
