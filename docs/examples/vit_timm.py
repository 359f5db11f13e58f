"""
A sparse vision transformer with timm
=====================================

A transformer is pruned like any other network. What differs is what it consists of: packed
projections of attention, MLPs, and tables of embeddings, which have no ``weight`` and stay dense.
This page prunes a small ViT of `timm <https://huggingface.co/docs/timm>`_ while it trains, along
the cubic curve of Zhu & Gupta (2017), and looks at which layers are left.

*Gradual pruning* is one of several schedules: :doc:`dense_to_sparse`. Averages
of weights under masks, such as timm's ``ModelEmaV3``, are on the page
:doc:`/in_your_own_loop`.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from timm.models.vision_transformer import VisionTransformer
from timm.optim import create_optimizer_v2
from torch.nn import functional as F

import polarity as pol

# %%
# The data and a transformer
# --------------------------
# Digits of 8 by 8 pixels are four patches of 4 by 4. ``find_targets`` lists what a pruning call
# would take. The patch embedding and the classifier are a twentieth of it, and often left dense.

images, labels = load_digits(return_X_y=True)
images = (images - images.mean()) / images.std()
split = train_test_split(images, labels, test_size=0.25, stratify=labels, random_state=0)
train_x, test_x = (torch.tensor(part, dtype=torch.float32).view(-1, 1, 8, 8) for part in split[:2])
train_y, test_y = (torch.tensor(part) for part in split[2:])
epochs, ends = 8, ("patch_embed.*", "head.*")
steps = epochs * len(train_x.split(50))


def vit(seed: int) -> VisionTransformer:
    torch.manual_seed(seed)
    size = {"img_size": 8, "patch_size": 4, "in_chans": 1, "num_classes": 10}
    return VisionTransformer(**size, embed_dim=48, depth=2, num_heads=4, mlp_ratio=2)


print(pol.find_targets(vit(0), exclude=ends))

# %%
# Prune while it trains
# ---------------------
# Masks first, then timm's optimizer, which gives biases and norms no weight decay. The schedule
# prunes every fifth step between an eighth and five eighths of the training. It ranks all weights
# together (``global``), or prunes every layer to the same density (``layer``).


def train(scope: str, seed: int) -> tuple[list[float], list[float]]:
    """Return the test accuracy after each epoch, and the density of every layer at the end."""
    model = pol.mask_weights(vit(seed), exclude=ends)
    optimizer = create_optimizer_v2(model, "adamw", lr=5e-3, weight_decay=0.05)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=steps)
    if scope != "dense":
        pruning = pol.dense_to_sparse.GradualMagnitude(
            model,
            optimizer,
            density=0.02,
            begin=steps // 8,
            end=5 * steps // 8,
            every=5,
            scope=scope,
        )
    accuracies = []
    for _ in range(epochs):
        model.train()
        for batch in torch.randperm(len(train_x)).split(50):
            optimizer.zero_grad()
            F.cross_entropy(model(train_x[batch]), train_y[batch]).backward()
            optimizer.step()
            if scope != "dense":
                pruning.step()
            scheduler.step()
        model.eval()
        with torch.no_grad():
            accuracies.append(100 * (model(test_x).argmax(1) == test_y).float().mean().item())
    return accuracies, [mask.float().mean().item() for mask in pol.masks(model).values()]


# %%
# What is left, and where
# -----------------------
# A global cut leaves attention 2 to 5 % of its weights and the MLPs about 0.1 %. It ends 1 to 4
# points above equal densities, and a few below the dense network. Accuracy drops while most is
# pruned, and comes back. Which layers have the large weights depends on initialisation, optimizer
# and data: a larger ViT may be cut elsewhere. ``print(pruning.report)`` has the counts of a run.

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
layers = [name.removesuffix(".weight") for name in pol.find_targets(vit(0), exclude=ends)]
for scope in ("dense", "global", "layer"):
    curves, densities = zip(*(train(scope, seed) for seed in range(3)), strict=True)
    runs, shares = torch.tensor(curves), 100 * torch.tensor(densities)
    left.plot(range(1, epochs + 1), runs.mean(0), marker="o", label=scope)
    left.fill_between(range(1, epochs + 1), runs.amin(0), runs.amax(0), alpha=0.2)
    if scope != "dense":
        spread = (shares.mean(0) - shares.amin(0), shares.amax(0) - shares.mean(0))
        color = left.lines[-1].get_color()
        right.errorbar(shares.mean(0), layers, xerr=spread, fmt="o", capsize=3, color=color)
left.set(xlabel="epoch", ylabel="test accuracy (%)")
left.legend()
right.set(xlabel="weights left (%)", xscale="log")
right.invert_yaxis()
figure.suptitle(
    "scikit-learn's digits, ViT of 2 blocks and width 48, 2 % of the blocks' weights, 8 epochs; "
    "mean and range of 3 seeds",
    fontsize="medium",
)
plt.show()
