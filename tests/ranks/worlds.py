"""Models that calls on ranks refuse, with their optimizers: unmasked, badly divided, or spoilt."""

import math

import torch
from torch import distributed, nn

import polarity as pol
from tests.models import seeded
from tests.ranks.cases import ready
from tests.ranks.factors import products
from tests.ranks.sharded import divided, train, uneven

World = tuple[nn.Module, torch.optim.Optimizer]


def trained() -> World:
    model, sgd = ready(True)
    train(model, sgd)
    pol.imp_prune(model, 0.3, optimizer=sgd)
    train(model, sgd)
    return model, sgd


def _sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1)


def unmasked() -> World:
    model = divided(uneven(), True)
    return model, _sgd(model)


def not_enforced() -> World:
    model = divided(pol.mask_weights(uneven()), True)
    pol.density(model)
    return model, _sgd(model)


def no_longer_enforced() -> World:
    model = divided(pol.mask_weights(uneven()), True)
    sgd = _sgd(model)
    pol.enforce_in_step(model, sgd).remove()
    return model, sgd


def by_columns() -> World:
    """A model whose weights FSDP2 divides along their second dimension."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import Shard

    model = pol.mask_weights(seeded(nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 8)), 0))
    mesh = init_device_mesh("cpu", (distributed.get_world_size(),))
    fully_shard(model, mesh=mesh, shard_placement_fn=lambda p: Shard(1) if p.dim() > 1 else None)
    return model, _sgd(model)


def replicated() -> World:
    """A model on a mesh of two dimensions (HSDP)."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model = pol.mask_weights(uneven())
    shape = (1, distributed.get_world_size())
    fully_shard(model, mesh=init_device_mesh("cpu", shape, mesh_dim_names=("copies", "shards")))
    return model, _sgd(model)


def in_part() -> World:
    """A model of which one layer alone is sharded."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model = pol.mask_weights(uneven())
    fully_shard(model.into, mesh=init_device_mesh("cpu", (distributed.get_world_size(),)))
    return model, _sgd(model)


def flattened() -> World:
    """A model in the wrapper of FSDP1."""
    from torch.distributed.fsdp import FullyShardedDataParallel

    wrapped = FullyShardedDataParallel(
        pol.mask_weights(uneven()), use_orig_params=True, device_id=torch.device("cpu")
    )
    return wrapped, _sgd(wrapped)


def spoilt() -> World:
    """A model with a NaN among the live entries of rank 1."""
    model, sgd = trained()
    with torch.no_grad():
        piece = model.into.parametrizations.weight.original.to_local()
    if distributed.get_rank() == 1:
        piece.view(-1)[int(piece.view(-1).nonzero()[0])] = math.nan
    return model, sgd


def emptied() -> World:
    """A model of which one layer is pruned whole."""
    model, sgd = trained()
    pol.load_masks(model, {"into.weight": torch.zeros(7, 5)})
    return model, sgd


def spoilt_products() -> World:
    """A model of products with a NaN factor on rank 1."""
    model, sgd = products(True)
    with torch.no_grad():
        piece = model.into.parametrizations.weight.original1.to_local()
    if distributed.get_rank() == 1:
        piece[-1, 0] = math.nan
    return model, sgd
