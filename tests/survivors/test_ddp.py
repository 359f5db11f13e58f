"""Two ranks: a model that was compacted before it was wrapped trains as one process does."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

import polarity as pol
from tests.helpers import from_ranks
from tests.survivors.cases import FORMS, batch, compacted, leaves, net, sgd

WORLD, STEPS = 2, 4


def trained(product: bool, rank: int | None) -> dict[str, Any]:
    """Train on a rank's half of each batch, or on all; return the last gradients and the end."""
    model = compacted(net(product))
    outer: Any = model if rank is None else DistributedDataParallel(model)
    optimizer = sgd(model)
    half = slice(None) if rank is None else slice(4 * rank, 4 * rank + 4)
    for step in range(STEPS):
        x, y = batch(step)
        optimizer.zero_grad()
        (outer(x[half]) - y[half]).square().mean().backward()
        optimizer.step()
    gradients = {f"grad {name}": p.grad.clone() for name, (p, _) in leaves(model).items()}
    held = [p.data_ptr() for p in model.parameters()]
    point = pol.RewindPoint.capture(outer, optimizer)  # which only reads
    assert held == [p.data_ptr() for p in model.parameters()]
    assert sorted(point.weights) == sorted(pol.dense_state_dict(model))
    refusals = []
    for call in (
        lambda: pol.compact(outer),
        lambda: pol.expand(outer),
        lambda: pol.imp_prune(outer, 0.3),
    ):
        try:
            call() if rank is not None else None
        except TypeError as error:
            refusals.append(str(error))
    assert len(refusals) == (0 if rank is None else 3), refusals
    assert all("wrapped in DistributedDataParallel" in each for each in refusals)
    return gradients | dict(model.state_dict())


def one_rank(rank: int, folder: str) -> Any:
    found = {form: trained(FORMS[form], rank) for form in FORMS}
    distributed.barrier()
    return found


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    folder: Path = tmp_path_factory.mktemp("ranks")
    return from_ranks(one_rank, folder, WORLD)


@pytest.mark.parametrize("form", FORMS)
def test_ranks_have_equal_gradients_and_train_as_one_process(form: str, ranks: list[Any]) -> None:
    first, second = (rank[form] for rank in ranks)
    alone = trained(FORMS[form], None)
    assert list(first) == list(second) == list(alone)
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
        torch.testing.assert_close(value, alone[name], rtol=1e-4, atol=1e-6)


def test_a_model_is_compacted_before_it_is_wrapped(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrapped(DistributedDataParallel):
        def __init__(self, module: nn.Module) -> None:
            nn.Module.__init__(self)
            self.module = module

    with pytest.raises(TypeError, match="call compact on the model, then wrap it"):
        pol.compact(Wrapped(net()))
    with pytest.raises(TypeError, match="call expand on the model, then wrap it"):
        pol.expand(Wrapped(compacted(net())))
