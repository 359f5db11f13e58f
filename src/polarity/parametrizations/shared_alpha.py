"""The interpolation weight that many parametrizations share, and the stream it is drawn from."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from polarity._bits.random import integers_from
from polarity._checks import check_fraction

__all__ = ["MODULI", "SharedAlpha", "draw_seeds"]

# Moduli of the two congruential generators: a state is at least 1 and less than its modulus.
MODULI = (2147483563, 2147483399)
_FACTORS = (40014, 40692)


class SharedAlpha(nn.Module):
    r"""One interpolation weight :math:`\alpha`, shared by many :class:`~polarity.NormInterp`.

    Its values are drawn by L'Ecuyer's combined generator, two multiplicative congruential ones

    .. math:: s_1 \leftarrow 40014\,s_1 \bmod (2^{31}-85), \quad
        s_2 \leftarrow 40692\,s_2 \bmod (2^{31}-249), \quad
        \alpha = 2^{-31}\,\bigl((s_1 - s_2) \bmod (2^{31}-86)\bigr) \in [0, 1)

    with period :math:`2.3 \cdot 10^{18}`. Its state is a buffer and a draw is plain arithmetic on
    it, so the sequence is the same on every device, is saved and copied with the model, is made
    common to all ranks by ``DistributedDataParallel``, and is traced whole by ``torch.compile``.
    The global random state is never used.

    It is a module, not a bare tensor, because ``model.to()`` moves a tensor once for every module
    that holds it, and the copies would no longer be one.

    Attributes:
        alpha: 0-dim float buffer, changed in place only.
        stream: int64 buffer of shape (2,), the generator's state.
        redraw: whether every training forward of the model draws a new value. Like ``training``
            it belongs to the run, not to the ``state_dict``.

    Args:
        alpha: the value before the first draw; a tensor is kept, not copied.
        seeds: int64 tensor of shape (2,), as ``draw_seeds`` returns; it is kept, not copied.
            Without it the value is fixed.

    Raises:
        ValueError: if ``alpha`` is a tensor of another shape or not floating point.

    Example:
        >>> import torch
        >>> weight = SharedAlpha(seeds=torch.tensor([1, 1]))
        >>> weight.draw_()
        >>> weight.alpha
        tensor(1.0000)

    Source: P. L'Ecuyer, *Efficient and portable combined random number generators*, CACM 31 (1988).
    """

    alpha: Tensor
    stream: Tensor

    def __init__(self, alpha: Tensor | float = 1.0, seeds: Tensor | None = None) -> None:
        super().__init__()
        if isinstance(alpha, Tensor):
            value = alpha
        else:
            check_fraction("alpha", alpha)
            value = torch.tensor(float(alpha), dtype=torch.float32, device="cpu")
        if value.dim() != 0 or not value.is_floating_point():
            raise ValueError(
                f"alpha has shape {tuple(value.shape)} and dtype {value.dtype}, "
                "expected a 0-dim floating-point tensor"
            )
        self.register_buffer("alpha", value)
        still = torch.ones(2, dtype=torch.int64, device="cpu")
        self.register_buffer("stream", still if seeds is None else seeds)
        self.redraw = seeds is not None

    @torch.no_grad()
    def draw_(self) -> None:
        """Replace the value by the next one of the stream."""
        with _outside_transforms(self.stream):
            first, second = self.stream.unbind()
            first.mul_(_FACTORS[0]).remainder_(MODULI[0])
            second.mul_(_FACTORS[1]).remainder_(MODULI[1])
            # A power of two: every device and every compiler rounds this alike.
            self.alpha.copy_((first - second).remainder(MODULI[0] - 1).float() * 2.0**-31)

    def extra_repr(self) -> str:
        """Say whether the value is drawn or fixed, and which."""
        drawn = f"drawn={self.redraw}"
        return drawn if self.alpha.is_meta else f"{drawn}, alpha={float(self.alpha):.4g}"


def draw_seeds(generator: torch.Generator | None = None) -> Tensor:
    """Return two seeds for a stream, int64 of shape (2,), drawn on the generator's device.

    Without a generator they are drawn from the global one of the CPU. Among several ranks of
    ``torch.distributed`` they are then rank 0's, and all ranks must call.

    Example:
        >>> import torch
        >>> draw_seeds(torch.Generator().manual_seed(0)).shape
        torch.Size([2])
    """
    device = torch.device("cpu") if generator is None else generator.device
    return torch.tensor(integers_from(generator, 1, min(MODULI), count=2), device=device)


def _outside_transforms(state: Tensor) -> AbstractContextManager[object]:
    """Return a context in which the state may change in place, also under ``torch.func``.

    One draw then serves everything that is mapped over. Stacked models bring their own states.
    """
    if torch.compiler.is_compiling() or torch._C._functorch.is_functorch_wrapped_tensor(state):
        return nullcontext()
    return torch._C._DisableFuncTorch()
