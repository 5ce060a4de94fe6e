"""The IRM paper's appendix D: IRMv1 finds the causal weights of a linear model, ERM does not.

Two environments, features (x, z) of which x causes y and y causes z. The causal weights are
(1, 1, 0, 0). The settings are those of the paper's minimal code: gradient descent from weights
of one, the unbiased penalty over random halves, penalties and risks summed over environments,
the risk weighted by 1e-5 (which is a penalty weight of 1e5 with the whole loss divided by it).

    python examples/linear_sem.py [--steps 50000] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from pathlib import Path

import torch

from invlearn import MLP, PenaltySchedule, Settings, Trainer, load_benchmark
from invlearn.datasets.linear_sem import true_weights
from invlearn.ground.machine import provenance
from invlearn.objectives.erm import ERM
from invlearn.objectives.irmv1 import IRMv1


def learn(objective: ERM | IRMv1, *, steps: int, lr: float, seed: int = 0) -> list[float]:
    """Weights of (x1, x2, z1, z2) after so many steps of gradient descent."""
    model = MLP(4, (), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        model.layers[0].weight.fill_(1.0)
    model.layers[0].bias.requires_grad_(False)
    settings = Settings(
        steps=steps,
        lr=lr,
        optimizer="SGD",
        schedule=PenaltySchedule(at_anneal="rescale"),
        evaluate_every=steps,
        micro_batch=None,
    )
    rows = load_benchmark("linear-sem", seed=seed).train
    Trainer(model, rows, objective, "squared", settings=settings, seed=seed).run()
    return [float(w) for w in model.layers[0].weight.detach()[0]]


def main() -> None:
    """Learn with both objectives and print the weights beside the true ones."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    start = time.perf_counter()
    source = provenance(shlex.join(["python", "examples/linear_sem.py", *sys.argv[1:]]))
    torch.set_num_threads(1)  # The products are too small to share.
    irm = IRMv1(1e5, estimator="split", convention="irm-appendix-d")
    record = {
        "true": true_weights("appendix-d", args.seed).tolist(),
        "irmv1-split": learn(irm, steps=args.steps, lr=1e-3, seed=args.seed),
        "erm": learn(ERM(), steps=2000, lr=0.1, seed=args.seed),
        "steps": args.steps,
        "seed": args.seed,
        **source,
        "seconds": round(time.perf_counter() - start, 1),
    }
    text = json.dumps(record, indent=1)
    print(text)
    if args.out is not None:
        args.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
