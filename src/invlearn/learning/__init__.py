"""One way to learn: a plan and rows in, a trained network out."""

from invlearn.learning.fitting import Fitted, fit
from invlearn.learning.plan import EarlyStopping, MakeNetwork, Plan, Preparation, standard_plan
from invlearn.learning.runs import evaluation_sets, make_trainer, train, train_all

__all__ = [
    "EarlyStopping",
    "Fitted",
    "MakeNetwork",
    "Plan",
    "Preparation",
    "evaluation_sets",
    "fit",
    "make_trainer",
    "standard_plan",
    "train",
    "train_all",
]
