"""Two processes under DistributedDataParallel: leaving masks out changes no bit."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, nn, optim
from torch.multiprocessing import spawn
from torch.nn.parallel import DistributedDataParallel

import polarity as pol
from polarity.parametrizations import keep_where, masked
from tests.models import random_masks, seeded

WORLD = 2


def one_rank(rank: int, folder: str) -> None:
    masked.SMALL = keep_where.SMALL = 0  # no weight is small here
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=WORLD
    )
    draw = torch.Generator().manual_seed(rank)
    batches = [torch.randn(6, 8, generator=draw) for _ in range(12)]
    results: dict[str, dict[str, Tensor]] = {}
    for bucket_view in (False, True):
        for shortcut in (True, False):
            model = seeded(nn.Sequential(nn.Linear(8, 9), nn.ReLU(), nn.Linear(9, 3))).train()
            pol.mask_shortcut(pol.mask_weights(model, masks=random_masks(model)), shortcut)
            parallel = DistributedDataParallel(model, gradient_as_bucket_view=bucket_view)
            sgd = optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=0.01)
            for step, batch in enumerate(batches):
                sgd.zero_grad(set_to_none=step % 2 == 0)
                parallel(batch).square().mean().backward()
                for mask, leaf in leaves(model):
                    assert not leaf.grad[~mask].any(), "an unmasked gradient was averaged"
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                sgd.step()
            short = type(model[0].weight.grad_fn).__name__ == "ViewBackward0"
            assert short == shortcut
            results[f"{bucket_view} {shortcut}"] = model.state_dict()
    torch.save(results, f"{folder}/rank{rank}.pt")
    distributed.destroy_process_group()


def leaves(model: nn.Module) -> list[tuple[Tensor, Tensor]]:
    chains = [model[i].parametrizations.weight for i in (0, 2)]
    return [(chain[0].mask, chain.original) for chain in chains]


def test_both_ways_of_masking_train_alike_on_two_ranks(tmp_path: Path) -> None:
    if not distributed.is_available():
        pytest.skip("this PyTorch has no torch.distributed")
    spawn(one_rank, args=(str(tmp_path),), nprocs=WORLD)
    runs = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(WORLD)]
    states = [state for run in runs for state in run.values()]
    for state in states[1:]:
        for name, value in states[0].items():
            assert torch.equal(state[name], value), name
