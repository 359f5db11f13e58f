"""Ways of FSDP2 to divide and to train: none of them changes what is pruned or trained."""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import polarity as pol
from tests.models import seeded
from tests.ranks.cases import noted
from tests.ranks.sharded import Tensors, Tied, batch, enforced, mesh_of_all, train, whole


class Checkpointed(Tied):
    """The same network, whose first layer is computed again in backward."""

    def forward(self, x: Tensor) -> Tensor:
        hidden = checkpoint(lambda x: torch.tanh(self.into(x)), x, use_reentrant=False)
        return self.out(torch.tanh(self.again(self.norm(self.first(hidden)))))


def _ready(
    sharded: bool, build: type[nn.Module] = Tied, *, layers: bool = True, **options: object
) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Return a masked model, divided with some options, and SGD that enforces the masks."""
    model = pol.mask_weights(seeded(build(), 0).train())
    if sharded:
        from torch.distributed.fsdp import fully_shard

        for each in (model.into, model.out) if layers else ():
            fully_shard(each, mesh=mesh_of_all(), **options)
        fully_shard(model, mesh=mesh_of_all(), **options)
    sgd = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01)
    enforced(model, sgd, sharded)
    return model, sgd


def _rounds(model: nn.Module, sgd: torch.optim.Optimizer) -> Tensors:
    """Train, prune with rewinding, look at the model in evaluation, prune, train."""
    found: Tensors = {}
    start = pol.RewindPoint.capture(model, sgd)
    train(model, sgd)
    noted(found, "rewound", model, pol.imp_prune(model, 0.4, rewind=start, optimizer=sgd))
    train(model, sgd)
    with torch.no_grad():
        found["evaluated"] = model(batch(0)).detach()
    noted(found, "pruned", model, pol.imp_prune(model, 0.3, optimizer=sgd))
    train(model, sgd)
    noted(found, "end", model)
    return found


def without_resharding(sharded: bool) -> Tensors:
    """Weights stay whole between forward and backward (``reshard_after_forward=False``)."""
    return _rounds(*_ready(sharded, reshard_after_forward=False))


def all_at_once(sharded: bool) -> Tensors:
    """``fully_shard`` of the model alone, not layer by layer."""
    return _rounds(*_ready(sharded, layers=False))


def computed_again(sharded: bool) -> Tensors:
    """Activation checkpointing inside a divided model."""
    return _rounds(*_ready(sharded, Checkpointed))


def offloaded(sharded: bool) -> Tensors:
    """Pieces, and the optimizer's state, on the CPU (``CPUOffloadPolicy``)."""
    if not sharded:
        return _rounds(*_ready(False))
    from torch.distributed.fsdp import CPUOffloadPolicy

    return _rounds(*_ready(True, offload_policy=CPUOffloadPolicy(pin_memory=False)))


def accumulated(sharded: bool) -> Tensors:
    """Gradients that ranks add up only at the last of several backwards, and are clipped."""
    found: Tensors = {}
    model, sgd = _ready(sharded)
    pol.imp_prune(model, 0.4, optimizer=sgd)
    for step in range(3):
        sgd.zero_grad()
        for part in range(2):
            if sharded:
                model.set_requires_gradient_sync(part == 1)
            (model(batch(2 * step + part)) - 1).square().mean().backward()
        for name, mask in pol.masks(model).items():
            gradient = dict(model.named_parameters())[_stored(name)].grad
            found[f"{step} gradient of {name}"] = whole(gradient) * whole(mask)
            outside = whole(gradient).masked_fill(whole(mask), 0)
            found[f"{step} outside the mask of {name}"] = outside.count_nonzero()[None]
        norm = nn.utils.clip_grad_norm_(model.parameters(), 0.05)
        # A norm is summed in another order over pieces.
        found[f"{step} norm"] = whole(norm).float()[None].round(decimals=4)
        for parameter in model.parameters():
            parameter.grad.copy_(_coarse(parameter.grad))
        sgd.step()
    noted(found, "end", model, pol.imp_prune(model, 0.3, optimizer=sgd))
    return found


def _stored(name: str) -> str:
    layer, _, tensor = name.rpartition(".")
    return f"{layer}.parametrizations.{tensor}.original"


def _coarse(gradient: Tensor) -> Tensor:
    """Round away the last digits, in which a clipped gradient depends on the order of a sum."""
    return (gradient * 2**12).round() / 2**12


OPTIONS = {
    case.__name__: case
    for case in (without_resharding, all_at_once, computed_again, offloaded, accumulated)
}


def in_bfloat16() -> Tensors:
    """Forward and backward in bfloat16: what is stored outside masks, and the loss's course."""
    from torch.distributed.fsdp import MixedPrecisionPolicy

    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    model, sgd = _ready(True, mp_policy=policy)
    train(model, sgd)
    pol.imp_prune(model, 0.4, optimizer=sgd)
    losses, outside = [], 0
    for step in range(4):
        sgd.zero_grad()
        loss = (model(batch(step)) - 1).square().mean()
        loss.backward()
        for name, mask in pol.masks(model).items():
            stored = dict(model.named_parameters())[_stored(name)]
            for each in (stored, stored.grad):
                outside += int(whole(each)[~whole(mask)].count_nonzero())
        sgd.step()
        losses.append(loss.detach().float())
    return {"losses": torch.stack(losses), "outside": torch.tensor(outside)}
