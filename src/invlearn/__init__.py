"""Learning that survives a change of environment: Invariant Risk Minimization and its family.

The public interface on one screen:

- `InvariantClassifier`, `InvariantRegressor`: scikit-learn estimators whose `fit` takes
  `environments=`, a label per row.
- `compare_file`, `read_rows`, `compare_rows`, `RowsRequest`: one's own table or images, each
  environment left out in turn; `fit_rows`, `FitRequest`, `RowsModel`: fitted, kept in a folder,
  asked for predictions.
- `diagnose`, `Finding`: what a predictor does in several environments, why, and what to do.
- `Environments`, `EvaluationSet`: rows that belong to named environments, validated and split.
- `OBJECTIVES`, `get_objective`: ERM, IRMv1, V-REx, MM-REx, GroupDRO, IGA, meta-IRM, SD, IB-ERM,
  IB-IRM, CORAL, Fishr, AND-mask, SAND-mask, PAIR; `register_objective` adds one's own, made of
  `MeanObjective` or `GradientObjective`, `Terms`, `Outer`, `number` and `Range`.
- `LOSSES`, `get_loss`, `Loss`: squared, logistic, softmax.
- `Trainer`, `Settings`, `PenaltySchedule`, `Stopping`: train any `torch.nn.Module`.
- `train_many`: many runs at once, each with the results it has alone.
- `DATASETS`, `load_benchmark`: benchmarks whose shortcut is known.
- `evaluate`, `RULES`: measure in every environment; choose a step, honestly or as an oracle.
- `pwcca`, `activations`: how alike two representations are.
- `compare`, `BenchmarkRequest`: methods on a benchmark, all of it at once, with a report.
"""

from invlearn.comparison.benchmark import BenchmarkRequest, Comparison, compare
from invlearn.datasets import DATASETS, load_benchmark
from invlearn.diagnostics import Finding, activations, diagnose, pwcca
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
from invlearn.losses import LOSSES, Loss, get_loss
from invlearn.models import MLP
from invlearn.objectives import OBJECTIVES, get_objective, register_objective
from invlearn.objectives.base import (
    GradientObjective,
    MeanObjective,
    Objective,
    Outer,
    Range,
    Terms,
    number,
)
from invlearn.rows.compare import RowsComparison, compare_rows
from invlearn.rows.files import compare_file
from invlearn.rows.fit import FitRequest, fit_rows
from invlearn.rows.model import RowsModel
from invlearn.rows.request import RowsRequest
from invlearn.rows.source import read_rows
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
    "Finding",
    "FitRequest",
    "GradientObjective",
    "InvariantClassifier",
    "InvariantRegressor",
    "InvlearnError",
    "Loss",
    "MeanObjective",
    "Objective",
    "OptionError",
    "Outer",
    "OutputError",
    "PenaltySchedule",
    "Range",
    "RowsComparison",
    "RowsModel",
    "RowsRequest",
    "Run",
    "Settings",
    "SingleEnvironmentWarning",
    "Stopping",
    "Terms",
    "Trainer",
    "UnknownNameError",
    "activations",
    "compare",
    "compare_file",
    "compare_rows",
    "diagnose",
    "evaluate",
    "fit_rows",
    "get_loss",
    "get_objective",
    "load_benchmark",
    "number",
    "pwcca",
    "read_rows",
    "reference_step",
    "register_objective",
    "train_many",
]
