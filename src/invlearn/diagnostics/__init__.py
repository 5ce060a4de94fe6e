"""Diagnostics: what is inside a trained predictor."""

from invlearn.diagnostics.similarity import activations, pwcca, representation

__all__ = ["activations", "pwcca", "representation"]
