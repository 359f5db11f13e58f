"""The control of Sign-In: plain weights at the rate at which their products m⊙v would move."""

from __future__ import annotations

import torch
from torch import nn

import polarity as pol

from ...harness.recipe_training import recipe_optimizer
from ...harness.recipes import Recipe


def matched_optimizer(
    recipe: Recipe, model: nn.Module, *, beta: float, decay: float, graphs: bool = False
) -> torch.optim.Optimizer:
    """Make the recipe's optimizer with the rates that m⊙v has at its start.

    To first order a step of rate η moves θ = m⊙v by −η (m² + v²) ∂L/∂θ, and with m² − v² = β the
    factor is √(β² + 4θ²). Each layer's rate is η times the mean of that over its survivors.

    Args:
        recipe: the recipe under Sign-In; its weight decay is that of biases and norms.
        model: with its masks, and plain weights.
        beta: inner scaling β that Sign-In would have.
        decay: of the masked weights, as Sign-In's Frobenius penalty λ/2 · Σ(m⊙v)² has it.
        graphs: its steps may be captured as CUDA graphs.

    Returns:
        An optimizer with a group of all other parameters, then one for each masked weight.
    """
    groups, masked, targets = [], set(), pol.find_targets(model)
    for name, mask in pol.masks(model).items():
        (parameter,) = targets[name].stored
        weights = parameter.detach()[mask.bool()].double()
        factor = (beta**2 + 4 * weights**2).sqrt().mean() if len(weights) else torch.tensor(beta)
        rate = recipe.lr * float(factor)
        groups.append({"params": [parameter], "lr": rate, "weight_decay": decay})
        masked.add(id(parameter))
    others = [p for p in model.parameters() if p.requires_grad and id(p) not in masked]
    return recipe_optimizer(recipe, [{"params": others}, *groups], graphs=graphs)
