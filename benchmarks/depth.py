"""Why meta-IRM fails with depth or several inner steps, and what mends it.

Colored MNIST (or colored-digits), two environments; for each variant the risks' curvature
along their gradients times the inner rate, by step, and the test accuracies at the step that the
rule 'lowest worst-group error' chose from training environments alone. That product decides which
way θ goes: where it is small the shortcut stays in use, where it is large θ turns against it.
Under ``rate="curvature"`` it is held (the curvature itself is shown then). Curvatures are those of
the parameters as they are, accuracies those of their moving average (decay 0.95).

    python benchmarks/depth.py [--dataset colored-mnist] [--seeds 1] [--steps 400] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from invlearn.comparison.recipes import get_recipe
from invlearn.comparison.references import trial_reference
from invlearn.datasets import load_benchmark
from invlearn.errors import CollapseWarning, DivergenceWarning
from invlearn.features import width
from invlearn.ground.machine import provenance
from invlearn.learning import evaluation_sets
from invlearn.losses import get_loss
from invlearn.means import seeded_generator
from invlearn.methods import get_network, trial_seed
from invlearn.models import MLP, trainable
from invlearn.objectives.inner_step import curvature
from invlearn.objectives.meta_irm import MetaIRM
from invlearn.problem import Problem
from invlearn.selection import lowest_worst_group
from invlearn.training import Settings, Trainer
from invlearn.training.derivatives import Risk

SHOWN = ("p_e=0.1", "p_e=0.2", "p_e=0.9")
ROWS, PROBE_ROWS, EVERY = 1000, 1000, 20


class Variant(NamedTuple):
    """What is tried: hidden layers, the objective, α."""

    name: str
    hidden: tuple[int, ...]
    objective: MetaIRM
    inner_lr: float


ONE, TWO, THREE = (390,), (390, 390), (390, 390, 390)
LAST = ("last",)
VARIANTS = (
    Variant("one layer, fixed 1.2", ONE, MetaIRM(), 1.2),
    Variant("two layers, fixed 1.0", TWO, MetaIRM(), 1.0),
    Variant("two layers, fixed 1.2", TWO, MetaIRM(), 1.2),
    Variant("two layers, curvature 1.4", TWO, MetaIRM(rate="curvature"), 1.4),
    Variant("two layers, curvature 1.5", TWO, MetaIRM(rate="curvature"), 1.5),
    Variant("two layers, classifier, curvature 1.4", TWO,
            MetaIRM(rate="curvature", adapts=LAST), 1.4),
    Variant("three layers, curvature 1.4", THREE, MetaIRM(rate="curvature"), 1.4),
    Variant("one layer, 2 steps, fixed 0.6", ONE, MetaIRM(inner_steps=2), 0.6),
    Variant("one layer, 2 steps, curvature 0.9", ONE,
            MetaIRM(inner_steps=2, rate="curvature"), 0.9),
    Variant("two layers, 2 steps, curvature 0.9", TWO,
            MetaIRM(inner_steps=2, rate="curvature"), 0.9),
)  # fmt: skip


def run(
    variant: Variant, benchmark: Problem, reference: Any, seed: int, steps: int
) -> dict[str, Any]:
    """Train one variant; its products by step and what the rule chose."""
    started = time.perf_counter()
    rows, loss = benchmark.train, get_loss(benchmark.loss)
    model = MLP(width(rows.x), variant.hidden, 1, generator=seeded_generator(seed, 1))
    trainer = Trainer(
        model,
        rows,
        replace(variant.objective, inner_lr=variant.inner_lr),
        benchmark.loss,
        settings=Settings(
            steps=steps,
            batch_size=ROWS,
            lr=5e-4,
            l2=5e-4,
            averaging=0.95,
            evaluate_every=EVERY,
        ),
        seed=seed,
        evaluations=[*evaluation_sets(benchmark.train, benchmark.validation), benchmark.test],
        keep_outputs=("train", "validation"),
    )
    probe = rows.take([torch.arange(n)[:: max(n // PROBE_ROWS, 1)] for n in rows.sizes])
    names = variant.objective.adapted(list(trainable(model)))
    products = {}
    for step in range(0, steps + 1, 100):
        result = trainer.run(until=step)
        theta, found = trainable(model), []
        for e in range(len(probe)):
            risk = Risk(model, loss, probe, e)
            gradient = risk.gradient(theta)[1]
            along = {name: gradient[name] for name in names}
            found.append(float(curvature(along, risk.hessian_product(theta, along))))
        rate = 1.0 if variant.objective.rate == "curvature" else variant.inner_lr
        products[step] = rate * sum(found) / len(found)
        if result.stop_reason == "diverged":
            break
    assert result.outputs is not None
    choice = lowest_worst_group(result.curves, "", result.outputs.with_reference(reference))
    curves = result.curves
    at = curves[(curves["step"] == choice.step) & (curves["split"] == "test")]
    accuracy = at[at["metric"] == "accuracy"].set_index("environment")["value"]
    return {
        "variant": variant.name,
        "seed": seed,
        # Under rate="curvature" the curvature itself: the rate is held against it.
        "inner_lr_times_curvature": products,
        "step": choice.step,
        "satisfied": choice.satisfied,
        "test_accuracy": {name: float(accuracy[name]) for name in SHOWN},
        "reason": result.stop_reason,
        "seconds": round(time.perf_counter() - started, 1),
    }


def main() -> None:
    """Run every variant and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="colored-mnist")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    source = provenance(shlex.join(["python", "benchmarks/depth.py", *sys.argv[1:]]))
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", CollapseWarning)
    warnings.simplefilter("ignore", DivergenceWarning)
    found = []
    for trial in range(args.seeds):
        seed = trial_seed(11, trial)
        benchmark = load_benchmark(args.dataset, seed=seed)
        erm = get_recipe(args.dataset, oracle=False).plan(get_network("erm"))
        reference = trial_reference(erm, benchmark, seed)
        for variant in VARIANTS:
            row = run(variant, benchmark, reference, seed, args.steps)
            found.append(row)
            numbers = " / ".join(f"{100 * v:.1f}" for v in row["test_accuracy"].values())
            products = row["inner_lr_times_curvature"].values()
            kept = "" if row["satisfied"] else " (last)"
            print(
                f"{row['variant']:<40} step {row['step']:>4}{kept}"
                f"  {numbers}  rate x curvature: {' '.join(f'{p:.2f}' for p in products)}",
                flush=True,
            )
    if args.out:
        record = {"dataset": args.dataset, "steps": args.steps, "runs": found, "provenance": source}
        args.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
