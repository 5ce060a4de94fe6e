"""Exceptions and warnings, each carrying its remedy: what was expected, what came, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InvlearnError(ValueError):
    """Base of every error this library raises on purpose."""


class EnvironmentsError(InvlearnError):
    """Rows, targets or environment labels that cannot be learned from."""


class OptionError(InvlearnError):
    """An option whose value is outside what it may be."""


class UnknownNameError(InvlearnError):
    """A name (objective, dataset, option, ...) that is not in its registry."""


class DataFileError(InvlearnError):
    """A data file that is missing, truncated, corrupted or of another kind."""


class OutputError(InvlearnError):
    """An output folder that cannot be written without harm."""


class DivergenceError(InvlearnError):
    """A step whose objective or gradient is not a finite number."""


class CollapseWarning(UserWarning):
    """A run ended in a predictor that is no better than a constant."""


class NoEffectWarning(UserWarning):
    """A run of an objective whose penalty never changed the gradient: it trained as ERM."""


class SingleEnvironmentWarning(UserWarning):
    """Rows without environment labels: nothing can be told apart from a shortcut."""


class DivergenceWarning(UserWarning):
    """A run left the finite numbers and was stopped."""


class IgnoredWarning(UserWarning):
    """Something given has no effect: a weight without a penalty, an environment of weight 0."""


class InterruptedWarning(UserWarning):
    """A training was interrupted, and what it had learned was kept as asked."""


class PackageWarning(UserWarning):
    """An installed package names an objective, dataset or method that cannot be loaded."""


class StackingWarning(RuntimeWarning):
    """Runs that could be made at once are made in turn: slower, with the same results."""


def unknown_name(kind: str, got: str, known: Iterable[str]) -> UnknownNameError:
    """Build the error for a misspelled name, with the nearest known one.

    Parameters
    ----------
    kind : str
        What the name should have named, in the singular ('objective').
    got : str
        The name that came.
    known : iterable of str
        Every name that would have been right.

    Returns
    -------
    UnknownNameError
        To be raised by the caller.

    Examples
    --------
    >>> str(unknown_name("objective", "irmv2", ["erm", "irmv1"]))
    "Unknown objective 'irmv2'. Did you mean 'irmv1'? Known: erm, irmv1."
    """
    names = sorted(known)
    folded = {name.lower(): name for name in names}
    near = difflib.get_close_matches(str(got).lower(), folded, n=1, cutoff=0.5)
    hint = f" Did you mean '{folded[near[0]]}'?" if near else ""
    listed = ", ".join(names) if names else "none"
    return UnknownNameError(f"Unknown {kind} '{got}'.{hint} Known: {listed}.")
