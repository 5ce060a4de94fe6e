"""Does invariance training help on these rows? The answer in sentences, losing included."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from invlearn.diagnostics.held_out import Contender, Estimate, HeldOut

MATTERS = 0.01
"""A difference below one point of accuracy, or one percent of an error, is none."""


@dataclass(frozen=True)
class Verdict:
    """The answer.

    Attributes
    ----------
    headline : str
    sentences : tuple of str
    recommended : str
        Name of the method to go on with.
    helps : bool
        Whether an invariant method is clearly better than all that is usual where each of them
        does worst.
    """

    headline: str
    sentences: tuple[str, ...]
    recommended: str
    helps: bool


def verdict(found: HeldOut) -> Verdict:
    """Compare the methods of the family with the best of the usual ones.

    A method is better if the interval of its gain, widened for the number of methods, lies above
    zero and the gain is more than one point (of an error: one percent). What is compared with is
    the best of the usual ones in the same place.

    Parameters
    ----------
    found : HeldOut
        With contenders of both kinds.
    """
    usual = [c.name for c in found.kind("usual")]
    family = found.kind("invariant")
    titles = {c.name: c.title for c in found.contenders}
    tests = 2 * len(family)
    gains = {c.name: found.gain(c.name, usual, "worst", tests) for c in family}
    better = [c for c in family if _clear(found, gains[c.name], usual)]
    best_usual = found.best(usual, "worst")
    sentences = [_usual(found, best_usual, titles)]
    if better:
        recommended = found.best([c.name for c in better], "worst")
        headline = (
            f"Invariance training helps here: in the environment where each does worst, "
            f"{_join([c.title for c in better])} did better than the usual methods."
        )
        sentences.append(_family(found, better, gains))
        price = found.gain(recommended, usual, "mean", tests)
        sentences.append(_price(found, price, titles[recommended]))
    else:
        recommended = found.best(usual, "mean")
        headline = (
            f"Pooled training is as good or better here: use {titles[recommended]}. No invariant "
            "method was clearly better in the environment where each does worst."
        )
        sentences.append(_family(found, family, gains))
        sentences.append(
            f"On average over environments {titles[recommended]} is the best of the usual methods: "
            f"{_show(found, found.mean(recommended))}."
        )
    rest = [c for c in family if c not in better] if better else []
    if rest:
        sentences.append(
            "Not clearly better than the usual methods there: "
            + _join([f"{c.title} {_show(found, found.worst(c.name))}" for c in rest])
            + "."
        )
    return Verdict(headline, tuple(sentences), recommended, bool(better))


def _usual(found: HeldOut, name: str, titles: dict[str, str]) -> str:
    parts = [
        f"{c.title} {_show(found, found.worst(c.name))} (in {found.worst_environment(c.name)})"
        for c in found.kind("usual")
    ]
    return (
        f"{found.metric.name[0].upper()}{found.metric.name[1:]} of the usual methods in the "
        f"environment where each does worst: {_join(parts)}; the best there is {titles[name]}."
    )


def _family(found: HeldOut, members: Sequence[Contender], gains: dict[str, Estimate]) -> str:
    parts = []
    for c in members:
        gain = gains[c.name]
        parts.append(
            f"{c.title} {_show(found, found.worst(c.name))} "
            f"(in {found.worst_environment(c.name)}; {_signed(found, gain)} against the best usual "
            "method)"
        )
    return f"Of the invariant methods: {_join(parts)}."


def _price(found: HeldOut, gain: Estimate, title: str) -> str:
    if gain.high < 0:
        return f"Its price: on average over environments {title} is {_signed(found, gain)}."
    if gain.low > 0:
        return f"On average over environments {title} is better too: {_signed(found, gain)}."
    return (
        f"On average over environments {title} does about as well as the best usual method "
        f"({_signed(found, gain)})."
    )


def _clear(found: HeldOut, gain: Estimate, usual: Sequence[str]) -> bool:
    least = MATTERS
    if not found.metric.higher_is_better:
        least *= min(found.worst(name).value for name in usual)
    return gain.low > 0 and gain.value > least


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
