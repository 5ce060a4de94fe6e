"""Wall-clock time to the published IRMv1 result on Colored MNIST, by the same rules on both sides.

Ours: IRMv1 by the recipe 'honest', in which no number was chosen on a test environment: 400 steps
of 2 x 5,000 rows, one hidden layer of 256. Plain: the published loop and its published settings,
which were chosen on the test environment: 501 steps of all 50,000 rows, two hidden layers of 390,
the penalty from step 190 on. That is some forty times the arithmetic, and most of the ratio;
`step.py` compares equal steps.

Both sides get the same trials: data, coloring and the seed of the initial weights. Both are
measured every ten steps on the validation rows of the training environments and on the test
environments, and both results are quoted by two rules: 'lowest-worst-group', which reads
validation rows only, and 'oracle', which looks at the test environment. The reference ERM that
the first one reads is trained by this library for both, and counts.

Ours train two trials at a time, in processes of one thread each, as `invlearn compare` does; the
plain side trains one trial after another with all threads. Those workers keep freed memory; the
plain side would gain nothing from it, its blocks are larger than any that an allocator keeps. The
quoted ratio is of wall clocks per trial, data loading included on both sides alike; `seconds` of a
trial are without it.

    INVLEARN_DATA=... python benchmarks/time_to_result.py [--seeds 5] [--naive-seeds 5]
        [--seed 1000] [--steps N] [--threads N] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from common import source_of, timed, write
from invlearn.comparison.recipes import get_recipe
from invlearn.comparison.references import Reference, trial_reference
from invlearn.datasets import load_benchmark
from invlearn.environments import EvaluationSet
from invlearn.features import width
from invlearn.ground.machine import run_all
from invlearn.learning import make_trainer
from invlearn.losses import get_loss
from invlearn.means import seeded_generator
from invlearn.methods import get_network, trial_seed
from invlearn.models import MLP
from invlearn.outputs import Outputs
from invlearn.problem import Problem
from invlearn.selection import get_rule
from invlearn.training import Stopping
from invlearn.training.recorder import Recorder
from plain import LR, WEIGHT, dense_copy, dense_features, dense_rows, plain_step

DATASET, RECIPE, METHOD = "colored-mnist", "honest", "irmv1"
STEPS, ANNEAL, HIDDEN = 501, 190, (390, 390)
RULES = ("lowest-worst-group", "oracle")
SHOWN = ("p_e=0.9", "p_e=0.1", "p_e=0.2")
TARGET = 66.0
"""Accuracy in percent at p_e = 0.9 that counts as the published result."""
PROCESSES = 2

Trial = dict[str, Any]


def reference_of(benchmark: Problem, seed: int) -> Reference:
    """The rule's reference ERM, the same for both sides."""
    return trial_reference(get_recipe(DATASET, RECIPE).plan(get_network("erm")), benchmark, seed)


def measured(benchmark: Problem, *, dense: bool) -> list[EvaluationSet]:
    """What both sides are measured on: validation rows and test environments."""
    assert benchmark.validation is not None
    sets = [EvaluationSet.from_environments(benchmark.validation, "validation"), benchmark.test]
    return [s.with_features(dense_features(s.x)) for s in sets] if dense else sets


def result(seed: int, seconds: float, curves: pd.DataFrame, outputs: Outputs) -> Trial:
    """A trial: its seconds, and by each rule the chosen step and percent right in the tests."""
    found: Trial = {"seed": seed, "seconds": seconds, "accuracy": {}, "step": {}}
    for name in RULES:
        choice = get_rule(name).choose(curves, SHOWN[0], outputs)
        at = curves[(curves["step"] == choice.step) & (curves["metric"] == "accuracy")]
        shown = at[(at["split"] == "test") & at["environment"].isin(SHOWN)]
        values = shown.set_index("environment")["value"]
        found["accuracy"][name] = {e: 100 * float(values[e]) for e in SHOWN}
        found["step"][name] = choice.step if choice.satisfied else None
    return found


def train_ours(seed: int, steps: int | None) -> Trial:
    """One trial by this library, on data of its own."""
    benchmark = load_benchmark(DATASET, seed=seed)
    plan = get_recipe(DATASET, RECIPE).plan(get_network(METHOD), steps=steps)
    start = time.perf_counter()
    reference = reference_of(benchmark, seed)
    stopping = Stopping(RULES[0], patience=plan.settings.steps, reference=reference)
    sets = measured(benchmark, dense=False)
    train, n_outputs = benchmark.train, benchmark.n_outputs
    run = make_trainer(
        plan, train, benchmark.loss, n_outputs, seed, evaluations=sets, stopping=stopping
    ).run()
    seconds = time.perf_counter() - start
    assert run.outputs is not None
    return result(seed, seconds, run.curves, run.outputs.with_reference(reference))


