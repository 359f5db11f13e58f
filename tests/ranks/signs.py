"""Signed constants, as one process and as several ranks set them."""

import itertools
import warnings

import torch
from torch import Tensor, nn

import polarity as pol
from tests.ranks.cases import noted, ready
from tests.ranks.sharded import Tensors, train, uneven, whole

STRATEGIES = ("mask1", "mask0", "gradual", "standard")
# Five, so that each strategy and each perturbation meets each scope.
SCOPES = ("layer", "global", "global", "layer", "global")
PERTURBATIONS = {
    "nothing": None,
    "epsilon": pol.Epsilon(0.3),
    "delta": pol.Delta(0.4),
    "delta by draw": pol.Delta(0.4, ties="random"),
    "phi": pol.Phi(0.1),
    "all": (pol.Phi(0.05), pol.Epsilon(0.2), pol.Delta(0.3, ties="random")),
}


def pruned(sharded: bool) -> tuple[nn.Module, torch.optim.Optimizer, pol.RewindPoint]:
    """Return a model that was trained and pruned, and its weights from before the pruning."""
    model, sgd = ready(sharded)
    train(model, sgd)
    trained = pol.RewindPoint.capture(model)
    pol.imp_prune(model, density=0.5, optimizer=sgd)
    return model, sgd, trained


def initial() -> Tensors:
    """Return the weights that the models began with, whole."""
    return {name: value.detach() for name, value in uneven().named_parameters()}


def every_request(sharded: bool) -> Tensors:
    """Every strategy with every perturbation, in both scopes, from the same trained survivors."""
    found: Tensors = {}
    model, sgd, trained = pruned(sharded)
    masks, draw = pol.masks(model), torch.Generator().manual_seed(1)
    requests = itertools.product(STRATEGIES, PERTURBATIONS.items())
    for (strategy, (name, perturb)), scope in zip(requests, itertools.cycle(SCOPES)):
        pol.load_masks(model, masks)
        trained.restore_weights(model, only="masked")
        report = pol.reinit_signs(
            model,
            strategy,
            perturb,
            init=initial(),
            trained=trained if strategy == "standard" else None,
            scope=scope,
            mix=0.4,
            revived="sigma" if scope == "global" and strategy == "standard" else "trained",
            generator=draw,
        )
        moment = f"{strategy}, {name}, {scope}"
        for key in masks:
            weight = model.get_submodule(key.removesuffix(".weight"))
            found[f"{moment}: {key}"] = whole(weight.parametrizations.weight.original)
        found[f"{moment}: report"] = torch.tensor(bytearray(str(report).encode()))
    pol.load_masks(model, masks)
    train(model, sgd)
    noted(found, "trained on", model)
    return found


def equal_magnitudes(sharded: bool) -> Tensors:
    """Signs that are set twice, so that all magnitudes are equal, with rank 0's seeds."""
    found: Tensors = {}
    model, sgd, _ = pruned(sharded)
    torch.manual_seed(7)
    if sharded:
        torch.manual_seed(7 + torch.distributed.get_rank())
    for number, scope in enumerate(("layer", "global", "layer")):
        ties = pol.Delta(0.5, ties="random" if number == 2 else "index")
        report = pol.reinit_signs(model, "mask0", ties, init=initial(), scope=scope)
        noted(found, f"{number}", model, report)
    train(model, sgd)
    noted(found, "trained on", model)
    return found


def far_and_constant(sharded: bool) -> Tensors:
    """Initial weights far from zero, and equal ones."""
    found: Tensors = {}
    model, _, _ = pruned(sharded)
    init = {name: value + 1000 for name, value in initial().items()}
    init["into.weight"] = torch.full((7, 5), 0.3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that sigma is 0
        noted(found, "signed", model, pol.reinit_signs(model, "mask0", init=init))
    return found


def sigmas(sharded: bool) -> Tensor:
    """Return the deviations that the report of a call has."""
    model, _, _ = pruned(sharded)
    report = pol.reinit_signs(model, init=initial())
    return torch.tensor([layer.sigma for layer in report], dtype=torch.float64)


SIGNS = {case.__name__: case for case in (every_request, equal_magnitudes, far_and_constant)}
