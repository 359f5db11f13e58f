"""The Fragility of Polarity: how many signs may be wrong before a sparse network fails to train?

Claim. At each round of iterative magnitude pruning the survivors keep nothing but a sign: their
magnitude becomes one constant per layer, the standard deviation of that layer's initial weights.
The signs come from the initialisation (`mask1`), the trained weights (`mask0`), 70 % trained and
30 % initial (`gradual`), or the trained weights with the mask not enforced (`standard`), and are
then disturbed. On MNIST it hardly matters what is done to them; on CIFAR-10 `mask1` becomes
fragile; on CIFAR-100 the strategies diverge. Randomising the signs of small weights costs little.

Grid. epsilon (flip that fraction of the survivors' signs), delta (draw the signs of that fraction
anew, smallest magnitudes first) and phi (what counts as positive), 10 rounds, prune base 0.8. The
paper prints no grid; its Figure 1 ends at epsilon 0.9, and 0, 0.1, …, 0.9 is what runs by default.

Expected. Best test accuracy over the grid:

| | gradual | mask0 | mask1 | standard |
|---|---|---|---|---|
| MNIST fc, epsilon | 97.4 | 97.5 | 97.4 | 97.8 |
| CIFAR-10 conv2, delta | 65.6 | 65.1 | 64.5 | 65.3 |
| CIFAR-10 conv4, delta | 69.0 | 66.9 | 66.8 | 66.3 |
| CIFAR-10 conv6, delta | 72.2 | 69.6 | 67.2 | 68.1 |
| CIFAR-10 VGG, delta | 79.6 | 79.1 | 72.0 | 79.6 |
| CIFAR-100 VGG, delta | 58.9 | 43.5 | 56.0 | 40.8 |

Where ours differ. The paper names no optimizer, learning rate, batch size, initialisation, number
of seeds, or scope of pruning; `--help` says where each default comes from. A tenth of the training
images is held out, so that a grid point can also be chosen without the test set. `standard` is
tested as it trains, without its mask, so its accuracy is that of a dense network. Flipping 90 % of
the signs is not the strongest disturbance: it is the negated reference with 10 % of its signs
wrong; signs say least about their reference at epsilon 0.5.

With the training settings unknown only the shape can be compared, not the level: our undisturbed
networks end above the published best.
"""

from __future__ import annotations

EXPERIMENT = "fragility"
# Swept where the command line names no values: the range of Figure 1, and for the data sets whose
# printed cells are those of delta a grid of ours.
EPSILON = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
DELTA = (0.0, 0.1, 0.2, 0.5, 0.8, 1.0)
BY_DELTA = ("cifar10", "cifar100")
