"""Three classes, an environment's name for each row, and a penalty that sets in late."""

import torch
import torch.nn.functional as F
from torch import nn

from invlearn import PenaltySchedule, get_objective

torch.manual_seed(0)
centers = torch.tensor([[2.0, 0.0], [-1.0, 1.7], [-1.0, -1.7]])
species = torch.randint(3, (600,))
forest = ["oak" if i % 2 else "pine" for i in range(600)]
x = centers[species] + torch.randn(600, 2)

model = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 3))
vrex, schedule = get_objective("vrex"), PenaltySchedule("step", start=50)
optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
for step in range(150):
    weight = schedule.weight(step, 100.0)  # 0 before step 50: until then it is ERM.
    total = vrex.on_batch(model(x), species, forest, loss=F.cross_entropy, strength=weight)
    optimizer.zero_grad()
    total.backward()
    optimizer.step()
print(f"right: {(model(x).argmax(1) == species).float().mean():.0%}")
