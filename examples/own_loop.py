"""IRMv1, V-REx, GroupDRO and meta-IRM in a training loop of one's own."""

import torch
from torch import nn

from invlearn import get_objective

torch.manual_seed(0)


def hospital(n, agreement):
    """Rows of a cause and an artefact; the artefact agrees with the illness so often."""
    cause = torch.randn(n)
    ill = (torch.rand(n) < torch.sigmoid(3 * cause)).long()
    sign = torch.where(torch.rand(n) < agreement, 1.0, -1.0)
    return torch.stack([cause, sign * (2 * ill - 1) + 0.3 * torch.randn(n)], 1), ill


north, south, new = hospital(500, 0.95), hospital(500, 0.75), hospital(500, 0.1)
x, ill = torch.cat([north[0], south[0]]), torch.cat([north[1], south[1]])
where = ["north"] * 500 + ["south"] * 500
hyper = {"erm": {}, "irmv1": {"penalty_weight": 30.0}, "vrex": {"penalty_weight": 100.0}}
hyper |= {"group-dro": {}, "meta-irm": {"std_weight": 5.0}}
for name in hyper:
    objective = get_objective(name, hyper[name])
    memory = objective.begin(where)  # GroupDRO's weights; empty for the others.
    model = nn.Linear(2, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    for _ in range(300):
        if name == "meta-irm":  # It takes steps with the model: it is given the model.
            total = objective.on_model(model, x, ill, where, loss="logistic")
        else:
            total = objective.on_batch(model(x), ill, where, loss="logistic", memory=memory)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    right = (model(new[0])[:, 0] > 0) == new[1]
    print(f"{name:9} {right.float().mean():.0%} right in a new hospital")
