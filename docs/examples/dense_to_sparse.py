r"""
Sparse from dense, sparse from scratch
======================================

Two ways lead to a network with a twentieth of its weights. *Sparse from dense*: AC/DC trains all
weights and only the largest twentieth in turn, and each sparse phase chooses its mask anew. *Sparse
from scratch*: training begins under a random mask, and RigL moves it: it drops small weights and
grows others where the gradient is large. Sign-In moves the signs: it trains each weight as a
product :math:`m \odot v`, which crosses zero more easily, and goes with both.

*Sign-In to the Lottery*, section 5. ``python -m benchmarks dense-to-sparse`` runs it in full.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torchvision.ops import MLP

import polarity as pol
from polarity import dense_to_sparse as d2s

# %%
# The data
# --------
# The last quarter of the digits is by other writers than the rest, and tests.

images, labels = map(torch.from_numpy, load_digits(return_X_y=True))
(train_x, test_x), (train_y, test_y) = (images.float() / 16).split(1347), labels.split(1347)
epochs, steps, density = 20, 20 * 23, 0.05

# %%
# One loop for all
# ----------------
# The order is: Sign-In, optimizer, schedule. A schedule adds one line to a training loop, its
# ``step()`` after that of the optimizer. RigL begins with a random mask, whose layers have the
# densities of ERK, and moves it every 10 steps of the first three quarters. AC/DC begins dense, and
# changes phases as published for CIFAR-10. :class:`polarity.SignTracker` counts the flips of the
# weights that survive to the end.


def train(method: str, seed: int) -> tuple[float, list[float], tuple[float, ...]]:
    """Return accuracy, density of every forward pass, flips per survivor up to each epoch."""
    torch.manual_seed(seed)
    plain = MLP(64, [300, 100, 10])
    net = pol.sign_in(plain) if "Sign-In" in method else plain
    sgd = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    if "RigL" in method:
        schedule = d2s.RigL(net, sgd, every=10, end=345, densities=pol.densities.erk(net, density))
    else:
        schedule = d2s.ACDC(net, sgd, density=density, switches=d2s.acdc_switches("cifar10", steps))
    tracker, densities = pol.SignTracker(net), []
    for _ in range(epochs):
        for batch in torch.randperm(len(train_x)).split(60):
            sgd.zero_grad()
            torch.nn.functional.cross_entropy(net(train_x[batch]), train_y[batch]).backward()
            densities.append(schedule.density())
            sgd.step()
            schedule.step()
        tracker.step()
    accuracy = (net.eval()(test_x).argmax(1) == test_y).float().mean().item()
    return accuracy, densities, tracker.cumulative().per_survivor


# %%
# Densities and flips
# -------------------
# Flips have a line for each seed. Under RigL it is mostly weights that grew that flip, because they
# begin at zero. Under AC/DC most flip in the second dense phase, to which pruned ones return at 0.

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.5), layout="constrained")
for place, method in enumerate(("RigL", "RigL + Sign-In", "AC/DC", "AC/DC + Sign-In")):
    accuracies, densities, flips = zip(*(train(method, seed) for seed in range(3)), strict=True)
    print(f"{method:16} test accuracy", *(f"{each:.3f}" for each in accuracies))
    left.plot(densities[0], f"C{place}", lw=6 - 1.5 * place, label=method)
    right.plot(range(1, epochs + 1), torch.tensor(flips).T, f"C{place}", lw=1)
left.set(xlabel="step", ylabel="density of the forward pass")
right.set(xlabel="epoch", ylabel="sign flips per survivor, so far", xticks=range(0, 21, 5))
figure.legend(loc="outside right center")
figure.suptitle("scikit-learn's digits, 64-300-100-10 at 5 %, 20 epochs, 3 seeds")
plt.show()
