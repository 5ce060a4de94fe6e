"""Selection rules on made rows whose invariant part and shortcut are known.

Every case draws training environments, validation rows of the same, and two fresh environments:
one whose shortcut is as in training on average, and one whose shortcut is reversed. A predictor
is trained with meta-IRM (its defaults) and with V-REx, and every rule chooses a step of the same
runs. The score of a step is the lower accuracy of the two fresh environments (a regression: the
higher risk), which neither following the shortcut nor betting against it can raise. 'best' is
the step of the best score, which no user can know.

The reference is an ERM trained for half as many steps and taken where its errors depend most on
the environment. What is measured are moving averages of the parameters (decay 0.9), the
reference's too. 'groups-agree, lowest risk' takes it where its validation risk
is lowest instead; 'ERM' is the score of that one.

    python benchmarks/group_rule.py [--seeds 8] [--cases NAME ...] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from invlearn.environments import Environments, EvaluationSet
from invlearn.ground.machine import provenance
from invlearn.learning import Plan, evaluation_sets
from invlearn.learning import train as train_plan
from invlearn.learning.plan import Layers
from invlearn.objectives.erm import ERM
from invlearn.objectives.meta_irm import MetaIRM
from invlearn.objectives.vrex import VREx
from invlearn.problem import Problem
from invlearn.selection import Choice, get_rule, lowest_validation_risk, reference_step
from invlearn.training import PenaltySchedule, Run, Settings

LOWEST = "groups-agree, lowest risk"
RULES = (
    "groups-agree",
    LOWEST,
    "inner-step-groups-agree",
    "lowest-worst-group",
    "risks-agree",
    "last",
)
SHAPE = 10
"""Features of the invariant part."""

Labels = npt.NDArray[np.int64]
Rows = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Classes:
    """Rows whose label a shape tells up to label noise, and shortcuts up to their corruption.

    One of k shapes is drawn (the first with probability `first`), and a point near its centre.
    The label is the shape, or with probability `noise` another class. A shortcut shows the label,
    or with probability `corruption` another class.

    corruption [E][shortcuts], noise [E]: of the training environments.
    """

    corruption: tuple[tuple[float, ...], ...]
    noise: tuple[float, ...]
    k: int = 2
    first: float | None = None
    rows: int = 500

    @property
    def loss(self) -> str:
        """Name of the loss."""
        return "logistic" if self.k == 2 else "softmax"

    def sample(self, e: int | str, rows: int, rng: np.random.Generator) -> Rows:
        """Features and labels of training environment e, or of a fresh one."""
        mean = np.mean(self.corruption, axis=0)
        fresh = {"as trained": mean, "reversed": np.full(len(mean), 0.9)}
        corruption = self.corruption[e] if isinstance(e, int) else fresh[e]
        noise = self.noise[e] if isinstance(e, int) else float(np.mean(self.noise))
        first = 1 / self.k if self.first is None else self.first
        share = [first, *[(1 - first) / (self.k - 1)] * (self.k - 1)]
        shape = rng.choice(self.k, rows, p=share)
        centers = np.random.default_rng(7).standard_normal((self.k, SHAPE))
        parts = [0.33 * centers[shape] + 0.24 * rng.standard_normal((rows, SHAPE))]
        y = _corrupted(shape, noise, self.k, rng)
        size = 2 * np.sqrt(self.k / 2)
        parts += [size * np.eye(self.k)[_corrupted(y, p, self.k, rng)] for p in corruption]
        return torch.from_numpy(np.concatenate(parts, 1)).float(), torch.from_numpy(y)


def _corrupted(labels: Labels, p: float, k: int, rng: np.random.Generator) -> Labels:
    """The labels, each replaced by another class with probability p."""
    shift = (rng.random(len(labels)) < p) * rng.integers(1, k, len(labels))
    return np.asarray((labels + shift) % k)


@dataclass(frozen=True)
class Regression:
    """y = Σ x / sqrt(d) + noise_e ε; one more feature is an effect: y + spread_e η.

    In the reversed environment the effect is −y + η.
    """

    spread: tuple[float, ...]
    noise: tuple[float, ...]
    rows: int = 500
    k: int = 1
    loss: str = "squared"

    def sample(self, e: int | str, rows: int, rng: np.random.Generator) -> Rows:
        """Features and targets of training environment e, or of a fresh one."""
        known = isinstance(e, int)
        noise, spread = (v[e] if known else np.mean(v) for v in (self.noise, self.spread))
        x = rng.standard_normal((rows, SHAPE))
        y = x.sum(1) / SHAPE**0.5 + noise * rng.standard_normal(rows)
        effect = (-y if e == "reversed" else y) + spread * rng.standard_normal(rows)
        features = 0.6 * np.concatenate([x, effect[:, None]], 1)
        return torch.from_numpy(features).float(), torch.from_numpy(y).float()


Case = Classes | Regression


def one(*corruption: float) -> tuple[tuple[float, ...], ...]:
    """One shortcut with these corruptions."""
    return tuple((p,) for p in corruption)


CASES: dict[str, Case] = {
    "2 environments": Classes(one(0.05, 0.25), (0.25,) * 2),
    "3 environments": Classes(one(0.05, 0.15, 0.25), (0.25,) * 3),
    "5 environments": Classes(one(0.05, 0.1, 0.15, 0.2, 0.25), (0.25,) * 5, rows=300),
    "5 classes": Classes(one(0.05, 0.3), (0.25,) * 2, k=5, rows=1000),
    "2 equal shortcuts": Classes(((0.05, 0.05), (0.25, 0.25)), (0.25,) * 2),
    "2 unequal shortcuts": Classes(((0.05, 0.15), (0.25, 0.35)), (0.25,) * 2),
    "weak shortcut": Classes(one(0.15, 0.35), (0.15,) * 2),
    "rare class": Classes(one(0.05, 0.25), (0.2,) * 2, first=0.9),
    "60 rows": Classes(one(0.05, 0.25), (0.25,) * 2, rows=60),
    "no shortcut": Classes(((), ()), (0.25,) * 2),
    "no shortcut, unequal label noise": Classes(((), ()), (0.15, 0.35)),
    "equal corruption": Classes(one(0.15, 0.15), (0.25,) * 2),
    "equal corruption, unequal label noise": Classes(one(0.15, 0.15), (0.15, 0.35)),
    "regression": Regression((0.5, 2.0), (1.0, 1.0)),
    "regression, unequal noise": Regression((0.5, 0.5), (0.5, 1.5)),
}


def make(case: Case, seed: int) -> Problem:
    """The case's rows of one seed."""
    rng = np.random.default_rng(seed)
    names = {f"e{e}": e for e in range(len(case.noise))}

    def rows(count: int) -> Environments:
        return Environments.from_parts({n: case.sample(e, count, rng) for n, e in names.items()})

    fresh = {name: case.sample(name, 2000, rng) for name in ("as trained", "reversed")}
    return Problem(
        name="made",
        train=rows(case.rows),
        validation=rows(case.rows // 2),
        test=EvaluationSet.from_environments(Environments.from_parts(fresh), "test"),
        target="reversed",
        loss=case.loss,
        n_outputs=1 if case.k <= 2 else case.k,
    )


def plans(case: Case) -> dict[str, Plan]:
    """How each method trains on the case: a linear predictor in a regression."""
    linear = isinstance(case, Regression)
    network = Layers(() if linear else (256,))
    settings = Settings(steps=160, lr=2e-2 if linear else 2e-3, l2=0.0 if linear else 1e-3)
    settings = replace(settings, averaging=0.9)
    later = PenaltySchedule("step", start=40, before=1.0, at_anneal="rescale")
    vrex = VREx(penalty_weight=1e2 if linear else 1e3)
    return {
        "ERM": Plan(ERM(), network, replace(settings, steps=80)),
        "meta-IRM": Plan(MetaIRM(), network, settings),
        "V-REx": Plan(vrex, network, replace(settings, schedule=later)),
    }


def train(case: Case, seed: int) -> dict[str, Run]:
    """A run of each method."""
    data = make(case, seed)
    sets = [*evaluation_sets(data.train, data.validation), data.test]
    return {
        method: train_plan(
            plan, data.train, data.loss, data.n_outputs, seed, evaluations=sets, keep_outputs=True
        )
        for method, plan in plans(case).items()
    }


def scores(curves: pd.DataFrame) -> pd.Series:
    """By step: the lower accuracy of the two fresh environments, or the higher risk."""
    test = curves[curves["split"] == "test"]
    accuracy = test[test["metric"] == "accuracy"].groupby("step")["value"].min()
    if len(accuracy):
        return accuracy
    return test[test["metric"] == "risk"].groupby("step")["value"].max()


def references(run: Run) -> dict[str, dict[str, Tensor]]:
    """The ERM's outputs at either step, by the name of the rule that reads them."""
    assert run.outputs is not None
    pure = run.outputs.at(reference_step(run.outputs))
    return {
        "groups-agree": pure,
        "lowest-worst-group": pure,
        LOWEST: run.outputs.at(lowest_validation_risk(run.curves).step),
    }


def choose(run: Run, reference: dict[str, dict[str, Tensor]], rule: str) -> Choice:
    """What a rule chooses in a run."""
    assert run.outputs is not None
    outputs = run.outputs
    if rule in reference:
        outputs = outputs.with_reference(reference[rule])
    return get_rule("groups-agree" if rule == LOWEST else rule).choose(run.curves, "", outputs)


def measure(case: Case, seed: int) -> list[dict[str, Any]]:
    """Every rule's choice in every run of one seed."""
    runs = train(case, seed)
    erm = runs.pop("ERM")
    reference = references(erm)
    lowest = lowest_validation_risk(erm.curves).step
    out: list[dict[str, Any]] = []
    for method, run in runs.items():
        by_step = scores(run.curves)
        best = by_step.idxmax() if isinstance(case, Classes) else by_step.idxmin()
        fixed = {"best": (best, by_step[best]), "ERM": (lowest, scores(erm.curves)[lowest])}
        for rule in RULES:
            choice = choose(run, reference, rule)
            out.append(
                {
                    "method": method,
                    "rule": rule,
                    "step": choice.step,
                    "score": float(by_step[choice.step]),
                    "certified": not choice.note,
                    "satisfied": choice.satisfied,
                }
            )
        out += [
            {"method": method, "rule": rule, "step": int(step), "score": float(value)}
            for rule, (step, value) in fixed.items()
        ]
    return [{"seed": seed, **row} for row in out]


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean and population deviation of the score; shares of runs certified and unsatisfied."""
    keys = ["case", "method", "rule"]
    grouped = rows.groupby(keys, sort=False)
    return pd.DataFrame(
        {
            "mean": grouped["score"].mean(),
            "std": grouped["score"].std(ddof=0),
            "certified": grouped["certified"].mean(),
            "unsatisfied": 1 - grouped["satisfied"].mean(),
        }
    ).reset_index()


def printed(table: pd.DataFrame) -> str:
    """A Markdown table: mean ± deviation, '(certified, unsatisfied)' in % for group rules."""
    lines = ["| case | method | " + " | ".join([*RULES, "best", "ERM"]) + " |"]
    lines.append("| --- | --- |" + " --- |" * (len(RULES) + 2))
    for (case, method), part in table.groupby(["case", "method"], sort=False):
        scale = 1 if isinstance(CASES[str(case)], Regression) else 100
        cells = []
        for row in part.itertuples():
            digits = 2 if scale == 1 else 1
            text = f"{scale * row.mean:.{digits}f} ± {scale * row.std:.{digits}f}"
            if "group" in str(row.rule):
                text += f" ({100 * row.certified:.0f}, {100 * row.unsatisfied:.0f})"
            cells.append(text)
        lines.append(f"| {case} | {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Train, choose, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    source = provenance(shlex.join(["python", "benchmarks/group_rule.py", *sys.argv[1:]]))
    torch.set_num_threads(1)
    started = time.process_time()
    rows = []
    for name in args.cases:
        for seed in range(args.seeds):
            rows += [{"case": name, **row} for row in measure(CASES[name], seed)]
        print(f"{time.process_time() - started:.0f} s of processor time: {name}", file=sys.stderr)
    frame = pd.DataFrame(rows).astype({"certified": float, "satisfied": float})
    table = summary(frame)
    print(printed(table))
    record = {
        "summary": json.loads(table.to_json(orient="records")),
        "runs": json.loads(frame.to_json(orient="records")),
        "seeds": args.seeds,
        "processor_seconds": time.process_time() - started,
        **source,
    }
    if args.out is not None:
        args.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
