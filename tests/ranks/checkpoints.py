"""Checkpoints of models that ranks have divided: written by one number of ranks, read by others."""

import math
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, distributed, nn

import polarity as pol
from polarity._files import read_tensors
from tests.ranks.sharded import Tensors, batch, divided, state_of, uneven, whole

# What one number of ranks writes into, and others read.
SHARED = "shared"


def prepared(seed: int = 0, sharded: bool = True) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Return a masked model, divided or not, with AdamW that keeps pruned entries zero."""
    model = divided(pol.mask_weights(uneven(seed)), sharded)
    adam = torch.optim.AdamW(model.parameters(), lr=0.02, weight_decay=0.1)
    pol.enforce_in_step(model, adam)
    return model, adam


def losses(
    model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 4, start: int = 0
) -> Tensor:
    """Train, and return the loss before each step."""
    found = []
    for step in range(start, start + steps):
        optimizer.zero_grad()
        loss = (model(batch(step)) - 1).square().mean()
        loss.backward()
        optimizer.step()
        found.append(loss.detach())
    return torch.stack(found)


def pruned(sharded: bool = True) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Return a model in the middle of a run: trained, pruned, trained."""
    model, adam = prepared(sharded=sharded)
    losses(model, adam)
    pol.imp_prune(model, 0.6, optimizer=adam)
    losses(model, adam, start=4)
    return model, adam


