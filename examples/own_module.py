"""A module of one's own with dropout and batch norm, whose features CORAL compares."""

import torch
from torch import nn
from torch.utils.data import DataLoader

from invlearn import get_objective

torch.manual_seed(0)


class Net(nn.Module):
    """Gives its outputs, and the features that the last layer reads."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(5, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2))
        self.head = nn.Linear(16, 1)

    def forward(self, x):
        features = self.body(x)
        return self.head(features), features


sites = ["Arden", "Birk", "Coll"]
x = torch.randn(600, 5)
data = [(row, row[0] + 0.1 * torch.randn(()), sites[i % 3]) for i, row in enumerate(x)]

coral, net = get_objective("coral", {"penalty_weight": 10.0}), Net()
optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
for _ in range(20):
    for rows, targets, site in DataLoader(data, batch_size=100, shuffle=True):
        outputs, features = net(rows)
        total = coral.on_batch(outputs, targets, site, features, loss="squared")
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
print(f"CORAL's total on the last batch: {total.item():.3f}")
