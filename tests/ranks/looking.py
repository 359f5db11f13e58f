"""Calls that read a divided model, or change what is whole in it, as in one process."""

import torch
from torch import Tensor, nn

import polarity as pol
from tests.models import seeded
from tests.ranks.cases import noted, ready
from tests.ranks.sharded import Tensors, batch, divided, enforced, state_of, train, uneven


def _text(thing: object) -> Tensor:
    return torch.tensor(bytearray(str(thing).encode()))


def looked_at(sharded: bool) -> Tensors:
    """Densities to prune to, the targets, and the sparsity, before and after pruning."""
    found: Tensors = {}
    model, sgd = ready(sharded)
    for amount in (0.0, 0.5):
        train(model, sgd)
        pol.imp_prune(model, amount, optimizer=sgd)
        found |= {
            f"{amount} targets": _text(pol.find_targets(model)),
            f"{amount} sparsity": torch.tensor(pol.sparsity(model)),
            f"{amount} uniform": _text(pol.densities.uniform(model, 0.3)),
            f"{amount} erk": _text(pol.densities.erk(model, 0.3)),
            f"{amount} balanced": _text(pol.densities.balanced(model, 0.3)),
        }
    return found


def by_initial_scores(sharded: bool) -> Tensors:
    """Scores that compare with initial weights: those of the ranks, and whole ones."""
    found: Tensors = {}
    model, sgd = ready(sharded)
    initial = [pol.RewindPoint.capture(model), pol.RewindPoint.capture(uneven())]
    scores = pol.scores
    for score in (
        scores.large_final_same_sign,
        scores.large_final_diff_sign,
        scores.magnitude_increase,
    ):
        for at, init in enumerate(initial):
            train(model, sgd)
            report = pol.prune(model, score(init), 0.1, ties="random", optimizer=sgd, **draw())
            noted(found, f"{score.__name__} {at}", model, report)
    noted(found, "magnitude", model, pol.prune(model, scores.magnitude, 0.1, optimizer=sgd))
    return found


def draw() -> dict[str, torch.Generator]:
    return {"generator": torch.Generator().manual_seed(1)}


def interpolated(sharded: bool) -> Tensors:
    """Norms that were interpolated before the model was divided, and their stream of draws."""
    found: Tensors = {}
    model = pol.interpolate_norms(uneven(), generator=torch.Generator().manual_seed(2))
    model = divided(pol.mask_weights(model), sharded)
    sgd = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    enforced(model, sgd, sharded)
    start = pol.RewindPoint.capture(model, sgd)
    stream = pol.norm_alpha_state(model)
    train(model, sgd)
    noted(found, "trained", model, pol.imp_prune(model, 0.3, rewind=start, optimizer=sgd))
    pol.load_norm_alpha_state(model, stream)
    train(model, sgd)
    found |= {f"alpha {name}": value.clone() for name, value in pol.norm_alpha(model).items()}
    with pol.set_norm_alpha(model, 0.5):
        train(model, sgd)
    noted(found, "held", model)
    found["evaluated"] = model.eval()(batch(0)).detach()
    return found


def statistics(sharded: bool) -> Tensors:
    """Running statistics of batch norm, recalibrated and rewound."""
    found: Tensors = {}
    layers = nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Tanh(), nn.Linear(7, 3)
    model = divided(pol.mask_weights(seeded(nn.Sequential(*layers), 0).train()), sharded)
    sgd = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    enforced(model, sgd, sharded)
    start = pol.RewindPoint.capture(model, sgd)
    train(model, sgd)
    pol.imp_prune(model, 0.4, optimizer=sgd)
    pol.recalibrate_batch_norm(model, [batch(7), batch(8)])
    found |= {f"recalibrated: {name}": value for name, value in state_of(model).items()}
    train(model, sgd)
    start.restore_weights(model)
    noted(found, "restored", model)
    return found


LOOKING = {case.__name__: case for case in (looked_at, by_initial_scores, interpolated, statistics)}
