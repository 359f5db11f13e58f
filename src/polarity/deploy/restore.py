"""Load compressed models, and make them dense again."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from polarity._checks import check_mapping, check_module
from polarity._csr import CSR, why_invalid
from polarity._running import outside_inference_mode
from polarity.deploy.sparse_linear import BUFFERS, SparseLinear, make_dense, make_sparse
from polarity.targets.shards import refuse_sharded
from polarity.targets.wrappers import unwrapped

__all__ = ["decompress", "restore"]


@outside_inference_mode
def decompress(model: nn.Module) -> nn.Module:
    """Turn every swapped layer back into the dense linear layer that it was, in place.

    The weights have the same values, in new parameters. A model without swapped layers is
    unchanged.

    Returns:
        The model.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> import polarity as pol
        >>> model = nn.Linear(4, 4)
        >>> _ = nn.init.eye_(model.weight)
        >>> _ = pol.deploy.compress(model, torch.ones(2, 4), measure=lambda dense, sparse: (2, 1))
        >>> model
        SparseLinear(in_features=4, out_features=4, bias=True, density=0.25)
        >>> decompress(model)
        Linear(in_features=4, out_features=4, bias=True)
    """
    check_module(model)
    refuse_sharded(model, "deploy.decompress")
    with torch.inference_mode(False):
        for module in list(model.modules()):
            if isinstance(module, SparseLinear):
                make_dense(module)
    return model


@outside_inference_mode
def restore(model: nn.Module, state_dict: Mapping[str, Any]) -> nn.Module:
    """Load the ``state_dict`` of a compressed model into a plain one, in place, without measuring.

    The same linear layers are swapped as in the compressed model. A model that is already
    compressed in the same way can use its own ``load_state_dict``, which also takes dense
    checkpoints.

    Args:
        model: the architecture as it was before compression.
        state_dict: of the compressed model.

    Returns:
        The model.

    Raises:
        ValueError: if a sparse weight has no ``nn.Linear`` of its shape in the model, or its
            indices are out of order or range; the model is unchanged.
        RuntimeError: if other entries do not fit, as ``load_state_dict`` reports; the layers are
            unchanged.
        TypeError: if an argument is of another type.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> import polarity as pol
        >>> model = nn.Linear(4, 4)
        >>> _ = nn.init.eye_(model.weight)
        >>> _ = pol.deploy.compress(model, torch.ones(2, 4), measure=lambda dense, sparse: (2, 1))
        >>> list(model.state_dict())
        ['bias', 'values', 'crow_indices', 'col_indices']
        >>> restore(nn.Linear(4, 4), model.state_dict())
        SparseLinear(in_features=4, out_features=4, bias=True, density=0.25)
    """
    refuse_sharded(model, "deploy.restore")
    inner = unwrapped(model)
    check_mapping("state_dict", state_dict, "the state_dict of a compressed model")
    found = _sparse_weights(inner, state_dict)
    weights = {layer: layer.weight for layer in found}
    try:
        for layer, matrix in found.items():
            like = weights[layer]
            own = CSR(
                matrix.values.to(like.device, like.dtype, copy=True),
                *(each.to(like.device, torch.int32, copy=True) for each in matrix[1:]),
            )
            make_sparse(layer, own)
        inner.load_state_dict(state_dict)
    except BaseException:
        for layer, weight in weights.items():
            module = layer
            if isinstance(module, SparseLinear):
                make_dense(module, weight)
        raise
    return model


def _sparse_weights(model: nn.Module, state_dict: Mapping[str, Any]) -> dict[nn.Linear, CSR]:
    """Return the sparse weights of a checkpoint whose layers are still dense in the model."""
    modules = dict(model.named_modules())
    found: dict[nn.Linear, CSR] = {}
    for key in state_dict:
        path, _, last = key.rpartition(".")
        if last != "crow_indices":
            continue
        prefix = f"{path}." if path else ""
        module = modules.get(path)
        if isinstance(module, SparseLinear):
            continue
        if not isinstance(module, nn.Linear):
            raise ValueError(
                f"state_dict holds {key!r}, part of a sparse weight, but {path!r} is no nn.Linear "
                "of the model, expected the model as it was before compression"
            )
        missing = [
            name for name in BUFFERS if not isinstance(state_dict.get(prefix + name), Tensor)
        ]
        if missing:
            raise ValueError(
                f"state_dict holds {key!r}, but {prefix}{missing[0]} is missing, expected both"
            )
        matrix = CSR(*(state_dict[prefix + name] for name in BUFFERS))
        wrong = why_invalid(matrix, (module.out_features, module.in_features))
        if wrong is not None:
            raise ValueError(f"state_dict: the sparse weight of {path!r} does not fit: {wrong}")
        found[module] = matrix
    return found
