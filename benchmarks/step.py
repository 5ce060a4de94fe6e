"""One exact full-batch IRMv1 step against a plain implementation of the published loop.

2 x 25,000 rows of 14 x 14 images in 2 colors, a 392-390-390-1 perceptron, Adam. The plain
side is what published codes do: dense images, each environment forwarded whole, the penalty by
double backward. Both run in this process, in turn, so that their ratio holds when the
machine's speed drifts; the medians are quoted.

    python benchmarks/step.py [--repeats 10] [--threads N] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from invlearn.environments import Environments
from invlearn.experiments.provenance import provenance
from invlearn.features import ChannelImages
from invlearn.models import MLP
from invlearn.objectives import get_objective
from invlearn.training import PUBLISHED, Settings, Trainer

ROWS, PIXELS, HIDDEN = 25_000, 196, 390
LR, L2, WEIGHT = 0.0004898536566546834, 0.00110794568, 91257.18613115903


def make_environments() -> Environments:
    """Random images whose color agrees with a random label in 90 and 80 % of the rows."""
    g = torch.Generator().manual_seed(0)
    parts = {}
    for p in (0.1, 0.2):
        y = torch.randint(0, 2, (ROWS,), generator=g)
        color = (y ^ (torch.rand(ROWS, generator=g) < p)).sort()
        images = torch.rand(ROWS, PIXELS, generator=g)
        parts[f"p_e={p}"] = (ChannelImages(images, color.values, 2), y[color.indices])
    return Environments.from_parts(parts)


def plain_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, envs: list[tuple[Tensor, Tensor]]
) -> float:
    """The published loop's step, past its anneal step."""
    risks, penalties = [], []
    for x, y in envs:
        logits = model(x)[:, 0]
        scale = torch.tensor(1.0, requires_grad=True)
        risk = F.binary_cross_entropy_with_logits(logits * scale, y)
        gradient = torch.autograd.grad(risk, [scale], create_graph=True)[0]
        risks.append(risk)
        penalties.append(gradient**2)
    norm = sum((w.norm() ** 2 for w in model.parameters()), torch.zeros(()))
    loss = torch.stack(risks).mean() + L2 * norm + WEIGHT * torch.stack(penalties).mean()
    loss = loss / WEIGHT
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return float(loss.detach())


def matmul_rate(repeats: int) -> float:
    """Floating-point operations per second of torch's own product of the step's sizes."""
    a, b = torch.randn(ROWS, HIDDEN), torch.randn(HIDDEN, HIDDEN)
    seconds = statistics.median(timed(lambda: a @ b) for _ in range(repeats))
    return 2 * ROWS * HIDDEN * HIDDEN / seconds


def timed(call: Callable[[], object]) -> float:
    """Wall-clock seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    """Time both in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    source = provenance(shlex.join(["python", "benchmarks/step.py", *sys.argv[1:]]))
    torch.set_num_threads(args.threads)

    rows = make_environments()
    model = MLP(2 * PIXELS, (HIDDEN, HIDDEN), generator=torch.Generator().manual_seed(0))
    settings = Settings(
        steps=10**6, lr=LR, l2=L2, schedule=PUBLISHED["irm-paper"], evaluate_every=10**6
    )
    objective = get_objective("irmv1")
    trainer = Trainer(
        model, rows, objective, "logistic", hyper=objective.Hyper(WEIGHT), settings=settings
    )
    trainer.step = PUBLISHED["irm-paper"].start

    plain = nn.Sequential(
        nn.Linear(2 * PIXELS, HIDDEN),
        nn.ReLU(),
        nn.Linear(HIDDEN, HIDDEN),
        nn.ReLU(),
        nn.Linear(HIDDEN, 1),
    )
    layers = [layer for layer in plain if isinstance(layer, nn.Linear)]
    for mine, theirs in zip(model.layers, layers, strict=True):
        theirs.load_state_dict(mine.state_dict())
    dense = []
    for _, x, y in rows:
        assert isinstance(x, ChannelImages)
        dense.append((x.dense(), y.float()))
    optimizer = torch.optim.Adam(plain.parameters(), lr=LR)

    ours, theirs_seconds = [], []
    for _ in range(args.repeats + 2):
        theirs_seconds.append(timed(lambda: plain_step(plain, optimizer, dense)))
        ours.append(timed(lambda: trainer._make(trainer._plan(trainer.step))))
    ours, theirs_seconds = ours[2:], theirs_seconds[2:]
    drift = max(
        float((a - b).detach().abs().max())
        for mine, theirs in zip(model.layers, layers, strict=True)
        for a, b in zip(mine.parameters(), theirs.parameters(), strict=True)
    )
    ratios = [b / a for a, b in zip(ours, theirs_seconds, strict=True)]
    record = {
        "exact_step_seconds": statistics.median(ours),
        "plain_step_seconds": statistics.median(theirs_seconds),
        "ratio_median": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "largest_parameter_difference_after_the_steps": drift,
        "matmul_gflops_per_second": matmul_rate(args.repeats) / 1e9,
        "threads": args.threads,
        "repeats": args.repeats,
        **source,
    }
    text = json.dumps(record, indent=1)
    print(text)
    if args.out is not None:
        args.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
