"""
Train only what is left
=======================

A mask makes a training step slower: all weights are still multiplied, stored and updated, and the
mask comes on top. :func:`polarity.compact` stores, multiplies and updates the survivors alone.
Everything else stays as it is: masks, rewinding, pruning further, checkpoints. This script prunes a
network round by round in both forms and times their training.
"""

import time

import matplotlib.pyplot as plt
import torch
from torch import nn
from torch.nn import functional as F

import polarity as pol

# %%
# Data and a network
# ------------------
# Ten noisy patterns of the size of MNIST's images. What an image shows costs no time.

torch.set_num_threads(1)
torch.manual_seed(0)
patterns = torch.randn(10, 784)
labels = torch.randint(10, (4096,))
images = patterns[labels] + 4 * torch.randn(4096, 784)
train_x, train_y, test_x, test_y = images[:2048], labels[:2048], images[2048:], labels[2048:]


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10)
    )


def train(model: nn.Module, seed: int) -> float:
    """Train for three epochs, and return the seconds of processor time that it took."""
    optimizer = torch.optim.Adam(model.parameters())
    draw = torch.Generator().manual_seed(seed)
    began = time.process_time()
    for _ in range(3):
        for batch in torch.randperm(len(train_y), generator=draw).split(128):
            optimizer.zero_grad()
            F.cross_entropy(model(train_x[batch]), train_y[batch]).backward()
            optimizer.step()
    return time.process_time() - began


@torch.no_grad()
def accuracy(model: nn.Module) -> float:
    """Return the fraction of the test images that are classified right."""
    return (model(test_x).argmax(1) == test_y).float().mean().item()


# %%
# Rounds of pruning, in both forms
# --------------------------------
# Each round keeps half of the survivors and rewinds them. Then ``compact`` measures every layer,
# forward and backward with a batch of the training, and stores as survivors those that gain by it.
# The others stay masked. The optimizer is built afterwards; one that has state already would be
# handed over as ``optimizer=``.

models = {"masks": pol.mask_weights(network()), "survivors": pol.mask_weights(network())}
start = pol.RewindPoint.capture(models["masks"])
densities, seconds, accuracies = [], {form: [] for form in models}, {form: [] for form in models}
for number in range(7):
    for model in models.values():
        pol.imp_prune(model, density=0.5**number, scope="layer", rewind=start)
    report = pol.compact(models["survivors"], train_x[:128])
    densities.append(pol.density(models["survivors"]))
    for form, model in models.items():
        seconds[form].append(train(model, seed=number))
        accuracies[form].append(accuracy(model))
print(report)

# %%
# The same network, sooner
# ------------------------
# The report is that of the last round. Both forms compute the same numbers up to the order of sums,
# so the accuracies agree; a mask costs the same in every round, survivors cost what is left.

for form in models:
    print(form, *(f"{each:.3f}" for each in accuracies[form]))
    plt.plot(densities, seconds[form], marker="o", label=form)
plt.xscale("log")
plt.gca().invert_xaxis()
plt.ylim(bottom=0)
plt.xlabel("density")
plt.ylabel("seconds of training in a round")
plt.legend()
plt.suptitle(
    "2,048 noisy patterns of 784 numbers, 784-300-100-10, 3 epochs a round;\n"
    "one seed, one thread, one run on the machine that built this page",
    fontsize="medium",
)
plt.show()

# %%
# On MNIST
# --------
# The same at the size of the papers' network: 20 rounds, three seeds, from the committed results of
# ``python -m benchmarks survivors``. :doc:`Its page </results/survivors>` has every round and what
# the processor was.
#
# .. image:: /results/survivors-mnist-fc-b6e254.png
#    :alt: Seconds of training and test accuracy of each round: dense, with masks, survivors alone
