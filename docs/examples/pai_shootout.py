r"""
Masks before training: a shoot-out
==================================

Pruning at initialisation (PaI) chooses a mask before the first step, and then trains what is left.
Four ways to choose: at *random*; *SNIP* keeps weights on which the loss depends; *GraSP* keeps the
flow of gradients; *SynFlow* keeps paths, and needs no data. Each mask is trained plainly and
with *Sign-In*, as products :math:`m \odot v`, whose signs change more easily.

*Sign-In to the Lottery*, section 5; ``python -m benchmarks sign_in`` runs it in full.
Step by step: :doc:`/tutorials/sign_in`.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional as F

import polarity as pol

# %%
# The data and a network
# ----------------------

images, labels = load_digits(return_X_y=True)
split = train_test_split(images / 16, labels, test_size=0.25, stratify=labels, random_state=0)
train_x, test_x = (torch.tensor(part, dtype=torch.float32) for part in split[:2])
train_y, test_y = (torch.tensor(part) for part in split[2:])
epochs, density = 12, 0.01


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        *(nn.Linear(64, 300), nn.BatchNorm1d(300), nn.ReLU()),
        *(nn.Linear(300, 100), nn.BatchNorm1d(100), nn.ReLU()),
        nn.Linear(100, 10),
    )


# %%
# Four masks of one density
# -------------------------
# Random masks need a density for each layer: ``balanced`` gives all the same number of survivors.
# The scores of the others are compared across the whole network.


def prune(model: nn.Module, method: str) -> pol.PruneReport:
    if method == "random":
        return pol.prune(model, pol.scores.random, densities=pol.densities.balanced(model, density))
    if method == "SynFlow":
        scores = pol.scores.synflow(model, train_x[:1], density=density)
    else:
        score = {"SNIP": pol.scores.snip, "GraSP": pol.scores.grasp}[method]
        scores = score(model, F.cross_entropy, [(train_x[:300], train_y[:300])])
    return pol.prune(model, scores, density=density)


# %%
# Training
# --------
# ``sign_in`` goes between mask and optimizer. Every fourth epoch the schedule restores the inner
# scaling :math:`m^2 - v^2`, which training uses up.


def train(method: str, form: str, seed: int) -> tuple[float, float]:
    """Return the test accuracy and the share of survivors whose sign changed, in percent."""
    report = prune(model := network(seed), method)
    if form == "Sign-In":
        pol.sign_in(model)
    elif seed == 0:
        print(f"{method:8} survivors per layer:", *(layer.after for layer in report.layers))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    if form == "Sign-In":
        rescaling = pol.RescaleSchedule(model, every=4, optimizer=optimizer)
    tracker = pol.SignTracker(model)
    for _ in range(epochs):
        if form == "Sign-In":
            rescaling.step()
        for batch in torch.randperm(len(train_x)).split(60):
            optimizer.zero_grad()
            F.cross_entropy(model(train_x[batch]), train_y[batch]).backward()
            optimizer.step()
        cosine.step()
    tracker.mark("end")
    model.eval()
    with torch.no_grad():
        accuracy = 100 * (model(test_x).argmax(1) == test_y).float().mean().item()
    return accuracy, 100 * tracker.flips("init", "end").fraction


# %%
# Accuracy, and signs that changed
# --------------------------------
# The mask decides. At this density SNIP and GraSP leave the second layer few connections (the
# printed counts); SynFlow was made against that (Tanaka et al., 2020). Under SynFlow's mask a third
# of the signs change, under SNIP's, which prefers large weights, one in fifty. Sign-In changes
# neither number by more than the seeds do on this easy data; the results pages have CIFAR.

figure, axes = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
methods, places = ["random", "SNIP", "GraSP", "SynFlow"], torch.arange(4)
for form, shift, color in (("plain", -0.1, "C0"), ("Sign-In", 0.1, "C1")):
    runs = torch.tensor([[train(method, form, seed) for method in methods] for seed in range(3)])
    for axis, what in zip(axes, runs.unbind(-1), strict=True):
        for values in what:
            axis.plot(places + shift, values, "o", color=color, alpha=0.7)
        axis.lines[-1].set_label(form)
        axis.set_xticks(places, methods)
axes[0].set_ylabel("test accuracy (%)")
axes[1].set_ylabel("survivors with another sign (%)")
axes[0].legend()
figure.suptitle(
    "scikit-learn's digits, 64-300-100-10 with batch normalisation, 1 % of the weights, 12 epochs; "
    "each point one of 3 seeds",
    fontsize="medium",
)
plt.show()
