r"""
Train a sparse network with Sign-In
===================================

A sparse network trained from scratch finds it hard to change the sign of a weight. Sign-In trains
each weight as a product of two factors, :math:`m \odot v`, which crosses zero more easily as long
as the inner scaling :math:`m^2 - v^2` is large. This page puts a random mask on a small network and
trains it plainly, with Sign-In, and with Sign-In that restores the inner scaling.

*Sign-In to the Lottery*, section 4 and Algorithm 1. ``python -m benchmarks sign_in`` runs it
in full.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional as F

import polarity as pol

# %%
# The data and a sparse network
# -----------------------------
# ``balanced`` gives every layer the same number of survivors; which ones is drawn at random.

images, labels = load_digits(return_X_y=True)
split = train_test_split(images / 16, labels, test_size=0.25, stratify=labels, random_state=0)
train_x, test_x = (torch.tensor(part, dtype=torch.float32) for part in split[:2])
train_y, test_y = (torch.tensor(part) for part in split[2:])


def sparse_network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    model = nn.Sequential(
        *(nn.Linear(64, 300), nn.BatchNorm1d(300), nn.ReLU()),
        *(nn.Linear(300, 100), nn.BatchNorm1d(100), nn.ReLU()),
        nn.Linear(100, 10),
    )
    densities = pol.densities.balanced(model, 0.02)
    generator = torch.Generator().manual_seed(seed)
    pol.prune(model, pol.scores.random, densities=densities, generator=generator)
    return model


# %%
# Training
# --------
# ``sign_in`` replaces the weights by their factors and tells the optimizer. The schedule restores
# the inner scaling at the start of every fifth epoch. ``merge`` multiplies the factors: what is
# left is a plain network.


def train(model: nn.Module, form: str, epochs: int = 30) -> tuple[list[float], list[float]]:
    """Return the test accuracy and the mean inner scaling after each epoch."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
    if form != "plain":
        pol.sign_in(model, optimizer=optimizer)
    if form == "Sign-In, rescaled":
        schedule = pol.RescaleSchedule(model, every=5, optimizer=optimizer)
    accuracies, scalings = [], []
    for _ in range(epochs):
        if form == "Sign-In, rescaled":
            schedule.step()
        model.train()
        for batch in torch.randperm(len(train_x)).split(60):
            optimizer.zero_grad()
            F.cross_entropy(model(train_x[batch]), train_y[batch]).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            accuracies.append((model(test_x).argmax(1) == test_y).float().mean().item())
        if form != "plain":
            scalings.append(torch.cat([*pol.inner_scaling(model).values()]).mean().item())
    pol.merge(model, optimizer=optimizer)
    return accuracies, scalings


# %%
# The accuracy, and the inner scaling
# -----------------------------------
# All three start from the same masks and weights. On data this easy the accuracies lie within the
# spread of the seeds (the bands); the results of the benchmarks have the differences on CIFAR.

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
for form in ("plain", "Sign-In", "Sign-In, rescaled"):
    curves, scalings = zip(*(train(sparse_network(seed), form) for seed in range(3)), strict=True)
    runs = 100 * torch.tensor(curves)
    (line,) = left.plot(range(1, 31), runs.mean(0), label=form)
    left.fill_between(range(1, 31), runs.amin(0), runs.amax(0), alpha=0.2)
    if form != "plain":
        right.plot(range(1, 31), torch.tensor(scalings).mean(0), color=line.get_color())
left.set(xlabel="epoch", ylabel="test accuracy (%)")
right.set(xlabel="epoch", ylabel="mean inner scaling m² − v²")
left.legend()
plt.show()
