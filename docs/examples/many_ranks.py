"""
Prune a model that ranks share
==============================

Iterative magnitude pruning (IMP) of a network that ``fully_shard`` (FSDP2) has divided: no rank
holds a whole weight between steps, and none a whole mask. The ranks choose the survivors that one
process would choose, bit for bit, by exchanging counts. Start it with torchrun::

    torchrun --nproc-per-node 2 many_ranks.py

Started by itself it is the only rank. What is exchanged and what is refused:
:doc:`/many_ranks`.
"""

import os

import torch
from sklearn.datasets import load_digits
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn import functional as F

import polarity as pol

# %%
# The ranks
# ---------
# torchrun tells each process its rank. On GPUs the backend is ``nccl`` and the mesh ``cuda``.

alone = "RANK" not in os.environ
distributed.init_process_group(
    "gloo",
    store=distributed.HashStore() if alone else None,
    rank=0 if alone else -1,
    world_size=1 if alone else -1,
)
rank, world = distributed.get_rank(), distributed.get_world_size()
mesh = init_device_mesh("cpu", (world,))

# %%
# The order of calls
# ------------------
# Masks come before ``fully_shard``, the optimizer after it, and then enforcement in its step.

torch.manual_seed(0)  # every rank builds the same model
model = nn.Sequential(
    nn.Linear(64, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10)
)
pol.mask_weights(model)
for layer in model:
    if isinstance(layer, nn.Linear):
        fully_shard(layer, mesh=mesh)
fully_shard(model, mesh=mesh)
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
pol.enforce_in_step(model, optimizer)

# %%
# Training
# --------
# Each rank has its part of every batch.

images, labels = load_digits(return_X_y=True)
x, y = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)


def train(epochs: int = 4) -> None:
    draw = torch.Generator().manual_seed(1)
    for _ in range(epochs):
        for batch in torch.randperm(len(x), generator=draw)[:1792].split(128):
            mine = batch.chunk(world)[rank]
            optimizer.zero_grad()
            F.cross_entropy(model(x[mine]), y[mine]).backward()
            optimizer.step()


# %%
# Rounds of pruning
# -----------------
# All ranks make every call of polarity. The rewind point holds each rank's rows.

start = pol.RewindPoint.capture(model, optimizer)
densities = [pol.density(model)]
for _ in range(3):
    train()
    pol.imp_prune(model, 0.5, rewind=start, optimizer=optimizer)
    densities.append(pol.density(model))
train()

with torch.no_grad():
    accuracy = (model(x).argmax(1) == y).float().mean().item()
if rank == 0:
    print("densities:", " ".join(f"{density:.4f}" for density in densities))
    print(f"training accuracy at the last density: {accuracy:.2f}")
distributed.destroy_process_group()
