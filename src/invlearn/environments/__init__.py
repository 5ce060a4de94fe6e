"""Rows that belong to named environments: validated, sorted by environment, split inside each."""

from __future__ import annotations

from invlearn.environments.evaluation_set import EvaluationSet
from invlearn.environments.groups import by_label, with_groups
from invlearn.environments.rows import Environments
from invlearn.environments.splitting import stratified

__all__ = ["Environments", "EvaluationSet", "by_label", "stratified", "with_groups"]
