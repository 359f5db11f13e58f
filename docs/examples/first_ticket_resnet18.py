"""
A first ticket on torchvision's ResNet-18
=========================================

Two rounds of iterative magnitude pruning on a network that you did not write: torchvision's
ResNet-18, on 1,000 images of 32 by 32 pixels. Nothing in it has to be changed for polarity.

What the words mean, step by step: :doc:`/tutorials/first_ticket`. What the initial values of a
ticket are worth, with the control experiment: :doc:`lottery_ticket`.
"""

import matplotlib.pyplot as plt
import torch
import torchvision
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

import polarity as pol

# %%
# A thousand images, a ResNet-18, a training loop
# -----------------------------------------------
# scikit-learn's digits, made as large and as colourful as the network expects them. Any other
# tensors of this shape do as well.

images, labels = load_digits(return_X_y=True)
x = torch.tensor((images - images.mean()) / images.std(), dtype=torch.float32).view(-1, 1, 8, 8)
x, y = F.interpolate(x, size=(32, 32), mode="bilinear").repeat(1, 3, 1, 1), torch.tensor(labels)
train_x, train_y, test_x, test_y = x[:1000], y[:1000], x[1000:1300], y[1000:1300]
epochs, batch_size = 4, 50


def train(model: nn.Module) -> list[float]:
    """Train, and return the test accuracy after each epoch in percent."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    steps = epochs * len(train_x) // batch_size
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.05, total_steps=steps)
    accuracies = []
    for _ in range(epochs):
        model.train()
        for batch in torch.randperm(len(train_x)).split(batch_size):
            optimizer.zero_grad()
            F.cross_entropy(model(train_x[batch]), train_y[batch]).backward()
            optimizer.step()
            scheduler.step()
        model.eval()
        with torch.no_grad():
            accuracies.append(100 * (model(test_x).argmax(1) == test_y).float().mean().item())
    return accuracies


# %%
# Two rounds
# ----------
# Masks, and a copy of everything that the network holds now. Then train, prune, rewind: each round
# removes three quarters of the survivors, the smallest of the whole network, and gives the others
# their initial values back. What is left after the second round, one weight in sixteen, is trained
# once more.

torch.manual_seed(0)
model = torchvision.models.resnet18(num_classes=10)
pol.mask_weights(model)
start = pol.RewindPoint.capture(model)

curves = {"all weights": train(model)}
for _ in range(2):
    report = pol.imp_prune(model, 0.75, rewind=start)
    curves[f"{100 * pol.density(model):.3g} % of the weights"] = train(model)
print(report)

# %%
# What was pruned, and what it cost
# ---------------------------------
# A sixteenth of the weights ends where all of them do, and learns sooner: the mask was chosen by
# networks that knew these digits. The large convolutions of the last stage keep 2 %, the small ones
# of the shortcuts half or more. This is one seed, on images that are easy, and there is no control:
# :doc:`lottery_ticket` compares with new values under the same mask.

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.5), layout="constrained")
for label, accuracies in curves.items():
    left.plot(range(1, epochs + 1), accuracies, marker="o", label=label)
left.set(xlabel="epoch", ylabel="test accuracy (%)", xticks=range(1, epochs + 1))
left.legend()
right.plot([layer.density for layer in report.layers], range(len(report.layers)), "o", color="C2")
right.set(xlabel="density after two rounds", xlim=(0, 1))
names = [layer.name.removesuffix(".weight") for layer in report.layers]
right.set_yticks(range(len(names)), names, fontsize="small")
right.invert_yaxis()
figure.suptitle(
    "1,000 of scikit-learn's digits at 32 by 32, torchvision's ResNet-18, 4 epochs; one seed",
    fontsize="medium",
)
plt.show()

# %%
# ``pol.merge(model)`` makes a plain ResNet-18 of it, with its zeros, to save or to publish.
