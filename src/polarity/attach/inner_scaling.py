"""What training does to Sign-In weights: their inner scaling, and a penalty on the product."""

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from polarity._running import outside_inference_mode
from polarity.parametrizations.sign_in import SignInMW
from polarity.targets.search import attached
from polarity.targets.shards import ranks_of
from polarity.targets.target import Target

__all__ = ["factors_of", "frobenius_decay", "inner_scaling"]


def factors_of(model: nn.Module) -> dict[str, Target]:
    """Return the Sign-In weights of a model, and raise if there are none."""
    found = {n: t for n, t in attached(model).items() if isinstance(t.masking, SignInMW)}
    if not found:
        raise ValueError(f"{type(model).__name__} has no Sign-In weights: call sign_in first")
    return found


def frobenius_decay(model: nn.Module) -> Tensor:
    r"""Return the sum of the squares of all Sign-In weights, differentiable.

    .. math:: \sum_l \lVert m_l \odot v_l \rVert_F^2

    Weight decay on the factors shrinks the inner scaling; a penalty on the product does not. Add
    ``strength * frobenius_decay(model)`` to the loss, and exclude the factors from weight decay.

    Of a model that ``fully_shard`` has divided the sum is that of all ranks, and each rank's
    gradients are those of the rows that it holds: add it to the loss on every rank.

    Returns:
        0-dim tensor, float32 or better.

    Raises:
        ValueError: if the model has no Sign-In weights.
        TypeError: if an argument is of another type.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> import polarity as pol
        >>> model = nn.Linear(2, 1)
        >>> _ = nn.init.constant_(model.weight, 3.0)
        >>> round(float(pol.frobenius_decay(pol.sign_in(model)).detach()), 4)
        18.0

    Source: *Sign-In to the Lottery*, appendix D and Table 7.
    """
    total: Tensor | None = None
    weight: Tensor
    found = factors_of(model)
    for target in found.values():
        if target.is_sharded:
            weight = _live_product(target)
        elif target.is_compact and len(target.chain) == 1:
            m, v = target.stored
            weight = m * v  # its survivors, without the zeros between them
        else:
            weight = getattr(target.module, target.tensor_name)
        weight = weight.to(torch.promote_types(weight.dtype, torch.float32))
        square = weight.square().sum()
        total = square if total is None else total + square.to(total.device)
    assert total is not None
    ranks = ranks_of(target.stored[0] for target in found.values())
    if ranks is None:
        return total
    # Bits are exchanged, which arrive as they were sent; the gradient is that of this rank's rows.
    bits = np.array([float(total.detach())], dtype=np.float64).view(np.int64)
    everyones = ranks.table(bits).view(np.float64).sum()
    return total + (total.new_tensor(everyones) - total.detach())


def _live_product(target: Target) -> Tensor:
    """Return this rank's piece of a product under its mask, differentiable."""
    assert target.masking is not None
    m, v = (cast(Any, factor).to_local() for factor in target.stored)
    return target.masking.of_pieces((m, v), target.enforced_mask)


@outside_inference_mode
@torch.no_grad()
def inner_scaling(model: nn.Module) -> dict[str, Tensor]:
    r"""Return the inner scaling of every surviving Sign-In entry, by plain name.

    .. math:: \hat\beta = m^2 - v^2 = (m - v)(m + v)

    It starts at :math:`\beta`. Under gradient descent with rate :math:`\eta` and gradient :math:`g`
    of the product it shrinks by :math:`1 - \eta^2 g^2` a step, under weight decay
    :math:`\lambda` by :math:`(1 - \eta\lambda)^2`.

    Returns:
        ``{name: 1-d tensor}`` over the survivors in their order, float32 or better. Of a model that
        ``fully_shard`` has divided, over the survivors that are on this rank.

    Raises:
        ValueError: if the model has no Sign-In weights.
        TypeError: if an argument is of another type.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> import polarity as pol
        >>> scaling = pol.inner_scaling(pol.sign_in(nn.Linear(3, 2), beta=2.0))
        >>> torch.allclose(scaling["weight"], torch.full((6,), 2.0))
        True

    Source: *Sign-In to the Lottery*, section 4.
    """
    scaling = {}
    for name, target in factors_of(model).items():
        wide = torch.promote_types(target.stored[0].dtype, torch.float32)
        factors = [factor.detach() for factor in target.pieces]
        if not target.is_compact:
            factors = [factor[target.mask] for factor in factors]
        m, v = (factor.to(wide) for factor in factors)
        scaling[name] = (m - v) * (m + v)
    return scaling
