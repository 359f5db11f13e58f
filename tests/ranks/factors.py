"""Sign-In and interpolated norms, as one process and as several ranks train them."""

import torch
from torch import nn

import polarity as pol
from tests.ranks.cases import noted
from tests.ranks.sharded import Tensors, batch, divided, state_of, train, uneven, whole
from tests.ranks.signs import initial

Optimizer = torch.optim.Optimizer


def products(
    sharded: bool, kind: type[Optimizer] = torch.optim.SGD, **options: float
) -> tuple[nn.Module, Optimizer]:
    """Return a model of products, sharded or not, that are zero outside their masks."""
    model = divided(
        pol.sign_in(uneven(), beta={"into.weight": 0.5, "first.weight": 1.0, "out.weight": 2.0}),
        sharded,
    )
    optimizer = kind(model.parameters(), **{"lr": 0.02, **options})
    pol.enforce_in_step(model, optimizer)
    return model, optimizer


def sign_in_rounds(sharded: bool) -> Tensors:
    """Rounds of pruning with rescaling by a schedule, rewinding and new signs."""
    found: Tensors = {}
    model, sgd = products(sharded, momentum=0.9, weight_decay=0.1)
    start = pol.RewindPoint.capture(model, sgd)
    schedule = pol.RescaleSchedule(model, every=2, optimizer=sgd, momentum="zero")
    for number in range(4):
        train(model, sgd, start=10 * number)
        schedule.step()
        noted(found, f"rescaled {number}", model)
        train(model, sgd, 1)
        report = pol.imp_prune(model, 0.3, rewind=start if number == 2 else None, optimizer=sgd)
        noted(found, f"pruned {number}", model, report)
    pol.reinit_signs(
        model, "mask0", pol.Epsilon(0.2), init=initial(), generator=torch.Generator().manual_seed(0)
    )
    noted(found, "signed", model)
    train(model, sgd)
    noted(found, "end", model)
    return found


def transformed(sharded: bool) -> Tensors:
    """Averages of Adam in new factors."""
    found: Tensors = {}
    model, adam = products(sharded, torch.optim.AdamW, weight_decay=0.1)
    train(model, adam)
    pol.imp_prune(model, 0.3, optimizer=adam)
    for momentum in ("transform", "keep", "zero"):
        train(model, adam)
        pol.rescale(model, optimizer=adam, momentum=momentum)
        noted(found, momentum, model)
        for place, state in enumerate(adam.state.values()):
            found |= {f"{momentum}: {place} {key}": whole(value) for key, value in state.items()}
    return found


def norms(sharded: bool) -> Tensors:
    """Norms that are interpolated with their initial values, rewound and fixed."""
    found: Tensors = {}
    draw = torch.Generator().manual_seed(2)
    model = divided(pol.interpolate_norms(pol.mask_weights(uneven()), generator=draw), sharded)
    sgd = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    pol.enforce_in_step(model, sgd)
    train(model, sgd, 1)
    start = pol.RewindPoint.capture(model, sgd)
    for number in range(3):
        train(model, sgd, start=10 * number)
        pol.imp_prune(model, 0.3, rewind=start if number == 1 else None, optimizer=sgd)
        noted(found, f"{number}", model)
        found |= {f"{number}: alpha {name}": value for name, value in pol.norm_alpha(model).items()}
    with pol.set_norm_alpha(model, 0.25):
        train(model, sgd)
    noted(found, "fixed", model)
    return found


def merged(sharded: bool) -> Tensors:
    """A plain model of what products came to: merged, or made anew and divided like them."""
    model, sgd = products(sharded)
    train(model, sgd)
    pol.imp_prune(model, 0.5, optimizer=sgd)
    train(model, sgd)
    if sharded:
        from torch.distributed.checkpoint.state_dict import set_model_state_dict

        plain = divided(uneven(1), True)
        set_model_state_dict(plain, pol.dense_state_dict(model))
        return state_of(plain)
    return state_of(pol.merge(model))


def penalised(sharded: bool) -> Tensors:
    """The penalty on products, which orders its sum by ranks, and the inner scaling."""
    found: Tensors = {}
    model, sgd = products(sharded)
    train(model, sgd)
    pol.imp_prune(model, 0.5, optimizer=sgd)
    for step in range(3):
        sgd.zero_grad()
        loss = (model(batch(step)) - 1).square().mean()
        penalty = pol.frobenius_decay(model)
        (loss + 0.1 * penalty).backward()
        found[f"penalty {step}"] = penalty.detach()
        sgd.step()
    noted(found, "end", model)
    found |= {f"scaling {name}": value for name, value in pol.inner_scaling(model).items()}
    return found


FACTORS = {case.__name__: case for case in (sign_in_rounds, transformed, norms, merged)}
