"""SET and RigL as google-research/rigl computes them, written down without polarity.

Transcribed from ``rigl/sparse_optimizers.py`` in its order of operations:
``SparseSETOptimizer.is_mask_update_iter``, ``.get_drop_fraction``, ``.generic_mask_update``,
``._get_update_op``, ``.reset_momentum`` and ``.apply_gradients``, and those that
``SparseRigLOptimizer`` overrides. ``global_step`` is the number of the step as polarity counts,
from 1, and the noise of 1e-5 on magnitudes is left out.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear

Tensors = dict[str, Tensor]
Record = tuple[Tensors, Tensors]  # masks and effective weights


@dataclass
class Reference:
    """A network of two linear layers under SparseSETOptimizer or SparseRigLOptimizer."""

    weights: Tensors
    masks: Tensors
    biases: Tensors
    frequency: int
    begin: int
    end: int
    drop_fraction: float
    anneal: str
    # Given name, step and mask the scores that grow; None for the gradient (RigL).
    score_grow: Callable[[str, int, Tensor], Tensor] | None = None
    lr: float = 0.1
    momentum: float = 0.9
    accumulators: Tensors = field(default_factory=dict)
    last_update_step: int = 0

    def __post_init__(self) -> None:
        self.last_update_step = -self.frequency

    def is_mask_update_iter(self, global_step: int) -> bool:
        within = global_step >= self.begin and (global_step <= self.end or self.end < 0)
        return within and self.last_update_step + self.frequency <= global_step

    def get_drop_fraction(self, global_step: int) -> Tensor:
        initial = torch.tensor(self.drop_fraction)
        if self.anneal == "constant":
            return initial
        decay_steps = self.end - self.begin
        completed = min(global_step, decay_steps) / decay_steps
        return initial * torch.tensor(0.5 * (1.0 + math.cos(math.pi * completed)))

    def get_update_op(
        self, name: str, score_drop: Tensor, score_grow: Tensor, drop_fraction: Tensor
    ) -> None:
        mask, weights = self.masks[name], self.weights[name]
        n_total = score_drop.numel()
        n_ones = mask.sum().int()
        n_prune = int((n_ones.float() * drop_fraction).int())
        n_keep = int(n_ones) - n_prune
        sorted_indices = score_drop.view(-1).argsort(descending=True, stable=True)
        mask1 = torch.zeros(n_total)
        mask1[sorted_indices] = (torch.arange(n_total) < n_keep).float()
        flat_grow = score_grow.reshape(-1)
        lifted = torch.where(mask1 == 1, flat_grow.min() - 1, flat_grow)
        sorted_indices = lifted.argsort(descending=True, stable=True)
        mask2 = torch.zeros(n_total)
        mask2[sorted_indices] = (torch.arange(n_total) < n_prune).float()
        assert float((mask1 * mask2).sum()) == 0
        new_connections = (mask2.view(mask.shape) == 1) & (mask == 0)
        self.weights[name] = torch.where(new_connections, 0.0, weights)
        if name in self.accumulators:  # reset_momentum
            slot = self.accumulators[name]
            self.accumulators[name] = torch.where(new_connections, 0.0, slot)
        self.masks[name] = (mask1 + mask2).view(mask.shape)

    def mask_update(self, global_step: int, gradients: Tensors) -> None:
        for name, mask in self.masks.items():
            score_drop = (mask * self.weights[name]).abs()
            if self.score_grow is None:
                score_grow = gradients[name].abs()
            else:
                score_grow = self.score_grow(name, global_step, mask)
            self.get_update_op(name, score_drop, score_grow, self.get_drop_fraction(global_step))
        self.last_update_step = global_step

    def apply(self, gradients: Tensors) -> None:
        """MomentumOptimizer: a masked variable's gradient is zero outside its mask."""
        for held in (self.weights, self.biases):
            for name, value in held.items():
                gradient = gradients[name] * self.masks.get(name, torch.ones(()))
                slot = self.accumulators.get(name, torch.zeros_like(value))
                self.accumulators[name] = slot * self.momentum + gradient
                held[name] = value - self.lr * self.accumulators[name]

    def gradients(self, x: Tensor, y: Tensor) -> Tensors:
        """Return the gradients by the masked weights (the dense ones) and by the biases."""
        used = {n: (w * self.masks[n]).requires_grad_() for n, w in self.weights.items()}
        used |= {n: b.clone().requires_grad_() for n, b in self.biases.items()}
        hidden = linear(x, used["0.weight"], used["0.bias"]).relu()
        loss = cross_entropy(linear(hidden, used["2.weight"], used["2.bias"]), y)
        return dict(zip(used, torch.autograd.grad(loss, list(used.values())), strict=True))

    def train(self, data: Iterator[tuple[Tensor, Tensor]], steps: int) -> Iterator[Record]:
        """Yield masks and effective weights after each step."""
        for step, (x, y) in zip(range(1, steps + 1), data, strict=False):
            gradients = self.gradients(x, y)
            updates = self.is_mask_update_iter(step)
            if self.score_grow is not None or not updates:
                self.apply(gradients)
            if updates:
                self.mask_update(step, gradients)
            yield (
                {name: mask.bool() for name, mask in self.masks.items()},
                {name: weight * self.masks[name] for name, weight in self.weights.items()},
            )
