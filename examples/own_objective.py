"""An objective of one's own, by a name that every part of the library then knows."""

from dataclasses import dataclass
from typing import ClassVar

from invlearn import (
    BenchmarkRequest,
    MeanObjective,
    Range,
    Terms,
    compare,
    number,
    register_objective,
)


@dataclass(frozen=True)
class RiskGap(MeanObjective):
    """mean_e R_e + b (max_e R_e - min_e R_e)."""

    penalty_weight: float = number(10.0, Range(1.0, 100.0, log=True))
    title: ClassVar[str] = "Risk gap"
    summary: ClassVar[str] = "Penalizes the largest gap between two environments' risks."
    source: ClassVar[str] = "examples/own_objective.py"
    strength: ClassVar[str] = "penalty_weight"  # What schedules drive, and 'auto' chooses.
    table_strengths: ClassVar[tuple[float, ...]] = (1.0, 10.0)  # 'auto' chooses among these.

    def value(self, means, state):
        risks = means["risk"]  # Of every environment.
        gap = risks.max() - risks.min()
        return Terms(risks.mean() + self.penalty_weight * gap, risks, gap), state


register_objective("risk-gap", RiskGap())

if __name__ == "__main__":
    request = BenchmarkRequest("linear-sem", ["erm", "risk-gap"], trials=1, steps=300)
    results = compare(request, jobs=1).results
    last = results[(results.selection == "last") & (results.environment == "e=3")]
    print(last[last.metric == "risk"].set_index("method")["value"].round(2))
