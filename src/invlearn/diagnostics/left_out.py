"""Methods compared in environments that none of them was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from invlearn.diagnostics.intervals import normal_bound, resampled_means
from invlearn.metrics import Metric
from invlearn.results import RESULT_COLUMNS, Estimate, MethodInfo, Overall

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LeftOut:
    """What M methods reach in E environments, each trained on the others.

    Make one with `compare_errors`.

    Attributes
    ----------
    metric : Metric
    contenders : tuple of MethodInfo, M of them
    environments : tuple of str, E of them
    fewest : tuple of int
        Of each environment, how many rows one that is right or wrong counts as one of: all of
        them, or for balanced accuracy those of its rarest class times the classes.
    values : array [E, M]
    draws : array [B, E, M]
        The same on rows drawn with replacement, the same rows for every method.
    """

    metric: Metric
    contenders: tuple[MethodInfo, ...]
    environments: tuple[str, ...]
    fewest: tuple[int, ...]
    values: Floats
    draws: Floats

    def number(self, name: str) -> int:
        """A method's place among the contenders."""
        return [contender.name for contender in self.contenders].index(name)

    def finished(self, kind: str) -> list[MethodInfo]:
        """The contenders of a kind that ended in finite numbers everywhere."""
        failed = self.failed()
        return [c for c in self.contenders if c.kind == kind and c.name not in failed]

    def failed(self) -> dict[str, list[str]]:
        """The environments in which a method's training diverged, by method."""
        lost = {
            c.name: [e for e, value in zip(self.environments, column, strict=True)
                     if not np.isfinite(value)]
            for c, column in zip(self.contenders, self.values.T, strict=True)
        }  # fmt: skip
        return {name: where for name, where in lost.items() if where}

    def cell(self, environment: str, name: str) -> Estimate:
        """A method in an environment, with its 95 % interval."""
        e, m = self.environments.index(environment), self.number(name)
        return Estimate(float(self.values[e, m]), *_percentiles(self.draws[:, e, m], 1))

    def worst_environment(self, name: str) -> str:
        """The environment in which a method does worst, or the first in which it failed."""
        return self.environments[int(np.argmin(self._goodness(self.values)[:, self.number(name)]))]

    def worst(self, name: str) -> Estimate:
        """A method where it does worst.

        The interval is that environment's, widened for having picked it among all: the lowest of
        several equals looks worse than it is.
        """
        e, m = self.environments.index(self.worst_environment(name)), self.number(name)
        low, high = _percentiles(self.draws[:, e, m], len(self.environments))
        highest = 1.0 if self.metric.percent else np.inf
        return Estimate(float(self.values[e, m]), max(low, 0.0), min(high, highest))

    def mean(self, name: str) -> Estimate:
        """A method on average over environments, each counted alike."""
        m = self.number(name)
        return Estimate(
            float(self.values[:, m].mean()), *_percentiles(self.draws[:, :, m].mean(1), 1)
        )

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
            Positive is better. Of 'worst' the lower end is the least of the method's lower bounds
            in single environments, each against the other in the one where that did worst, and the
            upper end the reverse, widened for having picked that environment: a bootstrap of the
            smallest of several numbers would be biased.
        """
        one = {"worst": self._worst_gain, "mean": self._mean_gain}[where]
        gains = [one(self.number(name), self.number(other), tests * len(over)) for other in over]
        return Estimate(*(min(ends) for ends in zip(*gains, strict=True)))

    def overall(self) -> tuple[Overall, ...]:
        """Each method over all environments, an invariant one against the best of the usual.

        A gain's interval is widened for two comparisons of each invariant method.
        """
        usual = [c.name for c in self.finished("usual")]
        family = [c.name for c in self.finished("invariant")]
        failed, tests = self.failed(), 2 * max(len(family), 1)
        return tuple(
            Overall(
                c.name,
                tuple(failed.get(c.name, ())),
                self.worst_environment(c.name),
                self.worst(c.name),
                self.mean(c.name),
                *(
                    [self.gain(c.name, usual, where, tests) for where in ("worst", "mean")]
                    if usual and c.name in family
                    else []
                ),
            )
            for c in self.contenders
        )

    def table(self, problems: Mapping[str, str]) -> pd.DataFrame:
        """Long table of `RESULT_COLUMNS`: every method in every environment left out.

        Parameters
        ----------
        problems : {environment: problem}
            What was learned from in the round in which it was left out.
        """
        found = [
            {"method": c.name, "problem": problems[e], "environment": e, "split": "test",
             "metric": self.metric.name, **self.cell(e, c.name)._asdict(), "step": None,
             "selection": "last"}
            for c in self.contenders for e in self.environments
        ]  # fmt: skip
        return pd.DataFrame(found, columns=list(RESULT_COLUMNS))

    def _goodness(self, values: Floats) -> Floats:
        return values if self.metric.higher_is_better else -values

    def _mean_gain(self, m: int, other: int, tests: int) -> Estimate:
        better = self._goodness(self.values[:, m] - self.values[:, other]).mean()
        draws = self._goodness(self.draws[:, :, m] - self.draws[:, :, other]).mean(1)
        margin = normal_bound(tests) * max(
            float(draws.std()), self._one_row(int(np.argmin(self.fewest))) / len(self.fewest)
        )
        return Estimate(float(better), float(better - margin), float(better + margin))

    def _worst_gain(self, m: int, other: int, tests: int) -> Estimate:
        good, drawn = self._goodness(self.values), self._goodness(self.draws)
        count = len(self.environments)
        bound = normal_bound(tests * count)
        mine, theirs = int(good[:, m].argmin()), int(good[:, other].argmin())
        ends = []
        for e, f, sign in (
            *((e, theirs, -1.0) for e in range(count)),
            *((mine, f, 1.0) for f in range(count)),
        ):
            spread = (drawn[:, e, m] - drawn[:, f, other]).std()
            margin = bound * max(float(spread), self._one_row(e), self._one_row(f))
            ends.append(float(good[e, m] - good[f, other] + sign * margin))
        value = float(good[mine, m] - good[theirs, other])
        return Estimate(value, min(ends[:count]), max(ends[count:]))

    def _one_row(self, e: int) -> float:
        """The least that is not known: whether one more row would have been right."""
        return 1 / self.fewest[e] if self.metric.percent else 0.0


def compare_errors(
    errors: Mapping[str, Floats],
    contenders: Sequence[MethodInfo],
    metric: Metric,
    *,
    classes: Mapping[str, npt.NDArray[np.int64]] | None = None,
    seed: int = 0,
    draws: int = 1000,
) -> LeftOut:
    """Metrics of methods in environments, with draws of the rows for intervals.

    Parameters
    ----------
    errors : {environment: array [n_e, M]}
        0-1 or squared error of every row by every method, while its environment was left out; NaN
        where its training failed.
    contenders : sequence of MethodInfo, M of them
    metric : Metric
    classes : {environment: array [n_e]}, optional
        Of the rows: errors are averaged within each class first, and rows drawn within it, as
        balanced accuracy wants it.
    seed, draws : int
        Of the bootstrap over rows. It says how sure the numbers are for more rows from these
        environments, not for another environment, and not for another seed of the training.

    Examples
    --------
    >>> from invlearn.metrics import METRICS
    >>> two = [MethodInfo("a", "A", "usual", ""), MethodInfo("b", "B", "invariant", "")]
    >>> errors = {"north": np.array([[0.0, 1.0], [1.0, 1.0]]), "south": np.zeros((2, 2))}
    >>> found = compare_errors(errors, two, METRICS["accuracy"])
    >>> found.worst("a").value, found.worst_environment("b")
    (0.5, 'north')
    """
    rng = np.random.default_rng(seed)
    means, drawn, fewest = [], [], []
    for name, rows in errors.items():
        strata = np.zeros(len(rows), dtype=np.int64) if classes is None else classes[name]
        parts = [rows[strata == label] for label in np.unique(strata)]
        fewest.append(len(parts) * min(len(part) for part in parts))
        means.append(np.mean([part.mean(0) for part in parts], axis=0))
        drawn.append(
            np.mean([resampled_means(part, np.ones(len(part)), draws, rng) for part in parts], 0)
        )
    # A mean of draws may lie outside by rounding.
    clipped = np.clip(np.stack(drawn, axis=1), 0.0, None)
    return LeftOut(
        metric,
        tuple(contenders),
        tuple(errors),
        tuple(fewest),
        metric.of_mean(np.stack(means)),
        metric.of_mean(clipped),
    )


def _percentiles(draws: Floats, tests: int) -> tuple[float, float]:
    """Ends of the 95 % interval; widened for several tests, of which draws hold no percentiles."""
    low, high = np.quantile(draws, [0.025, 0.975])
    if tests == 1 or not np.isfinite(low):
        return float(low), float(high)
    center = float(draws.mean())
    wider = normal_bound(tests) / normal_bound(1)
    return center + wider * (float(low) - center), center + wider * (float(high) - center)
