"""Training: the exact engine, schedules, settings and the loop."""

from invlearn.training.batch import Batch
from invlearn.training.engine import Engine
from invlearn.training.history import Run
from invlearn.training.many_runs import train_many
from invlearn.training.schedules import PUBLISHED, PenaltySchedule
from invlearn.training.settings import Settings
from invlearn.training.stopping import Stopping
from invlearn.training.trainer import Trainer

__all__ = [
    "PUBLISHED",
    "Batch",
    "Engine",
    "PenaltySchedule",
    "Run",
    "Settings",
    "Stopping",
    "Trainer",
    "train_many",
]
