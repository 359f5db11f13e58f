"""
Find a winning sign
===================

A signed mask says which weights survive and which sign each has; the magnitudes are forgotten.
Can it start from *any* initialisation? AWS finds one that can: it prunes with learning-rate
rewinding (LRR) while the normalisation parameters are drawn towards their initial values, so that
the signs have to work without them. The error barrier between the network in which the signs were
found and a fresh one trained from them says whether both ended in the same basin.

*Find a Winning Sign*, section 3. ``python -m benchmarks winning_sign`` runs it in full.
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
# The classifier, layer 6, is left out of pruning, as in the paper's code.

found = network(seed=0)
pol.mask_weights(found, exclude="6")
pol.interpolate_norms(found)
start = pol.RewindPoint.capture(found)
train(found)
for _ in range(10):
    # This loop makes a new optimizer each round.
    pol.lrr_step(found, 0.3, rewind=start, exclude="6")
    train(found)
ticket = pol.signed_mask(found)
print(ticket)

# %%
# A fresh network, with and without the signs
# -------------------------------------------
# ``apply`` gives the fresh network the mask and the signs and leaves its magnitudes alone. The
# control has the same mask and its own signs.

signed = train(ticket.apply(network(seed=1)), epochs=20)
masked = train(pol.load_masks(network(seed=1), ticket.masks), epochs=20)

# %%
# The straight path from the network where the signs were found
# -------------------------------------------------------------
# Running statistics are computed again at every point; they do not interpolate.

batches = list(train_x.split(200))
for other, label in ((signed, "mask and signs"), (masked, "mask alone")):
    path = pol.error_barrier(network(seed=0), found, other, error, batches=batches)
    plt.plot(path.alphas, [100 * each for each in path.curve], marker="o", label=label)
    print(f"{label}: barrier {path.barrier:.3f}")
plt.xlabel("from the network where the signs were found (0) to the fresh one, trained (1)")
plt.ylabel("test error (%)")
plt.legend()
plt.show()
