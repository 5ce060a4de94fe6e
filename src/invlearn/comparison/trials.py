"""A benchmark's trials: draws of its data, each a problem, and what is kept of a run on one."""

from __future__ import annotations

from dataclasses import dataclass, replace

from invlearn.comparison.recipes import Recipe
from invlearn.comparison.references import shared_reference
from invlearn.comparison.runner import Kept, Task
from invlearn.comparison.selecting import select_all
from invlearn.comparison.store import Store
from invlearn.datasets import load_benchmark
from invlearn.datasets.base import DatasetOptions
from invlearn.learning.reference import Reference, reference_within
from invlearn.methods import Method, Network, Outcome, get_network, trial_seed
from invlearn.outputs import Outputs
from invlearn.problem import Problem


@dataclass(frozen=True)
class Trials:
    """Where a benchmark's problems come from.

    Attributes
    ----------
    dataset, options
        By name.
    recipe : Recipe
    seed : int
        Of the comparison.
    steps : int or None
        Instead of the recipe's.
    device, precision : str
        Of the references.
    keep_outputs : bool
    """

    dataset: str
    options: DatasetOptions
    recipe: Recipe
    seed: int
    steps: int | None = None
    device: str = "cpu"
    precision: str = "float32"
    keep_outputs: bool = False

    def make(self, key: str) -> Problem:
        """Draw a trial's data."""
        seed = trial_seed(self.seed, int(key))
        return replace(load_benchmark(self.dataset, seed=seed, **dict(self.options)), key=key)

    def keep(self, problem: Problem, method: Method, outcome: Outcome, store: Store | None) -> Kept:
        """Apply every rule to the run; its outputs are kept only if asked for."""
        outputs = outcome.outputs
        if outputs is not None and isinstance(method, Network):
            outputs = self.with_reference(problem, method, outputs, store)
        curves = outcome.curves.copy()
        curves.insert(0, "method", method.name)
        curves.insert(1, "problem", int(problem.key))
        selected = select_all(
            curves, outputs, self.recipe, problem.target, stepless=not isinstance(method, Network)
        )
        return Kept(
            Task(method.name, problem.key),
            {"curves": curves, "results": selected.results, "statistics": selected.statistics},
            {
                "rules": selected.rules,
                "unsatisfied": selected.unsatisfied,
                "notes": selected.notes,
            },
            outputs if self.keep_outputs else None,
        )

    def with_reference(
        self, problem: Problem, method: Network, outputs: Outputs, store: Store | None
    ) -> Outputs:
        """A run's outputs beside its trial's reference, which all methods share."""
        return outputs.with_reference(self._reference(problem, method, outputs, store))

    def _reference(
        self, problem: Problem, method: Network, outputs: Outputs, store: Store | None
    ) -> Reference:
        """From this run, from another process, or trained."""
        removed = method.kind == "reference"
        key = f"reference-{problem.key}" + ("-without-shortcut" if removed else "")
        erm = self.recipe.plan(get_network("erm"), steps=self.steps)
        erm = erm.on(self.device, self.precision)
        found = reference_within(erm, method.planned, outputs)
        if found is None and store is not None:
            found = store.load_reference(key)
            if found is not None:
                return found
        if found is None:
            found = shared_reference(
                self.dataset,
                self.options,
                self.recipe,
                self.steps,
                problem.seed,
                removed,
                self.device,
                self.precision,
            )
        if store is not None:
            store.save_reference(key, found)
        return found
