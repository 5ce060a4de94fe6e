"""Does invariance training help on these rows? The answer in sentences, losing included."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from invlearn.errors import EnvironmentsError
from invlearn.metrics import METRICS, Metric
from invlearn.reports.record import Answer, OwnRowsRecord, listed
from invlearn.results import Estimate, Overall

MATTERS = 0.01
"""A difference below one point of accuracy, or one percent of an error, is none."""

LARGE = 0.10
"""Where a gain of ten points (of an error: ten percent) cannot be ruled out, nothing is decided."""


def own_rows_answer(record: OwnRowsRecord) -> Answer:
    """Compare the invariant methods with the best of the usual ones.

    A method is better if the interval of its gain, widened for the number of methods and
    environments, lies above zero and the gain is more than one point (of an error: one percent).
    What is compared with is the best of the usual ones in the same place. It is undecided where
    none is better, but a large gain cannot be ruled out.

    Parameters
    ----------
    record : OwnRowsRecord
        With methods of both kinds.

    Raises
    ------
    EnvironmentsError
        No usual method ended in finite numbers.
    """
    found = _Finished(record)
    usual, family = found.of("usual"), found.of("invariant")
    if not usual:
        raise EnvironmentsError(
            "Expected one of the usual methods to end in finite numbers, none did. Look for "
            "columns with extreme values."
        )
    unit = 1.0 if found.metric.percent else abs(found.best(usual, "worst").worst.value)
    gains = {each.method: _gain(each.worst_gain) for each in family}
    better = [c for c in family
              if gains[c.method].low > 0 and gains[c.method].value > MATTERS * unit]  # fmt: skip
    open_ = [c for c in family if gains[c.method].value > MATTERS * unit
             or gains[c.method].high > LARGE * unit]  # fmt: skip
    sentences = [found.of_usual(usual)]
    if better:
        best = found.best(better, "worst")
        outcome = "helps"
        headline = (
            f"Invariance training helps here: {found.where}, {found.named(better)} did "
            "better than the usual methods."
        )
        sentences.append(found.of_family(better))
        if found.several:
            sentences.append(found.price(best))
        if rest := [each for each in family if each not in better]:
            sentences.append(
                "Not clearly better than the usual methods there: "
                + listed([f"{found.title(each)} {found.show(each.worst)}" for each in rest])
                + "."
            )
    else:
        best = found.best(usual, "mean")
        use = found.title(best)
        outcome, headline = found.none_better(family, open_, use)
        if family:
            sentences.append(found.of_family(family))
        if found.several:
            sentences.append(
                f"On average over environments {use} is the best of the usual methods: "
                f"{found.show(best.mean)}."
            )
    sentences += [
        f"{found.title(each)} failed: its training diverged without {listed(each.failed)}. It "
        "takes no part in the answer."
        for each in record.overall
        if each.failed
    ]
    return Answer(headline, tuple(sentences), outcome, best.method)


@dataclass(frozen=True)
class _Finished:
    """A record's numbers over all environments, and words for them."""

    record: OwnRowsRecord

    @property
    def metric(self) -> Metric:
        return METRICS[self.record.metric]

    @property
    def environments(self) -> list[str]:
        return [name for fold in self.record.folds for name in fold]

    @property
    def several(self) -> bool:
        return len(self.environments) > 1

    @property
    def where(self) -> str:
        if not self.several:
            return f"in {self.environments[0]}"
        return "in the environment where each does worst"

    def of(self, kind: str) -> list[Overall]:
        """The methods of a kind that ended in finite numbers everywhere."""
        return [each for each in self.record.overall
                if self.record.method(each.method).kind == kind and not each.failed]  # fmt: skip

    def best(self, some: Sequence[Overall], which: str) -> Overall:
        """The method that does best of some, by 'worst' or by 'mean'."""
        sign = 1.0 if self.metric.higher_is_better else -1.0
        return max(some, key=lambda each: sign * getattr(each, which).value)

    def title(self, each: Overall) -> str:
        return self.record.method(each.method).title

    def named(self, some: Sequence[Overall]) -> str:
        return listed([self.title(each) for each in some])

    def place(self, each: Overall) -> str:
        return f" (in {each.where})" if self.several else ""

    def none_better(
        self, family: Sequence[Overall], open_: Sequence[Overall], use: str
    ) -> tuple[str, str]:
        """Say that no invariant method is better: the outcome and the headline."""
        if not family:
            return "undecided", (
                f"No invariant method finished, so nothing was compared. Until then use {use}."
            )
        if open_:
            return "undecided", (
                f"{self.named(open_)} may or may not do better than the usual methods "
                f"{self.where}; more rows would tell. Until then use {use}."
            )
        return "as good", (
            f"Pooled training is as good or better here: use {use}. No invariant method was "
            f"clearly better {self.where}."
        )

    def of_usual(self, usual: Sequence[Overall]) -> str:
        parts = [f"{self.title(c)} {self.show(c.worst)}{self.place(c)}" for c in usual]
        metric = f"{self.metric.name[0].upper()}{self.metric.name[1:]}"
        return (
            f"{metric} of the usual methods {self.where}: {listed(parts)}; the best there is "
            f"{self.title(self.best(usual, 'worst'))}."
        )

    def of_family(self, members: Sequence[Overall]) -> str:
        parts = [
            f"{self.title(c)} {self.show(c.worst)}{self.place(c)}, "
            f"{self.signed(_gain(c.worst_gain))} against the best usual method"
            for c in members
        ]
        return f"Of the invariant methods: {'; '.join(parts)}."

    def price(self, each: Overall) -> str:
        gain, title = _gain(each.mean_gain), self.title(each)
        if gain.high < 0:
            return f"Its price: on average over environments {title} is {self.signed(gain)}."
        if gain.low > 0:
            return f"On average over environments {title} is better too: {self.signed(gain)}."
        return (
            f"On average over environments {title} does about as well as the best usual method "
            f"({self.signed(gain)})."
        )

    def show(self, estimate: Estimate) -> str:
        show = self.metric.show
        return f"{show(estimate.value)} [{show(estimate.low)} to {show(estimate.high)}]"

    def signed(self, gain: Estimate) -> str:
        factor, number, unit = (100, "+.1f", " points") if self.metric.percent else (1, "+.3g", "")
        low, value, high = (f"{factor * x:{number}}" for x in (gain.low, gain.value, gain.high))
        return f"{value}{unit} [{low} to {high}]".replace("-", "\N{MINUS SIGN}")


def overview(record: OwnRowsRecord) -> pd.DataFrame:
    """The main table as text: each method where it does worst, and its mean over environments."""
    show = METRICS[record.metric].show

    def cell(estimate: Estimate) -> str:
        return f"{show(estimate.value)} [{show(estimate.low)}, {show(estimate.high)}]"

    return pd.DataFrame(
        [[each.where, cell(each.worst), cell(each.mean)] for each in record.overall],
        index=pd.Index(
            [record.method(each.method).title for each in record.overall], name=record.metric
        ),
        columns=pd.Index(["where it does worst", "there", "mean"], name="[95 % interval]"),
    )


def _gain(gain: Estimate | None) -> Estimate:
    assert gain is not None  # Of an invariant method that finished, with a usual one that did.
    return gain
