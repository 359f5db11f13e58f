"""Which weights are taken when a caller does not say, and why each other one is not."""

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from polarity.parametrizations.masked import MaskedWeight

__all__ = [
    "NORMS",
    "Use",
    "default_names",
    "given_to_predicates",
    "is_weight",
    "tied_embedding",
    "too_narrow",
    "why_kind",
]

# The base of batch and instance normalisation of every dimension, synchronised or not.
NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
_EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
_ONE_WEIGHT = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
_RECURRENT = re.compile(r"weight_(ih|hh|hr)(_l\d+(_reverse)?)?")
_ATTENTION = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")


class Use(NamedTuple):
    """One place where a model uses a parameter.

    Attributes:
        name: plain dotted name, as if nothing were attached.
        module: the module that holds it.
        tensor_name: its name there.
        leaf: the (first) tensor an optimizer trains for it.
        path: the modules that hold it, from the model to ``module``.
    """

    name: str
    module: nn.Module
    tensor_name: str
    leaf: Tensor
    path: tuple[nn.Module, ...]


def default_names(uses: Iterable[Use]) -> set[str]:
    """Return the names of the weights to take by default.

    These are all that are not tied to an embedding, and those that were masked nevertheless.
    """
    uses = tuple(uses)
    embeddings = (use for use in uses if isinstance(use.module, _EMBEDDINGS))
    embedded = {id(use.leaf) for use in embeddings if not _is_masked(use)}
    return {use.name for use in uses if is_weight(use) and id(use.leaf) not in embedded}


def is_weight(use: Use) -> bool:
    """Return whether a parameter is what its layer multiplies by, tied or not."""
    module, name = use.module, use.tensor_name
    if isinstance(module, nn.MultiheadAttention) and name in _ATTENTION:
        return True
    if isinstance(module, (nn.RNNBase, nn.RNNCellBase)) and _RECURRENT.fullmatch(name):
        return True
    if name != "weight":
        return False
    if isinstance(module, _ONE_WEIGHT):
        return True
    if isinstance(module, _EMBEDDINGS) or _is_norm(module):
        return False
    # A compact weight is stored as a vector.
    return is_lazy(use.leaf) or use.leaf.dim() >= 2 or _is_masked(use)


@torch.no_grad()
def given_to_predicates(use: Use) -> Tensor:
    """Return what is stored of a parameter; of a compact weight the weight, in its own shape."""
    if _is_masked(use) and use.leaf.dim() == 1:
        weight: Tensor = getattr(use.module, use.tensor_name)
        return weight
    return use.leaf


def tied_embedding(uses: Iterable[Use]) -> Use | None:
    """Return the first of the uses of a parameter that is an embedding's, or None."""
    return next((use for use in uses if isinstance(use.module, _EMBEDDINGS)), None)


def why_kind(uses: tuple[Use, ...]) -> str | None:
    """Say why a parameter is of no kind that is taken by default, or None if it is."""
    first, remedy = uses[0], f"targets={uses[0].name!r} takes it"
    embedding = tied_embedding(uses)
    asked_for = embedding is not None and _is_masked(embedding) and any(map(is_weight, uses))
    if embedding is not None and not asked_for:
        others = [use.name for use in uses if not isinstance(use.module, _EMBEDDINGS)]
        if first is not embedding:
            return f"tied to embedding {embedding.name}: {remedy}"
        return f"an embedding{f', tied to {others[0]}' if others else ''}: {remedy}"
    if any(is_weight(use) for use in uses):
        return None
    if first.tensor_name == "weight" and _is_norm(first.module):
        return f"a norm: {remedy}"
    return f"not named weight: {remedy}"


def too_narrow(leaf: Tensor) -> bool:
    """Return whether a tensor is of a float8 or narrower type, which has no arithmetic."""
    return leaf.is_floating_point() and leaf.dtype.itemsize < torch.float16.itemsize


def _is_masked(use: Use) -> bool:
    """Return whether a parameter carries a mask."""
    if not parametrize.is_parametrized(use.module, use.tensor_name):
        return False
    chains: Any = use.module.parametrizations
    return any(isinstance(each, MaskedWeight) for each in chains[use.tensor_name])


def _is_norm(module: nn.Module) -> bool:
    """Return whether a module is one of PyTorch's norms, or one by its name."""
    return isinstance(module, NORMS) or "norm" in type(module).__name__.lower()
