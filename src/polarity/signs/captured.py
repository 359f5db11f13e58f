"""Check that trained weights which were captured before a pruning belong to this very moment."""

import torch
from torch import Tensor

from polarity._bits.arrays import gather

__all__ = ["HOW_TO_CAPTURE", "check_untrained"]

HOW_TO_CAPTURE = """capture the weights immediately before the pruning and pass them as trained=:
    trained = pol.RewindPoint.capture(model)
    pol.imp_prune(model, …)
    pol.reinit_signs(model, …, init=start, trained=trained)"""

# Factors of a product (Sign-In) round a value that is written to them, in units of the last place.
_ROUNDING = 4


def check_untrained(name: str, mask: Tensor, now: Tensor, trained: Tensor, init: Tensor) -> None:
    """Raise ValueError where survivors have neither their trained nor their initial value."""
    flat = (each.detach().reshape(-1) for each in (now, trained.to(now), init.to(now)))
    present, *earlier = gather(mask.reshape(-1), *flat)
    if torch.equal(present, earlier[0]):
        return
    limits = torch.finfo(present.dtype)
    close = [torch.isclose(present, each, _ROUNDING * limits.eps, limits.tiny) for each in earlier]
    if changed := int((~(close[0] | close[1])).count_nonzero()):
        raise ValueError(
            f"{changed} of {present.numel()} survivors of {name!r} have neither their value in "
            f"trained nor in init, so they were trained or signed in between: {HOW_TO_CAPTURE}"
        )
