"""Learning that survives a change of environment: Invariant Risk Minimization and its family.

The public interface on one screen:

- `InvariantClassifier`, `InvariantRegressor`: scikit-learn estimators whose `fit` takes
  `environments=`, a label per row.
- `Environments`: rows that belong to named environments, validated and split.
- `OBJECTIVES`, `get_objective`: ERM, IRMv1, V-REx, MM-REx, GroupDRO, IGA, meta-IRM, SD, IB-ERM,
  IB-IRM, CORAL, Fishr, AND-mask, SAND-mask, PAIR; `register_objective` adds one's own.
- `LOSSES`, `get_loss`: squared, logistic, softmax.
- `Trainer`, `Settings`, `PenaltySchedule`, `Stopping`: train any `torch.nn.Module`.
- `train_many`: many runs at once, each with the results it has alone.
- `DATASETS`, `load_benchmark`: benchmarks whose shortcut is known.
- `evaluate`, `RULES`: measure in every environment; choose a step, honestly or as an oracle.
- `pwcca`, `activations`: how alike two representations are.
- `compare`, `BenchmarkRequest`: all of it at once, with a report.
"""

from invlearn.comparison.benchmark import BenchmarkRequest, Comparison, compare
from invlearn.datasets import DATASETS, load_benchmark
from invlearn.diagnostics import activations, pwcca
from invlearn.environments import Environments, EvaluationSet
from invlearn.errors import (
    CollapseWarning,
    DataFileError,
    DivergenceError,
    DivergenceWarning,
    EnvironmentsError,
    InvlearnError,
    OptionError,
    OutputError,
    SingleEnvironmentWarning,
    UnknownNameError,
)
from invlearn.estimators import InvariantClassifier, InvariantRegressor
from invlearn.evaluation import evaluate
from invlearn.features import ChannelImages
from invlearn.losses import LOSSES, get_loss
from invlearn.models import MLP
from invlearn.objectives import OBJECTIVES, get_objective, register_objective
from invlearn.selection import RULES, reference_step
from invlearn.training import PenaltySchedule, Run, Settings, Stopping, Trainer, train_many

__all__ = [
    "DATASETS",
    "LOSSES",
    "MLP",
    "OBJECTIVES",
    "RULES",
    "BenchmarkRequest",
    "ChannelImages",
    "CollapseWarning",
    "Comparison",
    "DataFileError",
    "DivergenceError",
    "DivergenceWarning",
    "Environments",
    "EnvironmentsError",
    "EvaluationSet",
    "InvariantClassifier",
    "InvariantRegressor",
    "InvlearnError",
    "OptionError",
    "OutputError",
    "PenaltySchedule",
    "Run",
    "Settings",
    "SingleEnvironmentWarning",
    "Stopping",
    "Trainer",
    "UnknownNameError",
    "activations",
    "compare",
    "evaluate",
    "get_loss",
    "get_objective",
    "load_benchmark",
    "pwcca",
    "reference_step",
    "register_objective",
    "train_many",
]
