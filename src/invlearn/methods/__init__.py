"""What competes in a comparison: networks trained by an objective, and scikit-learn's models."""

from invlearn.methods.base import Method, Outcome, trial_seed
from invlearn.methods.network import Network
from invlearn.methods.registry import (
    METHODS,
    get_method,
    get_network,
    known_methods,
    register_method,
)
from invlearn.methods.usual import Usual

__all__ = [
    "METHODS",
    "Method",
    "Network",
    "Outcome",
    "Usual",
    "get_method",
    "get_network",
    "known_methods",
    "register_method",
    "trial_seed",
]
