"""One's own rows as problems: each leaves some environments out, and is learned from the others."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from invlearn.comparison.runner import Kept, Task
from invlearn.comparison.store import Store
from invlearn.environments import EvaluationSet
from invlearn.methods import Method, Outcome
from invlearn.model_record import OutputScale
from invlearn.problem import Problem
from invlearn.rows.fit import estimator_seed
from invlearn.rows.inputs import Inputs
from invlearn.rows.model import labeled_rows, output_scale
from invlearn.rows.source import Source, loss_of

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Folds:
    """Where the problems of one's own rows come from.

    The rows are here once; a fold's matrix is made where a method asks for it, and is there for
    the next method too.

    Attributes
    ----------
    source : Source
    left_out : tuple of tuple of str
        The environments that each fold leaves out.
    inputs : tuple of Inputs
        How the rows become numbers, learned from each fold's other environments.
    seeds : tuple of int
        Of the trainings on each fold.
    """

    source: Source
    left_out: tuple[tuple[str, ...], ...]
    inputs: tuple[Inputs, ...]
    seeds: tuple[int, ...]
    _made: dict[int, tuple[Problem, OutputScale]] = field(default_factory=dict, repr=False)

    @classmethod
    def learn(
        cls, source: Source, left_out: Sequence[Sequence[str]], seeds: Sequence[int]
    ) -> Folds:
        """Learn how each fold's rows become numbers."""
        inputs = tuple(_without(source, names).learn_inputs() for names in left_out)
        return cls(source, tuple(map(tuple, left_out)), inputs, tuple(seeds))

    @property
    def keys(self) -> list[str]:
        """Of the problems: a fold's number and a seed's."""
        folds, seeds = range(len(self.left_out)), range(len(self.seeds))
        return [f"{fold:02d}-{seed:03d}" for fold in folds for seed in seeds]

    def parts(self, key: str) -> tuple[int, int]:
        """Numbers of a problem's fold and seed."""
        fold, seed = map(int, key.split("-"))
        return fold, seed

    @property
    def checksum(self) -> str:
        """Of targets, environments and all that is learned from, row by row."""
        source = self.source
        digest = hashlib.sha256(source.y.tobytes())
        digest.update("\n".join(source.environments.tolist()).encode())
        for name, column in () if source.frame is None else source.frame.items():
            # A cell may be a list, which has no hash but a text.
            cells = column.map(repr) if column.dtype == object else column
            digest.update(str(name).encode())
            digest.update(pd.util.hash_pandas_object(cells, index=False).to_numpy().tobytes())
        if source.pixels is not None:
            digest.update(source.pixels.tobytes())
        return digest.hexdigest()

    def make(self, key: str) -> Problem:
        """Encode a fold's rows; regression targets get mean 0 and deviation 1."""
        fold, seed = self.parts(key)
        return replace(self._fold(fold)[0], key=key, seed=estimator_seed(self.seeds[seed]))

    def keep(self, problem: Problem, method: Method, outcome: Outcome, store: Store | None) -> Kept:
        """Predictions for the rows left out, sorted by environment; NaN if it failed."""
        data, output = self._fold(self.parts(problem.key)[0])
        z = outcome.predict(data.test.x).numpy()
        if data.loss == "squared":
            predicted = z[:, 0] * output.scale + output.center
        else:
            predicted = (z[:, 0] > 0 if data.loss == "logistic" else z.argmax(1)).astype(float)
        if outcome.failed:
            predicted = np.full(len(z), np.nan)
        curves = outcome.curves.assign(method=method.name, problem=problem.key)
        return Kept(
            Task(method.name, problem.key),
            {"curves": curves, "predicted": pd.DataFrame({"predicted": predicted})},
            {"chosen": dict(outcome.chosen)},
        )

    def _fold(self, fold: int) -> tuple[Problem, OutputScale]:
        """A fold's rows as numbers, and what brings its outputs to the target's unit."""
        if fold not in self._made:
            self._made.clear()
            source, inputs = self.source, self.inputs[fold]
            inside, tested = _without(source, self.left_out[fold]), source.of(self.left_out[fold])
            output, loss = output_scale(inside), loss_of(source.target)
            left_out = labeled_rows(tested, inputs, output)
            self._made[fold] = (
                Problem(
                    source.title,
                    labeled_rows(inside, inputs, output),
                    None,
                    EvaluationSet.from_environments(left_out, "test"),
                    left_out.names[0],
                    loss,
                    len(source.target.classes) if loss == "softmax" else 1,
                ),
                output,
            )
        return self._made[fold]


def _without(source: Source, names: Sequence[str]) -> Source:
    return source.of([name for name in source.names if name not in names])
