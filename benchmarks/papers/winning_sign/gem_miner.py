"""Gem-Miner (Sreenivasan et al. 2022, "Rare Gems"): a mask trained on frozen initial weights.

Every weight w has a score p in [0, 1] and takes part as w · round(p). Scores are trained by SGD,
rounding counted as the identity in the backward pass, with an L2 penalty on p, and are put back
into [0, 1] after every step. From time to time the smallest scores are frozen at 0, so that the
unfrozen fraction falls exponentially to the target density. What is found is a mask for this one
initialisation; its weights are then trained as usual.

Decided here, because the AWS paper does not say: the freezings follow
the pruning rounds (a factor 0.8 each), so that Gem-Miner spends the epochs of LRR and its prefixes
serve every density; scores start uniform in [0, 1]; norms and what is not pruned (the classifier)
stay as initialised while scores train. The mask that is handed on is that of the unfrozen
weights, whose density is exact; how many of them had scores that round to 0 is recorded.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import nn
from torch.nn.utils import parametrize

import polarity as pol

from .loops import Plan

# Trains the scores of a model for a number of epochs, given their optimizer and a penalty.
TrainScores = Callable[
    [nn.Module, int, torch.optim.Optimizer, Callable[[nn.Module], torch.Tensor]], object
]


class Scored(nn.Module):
    """Parametrization w -> w · round(p) · unfrozen, differentiable in p as if it were w · p.

    Args:
        weight: the weight that is scored; it is not trained.
        generator: CPU generator of the initial scores.
    """

    scores: torch.Tensor
    unfrozen: torch.Tensor

    def __init__(self, weight: torch.Tensor, generator: torch.Generator) -> None:
        super().__init__()
        start = torch.rand(weight.shape, generator=generator)
        self.scores = nn.Parameter(start.to(weight.device, weight.dtype))
        self.register_buffer("unfrozen", torch.ones_like(weight, dtype=torch.bool))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the weight where its score rounds to 1 and is not frozen, else 0."""
        rounded = (self.scores >= 0.5).to(weight.dtype)
        straight_through = self.scores + (rounded - self.scores).detach()
        return weight * straight_through * self.unfrozen


def gem_miner(
    model: nn.Module,
    train_scores: TrainScores,
    plan: Plan,
    *,
    lr: float = 0.1,
    momentum: float = 0.9,
    penalty: float = 0.0,
    generator: torch.Generator,
) -> Iterator[tuple[int, nn.Module, dict[str, torch.Tensor], float]]:
    """Mine masks of falling density; the weights of the model never move.

    Args:
        model: masked with all ones on what is to be mined. It is copied and not changed.
        train_scores: trains the scores of the copy in place.
        plan: how many freezings there are, and how long scores train before and after each.
        lr: of SGD on the scores.
        momentum: of SGD on the scores; kept from freezing to freezing.
        penalty: λ of the penalty λ · Σ p² over unfrozen scores.
        generator: CPU generator of the initial scores.

    Yields:
        Round, the scored network as it computes, masks of the unfrozen weights under plain names,
        and the fraction of these weights whose score rounds to 0. After round k their density is
        exactly that of k prunings.
    """
    names = tuple(pol.masks(model))
    copied = pol.merge(copy.deepcopy(model))
    for parameter in copied.parameters():
        parameter.requires_grad_(False)
    mined = {name: _score(copied, name, generator) for name in names}
    optimizer = torch.optim.SGD([each.scores for each in mined.values()], lr, momentum, fused=True)
    optimizer.register_step_post_hook(lambda *_: _project(mined.values()))

    def regulariser(_: nn.Module) -> torch.Tensor:
        squares = [(each.scores * each.unfrozen).square().sum() for each in mined.values()]
        return penalty * torch.stack(squares).sum()

    total = sum(each.unfrozen.numel() for each in mined.values())
    for k in range(plan.rounds + 1):
        if k:
            freeze_smallest(mined.values(), round(plan.density(k) * total))
        epochs = plan.round_epochs if k else plan.warmup_epochs
        train_scores(copied, epochs, optimizer, regulariser)
        masks = {name: each.unfrozen.clone() for name, each in mined.items()}
        yield k, copied, masks, _rounded_away(mined.values())


@torch.no_grad()
def freeze_smallest(mined: Iterable[Scored], unfrozen: int) -> None:
    """Freeze the smallest scores of all layers together until exactly `unfrozen` are not."""
    each = list(mined)
    # Frozen scores rank behind every unfrozen one, which lies in [0, 1].
    ranked = torch.cat(
        [torch.where(s.unfrozen, s.scores, torch.full_like(s.scores, -1)).flatten() for s in each]
    )
    keep = torch.zeros_like(ranked, dtype=torch.bool)
    keep[torch.argsort(ranked, descending=True, stable=True)[:unfrozen]] = True
    for scored, part in zip(each, keep.split([s.scores.numel() for s in each]), strict=True):
        scored.unfrozen.copy_(part.view_as(scored.unfrozen))
        scored.scores.mul_(scored.unfrozen)


@torch.no_grad()
def _project(mined: Iterable[Scored]) -> None:
    for each in mined:
        each.scores.clamp_(0, 1).mul_(each.unfrozen)


@torch.no_grad()
def _rounded_away(mined: Iterable[Scored]) -> float:
    counts = [(each.unfrozen & (each.scores < 0.5), each.unfrozen) for each in mined]
    return sum(int(away.sum()) for away, _ in counts) / sum(
        int(unfrozen.sum()) for _, unfrozen in counts
    )


def _score(model: nn.Module, name: str, generator: torch.Generator) -> Scored:
    path, _, tensor = name.rpartition(".")
    module = model.get_submodule(path)
    scored = Scored(getattr(module, tensor), generator)
    parametrize.register_parametrization(module, tensor, scored)
    return scored
