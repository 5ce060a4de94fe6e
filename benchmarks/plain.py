"""The published IRMv1 loop as its codes write it: dense images, double backward, torch alone.

Each environment is forwarded whole and the penalty is differentiated through the graph of its
own gradient (Arjovsky et al. 2019, https://github.com/facebookresearch/InvariantRiskMinimization).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from invlearn.environments import Environments
from invlearn.features import ChannelImages, Features
from invlearn.models import MLP

LR, L2, WEIGHT = 0.0004898536566546834, 0.00110794568, 91257.18613115903
"""The published settings of Colored MNIST."""


def dense_copy(model: MLP) -> nn.Sequential:
    """The same function of dense rows, with the same weights, in torch's own layers."""
    modules: list[nn.Module] = []
    for mine in model.layers:
        assert isinstance(mine, nn.Linear)
        layer = nn.Linear(mine.in_features, mine.out_features)
        layer.load_state_dict(mine.state_dict())
        modules += [layer, nn.ReLU()]
    return nn.Sequential(*modules[:-1])


def dense_features(x: Features) -> Tensor:
    """Rows as an ordinary tensor."""
    return x.dense() if isinstance(x, ChannelImages) else x


def dense_rows(rows: Environments, n_outputs: int = 1) -> list[tuple[Tensor, Tensor]]:
    """Dense features and targets of every environment; those of one output are floats."""
    return [(dense_features(x), y.float() if n_outputs == 1 else y) for _, x, y in rows]


def mean_loss(z: Tensor, y: Tensor) -> Tensor:
    """Mean logistic loss of one output, or softmax loss of several."""
    if z.shape[1] == 1:
        return F.binary_cross_entropy_with_logits(z[:, 0], y)
    return F.cross_entropy(z, y)


def plain_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    envs: list[tuple[Tensor, Tensor]],
    *,
    weight: float = WEIGHT,
    l2: float = L2,
) -> float:
    """One step; the whole loss is divided by the penalty weight where that exceeds 1."""
    risks, penalties = [], []
    for x, y in envs:
        z = model(x)
        scale = torch.tensor(1.0, requires_grad=True)
        risk = mean_loss(z * scale, y)
        gradient = torch.autograd.grad(risk, [scale], create_graph=True)[0]
        risks.append(risk)
        penalties.append(gradient**2)
    norm = sum((w.norm() ** 2 for w in model.parameters()), torch.zeros(()))
    loss = torch.stack(risks).mean() + l2 * norm + weight * torch.stack(penalties).mean()
    loss = loss / max(weight, 1.0)
    optimizer.zero_grad()
    torch.autograd.backward(loss)
    optimizer.step()
    return float(loss.detach())
