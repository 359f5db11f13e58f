"""Rounds of pruning, as one process and as several ranks run them."""

import tempfile
from pathlib import Path

import torch
from torch import Tensor, distributed, nn

import polarity as pol
from tests.ranks.sharded import Tensors, batch, divided, enforced, state_of, train, uneven, whole


def ready(sharded: bool, seed: int = 0) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Return a masked model, sharded or not, with SGD that enforces the masks."""
    model = divided(pol.mask_weights(uneven(seed)), sharded)
    sgd = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01)
    enforced(model, sgd, sharded)
    return model, sgd


def noted(found: Tensors, moment: str, model: nn.Module, report: object = None) -> None:
    """Note what a model stores at a moment, and what a report and the density say."""
    found |= {f"{moment}: {name}": value for name, value in state_of(model).items()}
    found[f"{moment}: density"] = torch.tensor(pol.density(model))
    if report is not None:
        found[f"{moment}: report"] = torch.tensor(bytearray(str(report).encode()))


def rounds_of_imp(sharded: bool) -> Tensors:
    """Five rounds of iterative magnitude pruning with rewinding of weights and optimizer."""
    found: Tensors = {}
    model, sgd = ready(sharded)
    train(model, sgd)
    start = pol.RewindPoint.capture(model, sgd)
    for number in range(5):
        train(model, sgd, start=10 * number)
        with torch.no_grad():
            model(batch(0))  # without a backward FSDP2 leaves weights whole
        report = pol.imp_prune(model, 0.3, rewind=start, optimizer=sgd)
        noted(found, f"round {number}", model, report)
    train(model, sgd)
    noted(found, "end", model)
    return found


def rewound_to_whole(sharded: bool) -> Tensors:
    """A point that was captured before the model was divided."""
    found: Tensors = {}
    plain = pol.mask_weights(uneven())
    start = pol.RewindPoint.capture(plain)
    model = divided(plain, sharded)
    adam = torch.optim.AdamW(model.parameters(), lr=0.02, weight_decay=0.1)
    enforced(model, adam, sharded)
    train(model, adam)
    report = pol.imp_prune(model, density=0.4, scope="layer", rewind=start, optimizer=adam)
    noted(found, "rewound", model, report)
    train(model, adam)
    start.restore_weights(model, only="unmasked")
    noted(found, "restored", model)
    return found


def rounds_of_lrr(sharded: bool) -> Tensors:
    """Five rounds of learning-rate rewinding with AdamW and random ties."""
    found: Tensors = {}
    model = divided(pol.mask_weights(uneven()), sharded)
    adam = torch.optim.AdamW(model.parameters(), lr=0.02, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.StepLR(adam, 2, gamma=0.5)
    enforced(model, adam, sharded)
    start = pol.RewindPoint.capture(model, adam, schedule)
    draw = torch.Generator().manual_seed(3)
    for number in range(5):
        train(model, adam, start=10 * number)
        schedule.step()
        report = pol.lrr_step(
            model,
            0.25,
            rewind=start,
            optimizer=adam,
            scheduler=schedule,
            ties="random",
            generator=draw,
        )
        noted(found, f"round {number}", model, report)
    return found


def by_scores(sharded: bool) -> Tensors:
    """Random scores, a function that reduces, scores by name, densities, equal scores."""
    found: Tensors = {}
    model, sgd = ready(sharded)
    draw = torch.Generator().manual_seed(5)
    report = pol.prune(model, pol.scores.random, 0.2, optimizer=sgd, generator=draw)
    noted(found, "random", model, report)
    train(model, sgd)

    def share(name: str, weight: Tensor) -> Tensor:
        return weight.abs() / weight.abs().sum()

    noted(found, "function", model, pol.prune(model, share, density=0.6, optimizer=sgd))
    train(model, sgd)
    names = list(pol.masks(model))
    ones = {name: torch.ones_like(value) for name, value in given(model, names).items()}
    draw = torch.Generator().manual_seed(6)
    report = pol.prune(model, ones, density=0.4, ties="random", generator=draw, optimizer=sgd)
    noted(found, "equal scores", model, report)
    densities = dict.fromkeys(names, 0.3)
    noted(found, "densities", model, pol.prune(model, given(model, names), densities=densities))
    return found


def given(model: nn.Module, names: list[str]) -> Tensors:
    """Return the weights of the model as it was built, whole, as scores."""
    built = dict(uneven().named_parameters())
    return {name: built[name].detach().abs() for name in names}


def masks_by_hand(sharded: bool) -> Tensors:
    """Masks that are read, loaded whole and divided, given back, and trained with.

    Enforced in the step by one process too: the old momentum of entries that are given back is
    another with the mask in forward.
    """
    found: Tensors = {}
    model = divided(pol.mask_weights(uneven()), sharded)
    sgd = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01)
    pol.enforce_in_step(model, sgd)
    train(model, sgd)
    draw = torch.Generator().manual_seed(1)
    some = {
        name: torch.rand(mask.shape, generator=draw) < 0.5
        for name, mask in pol.masks(model).items()
    }
    pol.load_masks(model, some)
    noted(found, "loaded", model)
    held = pol.masks(model)
    found |= {f"masks: {name}": whole(mask) for name, mask in held.items()}
    train(model, sgd)
    pol.load_masks(model, {name: torch.ones_like(mask) for name, mask in some.items()})
    noted(found, "given back", model)
    train(model, sgd)
    pol.load_masks(model, held)
    noted(found, "again", model)
    return found


def written_and_read(sharded: bool) -> Tensors:
    """A file, whose bytes do not say how many ranks wrote it, read into another model."""
    found: Tensors = {}
    model, sgd = ready(sharded)
    train(model, sgd)
    pol.imp_prune(model, 0.5, optimizer=sgd)
    place = [tempfile.mkdtemp()]
    if sharded:
        distributed.broadcast_object_list(place)
    file = Path(place[0], "model.safetensors")
    pol.save(model, file)
    found["file"] = torch.tensor(bytearray(file.read_bytes()))
    other, sgd = ready(sharded, seed=1)
    noted(found, "read", pol.load(other, file))
    train(other, sgd)
    noted(found, "trained", other)
    return found


CASES = {
    case.__name__: case
    for case in (
        rounds_of_imp,
        rewound_to_whole,
        rounds_of_lrr,
        by_scores,
        masks_by_hand,
        written_and_read,
    )
}
