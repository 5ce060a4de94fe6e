"""Wall-clock time to the published IRMv1 result on Colored MNIST, by one honest rule on both sides.

Ours: IRMv1 by the recipe 'honest', in which no number was chosen on a test environment. Plain:
the published loop and its published settings (501 steps, two hidden layers of 390, the penalty
from step 190 on), which were chosen on the test environment. Both sides get the same trials:
data, coloring and the seed of the initial weights. Both measure the validation rows of the
training environments every ten steps and keep the model of the step that 'lowest-worst-group'
chooses; the reference ERM that the rule reads is trained by this library for both, and counts.

Ours train two trials at a time, in processes of one thread each, as `invlearn compare` does; the
plain side trains one trial after another with all threads. The quoted ratio is of wall clocks per
trial, data loading included on both sides alike; `seconds` of a trial are training alone.

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

import torch
from torch import nn

from common import source_of, timed, write
from invlearn.datasets import load
from invlearn.datasets.base import Benchmark
from invlearn.environments import EvaluationSet
from invlearn.evaluation import evaluate
from invlearn.experiments.methods import get_method
from invlearn.experiments.plans import plan_trainer, trial_seed
from invlearn.experiments.processes import run_all
from invlearn.experiments.recipes import get_recipe
from invlearn.experiments.references import Reference, reference_outputs
from invlearn.features import ChannelImages, width
from invlearn.losses import get_loss
from invlearn.models import MLP
from invlearn.selection import Choice, get_rule
from invlearn.training import Stopping
from invlearn.training.means import seeded_generator
from invlearn.training.recorder import Recorder
from plain import LR, WEIGHT, dense_copy, dense_rows, plain_step

DATASET, RECIPE, METHOD = "colored-mnist", "honest", "irmv1"
STEPS, ANNEAL, HIDDEN = 501, 190, (390, 390)
RULE = "lowest-worst-group"
SHOWN = ("p_e=0.9", "p_e=0.1", "p_e=0.2")
TARGET = 66.0
"""Accuracy in percent at p_e = 0.9 that counts as the published result."""
PROCESSES = 2

Trial = dict[str, Any]


def accuracies(model: nn.Module, test: EvaluationSet, loss: str) -> dict[str, float]:
    """Percent right in the test environments that are quoted."""
    measured = evaluate(model, [test], get_loss(loss))
    found = {m.environment: 100 * m.value for m in measured if m.metric == "accuracy"}
    return {name: found[name] for name in SHOWN}


def reference_of(benchmark: Benchmark, seed: int) -> Reference:
    """The rule's reference ERM, the same for both sides."""
    return reference_outputs(get_recipe(DATASET, RECIPE).plan(get_method("erm")), benchmark, seed)


def validation_of(benchmark: Benchmark, *, dense: bool) -> EvaluationSet:
    """The rows that the rule reads."""
    assert benchmark.validation is not None
    rows = EvaluationSet.from_environments(benchmark.validation, "validation")
    x = rows.x
    return rows.with_features(x.dense()) if dense and isinstance(x, ChannelImages) else rows


def train_ours(seed: int, steps: int | None) -> Trial:
    """One trial by this library, on data of its own."""
    benchmark = load(DATASET, seed=seed)
    plan = get_recipe(DATASET, RECIPE).plan(get_method(METHOD), steps=steps)
    start = time.perf_counter()
    stopping = Stopping(RULE, patience=plan.settings.steps, reference=reference_of(benchmark, seed))
    sets = [validation_of(benchmark, dense=False)]
    run = plan_trainer(plan, benchmark, benchmark.train, sets, seed, stopping=stopping).run()
    seconds = time.perf_counter() - start
    assert run.choice is not None
    return {
        "seed": seed,
        "seconds": seconds,
        "accuracy": accuracies(run.model, benchmark.test, benchmark.loss),
        "step": run.choice.step,
        "satisfied": run.choice.satisfied,
    }


def train_plain(seed: int, steps: int | None) -> Trial:
    """One trial by the published loop, on the same data."""
    benchmark = load(DATASET, seed=seed)
    seconds, model, choice = plain_loop(benchmark, seed, STEPS if steps is None else steps)
    x = benchmark.test.x
    dense = x.dense() if isinstance(x, ChannelImages) else x
    return {
        "seed": seed,
        "seconds": seconds,
        "accuracy": accuracies(model, benchmark.test.with_features(dense), benchmark.loss),
        "step": choice.step,
        "satisfied": choice.satisfied,
    }


def plain_loop(benchmark: Benchmark, seed: int, steps: int) -> tuple[float, nn.Module, Choice]:
    """Seconds of the published loop, the model of the step that the rule chose, and the choice."""
    rows = dense_rows(benchmark.train)
    start = time.perf_counter()
    reference, loss = reference_of(benchmark, seed), get_loss(benchmark.loss)
    generator = seeded_generator(seed, 1)
    model = dense_copy(MLP(width(benchmark.train.x), HIDDEN, generator=generator))
    optimizer = torch.optim.Adam(model.parameters(), lr=LR)
    sets = [validation_of(benchmark, dense=True)]
    train = benchmark.train
    if isinstance(train.x, ChannelImages):
        train = train.with_features(train.x.dense())
    recorder = Recorder(train, sets, loss, ["validation"])
    models = {}
    for step in range(steps + 1):
        if step % 10 == 0 or step == steps:
            recorder.measure(model, step)
            models[step] = {name: value.clone() for name, value in model.state_dict().items()}
        if step < steps:
            plain_step(model, optimizer, rows, weight=WEIGHT if step >= ANNEAL else 1.0)
    assert recorder.outputs is not None
    outputs = recorder.outputs.with_reference(reference)
    choice = get_rule(RULE).choose(recorder.curves, "", outputs)
    model.load_state_dict(models[choice.step])
    return time.perf_counter() - start, model, choice


def side(trials: list[Trial], wall: float) -> dict[str, Any]:
    """What is recorded of one side."""
    trials = sorted(trials, key=lambda trial: int(trial["seed"]))
    means = {name: statistics.mean(trial["accuracy"][name] for trial in trials) for name in SHOWN}
    return {
        "trials": trials,
        "n_trials": len(trials),
        "mean_accuracy": means,
        "reaches_target": means[SHOWN[0]] >= TARGET,
        "mean_training_seconds": statistics.mean(trial["seconds"] for trial in trials),
        "wall_seconds": wall,
        "wall_seconds_per_trial": wall / len(trials),
    }


def progress(name: str, trials: list[Trial], trial: Trial) -> None:
    """Keep a trial that has ended and say so."""
    trials.append(trial)
    percent = ", ".join(f"{v:.1f} % at {k}" for k, v in trial["accuracy"].items())
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
        "rule": RULE,
        "processes": PROCESSES,
        "threads": args.threads,
        "steps": args.steps,
        **source,
    }
    print(json.dumps(record, indent=1))
    write(record, args.out)


if __name__ == "__main__":
    main()
