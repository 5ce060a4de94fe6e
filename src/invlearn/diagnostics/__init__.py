"""Diagnostics: what a predictor does in several environments, and how alike representations are."""

from invlearn.diagnostics.diagnosis import diagnose
from invlearn.diagnostics.effects import conflicting_features
from invlearn.diagnostics.findings import Finding
from invlearn.diagnostics.similarity import activations, pwcca, representation

__all__ = [
    "Finding",
    "activations",
    "conflicting_features",
    "diagnose",
    "pwcca",
    "representation",
]
