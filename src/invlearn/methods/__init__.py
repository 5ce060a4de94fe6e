"""What competes in a comparison: networks trained by an objective, and scikit-learn's models."""

from invlearn.methods.base import Method, Outcome, trial_seed
from invlearn.methods.network import Network
from invlearn.methods.registry import get_method, get_network, known_methods
from invlearn.methods.usual import Usual

__all__ = [
    "Method",
    "Network",
    "Outcome",
    "Usual",
    "get_method",
    "get_network",
    "known_methods",
    "trial_seed",
]
