"""The public names and where they live, the only list of them; see `__init__.py`."""

from invlearn.comparison.compare import compare as compare
from invlearn.comparison.contest import Comparison as Comparison
from invlearn.comparison.requests import (
    BenchmarkRequest as BenchmarkRequest,
    RowsRequest as RowsRequest,
)
from invlearn.datasets import (
    DATASETS as DATASETS,
    load_benchmark as load_benchmark,
    register_dataset as register_dataset,
)
from invlearn.diagnostics import (
    Finding as Finding,
    activations as activations,
    pwcca as pwcca,
)
from invlearn.environments import (
    Environments as Environments,
    EvaluationSet as EvaluationSet,
)
from invlearn.errors import (
    CollapseWarning as CollapseWarning,
    DataFileError as DataFileError,
    DivergenceError as DivergenceError,
    DivergenceWarning as DivergenceWarning,
    EnvironmentsError as EnvironmentsError,
    IgnoredWarning as IgnoredWarning,
    InterruptedWarning as InterruptedWarning,
    InvlearnError as InvlearnError,
    NoEffectWarning as NoEffectWarning,
    OptionError as OptionError,
    OutputError as OutputError,
    PackageWarning as PackageWarning,
    SingleEnvironmentWarning as SingleEnvironmentWarning,
    UnknownNameError as UnknownNameError,
)
from invlearn.estimators import (
    InvariantClassifier as InvariantClassifier,
    InvariantRegressor as InvariantRegressor,
)
from invlearn.estimators.diagnosed import diagnose as diagnose
from invlearn.evaluation import evaluate as evaluate
from invlearn.features import ChannelImages as ChannelImages
from invlearn.losses import (
    LOSSES as LOSSES,
    Custom as Custom,
    Loss as Loss,
    get_loss as get_loss,
)
from invlearn.methods import register_method as register_method
from invlearn.models import MLP as MLP
from invlearn.objectives import (
    OBJECTIVES as OBJECTIVES,
    get_objective as get_objective,
    register_objective as register_objective,
)
from invlearn.objectives.base import (
    MeanObjective as MeanObjective,
    Objective as Objective,
    Outer as Outer,
    Range as Range,
    Terms as Terms,
    number as number,
)
from invlearn.objectives.batch import Memory as Memory
from invlearn.objectives.gradient import GradientObjective as GradientObjective
from invlearn.problem import Problem as Problem
from invlearn.rows.fit import fit_rows as fit_rows
from invlearn.rows.image_table import image_table as image_table
from invlearn.rows.model import RowsModel as RowsModel
from invlearn.rows.request import FitRequest as FitRequest
from invlearn.rows.source import read_rows as read_rows
from invlearn.selection import (
    RULES as RULES,
    reference_step as reference_step,
)
from invlearn.training import (
    PenaltySchedule as PenaltySchedule,
    Run as Run,
    Settings as Settings,
    Stopping as Stopping,
    Trainer as Trainer,
    train_many as train_many,
)

__version__: str
