"""Torch's losses and one's own: in a loop, in the trainer and in an estimator."""

import torch
import torch.nn.functional as F
from torch import nn

import invlearn

torch.manual_seed(0)
year = [2023] * 100 + [2024] * 100
x = torch.randn(200, 3)
price = x[:, 0] + torch.where(torch.rand(200) < 0.1, 20.0, 0.0)  # Some are wild.
huber = nn.HuberLoss(delta=0.5)

model = nn.Linear(3, 1)
total = invlearn.get_objective("vrex").on_batch(model(x), price, year, loss=huber)
total.backward()

rows = invlearn.Environments.from_arrays(x, price, year)
settings = invlearn.Settings(steps=50, lr=0.05)
run = invlearn.Trainer(model, rows, "vrex", huber, settings=settings).run()
print(f"the mean Huber loss in 2023 was {run.history['risk 2023'].iloc[-1]:.2f}")

regressor = invlearn.InvariantRegressor("vrex", loss=huber, steps=300, random_state=0)
usual = regressor.fit(x, price, environments=year).predict(torch.zeros(1, 3))[0]
print(f"the usual price is {usual:.1f}, the mean {price.mean():.1f}")


def focal(outputs, targets):
    """Every row's loss [n], of a logit per class [n, k] and targets 0 to k - 1."""
    loss = F.cross_entropy(outputs, targets, reduction="none")
    return (1 - torch.exp(-loss)) ** 2 * loss


classifier = invlearn.InvariantClassifier("vrex", loss=focal, steps=100, random_state=0)
high = x[:, 0] > 0
print(f"right: {classifier.fit(x, high, environments=year).score(x, high):.0%}")
