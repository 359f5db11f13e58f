"""
Find a winning sign
===================

A signed mask says which weights survive and which sign each has; the magnitudes are forgotten.
Can it start from *any* initialisation? AWS finds one that can: it prunes with learning-rate
rewinding (LRR) while the normalisation parameters are drawn towards their initial values, so that
the signs have to work without them. The error barrier between the network in which the signs were
found and a fresh one trained from them says whether both ended in the same basin.

*Find a Winning Sign*, section 3. ``python -m benchmarks winning_sign`` runs it in full. To send a
ticket to someone else, in a file: :doc:`/tutorials/share_a_ticket`.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional as F

import polarity as pol

# %%
# The data, a network with normalisation and a training loop
# ----------------------------------------------------------

images, labels = load_digits(return_X_y=True)
split = train_test_split(images / 16, labels, test_size=0.25, stratify=labels, random_state=0)
train_x, test_x = (torch.tensor(part, dtype=torch.float32) for part in split[:2])
train_y, test_y = (torch.tensor(part) for part in split[2:])


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        *(nn.Linear(64, 200), nn.BatchNorm1d(200), nn.ReLU()),
        *(nn.Linear(200, 100), nn.BatchNorm1d(100), nn.ReLU()),
        nn.Linear(100, 10),
    )


def train(model: nn.Module, epochs: int = 5) -> nn.Module:
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    for _ in range(epochs):
        for batch in torch.randperm(len(train_x)).split(50):
            optimizer.zero_grad()
            F.cross_entropy(model(train_x[batch]), train_y[batch]).backward()
            optimizer.step()
    return model.eval()


@torch.no_grad()
def error(model: nn.Module) -> float:
    return (model(test_x).argmax(1) != test_y).float().mean().item()


# %%
# AWS: learning-rate rewinding under interpolated norms
# -----------------------------------------------------
# The classifier, layer 6, is left out of pruning, as in the paper's code. The loop makes a new
# optimizer each round, so there is no state of one to rewind.


def find(seed: int) -> nn.Module:
    """Return a network at 1.7 % of its weights outside the classifier."""
    model = pol.mask_weights(network(seed), exclude="6")
    pol.interpolate_norms(model)
    start = pol.RewindPoint.capture(model)
    train(model)
    for _ in range(8):
        pol.lrr_step(model, 0.4, rewind=start, exclude="6")
        train(model)
    return model


# %%
# Another initialisation, with and without the signs
# --------------------------------------------------
# ``apply`` gives the fresh network the mask and the signs and leaves its magnitudes alone. The
# control has the same mask and its own signs. Both are trained, and compared with the network in
# which the ticket was found along the straight path between the two. Running statistics are
# computed again at every point of it; they do not interpolate.

batches = list(train_x.split(200))
paths = {"mask and signs": [], "mask alone": []}
for seed in range(3):
    found, other = find(seed), seed + 100
    ticket = pol.signed_mask(found)
    signed = train(ticket.apply(network(other)), epochs=12)
    masked = train(pol.load_masks(network(other), ticket.masks), epochs=12)
    for fresh, curves in zip((signed, masked), paths.values(), strict=True):
        curves.append(pol.error_barrier(network(0), found, fresh, error, batches=batches))
print(ticket)

# %%
# The path between the two networks
# ---------------------------------
# All networks end at an error of about 3 %: on digits the mask alone trains as well as with its
# signs. The path tells them apart. With the signs there is next to no barrier, so the fresh network
# ends in the basin in which they were found; without them there is one of 20 points. That signs
# also win accuracy is the paper's claim for larger networks, and is not tested here.

for label, curves in paths.items():
    print(f"{label:14} barriers", *(f"{path.barrier:.3f}" for path in curves))
    runs = 100 * torch.tensor([path.curve for path in curves])
    plt.plot(curves[0].alphas, runs.mean(0), marker="o", label=label)
    plt.fill_between(curves[0].alphas, runs.amin(0), runs.amax(0), alpha=0.2)
plt.xlabel("from the network where the signs were found (0) to the fresh one, trained (1)")
plt.ylabel("test error (%)")
plt.legend()
plt.suptitle(
    "scikit-learn's digits, 64-200-100-10 with batch normalisation, 5 epochs a round,\n"
    "12 for the fresh network; mean and range of 3 pairs of seeds",
    fontsize="medium",
)
plt.show()
