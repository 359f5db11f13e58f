"""What a sparse step is timed with: masks, survivors alone, and a peer with kernels of its own."""

from __future__ import annotations

from functools import partial
from importlib import import_module

import torch
from torch import nn

import polarity as pol

from .forms import DENSE, Form, random_masks, torch_prune
from .workloads import Workload

MASK, PEER, COMPACT = "polarity mask", "torch.nn.utils.prune", "polarity compact"
SIGNED, COMPACT_SIGNED = "polarity Sign-In", "polarity compact Sign-In"
SPARSELAB = "sparselab"
FORMS = (MASK, PEER, COMPACT, SIGNED, COMPACT_SIGNED, SPARSELAB)


def sparse_form(what: str, workload: Workload, density: float, chosen: list[str]) -> Form:
    """Return a way of training a model at a density, with the same random masks for each.

    Args:
        what: one of `FORMS`, or the dense step.
        workload: the batch that `compact` measures its layers with.
        density: fraction of each weight that survives.
        chosen: filled with the names of the weights that `compact` chose.
    """
    if what == PEER:
        return Form(partial(torch_prune, density=density))
    if what == SPARSELAB:
        return Form(partial(_sparselab, density=density))
    if what not in FORMS:
        return DENSE

    def attach(model: nn.Module) -> nn.Module:
        pol.load_masks(model, random_masks(model, density))
        if what in (SIGNED, COMPACT_SIGNED):
            pol.sign_in(model)
        if what in (COMPACT, COMPACT_SIGNED):
            device = next(model.parameters()).device
            report = pol.compact(model, torch.randn(workload.batch, device=device))
            chosen.extend(report.compact)
        return model

    return Form(attach)


def _sparselab(model: nn.Module, density: float) -> nn.Module:
    """Swap every linear layer for sparselab's, which draws its own places."""
    sparselab = import_module("sparselab")
    for name, layer in list(model.named_modules()):
        if type(layer) is nn.Linear:
            sparse = sparselab.SparseLinear(
                layer.in_features, layer.out_features, sparsity=1 - density
            )
            model.set_submodule(name, sparse)
    return model
