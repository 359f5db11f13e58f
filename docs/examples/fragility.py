"""
How fragile are signs?
======================

After each round of pruning, every survivor of a layer is set to plus or minus one constant: the
pruned network keeps its mask and one sign per weight, nothing else. The *strategy* says where those
signs come from; :class:`polarity.Epsilon` then flips a random fraction of them. How much accuracy
does noise in the signs cost, and at which density does it begin to matter?

*The Fragility of Polarity*, section 2. Step by step:
:doc:`/tutorials/first_ticket`. ``python -m benchmarks fragility`` runs it in full.
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

images, labels = load_digits(return_X_y=True)
split = train_test_split(images / 16, labels, test_size=0.25, stratify=labels, random_state=0)
train_x, test_x = (torch.tensor(part, dtype=torch.float32) for part in split[:2])
train_y, test_y = (torch.tensor(part) for part in split[2:])


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(64, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10)
    )


def train(model: nn.Module, epochs: int = 5) -> float:
    """Train, and return the accuracy on the test set."""
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(epochs):
        for batch in torch.randperm(len(train_x)).split(100):
            optimizer.zero_grad()
            F.cross_entropy(model(train_x[batch]), train_y[batch]).backward()
            optimizer.step()
    with torch.no_grad():
        return (model(test_x).argmax(1) == test_y).float().mean().item()


# %%
# One round: train, prune, choose the signs
# -----------------------------------------
# ``imp_prune`` without ``rewind=`` leaves the survivors at their trained values. ``reinit_signs``
# then needs both: the trained values are in the model, the initial ones in the rewind point. Some
# survivors do not move from their constant: ``ties="random"`` draws among them.
#
# - ``mask1`` takes the signs of the initial weights,
# - ``mask0`` those of the trained weights,
# - ``gradual`` draws for each weight which of the two.


def rounds(strategy: str, epsilon: float, seed: int, count: int = 4) -> list[tuple[float, float]]:
    """Return (density, accuracy after training from signed constants) for each round."""
    model = pol.mask_weights(network(seed))
    start = pol.RewindPoint.capture(model)
    generator = torch.Generator().manual_seed(seed)
    train(model)
    results = []
    for _ in range(count):
        pol.imp_prune(model, 0.45, scope="layer", ties="random")
        pol.reinit_signs(model, strategy, pol.Epsilon(epsilon), init=start, generator=generator)
        start.restore_weights(model, only="unmasked")  # the biases start again as well
        results.append((pol.density(model), 100 * train(model)))
    return results


# %%
# Density against accuracy
# ------------------------
# Half of the signs flipped (0.5) is the same as signs drawn at random. Down to 17 % of the weights
# a fifth of flipped signs costs up to four points; at 17 % random signs cost ten or more. At 9 %
# nothing trains well in five epochs, and seeds differ too much to rank the strategies.

strategies, noise = ("mask1", "mask0", "gradual"), (0.0, 0.2, 0.5)
figure, axes = plt.subplots(1, 3, figsize=(10, 3.5), sharey=True, layout="constrained")
for axis, strategy in zip(axes, strategies, strict=True):
    for epsilon in noise:
        results = torch.tensor([rounds(strategy, epsilon, seed) for seed in range(3)])
        density, runs = results[0, :, 0], results[:, :, 1]
        axis.plot(density, runs.mean(0), marker="o", label=f"ε = {epsilon}")
        axis.fill_between(density, runs.amin(0), runs.amax(0), alpha=0.2)
    axis.set(title=strategy, xlabel="density", xscale="log")
    axis.set_xticks((0.5, 0.3, 0.2, 0.1), ("0.5", "0.3", "0.2", "0.1"))
    axis.xaxis.set_minor_formatter("")
    axis.invert_xaxis()
axes[0].set_ylabel("test accuracy (%)")
axes[0].legend()
figure.suptitle(
    "scikit-learn's digits, 64-300-100-10, 5 epochs a round; mean and range of 3 seeds",
    fontsize="medium",
)
plt.show()
