"""Does invariance training help on these rows? The answer in sentences, losing included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from invlearn.diagnostics.held_out import Contender, HeldOut
from invlearn.errors import EnvironmentsError
from invlearn.results import Estimate

MATTERS = 0.01
"""A difference below one point of accuracy, or one percent of an error, is none."""

LARGE = 0.10
"""Where a gain of ten points (of an error: ten percent) cannot be ruled out, nothing is decided."""


@dataclass(frozen=True)
class Verdict:
    """The answer.

    Attributes
    ----------
    headline : str
    sentences : tuple of str
    recommended : str
        Name of the method to go on with.
    outcome : 'helps', 'as good' or 'undecided'
        Whether an invariant method is clearly better than all that is usual where each does worst;
        or none is, and a large gain can be ruled out; or cannot.
    """

    headline: str
    sentences: tuple[str, ...]
    recommended: str
    outcome: str

    @property
    def helps(self) -> bool:
        """Whether an invariant method is clearly better."""
        return self.outcome == "helps"


def verdict(found: HeldOut) -> Verdict:
    """Compare the invariant methods with the best of the usual ones.

    A method is better if the interval of its gain, widened for the number of methods and
    environments, lies above zero and the gain is more than one point (of an error: one percent).
    What is compared with is the best of the usual ones in the same place.

    Parameters
    ----------
    found : HeldOut
        With contenders of both kinds.

    Raises
    ------
    EnvironmentsError
        No usual method ended in finite numbers.
    """
    usual = [c.name for c in found.finished("usual")]
    family = found.finished("invariant")
    if not usual:
        raise EnvironmentsError(
            "Expected one of the usual methods to end in finite numbers, none did. Look for "
            "columns with extreme values."
        )
    titles = {c.name: c.title for c in found.contenders}
    tests = 2 * max(len(family), 1)
    gains = {c.name: found.gain(c.name, usual, "worst", tests) for c in family}
    unit = 1.0 if found.metric.higher_is_better else min(found.worst(u).value for u in usual)
    better = [c for c in family
              if gains[c.name].low > 0 and gains[c.name].value > MATTERS * unit]  # fmt: skip
    open_ = [c for c in family if gains[c.name].value > MATTERS * unit
             or gains[c.name].high > LARGE * unit]  # fmt: skip
    where = _where(found)
    sentences = [_usual(found, usual, titles)]
    if better:
        outcome = "helps"
        recommended = found.best([c.name for c in better], "worst")
        headline = (
            f"Invariance training helps here: {where}, {_join([c.title for c in better])} did "
            "better than the usual methods."
        )
        sentences.append(_family(found, better, gains))
        price = found.gain(recommended, usual, "mean", tests)
        if len(found.environments) > 1:
            sentences.append(_price(found, price, titles[recommended]))
        if rest := [c for c in family if c not in better]:
            sentences.append(
                "Not clearly better than the usual methods there: "
                + _join([f"{c.title} {_show(found, found.worst(c.name))}" for c in rest])
                + "."
            )
    else:
        recommended = found.best(usual, "mean")
        use = titles[recommended]
        outcome = "undecided" if open_ else "as good"
        headline = (
            f"Pooled training is as good or better here: use {use}. No invariant method was "
            f"clearly better {where}."
        )
        if open_:
            headline = (
                f"{_join([c.title for c in open_])} may or may not do better than the usual "
                f"methods {where}; more rows would tell. Until then use {use}."
            )
        if not family:
            outcome = "undecided"
            headline = (
                f"No invariant method finished, so nothing was compared. Until then use {use}."
            )
        if family:
            sentences.append(_family(found, family, gains))
        if len(found.environments) > 1:
            sentences.append(
                f"On average over environments {use} is the best of the usual methods: "
                f"{_show(found, found.mean(recommended))}."
            )
    for name, places in found.failed().items():
        sentences.append(
            f"{titles[name]} failed: its training diverged without {_join(places)}. It takes no "
            "part in the answer."
        )
    return Verdict(headline, tuple(sentences), recommended, outcome)


def _where(found: HeldOut) -> str:
    if len(found.environments) == 1:
        return f"in {found.environments[0]}"
    return "in the environment where each does worst"


def _usual(found: HeldOut, usual: Sequence[str], titles: Mapping[str, str]) -> str:
    parts = [
        f"{titles[name]} {_show(found, found.worst(name))}{_place(found, name)}" for name in usual
    ]
    metric = f"{found.metric.name[0].upper()}{found.metric.name[1:]}"
    best = titles[found.best(usual, "worst")]
    return (
        f"{metric} of the usual methods {_where(found)}: {_join(parts)}; the best there is {best}."
    )


def _family(found: HeldOut, members: Sequence[Contender], gains: Mapping[str, Estimate]) -> str:
    parts = [
        f"{c.title} {_show(found, found.worst(c.name))}{_place(found, c.name)}, "
        f"{_signed(found, gains[c.name])} against the best usual method"
        for c in members
    ]
    return f"Of the invariant methods: {'; '.join(parts)}."


def _place(found: HeldOut, name: str) -> str:
    return f" (in {found.worst_environment(name)})" if len(found.environments) > 1 else ""


def _price(found: HeldOut, gain: Estimate, title: str) -> str:
    if gain.high < 0:
        return f"Its price: on average over environments {title} is {_signed(found, gain)}."
    if gain.low > 0:
        return f"On average over environments {title} is better too: {_signed(found, gain)}."
    return (
        f"On average over environments {title} does about as well as the best usual method "
        f"({_signed(found, gain)})."
    )


def _show(found: HeldOut, estimate: Estimate) -> str:
    show = found.metric.show
    return f"{show(estimate.value)} [{show(estimate.low)} to {show(estimate.high)}]"


def _signed(found: HeldOut, gain: Estimate) -> str:
    unit = " points" if found.metric.higher_is_better else ""
    factor = 100 if found.metric.higher_is_better else 1
    number = "+.1f" if found.metric.higher_is_better else "+.3g"
    low, value, high = (f"{factor * x:{number}}" for x in (gain.low, gain.value, gain.high))
    return f"{value}{unit} [{low} to {high}]".replace("-", "\N{MINUS SIGN}")


def _join(parts: Sequence[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
