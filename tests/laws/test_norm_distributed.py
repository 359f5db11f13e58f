"""Two processes under DistributedDataParallel train their norms at the same values."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import polarity as pol
from polarity.attach.norms import attached_norms
from tests.helpers import from_ranks
from tests.models import seeded
from tests.norm_nets import NETS, X, alphas

WORLD = 2


def run(model: nn.Module, rank: int, **options: bool) -> dict[str, Any]:
    """Train on this rank's own data; note the value of each forward and what was trained."""
    pol.interpolate_norms(model.train())  # no generator: the ranks' global states differ
    parallel = DistributedDataParallel(model, **options)
    sgd = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01)
    inputs = X + rank
    seen, gradients = [], []
    for step in range(5):
        sgd.zero_grad()
        loss = parallel(inputs).square().mean()
        seen.append(alphas(model))
        if step == 3 and options["broadcast_buffers"] and not has_batch_norm(model):
            loss = loss + parallel(inputs + 1).square().mean()  # DDP copies buffers in between
            seen.append(alphas(model))
        loss.backward()
        gradients.append(model[1].parametrizations.weight.original.grad.clone())
        sgd.step()
    norms = {name: value.clone() for name, value in attached_norms(model).items()}
    return {"seen": seen, "norms": norms, "gradients": gradients}


def has_batch_norm(model: nn.Module) -> bool:
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())


def one_rank(rank: int, folder: str) -> Any:
    torch.manual_seed(rank)
    results = {
        f"{kind}-{broadcast}": run(seeded(NETS[kind](), rank), rank, broadcast_buffers=broadcast)
        for kind in ("batch", "layer")
        for broadcast in (True, False)
    }
    unwrapped = pol.interpolate_norms(NETS["batch"](), per_layer=True).train()
    unwrapped(X)
    results["unwrapped"] = alphas(unwrapped)
    own = torch.Generator().manual_seed(rank)
    apart = pol.interpolate_norms(NETS["batch"](), generator=own).train()
    apart(X)
    results["own"] = alphas(apart)
    return results


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return from_ranks(one_rank, tmp_path_factory.mktemp("ranks"), WORLD)


@pytest.mark.parametrize("case", ["batch-True", "batch-False", "layer-True", "layer-False"])
def test_both_ranks_train_at_the_same_values_and_stay_together(ranks: Any, case: str) -> None:
    first, second = (rank[case] for rank in ranks)
    assert first["seen"] == second["seen"]
    values = [step[0] for step in first["seen"]]
    assert len(set(values)) == len(values) == (6 if case == "layer-True" else 5)
    assert first["norms"].keys() == second["norms"].keys()
    assert all(torch.equal(first["norms"][name], second["norms"][name]) for name in first["norms"])
    both = zip(first["gradients"], second["gradients"], strict=True)
    assert all(torch.equal(*pair) for pair in both)
    assert any(bool(gradient.any()) for gradient in first["gradients"])


def test_the_ranks_agree_without_ddp_too_unless_each_brings_its_own_generator(ranks: Any) -> None:
    assert ranks[0]["unwrapped"] == ranks[1]["unwrapped"]
    assert len(set(ranks[0]["unwrapped"])) == 3
    assert ranks[0]["own"] != ranks[1]["own"]
