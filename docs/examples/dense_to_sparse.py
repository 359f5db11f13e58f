r"""
Sparse from dense, sparse from scratch
======================================

Two ways lead to a network with a twentieth of its weights. *Sparse from dense*: AC/DC trains all
weights and only the largest twentieth in turn, and each sparse phase chooses its mask anew. *Sparse
from scratch*: training begins under a random mask. RigL moves this mask: it drops small weights and
grows others where the gradient is large. Sign-In moves the signs instead: it trains each weight as
a product :math:`m \odot v`, which crosses zero more easily, under any of these masks.

*Sign-In to the Lottery*, section 5. ``python -m benchmarks dense-to-sparse`` runs it in full.
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
epochs, density = 20, 0.05
steps = epochs * len(train_x.split(60))


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(64, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10)
    )


# %%
# One loop for all
# ----------------
# The order is: mask, Sign-In, optimizer, schedule. A schedule adds one line to a training loop, its
# ``step()`` after that of the optimizer. AC/DC begins dense, and changes phases as published for
# CIFAR-10. :class:`polarity.SignTracker` counts the flips of the weights that survive to the end.


def train(method: str, seed: int) -> tuple[float, list[float], tuple[float, ...]]:
    """Return accuracy, density of every forward pass, flips per survivor up to each epoch."""
    model, schedule, densities = network(seed), None, []
    if "AC/DC" not in method:
        pol.prune(model, pol.scores.random, densities=pol.densities.balanced(model, density))
    if "Sign-In" in method:
        pol.sign_in(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    if "RigL" in method:
        schedule = pol.dense_to_sparse.RigL(model, optimizer, every=10, end=3 * steps // 4)
    if "AC/DC" in method:
        switches = pol.dense_to_sparse.acdc_switches("cifar10", steps)
        schedule = pol.dense_to_sparse.ACDC(model, optimizer, density=density, switches=switches)
    tracker = pol.SignTracker(model)
    for _ in range(epochs):
        for batch in torch.randperm(len(train_x)).split(60):
            optimizer.zero_grad()
            F.cross_entropy(model(train_x[batch]), train_y[batch]).backward()
            densities.append(schedule.density() if schedule else pol.density(model))
            optimizer.step()
            if schedule:
                schedule.step()
        tracker.step()
    with torch.no_grad():
        accuracy = (model(test_x).argmax(1) == test_y).float().mean().item()
    return accuracy, densities, tracker.cumulative().per_survivor


# %%
# Densities and flips
# -------------------
# The bands span the seeds. Under RigL it is mostly weights that grew that flip, because they begin
# at zero; those that were live all along flip about as often as under a fixed mask.

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.5), layout="constrained")
for place, mask in enumerate(("fixed mask", "RigL", "AC/DC")):
    for method, line in ((mask, "-"), (f"{mask} + Sign-In", "--")):
        results = [train(method, seed) for seed in range(3)]
        accuracies, densities, curves = zip(*results, strict=True)
        print(f"{method:20} test accuracy", *(f"{each:.3f}" for each in accuracies))
        color, flips = f"C{place}", torch.tensor(curves)
        right.plot(range(1, epochs + 1), flips.mean(0), line, color=color, label=method)
        right.fill_between(range(1, epochs + 1), flips.amin(0), flips.amax(0), fc=color, alpha=0.2)
    left.plot(torch.arange(steps) / steps * epochs, densities[0], color=color, lw=5 - 2 * place)
left.set(xlabel="epoch", ylabel="density of the forward pass", xticks=range(0, 21, 5))
right.set(xlabel="epoch", ylabel="sign flips per survivor, so far", xticks=range(0, 21, 5))
figure.legend(loc="outside right center")
figure.suptitle(
    "scikit-learn's digits, 64-300-100-10 at 5 %, 20 epochs; mean and range of 3 seeds",
    fontsize="medium",
)
plt.show()
