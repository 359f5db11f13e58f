"""Beyond the Zero-Crossing: is zero the right border between positive and negative weights?

Claim. The experiment is that of "The Fragility of Polarity", but the survivors' signs are undamaged
and only their definition moves: a survivor becomes +σ where its reference weight is at least
phi_center and −σ elsewhere. Accuracy is said to peak at a small phi_center that is not zero, of no
importance on MNIST and of great importance on CIFAR-10 and CIFAR-100.

Grid. phi_center in 0, ±5e-5, ±1e-4, ±5e-4, ±1e-3, ±1e-1; 10 rounds, prune base 0.8. All of it runs
by default.

Expected. Best test accuracy over the grid, and the phi_center that gave it:

| | gradual | mask0 | mask1 | standard |
|---|---|---|---|---|
| MNIST fc | 97.75 (1e-3) | 97.8 (0) | 97.5 (-5e-5) | 97.8 (5e-4) |
| CIFAR-10 conv2 | 63.2 (5e-4) | 63.4 (-5e-4) | 61.6 (5e-4) | 62.7 (-5e-5) |
| CIFAR-10 conv4 | 65.0 (-1e-3) | 65.2 (1e-4) | 62.7 (1e-4) | 62.9 (1e-3) |
| CIFAR-10 conv6 | 71.9 (5e-4) | 71.2 (5e-5) | 67.9 (1e-3) | 67.4 (1e-3) |
| CIFAR-10 VGG | 81.3 (-1e-4) | 84.6 (5e-5) | 71.0 (-1e-3) | 80.2 (1e-3) |
| CIFAR-100 VGG | 64.4 (5e-5) | 64.2 (5e-4) | 64.2 (-5e-5) | 64.0 (1e-3) |

Where ours differ. What holds for the first paper holds here (`--help` names the source of every
default). This paper gives 80 epochs per round on CIFAR-10 where the first gives 10. It calls
phi_center a symmetric dead zone, but its formula moves one border: only weights between 0 and
phi_center change their sign, and that is what runs. Where most survivors are larger than 1e-3, all
grid points but ±1e-1 are nearly the same experiment, and the best of eleven nearly equal runs is
rarely the one in the middle; compare the differences with the spread over seeds.
"""

from __future__ import annotations

from ...pages.published import setup

EXPERIMENT = "zero_crossing"
# Swept where the command line names no values: the paper's phi_center.
PHI: tuple[float, ...] = tuple(setup(EXPERIMENT)["phi_center"])
# All of the grid but its ends, ±0.1, where most signs become negative and networks may not train.
SMALL_PHI = 1e-3