def went_on(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return what a model holds, the losses of more training, and what it holds then."""
    now = state_of(model)
    masks = {name: whole(mask) for name, mask in pol.masks(model).items()}
    more = losses(model, optimizer, start=8)
    pol.imp_prune(model, 0.5, optimizer=optimizer)
    return {"state": now, "masks": masks, "losses": more, "later": state_of(model)}


def full(model: nn.Module) -> dict[str, Any]:
    """Return the whole ``state_dict`` of a divided model, on the first rank."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    return get_model_state_dict(model, options=options)


def by_dcp(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return what ``torch.distributed.checkpoint`` saves of a model and its optimizer."""
    from torch.distributed.checkpoint.state_dict import get_state_dict

    of_model, of_optimizer = get_state_dict(model, optimizer)
    return {"model": of_model, "optimizer": of_optimizer}


def write(place: Path, rank: int) -> dict[str, Any]:
    """Write every kind of checkpoint of one model, and go on with the model."""
    import torch.distributed.checkpoint as dcp

    model, adam = pruned()
    dcp.save(by_dcp(model, adam), checkpoint_id=place / "dcp")
    state = full(model)
    if rank == 0:
        torch.save(state, place / "full.pt")
    pol.save(model, place / "model.safetensors")
    pol.RewindPoint.capture(model, adam).save(place / "point.safetensors")
    dense = {name: whole(value) for name, value in pol.dense_state_dict(model).items()}
    return {"dense": dense, "merged": state_of(merged(model))} | went_on(model, adam)


def merged(model: nn.Module) -> nn.Module:
    """Return a divided model of plain parameters that hold what a masked one holds."""
    from torch.distributed.checkpoint.state_dict import set_model_state_dict

    plain = divided(uneven(1), True)
    set_model_state_dict(plain, pol.dense_state_dict(model))
    return plain


def load_dcp(place: Path, model: nn.Module, adam: torch.optim.Optimizer) -> None:
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import set_state_dict

    state = by_dcp(model, adam)
    dcp.load(state, checkpoint_id=place / "dcp")
    set_state_dict(
        model, adam, model_state_dict=state["model"], optim_state_dict=state["optimizer"]
    )


def read_dcp(place: Path, rank: int) -> dict[str, Any]:
    """Model and optimizer, into a divided model that is enforced already."""
    model, adam = prepared(seed=1)
    load_dcp(place, model, adam)
    return went_on(model, adam)


def read_dcp_then_enforce(place: Path, rank: int) -> dict[str, Any]:
    """The same, into a model that no call of polarity has seen since it was divided."""
    model = divided(pol.mask_weights(uneven(1)), True)
    adam = torch.optim.AdamW(model.parameters(), lr=0.02, weight_decay=0.1)
    load_dcp(place, model, adam)
    pol.enforce_in_step(model, adam)
    return went_on(model, adam)


def read_full(place: Path, rank: int) -> dict[str, Any]:
    """A whole ``state_dict`` that the first rank has read, sent to the others."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

    model, adam = prepared(seed=1)
    state = torch.load(place / "full.pt", weights_only=True) if rank == 0 else {}
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    set_model_state_dict(model, state, options=options)
    return went_on(model, adam)


def read_file(place: Path, rank: int) -> dict[str, Any]:
    """A file of ``pol.save``, of which every rank reads its rows."""
    model, adam = prepared(seed=1)
    return went_on(pol.load(model, place / "model.safetensors"), adam)


def read_point(place: Path, rank: int) -> dict[str, Any]:
    """A rewind point that another number of ranks may have captured, with its optimizer."""
    model, adam = prepared(seed=1)
    pol.load(model, place / "model.safetensors")
    losses(model, adam, start=50)
    point = pol.RewindPoint.load(place / "point.safetensors")
    point.restore_weights(model)
    point.restore_schedule(adam)
    return went_on(model, adam)


READERS: dict[str, Callable[[Path, int], dict[str, Any]]] = {
    each.__name__: each
    for each in (read_dcp, read_dcp_then_enforce, read_full, read_file, read_point)
}


# Of the optimizer nothing is read by these.
WITHOUT_OPTIMIZER = ("read_full", "read_file")


def refusals(place: Path, rank: int) -> dict[str, Any]:
    """Return the error of each call that is refused, whether the model is as before, and files."""
    from torch.distributed.checkpoint.state_dict import get_model_state_dict
    from torch.optim import AdamW

    found: dict[str, Any] = {}
    model, _ = pruned()
    other = divided(pol.mask_weights(nn.Sequential(nn.Linear(4, 4))), True)
    file = place / "model.safetensors"
    for name, spoil in SPOILT.items():
        if rank == 0:
            tensors, metadata = read_tensors(file, "")
            spoil(tensors)
            save_file(tensors, place / f"{name}.safetensors", metadata=metadata)
    distributed.barrier()
    calls: dict[str, Callable[[], object]] = {
        name: partial(pol.load, model, place / f"{name}.safetensors") for name in SPOILT
    }
    shares = get_model_state_dict(model)
    calls |= {
        "no such file": lambda: pol.load(model, place / "none.safetensors"),
        "no such folder": lambda: pol.save(model, place / "none" / "model.safetensors"),
        "no path on one rank": lambda: pol.save(model, 5 if rank else file),
        "another model on one rank": lambda: pol.save(model if rank else other, file),
        "a full disk": lambda: on_a_full_disk(model, file),
        "assigned": lambda: model.load_state_dict(shares, assign=True),
        "a point on a full disk": lambda: on_a_full_disk(pol.RewindPoint.capture(model), file),
        "merge": lambda: pol.merge(model),
        "state of the whole": lambda: pol.imp_prune(
            model, 0.1, optimizer=with_state(AdamW(model.parameters()), lambda leaf: leaf.shape)
        ),
    }
    earlier = file.read_bytes()
    for name, call in calls.items():
        before = state_of(model)
        error = ""
        try:
            call()
        except Exception as raised:
            error = f"{type(raised).__name__}: {raised}"
        after = state_of(model)
        same = all(torch.equal(before[key], after[key]) for key in before)
        hidden = [path.name for path in place.iterdir() if path.name.startswith(".")]
        left = not hidden and file.read_bytes() == earlier
        found[name] = {"error": error, "unchanged": same and left}
    return found


def with_state(optimizer: Any, shape: Callable[[Tensor], Any]) -> Any:
    """Let an optimizer remember a plain tensor of ones for every parameter."""
    for group in optimizer.param_groups:
        for leaf in group["params"]:
            optimizer.state[leaf] = {"exp_avg": torch.ones(shape(leaf))}
    return optimizer


def state_of_pieces() -> bool:
    """Prune with an optimizer that remembers plain tensors of this rank's pieces."""
    model, _ = pruned()
    optimizer = with_state(
        torch.optim.AdamW(model.parameters()), lambda leaf: leaf.to_local().shape
    )
    pol.imp_prune(model, 0.5, optimizer=optimizer)
    leaf = model.first.parametrizations.weight.original
    mask = model.first.parametrizations.weight[0].mask.to_local()
    return torch.equal(optimizer.state[leaf]["exp_avg"], mask)


def on_a_full_disk(saved: Any, path: Path) -> None:
    """Save where the first rank's disk has no space left."""

    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        if distributed.get_rank() == 0:
            patch.setattr("os.replace", fails)
        pol.save(saved, path) if isinstance(saved, nn.Module) else saved.save(path)


_FIRST = "first.parametrizations.weight"


def _shorter(tensors: Tensors) -> None:
    tensors[f"{_FIRST}.original"] = tensors[f"{_FIRST}.original"][:-1].clone()


def _without_bias(tensors: Tensors) -> None:
    del tensors["out.bias"]


def _nan_in_the_last_row(tensors: Tensors) -> None:
    tensors["into.bias"][-1] = math.nan


def _half_in_the_last_row(tensors: Tensors) -> None:
    tensors[f"{_FIRST}.0.mask"][-1, -1] = 0.5


def _of_integers(tensors: Tensors) -> None:
    tensors["norm.bias"] = tensors["norm.bias"].int()


def _plain(tensors: Tensors) -> None:
    tensors["out.weight"] = tensors.pop("out.parametrizations.weight.original")
    for part in ("mask", "_extra_state"):
        del tensors[f"out.parametrizations.weight.0.{part}"]


SPOILT = {
    each.__name__[1:]: each
    for each in (
        _shorter,
        _without_bias,
        _nan_in_the_last_row,
        _half_in_the_last_row,
        _of_integers,
        _plain,
    )
}


def one_rank(rank: int, folder: str) -> dict[str, Any]:
    """Write checkpoints if there are none yet, and read them."""
    place = Path(folder).parent / SHARED
    found: dict[str, Any] = {}
    if Path(folder, "writes").exists():
        found["written"] = write(place, rank)
        found["refusals"] = refusals(place, rank)
        found["of pieces"] = state_of_pieces()
    for name, reader in READERS.items():
        try:
            found[name] = reader(place, rank)
        except Exception:
            found[name] = traceback.format_exc()
    return found
