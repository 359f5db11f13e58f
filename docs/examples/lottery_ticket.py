"""
Find a lottery ticket
=====================

Iterative magnitude pruning (IMP) trains a network, removes the smallest weights, gives the
survivors their *initial* values back, and repeats. What remains is a winning ticket if it trains to
the accuracy of the dense network. The control keeps the mask and draws new initial values:
the difference between the two curves is what the initial values are worth.

Frankle & Carbin (2019), `The Lottery Ticket Hypothesis <https://arxiv.org/abs/1803.03635>`_.
One round of it, call by call: :doc:`/tutorials/first_ticket`. On a network of torchvision's:
:doc:`first_ticket_resnet18`.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional as F

import polarity as pol

# %%
# The data, a network and a training loop
# ---------------------------------------
# polarity owns no training loop. This is a plain one.

images, labels = load_digits(return_X_y=True)
split = train_test_split(images / 16, labels, test_size=0.25, stratify=labels, random_state=0)
train_x, test_x = (torch.tensor(part, dtype=torch.float32) for part in split[:2])
train_y, test_y = (torch.tensor(part) for part in split[2:])


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(64, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10)
    )


def train(model: nn.Module, epochs: int = 8) -> float:
    """Train, and return the accuracy on the test set."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1.2e-3)
    for _ in range(epochs):
        for batch in torch.randperm(len(train_x)).split(60):
            optimizer.zero_grad()
            F.cross_entropy(model(train_x[batch]), train_y[batch]).backward()
            optimizer.step()
    with torch.no_grad():
        return (model(test_x).argmax(1) == test_y).float().mean().item()


# %%
# Rounds of pruning
# -----------------
# Every weight gets a mask of ones, and a rewind point remembers the initial values. Each round
# removes half of the survivors, the smallest of the whole network, and rewinds the others.


def rounds(seed: int, count: int = 7) -> list[tuple[float, float, float]]:
    """Return (density, accuracy of the ticket, accuracy of its mask alone) after each round."""
    model = pol.mask_weights(network(seed))
    start = pol.RewindPoint.capture(model)
    results = []
    for _ in range(count):
        control = pol.load_masks(network(seed + 1000), pol.masks(model))
        results.append((pol.density(model), train(model), train(control)))
        report = pol.imp_prune(model, 0.5, rewind=start)
    if seed == 0:
        print(report)
    return results


# %%
# The ticket and its control
# --------------------------
# The report is that of the last round. The bands span the seeds. At an eighth of the weights the
# ticket is within a point of the dense network, and its mask with new values four points below.
# Further down it wins nothing, but the gap to its control grows.

results = torch.tensor([rounds(seed) for seed in range(3)])
density = results[0, :, 0]
for column, label in ((1, "ticket: initial values restored"), (2, "same mask, new values")):
    runs = 100 * results[:, :, column]
    plt.plot(density, runs.mean(0), marker="o", label=label)
    plt.fill_between(density, runs.amin(0), runs.amax(0), alpha=0.2)
plt.xscale("log")
plt.gca().invert_xaxis()
plt.xlabel("density")
plt.ylabel("test accuracy (%)")
plt.legend()
plt.suptitle(
    "scikit-learn's digits, 64-300-100-10, 8 epochs a round; mean and range of 3 seeds",
    fontsize="medium",
)
plt.show()
