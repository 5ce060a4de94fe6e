"""Learning that survives a change of environment: Invariant Risk Minimization and its family.

The public interface on one screen:

- `InvariantClassifier`, `InvariantRegressor`: scikit-learn estimators whose `fit` takes
  `environments=`, a label per row.
- `compare`: methods against each other, with a report: on one's own table or images
  (`RowsRequest`), each environment left out in turn, or on a benchmark (`BenchmarkRequest`).
- `read_rows`, `fit_rows`, `FitRequest`, `RowsModel`: one's own table or images, fitted, kept in a
  folder, asked for predictions; `image_table`: images as rows of a network's features.
- `diagnose`, `Finding`: what a predictor does in several environments, why, and what to do.
- `Environments`, `EvaluationSet`: rows that belong to named environments, validated and split.
- `OBJECTIVES`, `get_objective`: ERM, IRMv1, V-REx, MM-REx, GroupDRO, IGA, meta-IRM, SD, IB-ERM,
  IB-IRM, CORAL, Fishr, AND-mask, SAND-mask, PAIR; `register_objective` adds one's own, made of
  `MeanObjective` or `GradientObjective`, `Terms`, `Outer`, `number` and `Range`.
  `Objective.on_batch`, `on_model` and `Memory`: a total for a training loop of one's own.
- `LOSSES`, `get_loss`, `Loss`: squared, logistic, softmax; `Custom`: any function of rows.
- `Trainer`, `Settings`, `PenaltySchedule`, `Stopping`: train any `torch.nn.Module`.
- `train_many`: many runs at once, each with the results it has alone.
- `DATASETS`, `load_benchmark`: benchmarks whose shortcut is known; `register_dataset` adds one's
  own, a function of a seed that returns `Environments` or a `Problem`.
- `register_method`: a method of one's own for comparisons, an objective with numbers or a model of
  scikit-learn's.
- `evaluate`, `RULES`: measure in every environment; choose a step, honestly or as an oracle.
- `pwcca`, `activations`: how alike two representations are.
- `__version__`: of the installed package.
"""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path

# Every name is imported when it is first asked for: torch alone takes a second. The names are
# written once, as the imports of `__init__.pyi`, which is also what type checkers read.
_MODULES = {
    name.name: node.module
    for node in ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8")).body
    if isinstance(node, ast.ImportFrom) and node.module
    for name in node.names
}

__all__ = sorted(_MODULES)


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("invariant-learn")
        except PackageNotFoundError:
            return "not installed"
    if name not in _MODULES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    value = globals()[name] = getattr(import_module(_MODULES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