def train_plain(seed: int, steps: int | None) -> Trial:
    """One trial by the published loop, on the same data."""
    benchmark = load_benchmark(DATASET, seed=seed)
    start = time.perf_counter()
    reference = reference_of(benchmark, seed)
    _, recorder = plain_loop(benchmark, seed, STEPS if steps is None else steps)
    seconds = time.perf_counter() - start
    assert recorder.outputs is not None
    return result(seed, seconds, recorder.curves, recorder.outputs.with_reference(reference))


def plain_loop(benchmark: Problem, seed: int, steps: int) -> tuple[nn.Module, Recorder]:
    """The published loop: the model of its last step, and what was measured."""
    rows = dense_rows(benchmark.train)
    generator = seeded_generator(seed, 1)
    model = dense_copy(MLP(width(benchmark.train.x), HIDDEN, generator=generator))
    optimizer = torch.optim.Adam(model.parameters(), lr=LR)
    train = benchmark.train.with_features(dense_features(benchmark.train.x))
    sets, loss = measured(benchmark, dense=True), get_loss(benchmark.loss)
    recorder = Recorder(train, sets, loss, ["validation"])
    for step in range(steps + 1):
        if step % 10 == 0 or step == steps:
            recorder.measure(model, step)
        if step < steps:
            plain_step(model, optimizer, rows, weight=WEIGHT if step >= ANNEAL else 1.0)
    return model, recorder


def side(trials: list[Trial], wall: float) -> dict[str, Any]:
    """What is recorded of one side."""
    trials = sorted(trials, key=lambda trial: int(trial["seed"]))
    means = {
        rule: {e: statistics.mean(trial["accuracy"][rule][e] for trial in trials) for e in SHOWN}
        for rule in RULES
    }
    return {
        "trials": trials,
        "n_trials": len(trials),
        "mean_accuracy": means,
        "reaches_target": {rule: means[rule][SHOWN[0]] >= TARGET for rule in RULES},
        "mean_training_seconds": statistics.mean(trial["seconds"] for trial in trials),
        "wall_seconds": wall,
        "wall_seconds_per_trial": wall / len(trials),
    }


def progress(name: str, trials: list[Trial], trial: Trial) -> None:
    """Keep a trial that has ended and say so."""
    trials.append(trial)
    target = {rule: found[SHOWN[0]] for rule, found in trial["accuracy"].items()}
    percent = ", ".join(f"{v:.1f} % by {rule}" for rule, v in target.items())
    print(f"{name}: seed {trial['seed']}, {trial['seconds']:.1f} s, {percent}", flush=True)


def compare(seeds: list[int], naive_seeds: list[int], steps: int | None) -> dict[str, Any]:
    """Both sides, one after the other."""
    ours: list[Trial] = []
    plain: list[Trial] = []
    ours_wall = timed(
        lambda: run_all(
            partial(train_ours, steps=steps),
            seeds,
            processes=PROCESSES,
            done=partial(progress, "ours", ours),
        )
    )
    start = time.perf_counter()
    for seed in naive_seeds:
        progress("published loop", plain, train_plain(seed, steps))
    plain_wall = time.perf_counter() - start
    mine, theirs = side(ours, ours_wall), side(plain, plain_wall)
    return {
        "ours": mine,
        "published_loop": theirs,
        "wall_ratio_per_trial": theirs["wall_seconds_per_trial"] / mine["wall_seconds_per_trial"],
        "training_ratio_per_trial": theirs["mean_training_seconds"]
        / (mine["mean_training_seconds"] / min(PROCESSES, len(seeds))),
        "same_trials": len(seeds) == len(naive_seeds),
        "target_accuracy": TARGET,
    }


def main() -> None:
    """Train both sides, print and write the record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5, help="trials of this library")
    parser.add_argument("--naive-seeds", type=int, default=5, help="of them, by the plain side")
    parser.add_argument("--seed", type=int, default=1000, help="that the trials' are drawn from")
    parser.add_argument("--steps", type=int, help="of both sides, to try the script")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if "INVLEARN_DATA" not in os.environ:
        raise SystemExit("Expected INVLEARN_DATA to name the folder that holds mnist/.")
    source = source_of(__file__)
    torch.set_num_threads(args.threads)
    seeds = [trial_seed(args.seed, trial) for trial in range(args.seeds)]
    record = compare(seeds, seeds[: args.naive_seeds], args.steps) | {
        "recipe": RECIPE,
        "rules": list(RULES),
        "processes": PROCESSES,
        "threads": args.threads,
        "steps": args.steps,
        **source,
    }
    print(json.dumps(record, indent=1))
    write(record, args.out)


if __name__ == "__main__":
    main()
